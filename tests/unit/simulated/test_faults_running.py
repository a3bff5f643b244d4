"""The kernel log's pipe, counters that really grow, disks that really fill, processes."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest
from rackserve.simulated import kernel_log, running
from rackserve.simulated.catalogue import FaultError
from rackserve.simulated.effects import Counters, Fill, Process, real, with_link


def journald(pipe: Path, records: list[bytes], count: int) -> None:
    """Reads as journald does: what is there, of that the first record."""
    handle = os.open(pipe, os.O_RDONLY)
    while len(records) < count:
        records.append(os.read(handle, 8192).split(b"\n")[0])
        time.sleep(0.02)
    os.close(handle)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    (tmp_path / "dev").mkdir()
    os.mkfifo(tmp_path / "dev/kmsg")
    return tmp_path / "dev/kmsg"


def test_each_line_is_a_record_that_journald_gets(tmp_path: Path, pipe: Path) -> None:
    records: list[bytes] = []
    reader = threading.Thread(target=journald, args=(pipe, records, 3))
    held = os.open(pipe, os.O_RDWR)
    reader.start()
    for line in ("first", "second, simulated", "th\u00efrd"):
        kernel_log.write_line(tmp_path, 4, line)
    reader.join(10)
    os.close(held)
    assert [re.sub(rb",\d+,-;", b",-;", record) for record in records] == [
        b"4,1,-;first (simulated)",
        b"4,2,-;second, simulated",
        b"4,3,-;th\\xefrd (simulated)",
    ]
    assert (tmp_path / "run/rackserve-simulated/kmsg-seq").read_text() == "3\n"


def test_a_line_that_nobody_reads_is_an_error(tmp_path: Path, pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_log, "_WAIT_S", 0.05)
    with pytest.raises(kernel_log.KernelLogError, match="cannot write a kernel line"):
        kernel_log.write_line(tmp_path, 4, "nobody has it open")
    held = os.open(pipe, os.O_RDWR)
    try:
        with pytest.raises(kernel_log.KernelLogError, match="nobody read the line for 0 s"):
            kernel_log.write_line(tmp_path, 4, "open, but not read")
        with pytest.raises(kernel_log.KernelLogError, match="is full: nobody reads it"):
            for _ in range(40):
                monkeypatch.setattr(kernel_log, "_drained", lambda *_: None)
                kernel_log.write_line(tmp_path, 4, "x" * 4000)
    finally:
        os.close(held)


def test_the_machines_own_kernel_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kmsg").symlink_to("/dev/null")
    with pytest.raises(kernel_log.KernelLogError, match="is the kernel log of the machine itself"):
        kernel_log.write_line(tmp_path, 4, "never")


def test_the_counters_unit_makes_files_grow(tmp_path: Path) -> None:
    (tmp_path / "pci0000:15").mkdir()
    files = {"pci0000:15/link_downed": 1, "pci0000:15/symbol_error": 25}
    for path in files:
        (tmp_path / path).write_text("4\n")
    command = running.counters_command(tmp_path, "u.service", [Counters(1, tuple(files.items()))])
    at = command.index("/bin/sh")
    assert "--unit=u.service" in command[:at]
    command[command.index("sh", at + 1) + 1] = "0.01"
    grower = subprocess.Popen(command[at:])
    try:
        end = time.monotonic() + 20
        while int((tmp_path / "pci0000:15/symbol_error").read_text() or "0") < 54:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        grower.kill()
        grower.wait()
    assert int((tmp_path / "pci0000:15/link_downed").read_text() or "6") >= 6


def test_a_disk_is_filled_and_keeps_its_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(running, "free_mib", lambda _folder: 67)
    fill = Fill("data", 1, 100)
    with pytest.raises(FaultError, match="/data is on the root file system"):
        running.fill_disk(tmp_path, fill)
    monkeypatch.setattr(running, "device", lambda folder: len(str(folder)))
    running.fill_disk(tmp_path, fill)
    assert running.fill_file(tmp_path, fill).stat().st_size == 3 * 1024 * 1024
    assert running.fill_file(tmp_path, fill).stat().st_blocks * 512 >= 3 * 1024 * 1024
    monkeypatch.setattr(running, "free_mib", lambda _folder: 10)
    running.fill_file(tmp_path, fill).unlink()
    running.fill_disk(tmp_path, fill)
    assert running.fill_file(tmp_path, fill).stat().st_size == 0


def test_a_disk_that_fills_too_early_is_left_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(running, "free_mib", lambda _folder: 100)
    monkeypatch.setattr(running, "device", lambda folder: len(str(folder)))

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(FaultError, match="cannot fill /data: No space left on device"):
        running.fill_disk(tmp_path, Fill("data", 64, 100))
    assert list((tmp_path / "data").iterdir()) == []


def test_free_room_and_devices_are_those_of_the_system(tmp_path: Path) -> None:
    assert running.free_mib(tmp_path) > 0
    assert running.device(tmp_path) == tmp_path.stat().st_dev


def test_the_process_has_its_name_and_user(tmp_path: Path) -> None:
    link, command = running.process_command(tmp_path, "u.service", Process("train", "nobody"))
    link.parent.mkdir(parents=True)
    link.symlink_to("/bin/sleep")
    at = command.index(str(link))
    assert "--uid=nobody" in command[:at]
    process = subprocess.Popen(command[at:])
    try:
        end = time.monotonic() + 10
        while Path(f"/proc/{process.pid}/comm").read_text().strip() != "train":
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()


def test_links_are_followed_inside_the_root_only(tmp_path: Path) -> None:
    (tmp_path / "sys/devices/a/b").mkdir(parents=True)
    (tmp_path / "sys/short").symlink_to("devices/a/b")
    assert real(tmp_path, "sys/short/file") == "sys/devices/a/b/file"
    assert real(tmp_path, "sys/short/../file") == "sys/devices/a/file"
    (tmp_path / "sys/out").symlink_to("/usr")
    with pytest.raises(FaultError, match="/sys/out/x leads out of"):
        real(tmp_path, "sys/out/x")


def test_a_config_space_without_express_stays() -> None:
    for config in (b"", b"\0" * 64, b"\xff" * 256):
        assert with_link(config, 8, 3) == config
    endless = bytearray(256)
    endless[0x34], endless[0x40], endless[0x41] = 0x40, 0x05, 0x40
    assert with_link(bytes(endless), 8, 3) == bytes(endless)
