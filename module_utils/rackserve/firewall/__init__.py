"""Our own nftables table: its rules, how it is loaded without cutting anybody off, and who else filters here."""

from __future__ import annotations

from .apply import Armed, arm, confirm, live_digest, ssh_source
from .connection import fresh_ssh_argv
from .foreign import foreign_tables
from .rules import FirewallError, admits, build_rules

__all__ = [
    "Armed",
    "FirewallError",
    "admits",
    "arm",
    "build_rules",
    "confirm",
    "foreign_tables",
    "fresh_ssh_argv",
    "live_digest",
    "ssh_source",
]
