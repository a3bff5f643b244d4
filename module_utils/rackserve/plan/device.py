"""What engines run on: the hardware's device, or the release's where the hardware's GPUs are simulated."""

from __future__ import annotations

from typing import Any

from .findings import Findings

_WHERE = "cluster.simulated_hardware"


def check_device(
    release: dict[str, Any] | None, hardware: dict[str, Any] | None, simulated: bool, findings: Findings
) -> None:
    """Release and hardware fit, or the hardware's GPUs are simulated and engines run on CPUs."""
    if not release or not hardware:
        return
    if not simulated:
        if release["device"] != hardware["device"]:
            why = f"the release is for {release['device']}, the hardware is {hardware['device']}."
            findings.error("device-mismatch", "cluster.release", why, "Choose a release for this hardware.")
    elif hardware["device"] != "cuda":
        why = "the hardware profile has no GPU that could be simulated."
        findings.error("nothing-to-simulate", _WHERE, why, "Remove it, or choose a profile with GPUs.")
    elif release["device"] != "cpu":
        why = f"the GPUs are simulated, and engines of a release for {release['device']} need real ones."
        findings.error("simulated-needs-cpu-release", _WHERE, why, "Remove it, or choose a release for CPUs.")
    else:
        why = f"the GPUs ({hardware['gpu']}) are simulated; engines run on CPUs, speeds say nothing about GPUs."
        findings.note("simulated-hardware", _WHERE, why, "Remove it on real hardware.")


def engine_device(release: dict[str, Any] | None, hardware: dict[str, Any]) -> str:
    """cpu or cuda: what profiles, arguments, environments and units are for."""
    return str(release["device"] if release and hardware["simulated"] else hardware["device"])


def planned_hardware(name: str, hardware: dict[str, Any], simulated: bool) -> dict[str, Any]:
    """The profile as the plan carries it; ``golden_class`` is what recorded answers are of."""
    return {
        "id": name,
        "simulated": simulated,
        "golden_class": f"simulated-{name}" if simulated else name,
        **{key: value for key, value in hardware.items() if key not in _NOT_PLANNED},
    }


_NOT_PLANNED = ("machine", "sources", "cites")
"""Of a profile: for the lab, and for whoever asks why."""
