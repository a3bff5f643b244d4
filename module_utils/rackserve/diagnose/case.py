"""What a diagnosis looks at: hosts, their texts and their readings. Plain data, from hosts or from a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# Kinds of texts. A text from elsewhere is `any`: every rule reads it.
ENGINE, KERNEL, GATEWAY, RAY, UNIT, FILE, TOOL, ANY = (
    "engine",
    "kernel",
    "gateway",
    "ray",
    "unit",
    "file",
    "tool",
    "any",
)
KINDS = (ENGINE, KERNEL, GATEWAY, RAY, UNIT, FILE, TOOL, ANY)
# The host of a text from elsewhere: nobody knows which.
ELSEWHERE = "input"
# States of what wrote a text: of a unit that serves, old complaints are no evidence.
FINE, TROUBLED, UNKNOWN = "fine", "troubled", ""


class Line(NamedTuple):
    """One line of evidence: where it stands and what it says; number 0 is a reading and no line of a text."""

    host: str
    where: str
    number: int
    text: str


class Source(NamedTuple):
    """One text of a host. ``unit`` is the unit that wrote it, where one did; ``cut``: lines left out before it."""

    host: str
    name: str
    kind: str
    text: str
    unit: str = ""
    state: str = UNKNOWN
    cut: int = 0

    def lines(self) -> Iterator[Line]:
        """Its lines, numbered as in the bundle."""
        for number, text in enumerate(self.text.splitlines(), 1):
            yield Line(self.host, self.name, number, text)


class Host(NamedTuple):
    """One host. ``lost`` says why it could not be asked; its readings are what `collect` took."""

    name: str
    sources: Sequence[Source] = ()
    readings: Mapping[str, Any] = {}
    plan: Mapping[str, Any] = {}
    lost: str = ""

    def reading(self, name: str, empty: Any) -> Any:
        """A reading; ``empty`` where there is none or it has another type."""
        found = self.readings.get(name)
        return found if isinstance(found, type(empty)) else empty

    def line(self, where: str, text: str) -> Line:
        """Evidence that is a reading."""
        return Line(self.name, where, 0, " ".join(str(text).split()))

    def units(self) -> dict[str, Mapping[str, Any]]:
        """Our units by name, as systemd has them."""
        return {name: unit for name, unit in self.reading("units", {}).items() if isinstance(unit, Mapping)}


class Case:
    """All hosts."""

    def __init__(self, hosts: Iterable[Host]) -> None:
        self.hosts = {host.name: host for host in hosts}

    def sources(self, kinds: Sequence[str]) -> Iterator[Source]:
        """Texts of these kinds that may be evidence."""
        for host in self.hosts.values():
            for source in host.sources:
                if source.state != FINE and (source.kind in kinds or source.kind == ANY):
                    yield source

    def host_of(self, address: str) -> str:
        """The host that has this address by the plan; empty where none does."""
        for host in self.hosts.values():
            for one in host.plan.get("hosts") or []:
                if one.get("address") == address:
                    return str(one.get("name") or "")
        return ""


def read_host(name: str, given: Mapping[str, Any]) -> Host:
    """A host from what the module host_evidence returned, or from a bundle. Anything of another shape is left out."""
    sources = [
        Source(
            name, str(one.get("name") or "?"), str(one.get("kind")) if one.get("kind") in KINDS else ANY,
            str(one.get("text") or ""), str(one.get("unit") or ""), str(one.get("state") or ""),
            int(one.get("cut") or 0),
        )
        for one in given.get("sources") or []
        if isinstance(one, Mapping)
    ]  # fmt: skip
    readings, plan = given.get("readings"), given.get("plan")
    return Host(
        name, sources, readings if isinstance(readings, Mapping) else {}, plan if isinstance(plan, Mapping) else {},
        str(given.get("lost") or ""),
    )  # fmt: skip
