"""Whether a topology may be given to NCCL: what a trial on the host's own GPUs showed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..preflight.findings import Finding, finding
from ..rdma.sysfs import text
from . import sysfs
from .document import PASSING, TopologyError, differences, read, walk
from .lint import errors, lint
from .parser import Refused

DEFAULT, INJECTED = "default", "injected"
# Slower by more is refused; faster by more is what `measure` asks for. Shares of the default's time.
_TOLERANCE, _GAIN = 0.03, 0.03
_FIX = "leave the host to NCCL's own detection; the record of the trial is beside observed.xml"


def judge_trial(
    root: Path, candidate: str, result: Mapping[str, Any], dumps: Mapping[str, str], use: str
) -> tuple[bool, list[Finding]]:
    """(whether NCCL is given `candidate`, findings).

    result: what the role's all_reduce.py wrote for the variants `default` and `injected`; dumps: the topologies NCCL
    found under each. use: `inject` takes it unless it is slower, `measure` only where it is faster. An error finding
    says why it is not taken, a note what was measured.
    """
    found = [*_readable(root, candidate), *_came_up(result)]
    if found:
        return False, found
    found = [*_same_devices(dumps)]
    shares = _shares(result)
    slower = {size: share for size, share in shares.items() if share > 1 + _TOLERANCE}
    faster = {size: share for size, share in shares.items() if share < 1 - _GAIN}
    for size, share in slower.items():
        why = f"with it an all-reduce of {size} bytes takes {share:.2f} times as long"
        found.append(finding("error", "topology-slower", "topology", why, _FIX))
    if use == "measure" and not faster and not slower:
        said = ", ".join(f"{size} bytes {share:.2f}" for size, share in shares.items())
        why = f"it gains nothing: times as shares of the default's are {said}"
        found.append(finding("note", "topology-no-gain", "topology", why, "nothing to do"))
    refused = any(item["severity"] == "error" for item in found)
    return not refused and (use == "inject" or bool(faster)), found


def _readable(root: Path, candidate: str) -> list[Finding]:
    lines = errors(lint(candidate))
    if lines:
        return [finding("error", "topology-refused", "topology", f"NCCL cannot read it: {lines[0]}", _FIX)]
    found = []
    seen: set[str] = set()
    for element in walk(read(candidate)):
        busid = element.attributes.get("busid", "")
        if element.name != "pci":
            continue
        path = sysfs.device_path(root, busid)
        where = f"PCI device {busid}"
        if busid in seen:
            found.append(finding("error", "topology-twice", where, "it stands in the topology twice", _FIX))
        elif path is None and not busid.startswith("ffff:"):
            found.append(finding("error", "topology-stale", where, "it is not on this host", _FIX))
        elif path is not None and text(path / "class") != element.attributes.get("class"):
            why = f"its class is {text(path / 'class')}, the topology says {element.attributes.get('class')}"
            found.append(finding("error", "topology-stale", where, why, _FIX))
        seen.add(busid)
    return found


def _came_up(result: Mapping[str, Any]) -> list[Finding]:
    found = []
    for name in (DEFAULT, INJECTED):
        variant = result["variants"].get(name) or {"error": "it was not measured"}
        if variant["error"] or not variant.get("sizes"):
            last = (str(variant["error"]).strip().splitlines() or ["it was not measured"])[-1]
            found.append(finding("error", "trial-failed", f"trial {name}", f"NCCL did not come up: {last}", _FIX))
    return found


def _same_devices(dumps: Mapping[str, str]) -> list[Finding]:
    """NCCL has to find the same GPUs, adapters and NVLinks with it as without it."""
    try:
        before, after = (read(dumps[name]) for name in (DEFAULT, INJECTED))
    except (KeyError, Refused, TopologyError) as problem:
        return [finding("error", "trial-without-dump", "trial", f"NCCL's own dump is missing: {problem}", _FIX)]
    if sorted(_ends(before)) != sorted(_ends(after)):
        lost = differences(before, after)
        why = f"with it NCCL finds other devices: {'; '.join(lost[:3])}"
        return [finding("error", "topology-other-devices", "topology", why, _FIX)]
    changed = differences(before, after, without=(*PASSING, "link_speed"))
    if changed:
        why = f"with it NCCL sees {len(changed)} differences: {'; '.join(changed[:3])}"
        return [finding("note", "topology-changes", "topology", why, "nothing to do, if that was meant")]
    return []


def _ends(tree: Any) -> list[tuple[str, ...]]:
    def text(element: Any) -> tuple[str, ...]:
        return element.name, *(f"{k}={v}" for k, v in sorted(element.attributes.items()) if k not in PASSING)

    return [text(element) for element in walk(tree) if element.name in ("gpu", "net", "nvlink", "c2c")]


def _shares(result: Mapping[str, Any]) -> dict[str, float]:
    """Bytes to the time with the topology, as a share of the default's."""
    before, after = (result["variants"][name]["sizes"] for name in (DEFAULT, INJECTED))
    return {size: after[size]["median_us"] / before[size]["median_us"] for size in before if size in after}
