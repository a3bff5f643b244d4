"""What gpu_settings reads and refuses on this machine's GPUs, beside `nvidia-smi -q -x`. It only reads.

python3 tests/device/gpu_settings_on_device.py              ask NVML and nvidia-smi
python3 tests/device/gpu_settings_on_device.py --xml FILE   take nvidia-smi's output from a file

Exit status 0: no field differs (clocks may move between two looks), and GPUs other than an A100 refuse 1215,1410. It
needs the standard library only. The driver's library is wrapped: a call that would set something ends the program.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "module_utils"))
from rackserve.gpu.settings.nvml import Nvml, NvmlError
from rackserve.gpu.settings.program import lines
from rackserve.gpu.settings.reading import Gpu, read_gpu, supported_text
from rackserve.gpu.settings.session import Outcome, read_wanted, settle
from rackserve.gpu.settings.smi import compare_readings, parse_smi

WRONG = {"application_clocks": {"memory_mhz": 1215, "graphics_mhz": 1410}}
EXAMPLE = {
    "persistence_mode": True,
    "power_limit_w": "default",
    "locked_graphics_clocks": {"low_mhz": "min", "high_mhz": "max"},
}


class ReadOnly(Nvml):
    """NVML without its setters."""

    def set(self, name: str, device: Any, *arguments: int) -> None:
        """End the program."""
        sys.exit(f"{name}{(device, *arguments)}: this program must not set anything")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def shown(value: Any) -> str:
    return "supported clocks" if isinstance(value, dict) else str(value)


def compare(ours: list[Gpu], theirs: list[Gpu]) -> int:
    """Print every field; the number of those that differ."""
    rows = compare_readings(ours, theirs)
    for index, name, one, other, verdict in rows:
        line = f"GPU {index} {name}: NVML {shown(one)}"
        say(f"{line} [{verdict}]" if verdict == "equal" else f"{line}, nvidia-smi {shown(other)} [{verdict}]")
    differing = [row for row in rows if row[4] == "differs"]
    say(f"{len(rows)} fields of {len(ours)} GPUs, {len(differing)} differ")
    return len(differing)


def would(nvml: Nvml, settings: dict[str, Any], count: int) -> Outcome:
    """What check mode says of settings, with records that nobody has."""
    wanted = read_wanted({"settings": settings, "gpus": [{"index": index, "units": []} for index in range(count)]})
    with tempfile.TemporaryDirectory() as folder:
        outcome = settle(wanted, nvml, Path(folder), lambda _units: [], check=True)
        assert not list(Path(folder).iterdir())
    say(f"check mode of {settings}:")
    for line in lines(wanted, outcome, check=True):
        say(f"  {line}")
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description="What gpu_settings reads and refuses here; nothing is set.")
    parser.add_argument("--xml", type=Path, help="output of nvidia-smi -q -x")
    given = parser.parse_args()
    nvml = ReadOnly()
    ours = [read_gpu(nvml, index) for index in range(nvml.count())]
    if given.xml:
        text = given.xml.read_text("utf-8")
    else:
        program = shutil.which("nvidia-smi") or "nvidia-smi"
        text = subprocess.run([program, "-q", "-x"], capture_output=True, text=True, check=True).stdout
    differing = compare(ours, parse_smi(text))
    for gpu in ours:
        say(f"GPU {gpu.index} ({gpu.name}) supports {supported_text(gpu)}")
        say(f"GPU {gpu.index} power limit range, mW: {gpu.power_range_mw}, default {gpu.power_default_mw}")
    refused = would(nvml, WRONG, len(ours)).refusals
    would(nvml, EXAMPLE, len(ours))
    expected = any("A100" not in gpu.name for gpu in ours)
    return 1 if differing or bool(refused) is not expected else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (NvmlError, ValueError) as problem:
        sys.exit(f"gpu_settings_on_device: {problem}")
