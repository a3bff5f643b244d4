"""`--query-gpu`, `--query-compute-apps`, `--query-remapped-rows`: lists of fields as CSV."""

from __future__ import annotations

from collections.abc import Container, Iterator

from .device import ERROR_TEXTS, MIB, NOT_AVAILABLE, UNKNOWN_ERROR, Gpu
from .log import process_name, running
from .query_fields import ALIASES, COMMON, GPU_QUERIES, REMAPPED, UNITS, Source, read_path

BRACKETED = {*ERROR_TEXTS.values(), UNKNOWN_ERROR}


class QueryError(Exception):
    """The question is wrong; the text says how."""


def canonical(name: str) -> str:
    name = name.replace("clocks_throttle_reasons.", "clocks_event_reasons.")
    return ALIASES.get(name, name)


def value(gpu: Gpu, source: Source) -> str:
    text = gpu.text(source if callable(source) else lambda one: read_path(one, source))
    fabric = isinstance(source, str) and source.startswith("fabric/")
    return f"[{text}]" if text in BRACKETED and not fabric else text


def unit_of(name: str) -> str:
    return next((unit for stem, unit in UNITS.items() if name.startswith(stem)), "")


def bare(text: str, unit: str) -> str:
    return text[: -len(unit) - 1] if unit and text.endswith(f" {unit}") else text


class Format:
    """`--format=csv[,noheader][,nounits]`."""

    def __init__(self, text: str) -> None:
        parts = [part.strip() for part in text.split(",")]
        if set(parts) - {"csv", "noheader", "nounits"}:
            raise QueryError("Format modifier is not recognized.")
        self.header = "noheader" not in parts
        self.units = "nounits" not in parts

    def row(self, names: list[str], values: list[str]) -> str:
        return ", ".join(values if self.units else [bare(text, unit_of(name)) for name, text in zip(names, values)])

    def head(self, shown: list[str], names: list[str]) -> str:
        return ", ".join(f"{one} [{unit_of(name)}]" if unit_of(name) else one for one, name in zip(shown, names))


def check(names: list[str], given: list[str], known: Container[str]) -> None:
    for name, one in zip(names, given):
        if name not in known:
            raise QueryError(f'Field "{one}" is not a valid field to query.\n')


def gpu_rows(asked: str, form: Format, gpus: list[Gpu]) -> Iterator[str]:
    given = [part.strip() for part in asked.split(",")]
    names = [canonical(name) for name in given]
    check(names, given, GPU_QUERIES)
    return rows(form, gpus, names, names)


def remapped_rows(asked: str, form: Format, gpus: list[Gpu]) -> Iterator[str]:
    given = [part.strip() for part in asked.split(",")]
    names = [canonical(name) for name in given]
    check(names, given, {*COMMON, *REMAPPED})
    return rows(form, gpus, names, [GPU_NAMES.get(name, name) for name in names])


def rows(form: Format, gpus: list[Gpu], names: list[str], shown: list[str]) -> Iterator[str]:
    if form.header:
        yield form.head(shown, names)
    for gpu in gpus:
        yield form.row(names, [value(gpu, GPU_QUERIES[name]) for name in names])


APPS = ("pid", "process_name", "used_gpu_memory")
GPU_NAMES = {"name": "gpu_name", "uuid": "gpu_uuid", "pci.bus_id": "gpu_bus_id", "serial": "gpu_serial"}


def app_value(gpu: Gpu, name: str, pid: int, memory: int | None) -> str:
    if name == "pid":
        return str(pid)
    if name == "process_name":
        return process_name(pid)
    if name == "used_gpu_memory":
        return f"[{NOT_AVAILABLE}]" if memory is None else f"{memory // MIB} MiB"
    return value(gpu, COMMON[name])


def compute_apps(asked: str, form: Format, gpus: list[Gpu]) -> Iterator[str]:
    """`name` is the process here, `gpu_name` the GPU."""
    given = [part.strip() for part in asked.split(",")]
    names = ["process_name" if name == "name" else canonical(name) for name in given]
    check(names, given, {*APPS, *COMMON})
    return app_rows(form, gpus, names)


def app_rows(form: Format, gpus: list[Gpu], names: list[str]) -> Iterator[str]:
    if form.header:
        yield form.head([GPU_NAMES.get(name, name) for name in names], names)
    for gpu in gpus:
        for pid, memory in running(gpu):
            yield form.row(names, [app_value(gpu, name, pid, memory) for name in names])
