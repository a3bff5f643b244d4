"""What one GPU is set to and what it supports, read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Protocol, TypeVar

from .nvml import CLOCK_GRAPHICS, CLOCK_MEMORY, DEPRECATED, FUNCTION_NOT_FOUND, NOT_SUPPORTED, NvmlError

_ABSENT = (NOT_SUPPORTED, FUNCTION_NOT_FOUND, DEPRECATED)
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Gpu:
    """One GPU. None where it (or its driver) does not have the thing; clocks are MHz, power is mW.

    ``supported`` are graphics clocks by memory clock, highest first; ``reasons`` is NVML's mask of what holds clocks.
    """

    index: int
    uuid: str
    name: str
    persistence_mode: bool | None = None
    power_limit_mw: int | None = None
    power_default_mw: int | None = None
    power_range_mw: tuple[int, int] | None = None
    application_clocks: tuple[int, int] | None = None
    application_default: tuple[int, int] | None = None
    graphics_mhz: int | None = None
    memory_mhz: int | None = None
    ecc: tuple[bool, bool] | None = None
    reasons: int = 0
    supported: dict[int, list[int]] = field(default_factory=dict)


class Library(Protocol):
    """What of NVML is read; `Nvml` is the real one."""

    def count(self) -> int:
        """GPUs of the host."""

    def device(self, index: int) -> Any:
        """A GPU's handle."""

    def text(self, name: str, device: Any) -> str:
        """One line."""

    def number(self, name: str, device: Any, *arguments: int) -> int:
        """One number."""

    def wide(self, name: str, device: Any) -> int:
        """One number of 64 bits."""

    def pair(self, name: str, device: Any) -> tuple[int, int]:
        """Two numbers."""

    def numbers(self, name: str, device: Any, *arguments: int) -> list[int]:
        """A list of numbers."""

    def users(self, device: Any) -> int:
        """Processes that compute on it."""

    def set(self, name: str, device: Any, *arguments: int) -> None:
        """Change something."""


def uuid_of(nvml: Library, index: int) -> str:
    """A GPU's UUID; empty where it cannot be asked, as one that is lost."""
    try:
        return nvml.text("nvmlDeviceGetUUID", nvml.device(index))
    except NvmlError:
        return ""


def read_gpu(nvml: Library, index: int) -> Gpu:
    """Read one GPU. Raises NvmlError where the GPU cannot be asked at all."""
    device = nvml.device(index)

    def number(name: str, *arguments: int) -> int | None:
        return _or_none(nvml.number, f"nvmlDeviceGet{name}", device, *arguments)

    def pair(name: str) -> tuple[int, int] | None:
        return _or_none(nvml.pair, f"nvmlDeviceGet{name}", device)

    persistence, ecc = number("PersistenceMode"), pair("EccMode")
    return Gpu(
        index=index,
        uuid=nvml.text("nvmlDeviceGetUUID", device),
        name=nvml.text("nvmlDeviceGetName", device),
        persistence_mode=None if persistence is None else bool(persistence),
        power_limit_mw=number("PowerManagementLimit"),
        power_default_mw=number("PowerManagementDefaultLimit"),
        power_range_mw=pair("PowerManagementLimitConstraints"),
        application_clocks=_both(
            number("ApplicationsClock", CLOCK_MEMORY), number("ApplicationsClock", CLOCK_GRAPHICS)
        ),
        application_default=_both(
            number("DefaultApplicationsClock", CLOCK_MEMORY), number("DefaultApplicationsClock", CLOCK_GRAPHICS)
        ),
        graphics_mhz=number("ClockInfo", CLOCK_GRAPHICS),
        memory_mhz=number("ClockInfo", CLOCK_MEMORY),
        ecc=None if ecc is None else (bool(ecc[0]), bool(ecc[1])),
        reasons=_reasons(nvml, device),
        supported=_supported(nvml, device),
    )


def _or_none(read: Callable[..., _Read], *arguments: Any) -> _Read | None:
    try:
        return read(*arguments)
    except NvmlError as error:
        if error.code in _ABSENT:
            return None
        raise


def _both(memory: int | None, graphics: int | None) -> tuple[int, int] | None:
    return None if memory is None or graphics is None else (memory, graphics)


def _reasons(nvml: Library, device: Any) -> int:
    """By its name of driver 535 and newer, else by the older one."""
    mask = _or_none(nvml.wide, "nvmlDeviceGetCurrentClocksEventReasons", device)
    if mask is None:
        mask = _or_none(nvml.wide, "nvmlDeviceGetCurrentClocksThrottleReasons", device)
    return mask or 0


def _supported(nvml: Library, device: Any) -> dict[int, list[int]]:
    memory = _or_none(nvml.numbers, "nvmlDeviceGetSupportedMemoryClocks", device) or []
    name = "nvmlDeviceGetSupportedGraphicsClocks"
    return {clock: _or_none(nvml.numbers, name, device, clock) or [] for clock in memory}


def clocks_text(clocks: list[int]) -> str:
    """Clocks in MHz, ascending, runs of one step folded: `345 to 1980 step 15`."""
    ordered = sorted(set(clocks))
    parts: list[str] = []
    start = 0
    while start < len(ordered):
        end = start + 1
        step = ordered[end] - ordered[start] if end < len(ordered) else 0
        while end + 1 < len(ordered) and ordered[end + 1] - ordered[end] == step:
            end += 1
        if end - start > 1 and end < len(ordered):
            parts.append(f"{ordered[start]} to {ordered[end]} step {step}")
            start = end + 1
        else:
            parts.append(str(ordered[start]))
            start += 1
    return ", ".join(parts) or "none"


def supported_text(gpu: Gpu) -> str:
    """Every pair of clocks that the GPU supports, on one line."""
    rows = [f"memory {memory} with graphics {clocks_text(graphics)}" for memory, graphics in gpu.supported.items()]
    return f"{'; '.join(rows)} MHz" if rows else "none that it would name"
