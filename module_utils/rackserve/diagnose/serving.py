"""Readings of what serves: engines asked for one token, the gateway's servers, its certificate and the lease."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

from .. import lease
from ..gateway.notes import note_file, read_notes
from ..gateway.runtime import Command, GatewayError, parse_servers_state, parse_stat, socket_command
from ..gateway.servers import rows

ASK_S = 12.0
LEASE = "var/lib/rackserve/lease.json"
PEM = "etc/rackserve/gateway/tls.pem"
_TOO_MANY = (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE)
_KEY = "VLLM_API_KEY="
_ROOMY_S = 60.0

Ask = Callable[[Mapping[str, Any], str, float], "tuple[str, str]"]


def ask(engine: Mapping[str, Any], key: str, timeout_s: float) -> tuple[str, str]:
    """(state, what was said) of an engine that is asked for one token.

    fine; refused: it does not take the key; hung: it is connected and does not answer; down: nobody listens.
    """
    body = json.dumps({"model": engine["model"], "prompt": "1", "max_tokens": 1, "temperature": 0})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(str(engine["address"]), int(engine["port"]), timeout=timeout_s)
    try:
        connection.request("POST", "/v1/completions", body, headers)
        status = connection.getresponse().status
    except (TimeoutError, socket.timeout):
        return "hung", f"no completion within {timeout_s:g} s"
    except (OSError, http.client.HTTPException) as problem:
        return "down", f"{engine['address']}:{engine['port']}: {problem or type(problem).__name__}"
    finally:
        connection.close()
    if status == http.HTTPStatus.OK:
        return "fine", "one token"
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return "refused", f"HTTP {status} with the key of its own secret file"
    if status in _TOO_MANY:
        return "fine", f"HTTP {status}: it has no room now"
    return "failed", f"HTTP {status} for one token"


def engines(
    root: Path, plan: Mapping[str, Any], units: Mapping[str, Mapping[str, Any]], one: Ask = ask
) -> list[dict[str, Any]]:
    """What each engine of this host says, all asked at once; one whose unit is not active is not asked."""

    def look(engine: Mapping[str, Any]) -> dict[str, Any]:
        unit = units.get(str(engine["unit"]), {})
        if unit.get("active") != "active":
            return {"unit": engine["unit"], "state": "inactive", "said": f"its unit is {unit.get('active', 'unknown')}"}
        state, said = one(engine, _key(root, str(engine["name"])), ASK_S)
        starting = float(unit.get("active_s") or 0) < max(_ROOMY_S, float(engine.get("start_timeout_s") or 0))
        if state == "down":
            state = "loading" if starting else "hung"
        return {"unit": engine["unit"], "state": state, "said": said}

    asked = list(plan.get("engines") or [])
    if not asked:
        return []
    with ThreadPoolExecutor(max_workers=min(16, len(asked))) as pool:
        return list(pool.map(look, asked))


def _key(root: Path, name: str) -> str:
    try:
        text = (root / f"etc/rackserve/vllm/{name}.secret.env").read_text("utf-8")
    except OSError:
        return ""
    return next((line[len(_KEY) :].strip() for line in text.splitlines() if line.startswith(_KEY)), "")


def gateway(root: Path, plan: Mapping[str, Any], now_s: float, command: Command | None = None) -> dict[str, Any]:
    """The gateway's servers, certificate and lease; empty where this host is no gateway."""
    given = plan.get("gateway")
    if not given:
        return {}
    found: dict[str, Any] = {"lease": held(root, now_s), "config": configuration(root, str(given["stats_socket"]))}
    if given.get("tls"):
        found["tls"] = certificate(root, now_s)
    try:
        say = command or socket_command(root / str(given["stats_socket"]).lstrip("/"), ASK_S)
        servers = parse_servers_state(say("show servers state"))
        notes = read_notes(note_file(root / str(given["server_state_file"]).lstrip("/")))
        found["servers"] = rows(servers, parse_stat(say("show stat")), sorted(servers), notes)
    except (GatewayError, ValueError, KeyError) as problem:
        found["problem"] = str(problem)
    return found


_DIGEST = re.compile(r"^# config-sha256 (\w+)", re.MULTILINE)


def configuration(root: Path, stats_socket: str) -> dict[str, str]:
    """Digests of the configuration on disk and of the one that HAProxy loaded; empty where one cannot be read."""
    folder = stats_socket.rpartition("/")[0].lstrip("/")
    try:
        on_disk = _DIGEST.search((root / "etc/rackserve/gateway/haproxy.cfg").read_text("utf-8", "replace"))
        running = (root / folder / "rackserve.config-sha256").read_text("utf-8").strip()
    except OSError:
        return {}
    return {"wanted": on_disk[1], "running": running} if on_disk and running else {}


def held(root: Path, now_s: float) -> dict[str, Any]:
    """Who holds the lease, and for how long still; empty where nobody does."""
    try:
        found = lease.read(root / LEASE)
    except lease.LeaseError as problem:
        return {"problem": str(problem)}
    if found is None:
        return {}
    return {"owner": found.owner, "operation": found.operation, "left_s": round(found.expires_at - now_s),
            "age_s": round(now_s - found.acquired_at)}  # fmt: skip


def certificate(root: Path, now_s: float) -> dict[str, Any]:
    """Until when the gateway's certificate is good, read from its file; the key is read by nobody."""
    path = root / PEM
    shown = f"/{PEM}"
    try:
        text = path.read_text("ascii", "replace")
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        if begin not in text or end not in text:
            return {"path": shown, "problem": "it holds no certificate"}
        first = text[text.index(begin) : text.index(end) + len(end)] + "\n"
        until = not_after(ssl.PEM_cert_to_DER_cert(first))
    except OSError as problem:
        return {"path": shown, "problem": problem.strerror or str(problem)}
    except ValueError as problem:
        return {"path": shown, "problem": f"the certificate cannot be read ({problem})"}
    if "PRIVATE KEY" not in text:
        return {"path": shown, "problem": "it holds no private key"}
    shown_until = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(until))
    return {"path": shown, "not_after": shown_until, "left_s": round(until - now_s)}


_SEQUENCE, _UTC, _GENERAL, _LONG = 0x30, 0x17, 0x18, 0x80


def _part(data: bytes, at: int) -> tuple[int, int, int]:
    """(tag, where its content begins, where it ends) of a DER element. Raises ValueError."""
    try:
        tag, length, at = data[at], data[at + 1], at + 2
        if length & _LONG:
            count = length & ~_LONG
            length, at = int.from_bytes(data[at : at + count], "big"), at + count
    except IndexError:
        raise ValueError("it ends too early") from None
    if at + length > len(data):
        raise ValueError("it ends too early")
    return tag, at, at + length


def not_after(der: bytes) -> float:
    """When a certificate ends, seconds since the epoch: the one field that is needed of it. Raises ValueError."""
    _, at, _ = _part(der, 0)
    _, at, end = _part(der, at)
    while at < end:
        tag, content, after = _part(der, at)
        if tag == _SEQUENCE:
            first, begin, middle = _part(der, content) if content < after else (0, 0, 0)
            if first in (_UTC, _GENERAL):
                kind, begin, stop = _part(der, middle)
                return _moment(kind, der[begin:stop].decode("ascii", "replace"))
        at = after
    raise ValueError("it has no validity")


def _moment(kind: int, text: str) -> float:
    if kind == _UTC:
        text = ("20" if text[:2] < "50" else "19") + text
    return float(_calendar(time.strptime(text.rstrip("Z"), "%Y%m%d%H%M%S")))


def _calendar(moment: time.struct_time) -> int:
    import calendar  # noqa: PLC0415 - for one line

    return calendar.timegm(moment)
