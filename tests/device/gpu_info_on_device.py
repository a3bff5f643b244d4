"""What gpu_info reads on this machine's GPUs, beside `nvidia-smi -q -x`, `nvlink -s` and `nvlink -R`. It only reads.

python3 tests/device/gpu_info_on_device.py              ask NVML and nvidia-smi
python3 tests/device/gpu_info_on_device.py --json FILE  keep what gpu_info says, too

Exit status 0: no field differs (fields that follow the load may move between two looks), every null has its reason, and
nothing is left unknown. It needs the standard library only. The driver's library is wrapped: a call that would set
something ends the program.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "module_utils"))
from rackserve.gpu.info import smi
from rackserve.gpu.info.facts import gpu_info
from rackserve.gpu.info.nvml import Nvml
from rackserve.gpu.settings.nvml import NvmlError

REMOTE = re.compile(r"\s+Link (\d+): Remote Device ([0-9A-Fa-f]+:[0-9A-Fa-f]+:[0-9A-Fa-f]+\.[0-9A-Fa-f]+)")


class ReadOnly(Nvml):
    """NVML without its setters."""

    def set(self, name: str, device: Any, *arguments: int) -> None:
        """End the program."""
        sys.exit(f"{name}{(device, *arguments)}: this program must not set anything")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def ask(*words: str) -> str:
    """Output of nvidia-smi; empty where this one does not know the question."""
    program = shutil.which("nvidia-smi") or "nvidia-smi"
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 90 else f"{text[:60]}... ({len(text)} characters)"


def compare_fields(gpus: list[dict[str, Any]]) -> int:
    """Print every field; the number of those that differ."""
    rows = smi.compare(gpus, ask("-q", "-x"))
    for row in rows:
        theirs = "" if row.verdict in ("equal", "not shown") else f", nvidia-smi {shown(row.theirs)}"
        say(f"GPU {row.gpu} {row.field}: NVML {shown(row.ours)}{theirs} [{row.verdict}]")
    counts = {word: sum(row.verdict == word for row in rows) for word in ("equal", "moves", "not shown", "differs")}
    say(f"{len(rows)} fields of {len(gpus)} GPUs: " + ", ".join(f"{number} {word}" for word, number in counts.items()))
    return counts["differs"]


def compare_rest(gpus: list[dict[str, Any]]) -> int:
    """Compute capability and NVLinks, which `-q -x` does not show; the number of those that differ."""
    wrong = 0
    capabilities = ask("--query-gpu=compute_cap", "--format=csv,noheader").split()
    active, remotes = smi.active_links(ask("nvlink", "-s")), remote_addresses(ask("nvlink", "-R"))
    for gpu in gpus:
        index = gpu["index"]
        links = [link for link in gpu["nvlinks"] or [] if link["active"]]
        pairs = [("compute_capability", gpu["compute_capability"], capabilities[index : index + 1])]
        pairs.append(("active NVLinks", len(links), [active[index]] if index in active else []))
        pairs += [
            (f"remote of link {link['link']}", link["remote_bus_id"], [remotes[index, link["link"]]])
            for link in links
            if (index, link["link"]) in remotes
        ]
        for what, ours, theirs in pairs:
            verdict = "not shown" if not theirs else "equal" if same(ours, theirs[0]) else "differs"
            wrong += verdict == "differs"
            say(f"GPU {index} {what}: NVML {ours}" + (f", nvidia-smi {theirs[0]}" if theirs else "") + f" [{verdict}]")
    return wrong


def same(ours: Any, theirs: Any) -> bool:
    return str(ours).upper() == str(theirs).upper()


def remote_addresses(text: str) -> dict[tuple[int, int], str]:
    """(GPU, link) to the address at its other end, of `nvidia-smi nvlink -R`."""
    found: dict[tuple[int, int], str] = {}
    gpu = -1
    for line in text.splitlines():
        start, link = re.match(r"GPU (\d+):", line), REMOTE.match(line)
        if start:
            gpu = int(start.group(1))
        elif link:
            found[gpu, int(link.group(1))] = link.group(2)
    return found


def nulls(value: Any, above: str = "") -> list[str]:
    """Paths of everything that is null."""
    if value is None:
        return [above]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, one in pairs for path in nulls(one, f"{above}.{key}".lstrip("."))]


def unexplained(gpus: list[dict[str, Any]]) -> int:
    """Print every null with its reason; the number of those without one."""
    wrong = 0
    for gpu in gpus:
        reasons = {entry["field"]: entry["reason"] for entry in gpu["unread"]}
        for path in nulls({key: value for key, value in gpu.items() if key != "unread"}):
            wrong += path not in reasons
            say(f"GPU {gpu['index']} {path} is null: {reasons.get(path, 'WITHOUT A REASON')}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="What gpu_info reads here; nothing is set.")
    parser.add_argument("--json", type=Path, help="file for what gpu_info says")
    given = parser.parse_args()
    start = time.monotonic()
    said = gpu_info(ReadOnly)
    took_ms = (time.monotonic() - start) * 1000
    if given.json:
        given.json.write_text(json.dumps(said, indent=1), "utf-8")
    differing = compare_fields(said["gpus"]) + compare_rest(said["gpus"])
    unknown = unexplained(said["gpus"])
    for found in said["findings"]:
        say(f"{found['severity']} {found['code']} {found['where']}: {found['why']}; {found['fix']}")
    say(f"driver {said['driver_version']}, NVML {said['nvml_version']}, CUDA {said['cuda_version']}")
    say(
        f"{len(said['gpus'])} GPUs read in {took_ms:.0f} ms: {differing} differ, {unknown} nulls without a reason, "
        f"{len(said['findings'])} findings"
    )
    return 1 if differing or unknown or said["findings"] or not said["gpus"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (NvmlError, ValueError) as problem:
        sys.exit(f"gpu_info_on_device: {problem}")
