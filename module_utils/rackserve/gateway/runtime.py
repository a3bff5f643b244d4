"""HAProxy's runtime API: the socket, and what `show servers state` and `show stat` say."""

from __future__ import annotations

import csv
import io
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

Command = Callable[[str], str]

# Bits of srv_admin_state. 0x04 only remembers that the configuration said "disabled"; it keeps no traffic away.
FORCED_MAINT, INHERITED_MAINT, RESOLUTION_MAINT = 0x01, 0x02, 0x20
FORCED_DRAIN, INHERITED_DRAIN = 0x08, 0x10
MAINT = FORCED_MAINT | INHERITED_MAINT | RESOLUTION_MAINT
DRAIN = FORCED_DRAIN | INHERITED_DRAIN
NO_ADDRESS, NO_PORT = "0.0.0.0", 1  # noqa: S104  (a slot without an engine; nothing listens there)


class GatewayError(Exception):
    """The gateway could not be read or changed; one line says what, where and how to fix it."""


@dataclass(frozen=True)
class Server:
    """One server line as HAProxy runs it; `admin` is ready, drain or maint."""

    backend: str
    slot: str
    address: str
    port: int
    admin_bits: int

    @property
    def key(self) -> str:
        return f"{self.backend}/{self.slot}"

    @property
    def admin(self) -> str:
        if self.admin_bits & MAINT:
            return "maint"
        return "drain" if self.admin_bits & DRAIN else "ready"

    @property
    def empty(self) -> bool:
        return self.address == NO_ADDRESS


def socket_command(path: Path, timeout_s: float = 10.0) -> Command:
    """Return a function that sends one command to the stats socket and returns the answer.

    Raises GatewayError when the socket cannot be reached.
    """

    def command(text: str) -> str:
        chunks = []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(timeout_s)
                connection.connect(str(path))
                connection.sendall(text.encode() + b"\n")
                while True:
                    chunk = connection.recv(65536)
                    if not chunk:
                        break
                    chunks.append(chunk)
        except OSError as error:
            raise GatewayError(
                f"cannot ask HAProxy through {path}: {error}; is rackserve-gateway.service active?"
            ) from error
        return b"".join(chunks).decode()

    return command


def parse_servers_state(text: str) -> dict[str, Server]:
    """Read `show servers state` (version 1) into {"backend/slot": Server}.

    Raises GatewayError when the text has another version or lacks a column.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return {}
    if lines[0].strip() != "1" or not lines[1:] or not lines[1].startswith("#"):
        raise GatewayError(f"unknown server state format, starting with {lines[0][:60]!r}: expected version 1")
    columns = lines[1].lstrip("# ").split()
    servers = {}
    for line in lines[2:]:
        row = dict(zip(columns, line.split()))
        try:
            server = Server(
                row["be_name"], row["srv_name"], row["srv_addr"], int(row["srv_port"]), int(row["srv_admin_state"])
            )
        except (KeyError, ValueError) as error:
            raise GatewayError(f"cannot read the server state line {line[:80]!r}: {error}") from error
        servers[server.key] = server
    return servers


def intent_rows(text: str) -> str:
    """Keep from `show servers state` the rows that hold an intent: forced drain or maintenance of a filled slot.

    The other rows are left to the configuration and the probes. Kept, they would bring back on the next start or
    reload what the checks said when the file was written, and a port that has changed since.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    servers = parse_servers_state(text)
    kept = lines[:2]
    for line in lines[2:]:
        backend, slot = line.split()[1], line.split()[3]
        server = servers[f"{backend}/{slot}"]
        if not server.empty and server.admin_bits & (FORCED_MAINT | FORCED_DRAIN):
            kept.append(line)
    return "\n".join(kept) + "\n"


@dataclass(frozen=True)
class Load:
    """Sessions on a server now, requests waiting for it, and what its check said."""

    sessions: int
    queued: int
    status: str
    check: str


def parse_stat(text: str) -> dict[str, Load]:
    """Read `show stat` (CSV) into {"backend/slot": Load}; frontends and backend totals are left out."""
    rows = csv.DictReader(io.StringIO(text.lstrip("# ")))
    loads = {}
    for row in rows:
        if row["svname"] in ("FRONTEND", "BACKEND"):
            continue
        check = " ".join(part for part in (row.get("check_status"), row.get("last_chk")) if part)
        loads[f"{row['pxname']}/{row['svname']}"] = Load(
            int(row["scur"] or 0), int(row["qcur"] or 0), row["status"], check
        )
    return loads
