"""Which engine runs where: hosts and GPUs."""

from __future__ import annotations

from typing import Any

from .findings import Findings
from .fit import check_shape
from .inventory import Inventory
from .shapes import Group, Pool, Resolved, Seat

# A pool's groups are <deployment>-<n> or, of a deployment with two, <deployment>-p<n> and <deployment>-d<n>.
_LETTER = {"": "", "prefill": "p", "decode": "d"}


def place(
    deployments: list[Resolved],
    hardware: dict[str, Any],
    release: dict[str, Any],
    inventory: Inventory,
    findings: Findings,
) -> None:
    """Give every pool its groups.

    Hosts in inventory order form blocks of as many as a group needs; groups go to blocks, an equal share each (the
    first blocks take one more when they do not divide), so adding hosts at the end together with their replicas moves
    no engine. GPUs are handed out from 0 upwards in the order of the description.
    """
    slots = int(hardware["slots"])
    used: dict[str, list[tuple[str, int]]] = {}
    ports: dict[str, int] = {}
    for item in deployments:
        for pool in item.pools:
            if check_shape(pool, item.card, hardware, release, findings) and _fits(pool, slots, findings):
                _place(item.name, pool, used, ports)
    for host, taken in used.items():
        total = sum(count for _, count in taken)
        if total > slots:
            parts = " + ".join(f"{count} ({name})" for name, count in taken)
            why = f"{host} has {slots} slots; its engines take {parts} = {total}."
            fix = "Fewer replicas, a smaller tensor_parallel_size, or other hosts."
            findings.error("slots-overallocated", f"inventory.{host}", why, fix)
    for host in inventory.members("gpu"):
        if not used.get(host) and not findings.broken("cluster.deployments"):
            why = f"{host} is in group gpu and carries no engine."
            findings.note("idle-host", f"inventory.{host}", why, "Add replicas, or keep it as a spare.")


def _fits(pool: Pool, slots: int, findings: Findings) -> bool:
    shape, where, hosts = pool.shape, pool.where, len(pool.hosts)
    if shape.layout == "single" and hosts != 1:
        why = f"layout single is for one host; {hosts} are named."
        findings.error("single-needs-one-host", f"{where}.hosts", why, "Name one host, or use layout replica.")
        return False
    if hosts < shape.hosts:
        why = f"a group takes {shape.hosts} hosts; {hosts} are named."
        findings.error("too-few-hosts", f"{where}.hosts_per_replica", why, f"At most {hosts}, or name more hosts.")
        return False
    blocks, each = hosts // shape.hosts, slots // shape.ranks_per_host
    if pool.replicas > each * blocks:
        room, need = f"{hosts} host(s)", shape.text if shape.ranks == shape.tensor else f"{shape.ranks_per_host} ranks"
        if shape.hosts > 1:
            room = f"floor({hosts} host(s) / {shape.hosts} of a group)"
        why = f"{pool.replicas} replicas, but {room} x floor({slots} slots / {need}) = {each * blocks}."
        findings.error("too-many-replicas", f"{where}.replicas", why, f"At most {each * blocks}, or more hosts.")
        return False
    if pool.replicas > blocks and pool.replicas % blocks:
        share = pool.replicas // blocks
        why = f"{pool.replicas} replicas over {hosts} hosts: some carry {share + 1}, some {share}."
        findings.warning("uneven-replicas", f"{where}.replicas", why, f"Use a multiple of {blocks}.")
    return True


def _place(name: str, pool: Pool, used: dict[str, list[tuple[str, int]]], ports: dict[str, int]) -> None:
    shape = pool.shape
    blocks = len(pool.hosts) // shape.hosts
    share, more = divmod(pool.replicas, blocks)
    for position in range(blocks):
        block = pool.hosts[position * shape.hosts : (position + 1) * shape.hosts]
        for _ in range(share + (1 if position < more else 0)):
            index = len(pool.groups)
            group = Group(f"{name}-{_LETTER[pool.part]}{index}", index, [])
            for host in block:
                taken = used.setdefault(host, [])
                first = sum(count for _, count in taken)
                group.seats.append(Seat(host, list(range(first, first + shape.ranks_per_host))))
                taken.append((name, shape.ranks_per_host))
            if shape.several_units or shape.executor == "ray":
                group.slot = max(ports.get(host, 0) for host in block)
                ports.update(dict.fromkeys(block, group.slot + 1))
            pool.groups.append(group)
