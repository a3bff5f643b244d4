"""The catalogue of faults for people: docs/faults.md and the table of playbooks/list-faults.yml."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .catalogue import Fault, Parameter, Reading

BEGIN = "<!-- generated from files/simulated/faults.yml: begin -->"
END = "<!-- generated: end -->"
_FATE = {True: "survives", False: "vanishes"}


def shown(template: str) -> str:
    """A template with <name> where something is filled in."""
    return re.sub(r"\{([a-z_.]+)\}", r"<\1>", template)


def section(catalogue: Mapping[str, Fault]) -> str:
    """The tables of docs/faults.md, between the two marks."""
    lines = [BEGIN, "", "| fault | what it is | after a reboot |", "|---|---|---|"]
    lines += [
        f"| [`{name}`](#{name}) | {_cell(fault.doc)} | {_FATE[fault.survives]} |" for name, fault in catalogue.items()
    ]
    for name, fault in catalogue.items():
        lines += [
            "",
            f"### {name}",
            "",
            f"{_cell(fault.doc)} After a reboot it {_FATE[fault.survives]}: {fault.because}",
        ]
        if fault.parameters:
            lines += ["", "| parameter | values | default | meaning |", "|---|---|---|---|"]
            lines += [_parameter(parameter) for parameter in fault.parameters.values()]
        lines += ["", "| source | where | reading | after a reboot |", "|---|---|---|---|"]
        lines += [_reading(reading) for reading in fault.seen]
    return "\n".join([*lines, "", END]) + "\n"


def _parameter(parameter: Parameter) -> str:
    span = parameter.span
    if parameter.fields and not parameter.choices:
        span += f" (with their own text: {' '.join(parameter.fields)})"
    return f"| `{parameter.name}` | {_cell(span)} | `{parameter.default}` | {_cell(parameter.doc)} |"


def _reading(reading: Reading) -> str:
    where = f"{shown(reading.where)}" if reading.source not in ("sysfs", "procfs") else f"/{shown(reading.where)}"
    told = f"`{_cell(shown(reading.reading))}`"
    if reading.source == "disk":
        told = f"at most {told} MiB"
    if reading.bytes:
        told += f" (first {reading.bytes} bytes)"
    if reading.when:
        told += f" (with `{reading.when}`)"
    return f"| {reading.source} | `{_cell(where)}` | {told} | {_FATE[reading.survives]} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def document(text: str, catalogue: Mapping[str, Fault]) -> str:
    """A document with the part between the marks made anew."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(f"{END}\n")
    if not begin or not end:
        raise ValueError(f"the document lacks one of the lines {BEGIN} and {END}")
    return f"{before}{section(catalogue)}{after}"


def table(catalogue: Mapping[str, Fault]) -> list[str]:
    """Lines for a terminal: name, parameters, reboot, where seen."""
    rows = [("fault", "parameters", "reboot", "seen in")]
    for name, fault in catalogue.items():
        sources = dict.fromkeys(reading.source for reading in fault.seen)
        given = ", ".join(f"{key}={value.default}" for key, value in fault.parameters.items())
        rows.append((name, given or "-", _FATE[fault.survives], ", ".join(sources)))
    return _columns(rows)


def active_table(active: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Lines for a terminal: the faults that are on, host by host."""
    rows = [("host", "fault", "parameters", "reboot")]
    for host, faults in active.items():
        for fault in faults:
            given = ", ".join(f"{key}={value}" for key, value in fault["parameters"].items())
            left = "" if fault["complete"] else " (what a reboot left)"
            rows.append((host, f"{fault['fault']}{left}", given or "-", fault["reboot"]))
        if not faults:
            rows.append((host, "none", "-", "-"))
    return _columns(rows)


def seen_table(seen: list[dict[str, Any]]) -> list[str]:
    """Lines for a terminal: where a fault is seen on a host."""
    rows = [("source", "where", "reading", "after a reboot")]
    rows += [(str(one["source"]), str(one["where"]), str(one["reading"]), str(one["reboot"])) for one in seen]
    return _columns(rows)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
