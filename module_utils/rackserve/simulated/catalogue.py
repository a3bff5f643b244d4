"""The catalogue of faults (files/simulated/faults.yml): what it may say, and what a caller may ask of it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SOURCES = ("nvml", "nvidia-smi", "sysfs", "kernel-log", "procfs", "package", "process", "systemd", "disk")
FATES = ("survives", "vanishes")
LAYERS = ("volatile", "persistent")
PARAMETER_TYPES = ("int", "str", "path", "gpu", "link", "hca", "port")
NUMBERS = ("int", "gpu", "link", "port")
# What each kind of effect must say and may say beside `kind` and `when`.
KINDS: dict[str, tuple[set[str], set[str]]] = {
    "state": ({"layer", "values"}, set()),
    "sysfs": ({"layer", "path", "text"}, {"optional"}),
    "pci_config": ({"layer", "device"}, {"width", "generation", "lost"}),
    "kmsg": ({"priority", "line"}, set()),
    "event": ({"gpu", "xid"}, set()),
    "process": ({"name", "user"}, set()),
    "counters": ({"files", "every_s"}, set()),
    "unit": ({"layer", "unit", "action"}, set()),
    "file": ({"folder", "left_mib", "most_mib"}, set()),
    "module_version": ({"version"}, set()),
}
_PATH = r"/(?!.*\.\.)[A-Za-z0-9._/-]{1,200}"
_FAULT = {"doc", "parameters", "reboot", "because", "effects", "seen"}
_PARAMETER = {"type", "default", "doc", "min", "max", "choices", "known", "otherwise", "pattern"}
_READING = {"source", "where", "reading", "state", "state_reading", "reboot", "when", "bytes"}


class FaultError(Exception):
    """A fault cannot be put on or taken off, or the catalogue is wrong; the text is one line."""


@dataclass(frozen=True)
class Parameter:
    """``fields`` holds what each choice or known value says beside itself, ``otherwise`` what every other one says."""

    name: str
    type: str
    doc: str
    default: Any
    least: int | None = None
    most: int | None = None
    pattern: str | None = None
    choices: tuple[str, ...] | None = None
    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    otherwise: Mapping[str, str] = field(default_factory=dict)

    @property
    def span(self) -> str:
        """What may be given, for people."""
        if self.choices:
            return ", ".join(self.choices)
        if self.least is not None:
            return f"{self.least} to {self.most}"
        return {"gpu": "a GPU's index", "link": "a link's number", "port": "a port's number"}.get(self.type, self.type)


@dataclass(frozen=True)
class Reading:
    """Where a fault is seen, and what is read there."""

    source: str
    where: str
    reading: str
    survives: bool
    when: str = ""
    state: str = ""
    state_reading: str = ""
    bytes: int = 0


@dataclass(frozen=True)
class Fault:
    name: str
    doc: str
    parameters: Mapping[str, Parameter]
    survives: bool
    because: str
    effects: tuple[Mapping[str, Any], ...]
    seen: tuple[Reading, ...]

    def layers(self) -> tuple[str, ...]:
        """The layers that the fault has effects in."""
        used = {layer_of(effect) for effect in self.effects}
        return tuple(layer for layer in LAYERS if layer in used)

    def given(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that were given, as their types want them. Raises FaultError."""
        unknown = sorted(set(parameters) - set(self.parameters))
        if unknown:
            known = ", ".join(self.parameters) or "none"
            raise FaultError(f"fault {self.name}: no parameter {unknown[0]}{_nearest(unknown[0], self.parameters)}"
                             f"; it takes: {known}")  # fmt: skip
        return {name: _value(self.name, self.parameters[name], value) for name, value in parameters.items()}


def layer_of(effect: Mapping[str, Any]) -> str:
    """Where an effect lives: a disk keeps its files, everything else is volatile unless it says so."""
    return str(effect.get("layer", "persistent" if effect["kind"] == "file" else "volatile"))


def find(catalogue: Mapping[str, Fault], name: str) -> Fault:
    """The fault of that name. Raises FaultError with the nearest name."""
    if name not in catalogue:
        raise FaultError(f"no fault {name!r}{_nearest(name, catalogue)}; playbooks/list-faults.yml lists all")
    return catalogue[name]


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _value(fault: str, parameter: Parameter, value: Any) -> Any:
    where = f"fault {fault}: {parameter.name} {json.dumps(value, default=str)}"
    text = str(value)
    if parameter.type in NUMBERS:
        if isinstance(value, (bool, float)) or not re.fullmatch(r"-?\d{1,15}", text):
            raise FaultError(f"{where} is not a number; give {parameter.span}")
        number = int(text)
        least = 0 if parameter.least is None else parameter.least
        outside = number < least or (parameter.most is not None and number > parameter.most)
        if outside or (parameter.choices and str(number) not in parameter.choices):
            raise FaultError(f"{where} is out of range; give {parameter.span}")
        return number
    if not isinstance(value, str) or not value:
        raise FaultError(f"{where} is not a text; give {parameter.span}")
    if parameter.choices and text not in parameter.choices:
        near = _nearest(text, parameter.choices)
        raise FaultError(f"{where} is no choice{near}; give one of {parameter.span}")
    pattern = parameter.pattern or (_PATH if parameter.type == "path" else None)
    if pattern and not re.fullmatch(pattern, text):
        raise FaultError(f"{where} does not look as it must; it has to match {pattern}")
    return text


def load(data: Any) -> dict[str, Fault]:
    """The catalogue from its data. Raises FaultError on the first thing that is wrong."""
    if not isinstance(data, Mapping) or not data:
        raise FaultError("catalogue of faults: not a mapping of faults; give the content of files/simulated/faults.yml")
    return {str(name): _fault(str(name), entry) for name, entry in data.items()}


def _need(fits: bool, where: str, what: str) -> None:
    if not fits:
        raise FaultError(f"catalogue of faults: {where}: {what}")


def _keys(where: str, entry: Any, needed: set[str], allowed: set[str]) -> None:
    _need(isinstance(entry, Mapping), where, "not a mapping")
    for key in sorted(needed - set(entry)):
        _need(False, where, f"{key} is missing")
    for key in sorted(set(entry) - needed - allowed):
        _need(False, where, f"no key {key}{_nearest(key, needed | allowed)}")


def _fault(name: str, entry: Any) -> Fault:
    _need(bool(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)) and name != "all", name, "not a name for a fault")
    _keys(name, entry, _FAULT, set())
    _need(entry["reboot"] in FATES, name, f"reboot is one of {', '.join(FATES)}")
    survives = entry["reboot"] == "survives"
    effects = tuple(_effect(f"{name}, effect {number}", effect) for number, effect in enumerate(entry["effects"], 1))
    layers = {layer_of(effect) for effect in effects}
    _need(("persistent" if survives else "volatile") in layers, name, f"{entry['reboot']}, but no effect does")
    return Fault(
        name=name,
        doc=str(entry["doc"]),
        parameters={key: _parameter(f"{name}, {key}", key, value) for key, value in entry["parameters"].items()},
        survives=survives,
        because=str(entry["because"]),
        effects=effects,
        seen=tuple(_reading(f"{name}, reading {n}", part, survives) for n, part in enumerate(entry["seen"], 1)),
    )


def _effect(where: str, effect: Any) -> Mapping[str, Any]:
    _need(isinstance(effect, Mapping) and effect.get("kind") in KINDS, where, f"kind is one of {', '.join(KINDS)}")
    needed, allowed = KINDS[effect["kind"]]
    _keys(where, effect, needed, allowed | {"kind", "when"})
    _need(layer_of(effect) in LAYERS, where, f"layer is one of {', '.join(LAYERS)}")
    if effect["kind"] == "sysfs":
        kept = effect["text"] is not None or layer_of(effect) == "volatile"
        _need(kept, where, "only a volatile effect may take a file away")
    if effect["kind"] == "unit":
        _need(effect["action"] in ("stop", "mask"), where, "action is stop or mask")
        fits = effect["action"] == "mask" or layer_of(effect) == "volatile"
        _need(fits, where, "a stopped unit starts at boot: stop is volatile, mask may persist")
    return dict(effect)


def _parameter(where: str, name: str, entry: Any) -> Parameter:
    _keys(where, entry, {"type", "default", "doc"}, _PARAMETER)
    _need(entry["type"] in PARAMETER_TYPES, where, f"type is one of {', '.join(PARAMETER_TYPES)}")
    if entry["type"] == "int":
        _need("choices" in entry or {"min", "max"} <= set(entry), where, "a number needs min and max, or choices")
    choices, known = entry.get("choices"), entry.get("known", {})
    fields = choices if isinstance(choices, Mapping) else known
    parameter = Parameter(
        name=name,
        type=entry["type"],
        doc=str(entry["doc"]),
        default=entry["default"],
        least=entry.get("min"),
        most=entry.get("max"),
        pattern=entry.get("pattern"),
        choices=None if choices is None else tuple(str(choice) for choice in choices),
        fields={str(key): _texts(value) for key, value in fields.items()},
        otherwise=_texts(entry.get("otherwise", {})),
    )
    _value(f"{where} (default)", parameter, parameter.default)
    return parameter


def _texts(values: Mapping[Any, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in values.items()}


def _reading(where: str, entry: Any, survives: bool) -> Reading:
    _keys(where, entry, {"source", "where", "reading"}, _READING)
    _need(entry["source"] in SOURCES, where, f"source is one of {', '.join(SOURCES)}")
    _need(entry.get("reboot", FATES[0]) in FATES, where, f"reboot is one of {', '.join(FATES)}")
    return Reading(
        source=entry["source"],
        where=str(entry["where"]),
        reading=str(entry["reading"]),
        survives=entry["reboot"] == "survives" if "reboot" in entry else survives,
        when=str(entry.get("when", "")),
        state=str(entry.get("state", "")),
        state_reading=str(entry.get("state_reading", entry["reading"])) if "state" in entry else "",
        bytes=int(entry.get("bytes", 0)),
    )
