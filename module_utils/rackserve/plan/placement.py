"""Which engine runs where: hosts, GPUs and ports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .description import LAYOUTS_BUILT
from .findings import Findings
from .inventory import Inventory

_HIGHEST_PORT = 65535
_FIRST_EPHEMERAL_PORT = 32768


@dataclass
class Seat:
    """A place for one engine: ``local`` counts the deployment's engines on that host from 0."""

    host: str
    local: int
    gpu_ids: list[int]


@dataclass
class Resolved:
    """A deployment with everything it refers to; ``where`` is its place in the description."""

    where: str
    spec: dict[str, Any]
    card: dict[str, Any]
    profile: dict[str, Any]
    hosts: list[str]
    args: dict[str, Any]
    env: dict[str, str]
    seats: list[Seat] = field(default_factory=list)

    @property
    def max_model_len(self) -> int:
        """Longest context, tokens."""
        return int(self.args["max_model_len"])


def place(deployments: list[Resolved], slots: int, inventory: Inventory, findings: Findings) -> None:
    """Give every deployment its seats.

    Replicas go to hosts in inventory order, an equal block each (the first hosts take one more when they do not
    divide), so adding hosts at the end together with their replicas moves no engine. GPUs are handed out from 0
    upwards in the order of the description.
    """
    used: dict[str, list[tuple[str, int]]] = {}
    for item in deployments:
        if not _fits(item, slots, findings):
            continue
        tp, replicas = item.spec["tensor_parallel_size"], item.spec["replicas"]
        share, more = divmod(replicas, len(item.hosts))
        for position, host in enumerate(item.hosts):
            taken = used.setdefault(host, [])
            for local in range(share + (1 if position < more else 0)):
                first = sum(count for _, count in taken)
                item.seats.append(Seat(host, local, list(range(first, first + tp))))
                taken.append((item.spec["name"], tp))
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


def _fits(item: Resolved, slots: int, findings: Findings) -> bool:
    spec, where = item.spec, item.where
    tp, replicas, hosts = spec["tensor_parallel_size"], spec["replicas"], len(item.hosts)
    if spec["layout"] not in LAYOUTS_BUILT:
        why = f'layout "{spec["layout"]}" is known and not built yet: nothing would start it.'
        findings.error("layout-not-built", f"{where}.layout", why, "Use replica: independent engines.")
        return False
    if spec["layout"] == "single" and hosts != 1:
        why = f"layout single is for one host; {hosts} are named."
        findings.error("single-needs-one-host", f"{where}.hosts", why, "Name one host, or use layout replica.")
        return False
    if tp > slots:
        why = f"an engine needs {tp} slots; a host has {slots}."
        findings.error("tp-too-large", f"{where}.tensor_parallel_size", why, f"At most {slots} with layout replica.")
        return False
    _check_division(item, findings)
    each = slots // tp
    if replicas > each * hosts:
        why = f"{replicas} replicas, but {hosts} host(s) x floor({slots} slots / TP {tp}) = {each * hosts}."
        findings.error("too-many-replicas", f"{where}.replicas", why, f"At most {each * hosts}, or more hosts.")
        return False
    if replicas > hosts and replicas % hosts:
        share = replicas // hosts
        why = f"{replicas} replicas over {hosts} hosts: some carry {share + 1}, some {share}."
        findings.warning("uneven-replicas", f"{where}.replicas", why, f"Use a multiple of {hosts}.")
    return not findings.broken(where)


def _check_division(item: Resolved, findings: Findings) -> None:
    tp, card, spot = item.spec["tensor_parallel_size"], item.card, f"{item.where}.tensor_parallel_size"
    heads, block = card["attention_heads"], card["shard_block"]
    if heads % tp:
        fits = ", ".join(str(n) for n in range(1, min(heads, 64) + 1) if heads % n == 0)
        why = f"{heads} attention heads do not divide by {tp}."
        findings.error("heads-do-not-divide", spot, why, f"Use one of {fits}.")
        return
    for size in card["shard_dims"]:
        if size % tp or size // tp % block:
            why = f"{size} / {tp} = {size / tp:g} is no multiple of the quantisation block {block}."
            findings.error("blocks-do-not-divide", spot, why, "Use a smaller tensor_parallel_size.")


def check_ports(
    instances: list[dict[str, Any]], places: dict[str, str], gateway: dict[str, Any] | None, findings: Findings
) -> None:
    """Every port of a host belongs to one service; ``places`` is {deployment: where it is described}."""
    owners: dict[tuple[str, int], str] = {}
    if gateway:
        owners[gateway["host"], gateway["port"]] = "the gateway"
        if gateway["metrics_port"] == gateway["port"]:
            why = f"clients and metrics share port {gateway['port']}."
            findings.error("port-taken", "cluster.gateway.metrics_port", why, "Give metrics another port.")
        owners[gateway["host"], gateway["metrics_port"]] = "the gateway's metrics"
    for item in instances:
        port, where = item["port"], f"{places[item['deployment']]}.port_base"
        if port > _HIGHEST_PORT:
            why = f"{item['name']} would need port {port}."
            findings.error("port-range", where, why, "Start lower: ports end at 65535.")
        elif port >= _FIRST_EPHEMERAL_PORT:
            why = f"{item['name']} listens on {port}, inside the range of outgoing connections."
            findings.warning("ephemeral-port", where, why, f"Stay below {_FIRST_EPHEMERAL_PORT}.")
        owner = owners.setdefault((item["host"], port), item["name"])
        if owner != item["name"]:
            why = f"port {port} of {item['host']} is taken by {owner}; {item['name']} wants it too."
            findings.error("port-taken", where, why, "Choose another port_base.")
