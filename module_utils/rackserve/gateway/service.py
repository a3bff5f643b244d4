"""How many servers of a backend are in service: asked before one is taken out, waited for after it is given work."""

from __future__ import annotations

import time
from typing import Callable

from .runtime import Command, GatewayError, Load, Server, parse_servers_state, parse_stat

Clock = Callable[[], float]


def in_service(server: Server, load: Load | None) -> bool:
    """Whether it gets requests: not drained, and up (or not checked) by its probe."""
    status = load.status if load else ""
    return server.admin == "ready" and (status.startswith("UP") or status == "no check")


def others_out(
    servers: dict[str, Server], loads: dict[str, Load], targets: list[str], notes: dict[str, str]
) -> dict[str, str]:
    """{"backend/slot": why} of filled servers beside the targets, in their backends, that are out of service."""
    backends = {servers[key].backend for key in targets if key in servers}
    out = {}
    for key, server in sorted(servers.items()):
        if server.backend not in backends or key in targets or server.empty or in_service(server, loads.get(key)):
            continue
        if server.admin != "ready":
            out[key] = f"{server.admin}, by {notes.get(key) or 'a person'}"
        else:
            load = loads.get(key)
            out[key] = f"{load.status} ({load.check})" if load else "unknown"
    return out


def require_others(
    command: Command, targets: list[str], allowed: int, notes: dict[str, str], *, wait_s: float,
    clock: Clock = time.monotonic, sleep: Callable[[float], None] = time.sleep,
) -> None:  # fmt: skip
    """Wait until at most `allowed` others are out. Nothing to ask where every target is out already.

    Raises GatewayError naming those that are out after `wait_s`.
    """
    started = clock()
    while True:
        servers = parse_servers_state(command("show servers state"))
        loads = parse_stat(command("show stat"))
        if not any(key in servers and servers[key].admin == "ready" for key in targets):
            return
        out = others_out(servers, loads, targets, notes)
        if len(out) <= allowed:
            return
        if clock() - started >= wait_s:
            backends = {servers[key].backend for key in targets if key in servers}
            filled = [key for key, server in servers.items() if server.backend in backends and not server.empty]
            left = len(filled) - len(out) - len(set(targets) & set(filled))
            named = "; ".join(f"{key} is {why}" for key, why in out.items())
            raise GatewayError(
                f"taking out {', '.join(targets)} would leave {left} of {len(filled)} in service: {named}: bring them "
                f"back first, or accept it with -e may_be_out={len(out)}"
            )
        sleep(0.5)


def wait_up(
    command: Command, targets: list[str], limit_s: float, *,
    clock: Clock = time.monotonic, sleep: Callable[[float], None] = time.sleep,
) -> None:  # fmt: skip
    """Wait until every target that is not drained gets requests.

    Raises GatewayError naming what the probe says after `limit_s`.
    """
    started = clock()
    while True:
        servers = parse_servers_state(command("show servers state"))
        loads = parse_stat(command("show stat"))
        awaited = [key for key in targets if key in servers and servers[key].admin == "ready"]
        down = [key for key in awaited if not in_service(servers[key], loads.get(key))]
        if not down:
            return
        if clock() - started >= limit_s:
            seen = ", ".join(f"{key} {loads[key].status} ({loads[key].check})" for key in down if key in loads)
            raise GatewayError(
                f"the gateway's probe does not see what was proven on the host after {limit_s:.0f} s: {seen}: look at "
                "the firewall between them and at the gateway's log"
            )
        sleep(0.2)
