"""What the templates of the catalogue may name: parameters, and what the machine says of the GPU or HCA they name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .catalogue import Fault, FaultError, Parameter
from .state import HARDWARE, State

FIRST = "first"
MIB = 1024 * 1024
_NAME = re.compile(r"\{([a-z_]+(?:\.[a-z_]+)?)\}")


class Machine:
    """What a simulated host has."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = State(root)

    @property
    def simulated(self) -> bool:
        return (self.root / HARDWARE / "state").is_file()

    def gpus(self) -> int:
        return int(self.state.get("gpu.count") or 0)

    def hcas(self) -> list[str]:
        return _names(self.root / "sys/class/infiniband")

    def ports(self, hca: str) -> list[str]:
        return _names(self.root / "sys/class/infiniband" / hca / "ports")

    def gpu(self, index: str) -> dict[str, str]:
        """Names of a GPU: as NVML, the kernel and its log write them."""
        bus_id = self.state.get(f"gpu.{index}.pci.bus_id") or ""
        bdf = bus_id[4:].lower()
        uuid = self.state.get(f"gpu.{index}.uuid") or ""
        return {"bus_id": bus_id, "bdf": bdf, "slot": bdf.rpartition(".")[0], "uuid": uuid}

    def hca(self, name: str) -> dict[str, str]:
        """PCI address and network interface of an HCA; no interface is an empty text."""
        device = self.root / "sys/class/infiniband" / name / "device"
        return {"bdf": Path(os.path.realpath(device)).name, "netdev": next(iter(_names(device / "net")), "")}

    def check(self, fault: Fault, parameters: Mapping[str, Any], names: set[str]) -> None:
        """Raise FaultError where one of the named parameters is something this machine does not have."""
        for name in (name for name in parameters if name in names):
            kind, value = fault.parameters[name].type, parameters[name]
            if kind in ("gpu", "link", "hca", "port"):
                has = self._has(kind, parameters)
                if str(value) not in has:
                    raise FaultError(f"fault {fault.name}: no {name} {value} on this host; it has {_span(has)}")

    def _has(self, kind: str, parameters: Mapping[str, Any]) -> list[str]:
        if kind == "gpu":
            return [str(index) for index in range(self.gpus())]
        if kind == "link":
            return [str(link) for link in range(int(self.state.get(f"gpu.{parameters['gpu']}.nvlink.count") or 0))]
        return self.hcas() if kind == "hca" else self.ports(str(parameters["hca"]))


def _names(folder: Path) -> list[str]:
    found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(found, key=lambda name: (re.sub(r"\d+", "", name), [int(n) for n in re.findall(r"\d+", name)]))


def _span(has: list[str]) -> str:
    if not has:
        return "none"
    return ", ".join(has) if not has[0].isdigit() or len(has) == 1 else f"{has[0]} to {has[-1]}"


def resolve(machine: Machine, fault: Fault, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a fault: those given, and defaults. Raises FaultError.

    A default that names hardware which this machine lacks is left to the first text that uses it, so that a fault
    whose other choices need no HCA works on a host without one.
    """
    values: dict[str, Any] = {}
    given = fault.given(given)
    for name, parameter in fault.parameters.items():
        value = given.get(name, parameter.default)
        if parameter.type == "hca" and value == FIRST:
            value = next(iter(machine.hcas()), FIRST)
        values[name] = value
    machine.check(fault, values, set(given) | _used(fault, values))
    return values


def _used(fault: Fault, values: Mapping[str, Any]) -> set[str]:
    """Parameters that the fault's texts use with these values."""
    texts = [repr(effect) for effect in fault.effects]
    texts += [repr(_fields(parameter, values[name])) for name, parameter in fault.parameters.items()]
    return {name.split(".")[0] for text in texts for name in _NAME.findall(text)}


def _fields(parameter: Parameter, value: Any) -> Mapping[str, str]:
    return parameter.fields.get(str(value), parameter.otherwise)


class Values:
    """Fills templates for one fault on one machine; ``made`` holds what putting the fault on brought, as the pid."""

    def __init__(self, machine: Machine, fault: Fault, parameters: Mapping[str, Any], made: Mapping[str, str]) -> None:
        self._machine = machine
        self._fault = fault
        self._parameters = parameters
        self._made = made

    def text(self, template: Any) -> str:
        """The template with every {name} replaced."""
        return _NAME.sub(lambda match: self._lookup(match.group(1)), str(template))

    def holds(self, name: str) -> bool:
        """Whether an effect or a reading that says `when: name` applies."""
        return not name or self._lookup(name) not in ("", "0")

    def _lookup(self, name: str) -> str:
        if name in self._made:
            return self._made[name]
        head, _, part = name.partition(".")
        if head not in self._parameters:
            raise FaultError(f"catalogue of faults: {self._fault.name}: nothing is called {{{name}}}")
        value = self._parameters[head]
        return str(value) if not part else self._field(head, part, value)

    def _field(self, head: str, part: str, value: Any) -> str:
        parameter = self._fault.parameters[head]
        fields = dict(_fields(parameter, value))
        if parameter.type == "gpu":
            fields.update(self._machine.gpu(str(value)))
        elif parameter.type == "hca":
            fields.update(self._machine.hca(str(value)))
        elif head.endswith("_mib"):
            fields["bytes"] = str(int(value) * MIB)
        if part not in fields:
            raise FaultError(f"catalogue of faults: {self._fault.name}: {head} {value} has no {{{head}.{part}}}")
        # Fields are templates of the catalogue; what a caller gave is not, and is never filled again.
        return fields[part] if parameter.type in ("gpu", "hca") else self.text(fields[part])
