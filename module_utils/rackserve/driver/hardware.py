"""The GPUs that NVML lists against the hardware profile: number, model, memory, NVLinks, fabric."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..converge.host import Run, one_line
from ..preflight.findings import Finding, finding
from .host import Nvml

_GPUS = ["nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"]
_FABRIC = ["nvidia-smi", "--query-gpu=index,fabric.state,fabric.status", "--format=csv,noheader"]
_LINKS = ["nvidia-smi", "nvlink", "-s"]
_GPU_LINE = re.compile(r"GPU (\d+):")
_LINK_LINE = re.compile(r"\s+Link \d+: (?!<inactive>)")
_REGISTERED = ["Completed", "Success"]
_FIELDS = 3
# Drivers differ by some MiB in what they keep for themselves.
MEMORY_TOLERANCE = 0.02


def judge_hardware(run: Run, driver: Mapping[str, Any], nvml: Nvml) -> list[Finding]:
    """Compare what NVML lists with driver {gpus, expect {model, memory_mib, nvlinks, fabric}}; null: not compared."""
    expect = driver.get("expect") or {}
    if nvml.gpus != driver["gpus"]:
        why = f"NVML lists {nvml.gpus} GPUs, the hardware profile says {driver['gpus']}"
        fix = "nvidia-smi -L, lspci -d 10de: and journalctl -k (NVRM: Xid) name the one that is gone"
        return [finding("error", "gpu-count", "nvidia-smi", why, fix)]
    if not expect:
        return []
    return _models(run, expect) + _links(run, driver["gpus"], expect) + _fabric(run, expect)


def _rows(run: Run, command: list[str]) -> tuple[list[list[str]], list[Finding]]:
    code, out, err = run(command)
    rows = [[part.strip() for part in line.split(",")] for line in out.splitlines() if line.strip()]
    if code == 0 and all(len(row) == _FIELDS for row in rows):
        return rows, []
    why = f"exit status {code}: {one_line(f'{out} {err}')}"
    return [], [
        finding("error", "driver-silent", " ".join(command[:2]), why, "journalctl -k shows what the module says")
    ]


def _several(where: list[str]) -> str:
    return f"GPU {','.join(where)}"


def _models(run: Run, expect: Mapping[str, Any]) -> list[Finding]:
    rows, found = _rows(run, _GPUS)
    others: dict[str, list[str]] = {}
    less: dict[str, list[str]] = {}
    for index, name, memory in rows:
        if expect.get("model") and name != expect["model"]:
            others.setdefault(name, []).append(index)
        if expect.get("memory_mib") and _differs(memory, expect["memory_mib"]):
            less.setdefault(memory, []).append(index)
    for name, where in others.items():
        why = f"{name}, the hardware profile says {expect['model']}"
        found.append(finding("error", "gpu-model", _several(where), why, "correct cluster.hardware, or the machine"))
    for memory, where in less.items():
        why = f"{memory} MiB of memory, the hardware profile says {expect['memory_mib']} MiB"
        fix = "nvidia-smi -q -d MEMORY,ROW_REMAPPER shows why; MIG and vGPUs take a part"
        found.append(finding("error", "gpu-memory", _several(where), why, fix))
    return found


def _differs(memory: str, wanted_mib: int) -> bool:
    return not memory.isdigit() or abs(int(memory) - wanted_mib) > wanted_mib * MEMORY_TOLERANCE


def _links(run: Run, gpus: int, expect: Mapping[str, Any]) -> list[Finding]:
    """Active links of each GPU; a profile that says nothing of them asks for none."""
    if not expect.get("nvlinks"):
        return []
    _, out, _ = run(_LINKS)
    active: Counter[int] = Counter()
    gpu = -1
    for line in out.splitlines():
        heading = _GPU_LINE.match(line)
        gpu = int(heading.group(1)) if heading else gpu
        active[gpu] += bool(_LINK_LINE.match(line))
    counts: dict[int, list[str]] = {}
    for index in range(gpus):
        if active[index] != expect["nvlinks"]:
            counts.setdefault(active[index], []).append(str(index))
    fix = "nvidia-smi nvlink -s and -e show them; journalctl -k (NVRM: Xid 74) says since when"
    return [
        finding(
            "error",
            "nvlink-count",
            _several(where),
            f"{count} NVLinks are active, the hardware profile says {expect['nvlinks']}",
            fix,
        )
        for count, where in counts.items()
    ]


def _fabric(run: Run, expect: Mapping[str, Any]) -> list[Finding]:
    if not expect.get("fabric"):
        return []
    rows, found = _rows(run, _FABRIC)
    states: dict[str, list[str]] = {}
    for index, *state in rows:
        if state != _REGISTERED:
            states.setdefault(", ".join(state), []).append(index)
    fix = "systemctl status nvidia-fabricmanager.service and its log say why; CUDA does not start before"
    return found + [
        finding("error", "fabric-state", _several(where), f"not registered with the NVLink fabric: {state}", fix)
        for state, where in states.items()
    ]
