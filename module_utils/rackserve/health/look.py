"""What the checks read of a host: each source once, when the first check asks for it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Callable, NamedTuple, TypeVar

from ..rdma import sysfs
from ..rdma.sysfs import Hca, text
from .check import NotHere, Problem, Unreadable
from .counters import Counters
from .gpus import Gpu
from .kernel import Line, Run, read_lines

_Read = TypeVar("_Read")
_CONTAINER = "run/systemd/container"
_MOUNT_FIELDS = 4


class Driver(NamedTuple):
    """What NVML answered: the driver's version and the GPUs, or why there is none."""

    version: str
    gpus: list[Gpu]
    problem: str = ""


class Unit(NamedTuple):
    """What systemd says of one unit."""

    load: str
    active: str
    sub: str
    main_pid: int
    restarts: int


class Volume(NamedTuple):
    """Room of a file system in bytes and inodes; 0 inodes: it has no such limit."""

    size: int
    free: int
    inodes: int
    inodes_free: int


class Port(NamedTuple):
    """A port of an RDMA adapter, as rdma/sysfs.py reads it; the texts are empty, and the rate 0, where it could not."""

    hca: Hca
    seen: sysfs.Port
    path: Path

    @property
    def subject(self) -> str:
        return f"{self.hca.name}/{self.seen.number}"

    @property
    def state(self) -> str:
        return self.seen.state or ""

    @property
    def phys_state(self) -> str:
        return self.seen.phys_state or ""

    @property
    def link_layer(self) -> str:
        return self.seen.link_layer or ""

    @property
    def rate_gbps(self) -> float:
        return self.seen.rate_gbps or 0.0


class Clock(NamedTuple):
    """What the kernel says of its clock."""

    synchronised: bool
    offset_s: float


class Tools(NamedTuple):
    """Ways to what is not below the root; tests give their own."""

    run: Run | None
    driver: Callable[[], Driver]
    volume: Callable[[Path], Volume]
    clock: Callable[[], Clock]
    now_s: Callable[[], float] = time.time
    monotonic_s: Callable[[], float] = time.monotonic
    # The same as `run`, for what takes minutes.
    measure: Run | None = None


class Look:
    """One look at a host. ``expect`` is what the plan says of it (expect.py); empty asks the host about itself only."""

    def __init__(
        self, root: Path, expect: Mapping[str, Any], tools: Tools, kept: Mapping[str, Any] | None = None
    ) -> None:
        self.root, self.expect, self.tools = root, expect, tools
        self.boot_id = text(root / "proc/sys/kernel/random/boot_id") or "-"
        self.counters = Counters(kept, self.boot_id, tools.now_s())
        self.unread: list[str] = []
        # What deep checks measured, for the comparison with other hosts.
        self.measured: dict[str, float] = {}
        self._known: dict[str, Any] = {}

    def _once(self, name: str, read: Callable[[], _Read]) -> _Read:
        if name not in self._known:
            try:
                self._known[name] = read()
            except (Unreadable, NotHere) as problem:
                self._known[name] = problem
        found = self._known[name]
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]

    def over(self, things: Iterable[Any], judge: Callable[[Any], list[Problem]]) -> list[Problem]:
        """Judge each thing; one that cannot be read is noted, and the check does not pass."""
        found: list[Problem] = []
        for thing in things:
            try:
                found += judge(thing)
            except Unreadable as problem:
                self.unread.append(str(problem))
        return found

    # The machine itself ----------------------------------------------------------------------------------------------

    @property
    def container(self) -> bool:
        """Whether it is a container: its clock and its kernel are another machine's."""
        return (self.root / _CONTAINER).exists()

    def wanted(self, *path: str) -> Any:
        """What the plan says; None where it says nothing. Raises NotHere where the part before is not wanted at all."""
        here: Any = self.expect
        for name in path[:-1]:
            here = here.get(name)
            if not here:
                raise NotHere(f"the plan gives this host no {name}")
        return here.get(path[-1])

    def entries(self, folder: str, pattern: str = "*", above: str = "") -> list[Path]:
        """What is in a folder of /sys, in order, or nothing. Raises Unreadable without what is above it."""
        above = above or folder.rpartition("/")[0]
        if not (self.root / above).is_dir():
            raise Unreadable(f"/{above} is not there")
        return sorted((self.root / folder).glob(pattern), key=lambda path: path.name)

    def lines(self) -> list[Line]:
        """The kernel log since boot."""
        tools = self.tools
        return self._once(
            "lines", lambda: read_lines(self.root, tools.run, tools.now_s(), tools.monotonic_s(), self.container)
        )

    def file(self, path: str) -> str:
        """A file below the root. Raises Unreadable."""
        try:
            return (self.root / path).read_text("utf-8", "replace")
        except OSError as error:
            raise Unreadable(f"/{path}: {error.strerror}") from None

    def numbers(self, path: str) -> dict[str, int]:
        """A file of lines `name: number`, such as /proc/meminfo in KiB."""
        found = re.findall(r"^(?:Node \d+ )?(\S+?):\s+(\d+)", self.file(path), re.MULTILINE)
        return {name: int(number) for name, number in found}

    def units(self) -> dict[str, Unit]:
        """The units that the plan expects, as systemd has them."""
        return self._once("units", self._units)

    def _units(self) -> dict[str, Unit]:
        names = list(self.expect.get("units") or [])
        if not names:
            raise NotHere("the plan names no unit of this host")
        if self.tools.run is None:
            raise Unreadable("systemd is not part of a copied tree")
        properties = "Id,LoadState,ActiveState,SubState,MainPID,NRestarts"
        code, out, err = self.tools.run(["systemctl", "show", f"--property={properties}", *names])
        blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.split("\n\n")]
        blocks = [block for block in blocks if block]
        if code or len(blocks) != len(names):
            raise Unreadable(f"systemctl show: {' '.join((err or out).split()) or f'exit status {code}'}")
        return {
            name: Unit(
                block.get("LoadState", ""), block.get("ActiveState", ""), block.get("SubState", ""),
                int(block.get("MainPID") or 0), int(block.get("NRestarts") or 0),
            )
            for name, block in zip(names, blocks)
        }  # fmt: skip

    # GPUs ------------------------------------------------------------------------------------------------------------

    def driver(self) -> Driver:
        """What NVML answers. Raises NotHere on a host without GPUs."""
        return self._once("driver", self._driver)

    def _driver(self) -> Driver:
        expected = self.expect.get("gpus")
        if expected is not None and not expected.get("count"):
            raise NotHere("the plan gives this host no GPU")
        if expected is None and not self.gpu_slots():
            raise NotHere("no GPU on the PCI bus, and the plan names none")
        return self.tools.driver()

    def gpus(self) -> list[Gpu]:
        """The GPUs. Raises Unreadable where NVML does not answer."""
        driver = self.driver()
        if driver.problem:
            raise Unreadable(driver.problem)
        return driver.gpus

    def gpu_slots(self) -> list[str]:
        """PCI addresses of NVIDIA's GPUs, in order, as the bus shows them."""
        self.entries("sys/bus/pci/devices")
        return self._once("slots", lambda: sysfs.gpu_addresses(self.root))

    def gpu_at(self, slot: str) -> str:
        """`GPU 3` for an address as the kernel log writes it, without the function; the address where none is there."""
        places = {address.rpartition(".")[0]: index for index, address in enumerate(self.gpu_slots())}
        try:
            gpus = self.gpus()
        except (Unreadable, NotHere):
            gpus = []
        if gpus and len(gpus) != len(places):
            places = {}  # the driver leaves some out, and its numbers are others
        for gpu in gpus:
            bus_id = gpu.values.get("bus_id")
            places.update({bus_id[4:].lower().rpartition(".")[0]: gpu.index} if bus_id else {})
        wanted = slot.lower().rpartition(".")[0] if "." in slot else slot.lower()
        return f"GPU {places[wanted]}" if wanted in places else f"GPU at {slot}"

    # RDMA ------------------------------------------------------------------------------------------------------------

    def hcas(self) -> list[Hca]:
        """Adapters, without software devices and virtual functions of a card here."""
        return self._once("hcas", self._hcas)

    def _hcas(self) -> list[Hca]:
        self.entries(sysfs.CLASS)
        found = [hca for hca in sysfs.read_hcas(self.root) if not hca.soft and not hca.has_physical]
        if not found:
            missing = (self.expect.get("fabric") or {}).get("hcas")
            raise NotHere(f"no RDMA adapter{', rdma-count tells it' if missing else ' here or in the plan'}")
        return found

    def ports(self) -> list[Port]:
        """Ports of those adapters."""
        return self._once("ports", lambda: [self._port(hca, port) for hca in self.hcas() for port in hca.ports])

    def _port(self, hca: Hca, port: sysfs.Port) -> Port:
        return Port(hca, port, sysfs.inside(self.root, f"/{sysfs.CLASS}/{hca.name}") / "ports" / str(port.number))

    def pci(self, hca: Hca) -> Path:
        """The adapter's PCI device. Raises Unreadable."""
        if hca.place is None:
            raise Unreadable(f"{hca.name}: its PCI device cannot be found")
        return hca.place

    def interfaces(self, hca: Hca) -> list[Path]:
        """The adapter's network interfaces in /sys."""
        return [sysfs.inside(self.root, f"/sys/class/net/{name}") for name in hca.netdevs]

    # File systems ----------------------------------------------------------------------------------------------------

    def mounts(self) -> list[tuple[str, str, set[str]]]:
        """(place, kind, options) of mounts. Those of process 1: this one may see a read-only view of its own."""
        return self._once("mounts", self._mounts)

    def _mounts(self) -> list[tuple[str, str, set[str]]]:
        return [(_unescaped(row[1]), row[2], set(row[3].split(","))) for row in self._mount_rows()]

    def _mount_rows(self) -> list[list[str]]:
        rows = [line.split() for line in self.file("proc/1/mounts").splitlines()]
        return [row for row in rows if len(row) >= _MOUNT_FIELDS]

    def kinds_of(self, disk: str) -> set[str]:
        """The kinds of the file systems that are mounted from a disk or its partitions."""
        mine = re.compile(rf"/dev/{re.escape(disk)}(p?[0-9]+)?")
        return {row[2] for row in self._mount_rows() if mine.fullmatch(row[0])}

    def volume(self, place: str) -> Volume:
        """Room of the file system that is mounted there. Raises Unreadable."""
        try:
            return self.tools.volume(self.root / place.lstrip("/"))
        except OSError as error:
            raise Unreadable(f"{place}: {error.strerror}") from None

    def clock(self) -> Clock:
        """What the kernel says of its clock."""
        if self.container:
            raise NotHere("a container has the clock of the machine below")
        return self._once("clock", self.tools.clock)


def _unescaped(place: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), place)
