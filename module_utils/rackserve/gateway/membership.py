"""Which runtime commands bring the gateway's servers to the plan's slots and to the asked drain state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .runtime import NO_ADDRESS, NO_PORT, GatewayError, Server

STATES = ("ready", "drain", "maint")
# Backends that only ask: their servers get no request of a client.
PROBES = "probe"


@dataclass(frozen=True)
class Slot:
    """One planned slot; `address` is None while no engine is meant to be in it."""

    backend: str
    probe_backend: str
    slot: str
    address: str | None
    port: int

    @property
    def key(self) -> str:
        return f"{self.backend}/{self.slot}"

    @property
    def probe_key(self) -> str:
        return f"{self.probe_backend}/{self.slot}"

    @property
    def target(self) -> tuple[str, int]:
        return (self.address, self.port) if self.address else (NO_ADDRESS, NO_PORT)


@dataclass(frozen=True)
class Change:
    """What one server becomes, and the commands that make it so, in order."""

    key: str
    before: str
    after: str
    commands: tuple[str, ...]


def read_slots(rows: list[dict[str, Any]]) -> list[Slot]:
    """Build slots from {backend, probe_backend, slot, address, port} rows; no address or 0.0.0.0 is an empty slot.

    Raises GatewayError when a slot has an address and no port, or is named twice.
    """
    slots, seen = [], set()
    for row in rows:
        address = row.get("address")
        address = None if address in (None, "", NO_ADDRESS) else str(address)
        slot = Slot(row["backend"], row["probe_backend"], row["slot"], address, int(row.get("port") or 0))
        if slot.address and not slot.port:
            raise GatewayError(f"slot {slot.key} has the address {slot.address} and no port")
        if slot.key in seen:
            raise GatewayError(f"slot {slot.key} is named twice")
        seen.add(slot.key)
        slots.append(slot)
    return slots


def describe(address: str, port: int, admin: str) -> str:
    """One server in one word group for a diff: `10.0.0.1:8000 drain`, or `empty`."""
    return "empty" if address == NO_ADDRESS else f"{address}:{port} {admin}"


def servers_at(current: dict[str, Server], doors: list[tuple[str, int]]) -> list[str]:
    """The serving servers ("backend/slot") that lead to one of these (address, port)."""
    serving = (key for key in current if not key.startswith(PROBES))
    return [key for key in serving if (current[key].address, current[key].port) in doors]


def missing_servers(current: dict[str, Server], slots: list[Slot]) -> list[str]:
    """Planned slots ("backend/slot") that the running gateway does not have, or whose probe it does not have."""
    return [slot.key for slot in slots if slot.key not in current or slot.probe_key not in current]


def plan_membership(current: dict[str, Server], slots: list[Slot], join_state: str) -> list[Change]:
    """Compare running servers with the planned slots; return one Change a server that differs.

    A slot that keeps its address keeps its drain or maintenance. A slot with a new address takes `join_state`; its
    probe starts as down, so no request reaches it before `rise` checks have passed. The main server's address is set
    last: a run killed in between is seen as a difference again.

    Raises GatewayError when the running gateway has no such slot.
    """
    changes = []
    for slot in slots:
        for key in (slot.key, slot.probe_key):
            if key not in current:
                raise GatewayError(
                    f"the running gateway has no server {key}; its slots changed: reload rackserve-gateway.service"
                )
        main, probe = current[slot.key], current[slot.probe_key]
        before = describe(main.address, main.port, main.admin)
        in_place = (main.address, main.port) == slot.target and (probe.address, probe.port) == slot.target
        address, port = slot.target
        if slot.address is None:
            if in_place and main.admin == "maint":
                continue
            commands = [f"set server {slot.key} state maint", f"set server {slot.probe_key} state maint"]
            commands += [f"set server {key} addr {address} port {port}" for key in (slot.probe_key, slot.key)]
            changes.append(Change(slot.key, before, "empty", tuple(commands)))
        elif not in_place:
            commands = [
                f"set server {slot.probe_key} state maint",
                f"set server {slot.probe_key} addr {address} port {port}",
                f"set server {slot.probe_key} state ready",
                f"set server {slot.probe_key} health down",
                f"set server {slot.key} state {join_state}",
                f"set server {slot.key} addr {address} port {port}",
            ]
            changes.append(Change(slot.key, before, describe(address, port, join_state), tuple(commands)))
        elif probe.admin != "ready":
            commands = [f"set server {slot.probe_key} state ready", f"set server {slot.probe_key} health down"]
            changes.append(Change(slot.probe_key, f"probe {probe.admin}", "probe ready", tuple(commands)))
    return changes


def plan_state(current: dict[str, Server], targets: list[str], state: str) -> list[Change]:
    """Return the changes that put each "backend/slot" of `targets` into `state` (ready, drain or maint).

    Raises GatewayError when a target is unknown or an empty slot.
    """
    changes = []
    for key in targets:
        server = current.get(key)
        if server is None:
            raise GatewayError(f"the running gateway has no server {key}; known: {', '.join(sorted(current))}")
        if server.empty:
            raise GatewayError(f"{key} is an empty slot: it has no engine to make {state}")
        if server.admin != state:
            changes.append(
                Change(
                    key,
                    describe(server.address, server.port, server.admin),
                    describe(server.address, server.port, state),
                    (f"set server {key} state {state}",),
                )
            )
    return changes
