"""Brings a host to what its faults want, worked out anew from the faults that are on and from what was before."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import kernel_log, records, running
from .catalogue import LAYERS, Fault, FaultError
from .effects import Edits, FileEdit, StateEdit, UnitEdit, edits_of
from .records import Entry, Records
from .running import Run
from .state import PERSISTENT
from .values import Machine


@dataclass(frozen=True)
class Change:
    """One thing that differs; None is not there."""

    where: str
    before: str | None
    after: str | None


@dataclass
class Settling:
    """One run over a host. With ``check`` nothing is written, started or stopped."""

    root: Path
    run: Run
    catalogue: Mapping[str, Fault]
    check: bool
    changes: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = Machine(self.root)

    def settle(self, before: Records, after: Records) -> None:
        """Go from one set of faults to another.

        The records are written first with the faults of both sets and everything that has to be put back, so that a
        run that is killed anywhere can be done again.
        """
        self._start_processes(after)
        edits = {layer: [(entry, self._edits(entry)) for entry in after[layer].faults] for layer in LAYERS}
        self._check_fills(edits)
        self._remember(edits, after)
        if not self.check:
            both = {
                layer: records.Record(
                    after[layer].faults + [e for e in before[layer].faults if not after[layer].has(e)],
                    after[layer].state, after[layer].files, after[layer].units,
                )
                for layer in LAYERS
            }  # fmt: skip
            records.save(self.root, both)
        self._stop_what_went(before, after)
        self._hold_units(edits)
        self._settle_state(edits, after)
        self._settle_files(edits, after)
        self._fill(edits)
        self._start_counters(edits)
        if self._let_units_go(edits, after):
            # A daemon that starts writes what it manages, over faults that are still on.
            self._settle_state(edits, after)
        self._log(edits)
        if not self.check:
            records.save(self.root, after)

    def _edits(self, entry: Entry) -> Edits:
        fault = self.catalogue.get(entry.fault)
        # A fault that a newer catalogue dropped has no effects any more: what it changed goes back.
        return edits_of(self.machine, fault, entry.parameters, entry.made) if fault else Edits()

    def _change(self, where: str, before: str | None, after: str | None) -> bool:
        """Note a change; says whether to make it."""
        self.changes.append(Change(where, before, after))
        return not self.check

    # What has to be put back -----------------------------------------------------------------------------------------

    def _remember(self, edits: _ByLayer, after: Records) -> None:
        layers = {"volatile": self.machine.state.volatile, "persistent": self.machine.state.persistent}
        for layer in LAYERS:
            known = self.machine.state.layer(layers[layer])
            for edit in _states(edits, layer):
                after[layer].state.setdefault(edit.key, known.get(edit.key))
            for path in {edit.path for edit in _files(edits, layer)}:
                self._remember_file(path, layer, edits, after)
            for held in _units(edits, layer):
                if held.unit not in after[layer].units:
                    other = after[_other(layer)].units.get(held.unit)
                    after[layer].units[held.unit] = other or running.unit_before(self.run, held.unit)

    def _remember_file(self, path: str, layer: str, edits: _ByLayer, after: Records) -> None:
        if path in after[layer].files:
            return
        if path in after[_other(layer)].files:
            after[layer].files[path] = after[_other(layer)].files[path]
            return
        live = _content(self.root / path)
        if live is None:
            if all(edit.optional for edit in _files(edits, layer) if edit.path == path):
                return
            raise FaultError(f"this machine has no /{path}: the fault cannot be put on it")
        after[layer].keep(path, live)

    # State and files -------------------------------------------------------------------------------------------------

    def _settle_state(self, edits: _ByLayer, after: Records) -> None:
        state = self.machine.state
        below = dict(state.layer(state.hardware))
        for layer, folder, write in (
            ("persistent", state.persistent, state.set_persistent),
            ("volatile", state.volatile, state.set_volatile),
        ):
            now, base = state.layer(folder), after[layer].state
            wanted: dict[str, str | None] = dict(base)
            for edit in _states(edits, layer):
                start = wanted[edit.key]
                wanted[edit.key] = edit.apply(below.get(edit.key) if start is None and edit.op != "set" else start)
            differs = {key: value for key, value in wanted.items() if now.get(key) != value}
            for key, value in sorted(differs.items()):
                self._change(f"{layer} state {key}", now.get(key), value)
            if differs and not self.check:
                write(differs)
            touched = {edit.key for edit in _states(edits, layer)}
            after[layer].state = {key: value for key, value in base.items() if key in touched}
            below.update({key: value for key, value in {**now, **wanted}.items() if value is not None})

    def _settle_files(self, edits: _ByLayer, after: Records) -> None:
        volatile, persistent = after["volatile"], after["persistent"]
        for path in sorted({*volatile.files, *persistent.files}):
            base = (volatile if path in volatile.files else persistent).content(path)
            live, kept = _content(self.root / path), base
            stays = [edit for edit in _files(edits, "persistent") if edit.path == path]
            for edit in stays:
                kept = edit.apply(kept, live)
            wanted = kept
            for edit in _files(edits, "volatile"):
                wanted = edit.apply(wanted, live) if edit.path == path else wanted
            self._write(path, wanted)
            self._write(f"{PERSISTENT}/{path}", kept if stays else None)
        for layer in LAYERS:
            touched = {edit.path for edit in _files(edits, layer)}
            after[layer].files = {path: base for path, base in after[layer].files.items() if path in touched}

    def _write(self, path: str, wanted: bytes | None) -> None:
        target = self.root / path
        now = _content(target)
        if now == wanted or not self._change(f"/{path}", _shown(now), _shown(wanted)):
            return
        if wanted is None:
            # Its folder stays: it may be a layer of the mounted overlay, which breaks when one of its folders goes.
            target.unlink()
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(wanted)

    # What runs or does not -------------------------------------------------------------------------------------------

    def _start_processes(self, after: Records) -> None:
        for entry in after["volatile"].faults:
            for process in self._edits(entry).processes():
                unit = unit_name(entry, "process")
                if running.is_active(self.run, unit):
                    entry.made["pid"] = running.properties(self.run, unit)["MainPID"]
                elif self._change(f"process {process.name} of {process.user}", None, "running"):
                    entry.made["pid"] = running.start_process(self.root, self.run, unit, process)
                link, _ = running.process_command(self.root, unit, process)
                _made(entry, "units", unit)
                _made(entry, "files", str(link.relative_to(self.root)))

    def _start_counters(self, edits: _ByLayer) -> None:
        for entry, own in edits["volatile"]:
            unit, counters = unit_name(entry, "counters"), own.counters()
            if not counters:
                continue
            _made(entry, "units", unit)
            if not running.is_active(self.run, unit) and self._change(f"unit {unit}", None, "running"):
                running.ask(self.run, running.counters_command(self.root, unit, counters))

    def _check_fills(self, edits: _ByLayer) -> None:
        for _, own in edits["persistent"]:
            for fill in own.fills():
                if not running.fill_file(self.root, fill).exists():
                    running.fill_size_mib(self.root, fill)

    def _fill(self, edits: _ByLayer) -> None:
        for entry, own in edits["persistent"]:
            for fill in own.fills():
                path = running.fill_file(self.root, fill)
                _made(entry, "files", str(path.relative_to(self.root)))
                if not path.exists() and self._change(f"{path}", None, f"leaves {fill.left_mib} MiB"):
                    running.fill_disk(self.root, fill)

    def _stop_what_went(self, before: Records, after: Records) -> None:
        still = [entry for layer in LAYERS for entry in after[layer].faults]
        in_use = {name for entry in still for kind in ("units", "files") for name in _names(entry, kind)}
        for layer in LAYERS:
            for entry in before[layer].faults:
                if after[layer].has(entry):
                    continue
                for unit in _names(entry, "units"):
                    if running.is_active(self.run, unit) and self._change(f"unit {unit}", "running", None):
                        running.stop(self.run, unit)
                for path in set(_names(entry, "files")) - in_use:
                    target = self.root / path
                    if os.path.lexists(target) and self._change(f"{target}", "there", None):
                        target.unlink()

    def _hold_units(self, edits: _ByLayer) -> None:
        for unit in sorted({edit.unit for layer in LAYERS for edit in _units(edits, layer)}):
            wanted = [edit for layer in reversed(LAYERS) for edit in _units(edits, layer) if edit.unit == unit]
            strongest = next((edit for edit in wanted if edit.action == "mask"), wanted[0])
            seen = running.properties(self.run, unit)
            down = seen.get("ActiveState") in ("inactive", "failed")
            done = down and (strongest.action == "stop" or seen.get("LoadState") == "masked")
            if not done and self._change(f"unit {unit}", seen.get("ActiveState"), f"{strongest.action}ed"):
                running.hold_down(self.run, unit, strongest.action, strongest.layer)

    def _let_units_go(self, edits: _ByLayer, after: Records) -> bool:
        held = {edit.unit for layer in LAYERS for edit in _units(edits, layer)}
        known = {**after["persistent"].units, **after["volatile"].units}
        freed = {unit: was for unit, was in known.items() if unit not in held}
        for unit, was in freed.items():
            if self._change(f"unit {unit}", "held down", was["ActiveState"]):
                running.let_go(self.run, unit, was)
        for layer in LAYERS:
            own = {edit.unit for edit in _units(edits, layer)}
            after[layer].units = {unit: was for unit, was in after[layer].units.items() if unit in own}
        return bool(freed)

    def _log(self, edits: _ByLayer) -> None:
        for entry, own in edits["volatile"]:
            if "logged" in entry.made:
                continue
            for log in own.logs():
                what = f"Xid {log.xid} of GPU {log.gpu}" if log.xid else kernel_log.marked(log.line)
                if not self._change("events" if log.xid else "kernel log", None, what):
                    continue
                if log.xid:
                    kernel_log.add_event(self.root, log.gpu, log.xid)
                else:
                    kernel_log.write_line(self.root, log.priority, log.line)
            entry.made["logged"] = "1"


_ByLayer = Mapping[str, "list[tuple[Entry, Edits]]"]


def _states(edits: _ByLayer, layer: str) -> Iterator[StateEdit]:
    return (edit for _, own in edits[layer] for edit in own.states(layer))


def _files(edits: _ByLayer, layer: str) -> Iterator[FileEdit]:
    return (edit for _, own in edits[layer] for edit in own.files(layer))


def _units(edits: _ByLayer, layer: str) -> Iterator[UnitEdit]:
    return (edit for _, own in edits[layer] for edit in own.units(layer))


def _other(layer: str) -> str:
    return LAYERS[1 - LAYERS.index(layer)]


def unit_name(entry: Entry, kind: str) -> str:
    """The transient unit of a fault."""
    text = json.dumps([entry.fault, entry.parameters], sort_keys=True)
    return f"{running.PREFIX}-{entry.fault}-{kind}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.service"


def _made(entry: Entry, kind: str, name: str) -> None:
    if name not in _names(entry, kind):
        entry.made[kind] = " ".join([*_names(entry, kind), name])


def _names(entry: Entry, kind: str) -> list[str]:
    return entry.made.get(kind, "").split()


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _shown(content: bytes | None) -> str | None:
    if content is None:
        return None
    text = content.decode("ascii", "replace").strip()
    return text if text.isprintable() and text else f"{len(content)} bytes, {hashlib.sha256(content).hexdigest()[:12]}"
