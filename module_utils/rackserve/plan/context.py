"""What every step of one compile needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .catalog import Library
from .device import engine_device
from .findings import Findings
from .inventory import Inventory


@dataclass
class Context:
    """The description, the library and what was read of both so far."""

    described: dict[str, Any]
    catalog: Library
    inventory: Inventory
    findings: Findings
    release: dict[str, Any] | None
    hardware: dict[str, Any] | None
    options: dict[str, list[str] | None] | None
    driver: dict[str, Any] | None
    cuda: dict[str, Any] | None
    gpu_settings: dict[str, Any]
    fabric: dict[str, Any] | None
    distributions: list[str]

    @property
    def device(self) -> str:
        """What engines run on."""
        return engine_device(self.release, self.hardware) if self.hardware else ""
