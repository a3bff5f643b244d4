"""Only files with a locked hash count, local folders come first, and pip is asked for the rest alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from rackserve.release.host import ReleaseError
from rackserve.release.wheelhouse import (
    Requirement,
    choose_wheels,
    download_wheels,
    lock_digest,
    parse_lock,
    take_local,
    wanted,
    write_lock,
)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


LOCK = f"""\
# a comment
click==8.5.1 \\
    --hash=sha256:{digest(b"click")} \\
    --hash=sha256:{digest(b"other")}
    # via nothing
nvidia_nccl.cu13==2.30 --hash=sha256:{digest(b"nccl")}
torch==2.13.0 --hash=sha256:{digest(b"cuda")} --hash=sha256:{digest(b"cpu")}
"""
CLICK = "click-8.5.1-py3-none-any.whl"
TORCH_CPU = "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl"
TORCH_CUDA = "torch-2.13.0-cp311-cp311-linux_x86_64.whl"
NCCL = "nvidia_nccl_cu13-2.30-py3-none-any.whl"


class Pip:
    """A pip that puts the given wheels where it is told, and notes what it was asked."""

    def __init__(self, version: str, wheels: dict[str, bytes], status: int = 0) -> None:
        self.version, self.wheels, self.status = version, wheels, status
        self.asked: list[list[str]] = []
        self.lock = ""

    def __call__(self, command):
        if command[-1] == "--version":
            return 0, f"pip 25 from x (python {self.version})", ""
        self.asked.append(list(command))
        folder = Path(command[command.index("-d") + 1])
        self.lock = Path(command[-1]).read_text()
        for name, content in self.wheels.items():
            (folder / name).write_bytes(content)
        return self.status, "", "no such file"


def get(tmp_path: Path, pip: Pip, links=()):
    (tmp_path / "lock.txt").write_text(LOCK)
    return download_wheels(
        tmp_path / "lock.txt", tmp_path / "wheels", python="3.11", pip_command=["pip"], find_links=links, run=pip
    )


def test_the_lock_is_read() -> None:
    locked = parse_lock(LOCK, "3.11")
    assert [(one.name, one.version) for one in locked] == [
        ("click", "8.5.1"),
        ("nvidia-nccl-cu13", "2.30"),
        ("torch", "2.13.0"),
    ]
    assert locked[0].hashes == {digest(b"click"), digest(b"other")}


@pytest.mark.parametrize("text", ["click==1\n", "click>=1 --hash=sha256:aa\n", "# only this\n"])
def test_a_lock_without_pins_or_hashes_is_refused(text: str) -> None:
    with pytest.raises(ReleaseError, match="make lock"):
        parse_lock(text, "3.11")


def test_the_cpu_wheel_is_taken_from_a_local_folder_and_spares_the_cuda_ones(tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / TORCH_CPU).write_bytes(b"cpu")
    (links / "click-8.5.1-py2-none-any.whl").write_bytes(b"forged")
    pip = Pip("3.11", {CLICK: b"click"})
    needed, chosen = get(tmp_path, pip, [links])
    assert [one.name for one in needed] == ["click", "torch"]
    assert chosen["torch"].name == TORCH_CPU
    assert not (tmp_path / "wheels" / "click-8.5.1-py2-none-any.whl").exists()
    assert pip.lock.split()[0] == "click==8.5.1" and "torch" not in pip.lock
    assert "--platform" not in pip.asked[0]


def test_nothing_is_asked_when_nothing_is_missing(tmp_path: Path) -> None:
    pip = Pip("3.11", {CLICK: b"click", TORCH_CUDA: b"cuda", NCCL: b"nccl"})
    needed, _chosen = get(tmp_path, pip)
    assert len(needed) == 3 and len(pip.asked) == 1
    get(tmp_path, pip)
    assert len(pip.asked) == 1


def test_another_interpreter_spells_out_the_targets_tags(tmp_path: Path) -> None:
    pip = Pip("3.13", {CLICK: b"click", TORCH_CUDA: b"cuda", NCCL: b"nccl"})
    get(tmp_path, pip)
    assert "manylinux_2_28_x86_64" in pip.asked[0] and "cp311" in pip.asked[0]


def test_a_wheel_with_another_hash_does_not_satisfy(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="lacks click"):
        get(tmp_path, Pip("3.11", {CLICK: b"forged", TORCH_CUDA: b"cuda", NCCL: b"nccl"}))


def test_a_failing_pip_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"downloading 3 wheels of lock.txt failed \(exit 1\): no such file"):
        get(tmp_path, Pip("3.11", {}, status=1))


def test_the_written_lock_names_the_chosen_build(tmp_path: Path) -> None:
    for name, content in ((TORCH_CPU, b"cpu"), (TORCH_CUDA, b"cuda"), (CLICK, b"other")):
        (tmp_path / name).write_bytes(content)
    locked = parse_lock(LOCK, "3.11")
    chosen = choose_wheels(locked, tmp_path)
    write_lock(wanted(locked, chosen), tmp_path / "out.txt", chosen)
    assert (tmp_path / "out.txt").read_text().splitlines() == [
        f"click==8.5.1 --hash=sha256:{digest(b'other')}",
        f"torch==2.13.0+cpu --hash=sha256:{digest(b'cpu')}",
    ]


def test_a_cpu_build_needs_no_cuda_and_keeps_what_reads_gpus() -> None:
    names = ("torch", "nvidia-nccl-cu13", "nvidia-ml-py", "cuda-bindings")
    locked = [Requirement(name, "1", {"0"}) for name in names]
    assert [one.name for one in wanted(locked, {"torch": Path(TORCH_CPU)})] == ["torch", "nvidia-ml-py"]
    assert wanted(locked, {"torch": Path(TORCH_CUDA)}) == locked


def test_the_lock_of_the_cpu_engine_has_what_reads_gpus() -> None:
    text = (Path(__file__).resolve().parents[3] / "requirements/engine-cpu.txt").read_text()
    assert "nvidia-ml-py" in [one.name for one in parse_lock(text, "3.11")]


def test_a_local_wheel_is_copied_once(tmp_path: Path) -> None:
    links, house = tmp_path / "links", tmp_path / "house"
    links.mkdir()
    house.mkdir()
    (links / CLICK).write_bytes(b"click")
    take_local(parse_lock(LOCK, "3.11"), house, [links])
    first = (house / CLICK).stat().st_mtime_ns
    take_local(parse_lock(LOCK, "3.11"), house, [links])
    assert (house / CLICK).stat().st_mtime_ns == first and not list(house.glob("*.part"))


def test_comments_do_not_change_the_digest(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in "abc")
    one.write_text(LOCK)
    two.write_text("# more words\n" + LOCK)
    three.write_text(LOCK.replace("8.5.1", "8.5.2"))
    assert lock_digest(one) == lock_digest(two) != lock_digest(three)
