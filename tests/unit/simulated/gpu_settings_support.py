"""A host with simulated GPUs whose compiled NVML is loaded into the test's own process."""

from __future__ import annotations

import json
import shutil
from typing import Any

from driver_support import Host
from rackserve.gpu.settings.nvml import Nvml
from rackserve.gpu.settings.reading import Gpu, read_gpu
from rackserve.gpu.settings.record import PRIOR_FILE
from rackserve.gpu.settings.session import Outcome, read_wanted, settle

UNITS = ["vllm-x-0.service"]
SETTINGS: dict[str, Any] = {
    "persistence_mode": True,
    "power_limit_w": 450,
    "locked_graphics_clocks": {"low_mhz": 1200, "high_mhz": 1830},
    "locked_memory_clocks": {"low_mhz": "max", "high_mhz": "max"},
    "ecc": False,
}
APPLICATION: dict[str, Any] = {"application_clocks": {"memory_mhz": "max", "graphics_mhz": 1830}}


class Bench:
    """A host with four simulated H100 whose library is loaded into this process."""

    def __init__(self, host: Host) -> None:
        self.host, self.root = host, host.root
        self.running: list[str] = []

    @property
    def nvml(self) -> Nvml:
        return Nvml(str(self.host.driver / "libnvidia-ml.so.1"))

    def go(
        self, settings: dict[str, Any] | None = None, gpus: tuple[int, ...] = (0, 1), check: bool = False
    ) -> Outcome:
        wanted = {
            "settings": SETTINGS if settings is None else settings,
            "gpus": [{"index": index, "units": UNITS} for index in gpus],
            "simulated": True,
        }
        running = lambda units: [unit for unit in units if unit in self.running]  # noqa: E731 - one expression
        return settle(read_wanted(wanted), self.nvml, self.root, running, check=check, sleep=lambda _seconds: None)

    def gpu(self, index: int = 0) -> Gpu:
        return read_gpu(self.nvml, index)

    def record(self) -> dict[str, Any]:
        path = self.root / PRIOR_FILE.lstrip("/")
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def reboot(self) -> None:
        """Lost: the driver's settings and everything in /run; a pending ECC mode becomes the current."""
        version = self.host.state()["module.version"]
        pending = self.host.state("var/lib/rackserve-simulated")
        shutil.rmtree(self.root / "run")
        (self.root / "run/rackserve-simulated").mkdir(parents=True)
        modes = {
            key.replace("pending", "current"): mode for key, mode in pending.items() if key.endswith("ecc.pending")
        }
        self.host.set({"module.version": version, **modes})
