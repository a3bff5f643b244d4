"""Clocks, power limit and modes of the GPUs that the plan allocates: how they are described, and what is refused."""

from __future__ import annotations

from typing import Any

from .findings import Findings
from .schema import Field

WHERE = "cluster.gpu_settings"
_MHZ = (100, 20000)
# The application clocks of an A100 with 40 GB, which guides pass on for every GPU: (memory, graphics).
_A100_PAIR = (1215, 1410)


def _mhz(doc: str, *words: str) -> Field:
    return Field("amount", doc, required=True, choices=words, low=_MHZ[0], high=_MHZ[1])


def _range(doc: str) -> Field:
    keys = {
        "low_mhz": _mhz("Lowest clock, MHz; `min`: the lowest that the GPU supports.", "min", "max"),
        "high_mhz": _mhz("Highest clock, MHz; `max`: the highest that the GPU supports.", "min", "max"),
    }
    return Field("object", doc, nullable=True, keys=keys)


GPU_SETTINGS = Field(
    "object",
    "Settings of the GPUs that engines use; what is left out is left alone, or given back as it was before.",
    keys={
        "persistence_mode": Field("flag", "The driver keeps its state while nobody uses the GPU.", nullable=True),
        "power_limit_w": Field(
            "amount",
            "Power limit of one GPU, W; `default` and `max` are asked of the GPU.",
            nullable=True,
            choices=("default", "max"),
            low=1,
            high=5000,
        ),
        "application_clocks": Field(
            "object",
            "Clocks that computing aims at; newer drivers want locked ones in their place.",
            nullable=True,
            keys={
                "memory_mhz": _mhz("Memory clock, MHz; `max`: the highest that the GPU supports.", "max"),
                "graphics_mhz": _mhz("Graphics clock, MHz; `max`: the highest for this memory clock.", "max"),
            },
        ),
        "locked_graphics_clocks": _range("Range that the graphics clock is held in."),
        "locked_memory_clocks": _range("Range that the memory clock is held in."),
        "ecc": Field("flag", "Error correction; it changes with the next reboot, which we never do.", nullable=True),
    },
)


def build_gpu_settings(
    described: dict[str, Any], hardware: dict[str, Any] | None, findings: Findings
) -> dict[str, Any]:
    """The described settings, checked as far as that goes without a GPU; {} without any or with an error."""
    settings = {name: value for name, value in described["gpu_settings"].items() if value is not None}
    if not settings or not hardware or findings.broken(WHERE):
        return {}
    if hardware["device"] != "cuda":
        why = "the hardware profile has no GPU that could be set."
        findings.error("gpu-settings-without-gpu", WHERE, why, "Remove it, or choose a profile with GPUs.")
        return {}
    _check_power(settings, hardware, findings)
    _check_clocks(settings, hardware, findings)
    _check_modes(settings, described["driver"], findings)
    return {} if findings.broken(WHERE) else settings


def _check_power(settings: dict[str, Any], hardware: dict[str, Any], findings: Findings) -> None:
    asked, most = settings.get("power_limit_w"), hardware["power_limit_w"]
    if isinstance(asked, int) and most and asked > most:
        why = f"{asked} W; {hardware['gpu']} has {most} W by the hardware profile."
        findings.error("gpu-power-limit", f"{WHERE}.power_limit_w", why, f"Write at most {most}, `default` or `max`.")


def _check_clocks(settings: dict[str, Any], hardware: dict[str, Any], findings: Findings) -> None:
    application = settings.get("application_clocks")
    pair = (application["memory_mhz"], application["graphics_mhz"]) if application else None
    if pair == _A100_PAIR and "A100" not in str(hardware["gpu"]):
        why = f"1215,1410 are the clocks of an A100 with 40 GB; {hardware['gpu']} does not have them."
        fix = "Write {memory_mhz: max, graphics_mhz: max}; nvidia-smi -q -d SUPPORTED_CLOCKS lists them."
        findings.error("gpu-clocks-of-another", f"{WHERE}.application_clocks", why, fix)
    if application:
        why = "NVML has them until CUDA 13 and no longer."
        findings.note("gpu-clocks-deprecated", f"{WHERE}.application_clocks", why, "Use locked_graphics_clocks.")
    for name in ("locked_graphics_clocks", "locked_memory_clocks"):
        if name not in settings:
            continue
        low, high = settings[name]["low_mhz"], settings[name]["high_mhz"]
        if (isinstance(low, int) and isinstance(high, int) and low > high) or (low, high) == ("max", "min"):
            why = f"low_mhz {low} is above high_mhz {high}."
            findings.error("gpu-clock-range", f"{WHERE}.{name}", why, "Exchange them.")
        if application:
            why = "a locked clock overrides the application clock."
            findings.error("gpu-clocks-twice", f"{WHERE}.{name}", why, "Keep one of the two.")


def _check_modes(settings: dict[str, Any], driver: str, findings: Findings) -> None:
    spot = f"{WHERE}.persistence_mode"
    volatile = sorted(settings.keys() - {"persistence_mode", "ecc"})
    if settings.get("persistence_mode") is False:
        if volatile:
            why = f"without it the driver forgets {', '.join(volatile)} when the last process ends."
            findings.error("gpu-settings-forgotten", spot, why, "Remove it, or remove those.")
        elif driver == "release":
            why = "nvidia-persistenced, which comes with the release's driver, keeps it on."
            findings.error("gpu-persistence", spot, why, "Remove it.")
    if settings.get("ecc") is False:
        why = "flipped bits of memory become wrong answers that nobody sees."
        findings.warning("ecc-off", f"{WHERE}.ecc", why, "Remove it, or accept it in cluster.exceptions.")


def host_gpu_settings(
    settings: dict[str, Any], instances: list[dict[str, Any]], hardware: dict[str, Any] | None, on_host: bool
) -> dict[str, Any] | None:
    """One host's part: {settings, count, gpus: [{index, units}]}, of GPUs that the plan allocates there.

    None where the host has no GPU.
    Without settings too: what was there before them is given back, and not under an engine that runs.
    """
    if not on_host or not hardware or hardware["device"] != "cuda":
        return None
    units: dict[int, list[str]] = {}
    for instance in instances:
        for index in instance["gpu_ids"]:
            units.setdefault(index, []).append(instance["unit"])
    gpus = [{"index": index, "units": units[index]} for index in sorted(units)]
    return {"settings": settings, "count": hardware["slots"], "gpus": gpus}
