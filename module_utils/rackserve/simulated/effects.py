"""What a fault does to a host, effect by effect: edits of state and files, and things that have to run."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

from .catalogue import Fault, FaultError, layer_of
from .values import Machine, Values

EVERY_GPU = "gpu.*."
_EXPRESS = 0x10  # capability id of PCI Express
_LINK_STATUS = 0x12
_PLAIN_CONFIG_BYTES = 64
_VERSION = re.compile(rb"\b\d{3}\.\d{1,3}(\.\d{2})?\b")


@dataclass(frozen=True)
class StateEdit:
    """``op``: set, add or or; a text of None takes the key away."""

    layer: str
    key: str
    op: str
    text: str | None

    def apply(self, now: str | None) -> str | None:
        """What the key holds with this edit on top of ``now``."""
        if self.op == "set":
            return self.text
        try:
            old, new = int(now or "0"), int(self.text or "0")
        except ValueError as error:
            raise FaultError(
                f"state {self.key}: {now} is not a number to add to; clear the fault that set it"
            ) from error
        return str(old + new if self.op == "add" else old | new)


@dataclass(frozen=True)
class FileEdit:
    """``op``: text, gone, grow (another writes it), lost, link (width and generation of a PCI config), version."""

    layer: str
    path: str
    op: str
    text: str = ""
    optional: bool = False
    link: tuple[int, int] = (0, 0)

    def apply(self, now: bytes | None, live: bytes | None) -> bytes | None:
        """What the file holds with this edit on top of ``now``; ``live`` is what it holds this moment."""
        if self.op == "gone":
            return None
        if self.op == "grow":
            return live
        if self.op == "text":
            return f"{self.text}\n".encode()
        content = now or b""
        if self.op == "lost":
            return b"\xff" * len(content)
        if self.op == "link":
            return with_link(content, *self.link)
        return _VERSION.sub(self.text.encode(), content, count=1)


@dataclass(frozen=True)
class UnitEdit:
    layer: str
    unit: str
    action: str


@dataclass(frozen=True)
class Log:
    """A kernel line, or with a GPU an Xid for those who wait for events."""

    priority: int
    line: str
    gpu: int = -1
    xid: int = 0


@dataclass(frozen=True)
class Process:
    name: str
    user: str


@dataclass(frozen=True)
class Counters:
    every_s: int
    files: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Fill:
    folder: str
    left_mib: int
    most_mib: int


Edit = Union[StateEdit, FileEdit, UnitEdit, Log, Process, Counters, Fill]


@dataclass
class Edits:
    """The edits of one fault, in the order of the catalogue."""

    all: list[Edit] = field(default_factory=list)

    def states(self, layer: str) -> list[StateEdit]:
        return [edit for edit in self.all if isinstance(edit, StateEdit) and edit.layer == layer]

    def files(self, layer: str) -> list[FileEdit]:
        return [edit for edit in self.all if isinstance(edit, FileEdit) and edit.layer == layer]

    def units(self, layer: str) -> list[UnitEdit]:
        return [edit for edit in self.all if isinstance(edit, UnitEdit) and edit.layer == layer]

    def logs(self) -> list[Log]:
        return [edit for edit in self.all if isinstance(edit, Log)]

    def processes(self) -> list[Process]:
        return [edit for edit in self.all if isinstance(edit, Process)]

    def counters(self) -> list[Counters]:
        return [edit for edit in self.all if isinstance(edit, Counters)]

    def fills(self) -> list[Fill]:
        return [edit for edit in self.all if isinstance(edit, Fill)]


def edits_of(machine: Machine, fault: Fault, parameters: Mapping[str, Any], made: Mapping[str, str]) -> Edits:
    """Everything a fault does on this machine, texts filled in."""
    values = Values(machine, fault, parameters, made)
    found = Edits()
    for effect in fault.effects:
        if values.holds(effect.get("when", "")):
            found.all += _MAKERS[effect["kind"]](machine, values, effect)
    return found


def _state(machine: Machine, values: Values, effect: Mapping[str, Any]) -> Iterator[Edit]:
    for template, value in effect["values"].items():
        key = values.text(template)
        keys = [key]
        if key.startswith(EVERY_GPU):
            keys = [f"gpu.{index}.{key[len(EVERY_GPU) :]}" for index in range(machine.gpus())]
        op, given = next(iter(value.items())) if isinstance(value, Mapping) else ("set", value)
        if op not in ("set", "add", "or"):
            raise FaultError(f"catalogue of faults: state {template}: {op} is not one of add, or")
        text = None if given is None else values.text(given)
        yield from (StateEdit(layer_of(effect), each, op, text) for each in keys)


def _sysfs(machine: Machine, values: Values, effect: Mapping[str, Any]) -> Iterator[Edit]:
    text = effect["text"]
    path = real(machine.root, values.text(effect["path"]))
    op = "gone" if text is None else "text"
    filled = "" if text is None else values.text(text)
    yield FileEdit(layer_of(effect), path, op, filled, bool(effect.get("optional", False)))


def _pci_config(machine: Machine, values: Values, effect: Mapping[str, Any]) -> Iterator[Edit]:
    path = real(machine.root, f"sys/bus/pci/devices/{values.text(effect['device'])}/config")
    if effect.get("lost"):
        yield FileEdit(layer_of(effect), path, "lost")
    else:
        link = int(values.text(effect.get("width", 0))), int(values.text(effect.get("generation", 0)))
        yield FileEdit(layer_of(effect), path, "link", link=link)


def _kmsg(_machine: Machine, values: Values, effect: Mapping[str, Any]) -> Iterator[Edit]:
    yield Log(int(values.text(effect["priority"])), values.text(effect["line"]))


def _event(_machine: Machine, values: Values, effect: Mapping[str, Any]) -> Iterator[Edit]:
    yield Log(0, "", int(values.text(effect["gpu"])), int(values.text(effect["xid"])))


def _process(_machine: Machine, values: Values, effect: Mapping[str, Any]) -> Iterator[Edit]:
    yield Process(values.text(effect["name"]), values.text(effect["user"]))


def _counters(machine: Machine, values: Values, effect: Mapping[str, Any]) -> Iterator[Edit]:
    files = [(real(machine.root, values.text(path)), int(step)) for path, step in effect["files"].items()]
    yield Counters(int(values.text(effect["every_s"])), tuple(files))
    yield from (FileEdit("volatile", path, "grow") for path, _ in files)


def _unit(_machine: Machine, values: Values, effect: Mapping[str, Any]) -> Iterator[Edit]:
    yield UnitEdit(layer_of(effect), values.text(effect["unit"]), effect["action"])


def _file(_machine: Machine, values: Values, effect: Mapping[str, Any]) -> Iterator[Edit]:
    folder = values.text(effect["folder"]).lstrip("/")
    yield Fill(folder, int(values.text(effect["left_mib"])), int(values.text(effect["most_mib"])))


def _module_version(machine: Machine, values: Values, effect: Mapping[str, Any]) -> Iterator[Edit]:
    loaded, version = values.text("{module.version}"), values.text(effect["version"])
    if not loaded:
        raise FaultError("no driver is loaded on this host: nothing can mismatch; install and load the driver first")
    if loaded == version:
        raise FaultError(f"version {version} is the one that is loaded; give another one")
    yield StateEdit("volatile", "module.version", "set", version)
    for path in ("proc/driver/nvidia/version", "sys/module/nvidia/version"):
        yield FileEdit("volatile", real(machine.root, path), "version", version)


_MAKERS = {
    "state": _state, "sysfs": _sysfs, "pci_config": _pci_config, "kmsg": _kmsg, "event": _event, "process": _process,
    "counters": _counters, "unit": _unit, "file": _file, "module_version": _module_version,
}  # fmt: skip


def real(root: Path, path: str) -> str:
    """The path below ``root`` with the links of its folders followed."""
    top, whole = root.resolve(), root / path
    folder = whole.parent.resolve()
    if folder != top and top not in folder.parents:
        raise FaultError(f"/{path} leads out of {top}; mend the link on the way")
    return str((folder / whole.name).relative_to(top))


def with_link(config: bytes, width: int, generation: int) -> bytes:
    """A PCI configuration space whose link status says this width and generation; 0 leaves one as it is."""
    space = bytearray(config)
    at = space[0x34] if len(space) >= _PLAIN_CONFIG_BYTES else 0
    for _ in range(48):
        if at < _PLAIN_CONFIG_BYTES or at + _LINK_STATUS + 2 > len(space):
            return config
        if space[at] == _EXPRESS:
            break
        at = space[at + 1]
    else:
        return config
    (status,) = struct.unpack_from("<H", space, at + _LINK_STATUS)
    status = status & ~0x3F0 | width << 4 if width else status
    status = status & ~0xF | generation if generation else status
    struct.pack_into("<H", space, at + _LINK_STATUS, status)
    return bytes(space)
