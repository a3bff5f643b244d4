"""More of NVML than settings need, on the same binding: structures, fields, NVLinks, the fabric, processes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from ..settings import nvml as base
from ..settings.nvml import DEPRECATED, FUNCTION_NOT_FOUND, INSUFFICIENT_SIZE, NOT_SUPPORTED, NvmlError

ARGUMENT_VERSION_MISMATCH, NOT_FOUND, NOT_READY = 25, 6, 27
# What a driver says of something that the GPU or the driver does not have.
ABSENT = (NOT_SUPPORTED, FUNCTION_NOT_FOUND, DEPRECATED)
UNAVAILABLE = 2**64 - 1
_TEXT_BYTES = 96
_MORE_PROCESSES = 8
_TRIES = 4
_Structure = TypeVar("_Structure", bound=ctypes.Structure)
_u8, _u32, _u64, _i32, _i64 = ctypes.c_uint8, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int32, ctypes.c_int64


class PciInfo(ctypes.Structure):
    """nvmlPciInfo_t of the third version."""

    _fields_ = (
        ("bus_id_legacy", ctypes.c_char * 16),
        ("domain", _u32),
        ("bus", _u32),
        ("device", _u32),
        ("device_id", _u32),
        ("subsystem_id", _u32),
        ("bus_id", ctypes.c_char * 32),
    )


class Memory(ctypes.Structure):
    """nvmlMemory_v2_t, bytes."""

    version_number = 2
    _fields_ = (("version", _u32), ("total", _u64), ("reserved", _u64), ("free", _u64), ("used", _u64))


class SramErrors(ctypes.Structure):
    """nvmlEccSramErrorStatus_v1_t."""

    version_number = 1
    _fields_ = (
        ("version", _u32),
        ("aggregate_parity", _u64),
        ("aggregate_secded", _u64),
        ("aggregate_correctable", _u64),
        ("volatile_parity", _u64),
        ("volatile_secded", _u64),
        ("volatile_correctable", _u64),
        ("sources", _u64 * 5),
        ("threshold_exceeded", _u32),
    )


class Histogram(ctypes.Structure):
    """nvmlRowRemapperHistogramValues_t: banks by the spare rows that they have left."""

    _fields_ = (("max", _u32), ("high", _u32), ("partial", _u32), ("low", _u32), ("none", _u32))


class Repair(ctypes.Structure):
    """nvmlRepairStatus_v1_t: repairs that wait for a reset."""

    version_number = 1
    _fields_ = (("version", _u32), ("channel", _u32), ("tpc", _u32))


class Margin(ctypes.Structure):
    """nvmlMarginTemperature_v1_t: degrees left to the limit."""

    version_number = 1
    _fields_ = (("version", _u32), ("degrees", _i32))


class Fabric(ctypes.Structure):
    """nvmlGpuFabricInfo_v3_t."""

    version_number = 3
    _fields_ = (
        ("version", _u32),
        ("cluster", _u8 * 16),
        ("status", _u32),
        ("clique", _u32),
        ("state", _u32),
        ("health_mask", _u32),
        ("health_summary", _u8),
    )


class FabricV2(ctypes.Structure):
    """nvmlGpuFabricInfo_v2_t, of drivers that do not know the third."""

    version_number = 2
    _fields_ = Fabric._fields_[:-1]


class FabricV1(ctypes.Structure):
    """nvmlGpuFabricInfo_t, of drivers before 550."""

    _fields_ = Fabric._fields_[1:5]


class ProcessInfo(ctypes.Structure):
    """nvmlProcessInfo_t."""

    _fields_ = (("pid", _u32), ("used_bytes", _u64), ("gpu_instance", _u32), ("compute_instance", _u32))


class _Value(ctypes.Union):
    _fields_ = (
        ("double", ctypes.c_double),
        ("unsigned", _u32),
        ("long", ctypes.c_ulong),
        ("wide", _u64),
        ("signed_wide", _i64),
        ("signed", _i32),
        ("short", ctypes.c_ushort),
    )


class _FieldValue(ctypes.Structure):
    _fields_ = (
        ("field", _u32),
        ("scope", _u32),
        ("timestamp", _i64),
        ("latency_us", _i64),
        ("kind", _u32),
        ("code", _u32),
        ("value", _Value),
    )


_KINDS = ("double", "unsigned", "long", "wide", "signed_wide", "signed", "short")


class Use(NamedTuple):
    """A process on a GPU; ``used_bytes`` None where the driver does not say."""

    pid: int
    used_bytes: int | None


class Nvml(base.Nvml):
    """One connection to the driver, to look at GPUs. Every method raises NvmlError."""

    def fill(self, name: str, device: Any, structure: _Structure, *arguments: int) -> _Structure:
        """A structure, its version written first where it has one."""
        number = getattr(type(structure), "version_number", None)
        if number is not None:
            structure.version = ctypes.sizeof(structure) | number << 24
        self._ask(name, device, *map(ctypes.c_uint, arguments), ctypes.byref(structure))
        return structure

    def system_text(self, name: str) -> str:
        """One line about the host, as nvmlSystemGetDriverVersion gives it."""
        buffer = ctypes.create_string_buffer(_TEXT_BYTES)
        self._ask(name, buffer, ctypes.c_uint(_TEXT_BYTES))
        return buffer.value.decode("utf-8", "replace")

    def cuda_version(self) -> str:
        """The CUDA version that the driver can do, such as 13.0."""
        number = ctypes.c_int()
        self._ask("nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    def field(self, number: int, device: Any, scope: int = 0) -> int:
        """A field value, by the type that NVML says it has."""
        [(code, value)] = self.fields([(number, scope)], device)
        if code:
            raise NvmlError(code, f"field {number}: {self.words(code)}")
        return value

    def fields(self, wanted: Sequence[tuple[int, int]], device: Any) -> list[tuple[int, int]]:
        """(return code, value) of each (field, scope), in one call; the value is 0 where there is a code."""
        asked = (_FieldValue * len(wanted))(*[_FieldValue(field=number, scope=scope) for number, scope in wanted])
        self._ask("nvmlDeviceGetFieldValues", device, ctypes.c_int(len(wanted)), asked)
        return [(int(one.code), 0 if one.code else _number(one)) for one in asked]

    def words(self, code: int) -> str:
        """A return code in NVML's words."""
        return self._words(code)

    def four(self, name: str, device: Any) -> tuple[int, int, int, int]:
        """Four numbers, as nvmlDeviceGetRemappedRows gives them."""
        values = [ctypes.c_uint() for _ in range(4)]
        self._ask(name, device, *map(ctypes.byref, values))
        first, second, third, fourth = (value.value for value in values)
        return first, second, third, fourth

    def bus_id(self, device: Any) -> str:
        """A PCI address in NVML's form, such as 00000000:18:00.0."""
        return _ascii(self.fill("nvmlDeviceGetPciInfo_v3", device, PciInfo()).bus_id)

    def link_remote(self, device: Any, link: int) -> str:
        """The PCI address of what an NVLink leads to."""
        return _ascii(self.fill("nvmlDeviceGetNvLinkRemotePciInfo_v2", device, PciInfo(), link).bus_id)

    def clock_reasons(self, device: Any) -> int:
        """The mask of what holds clocks down now, by its name of driver 535 and newer, else by the older one."""
        try:
            return self.wide("nvmlDeviceGetCurrentClocksEventReasons", device)
        except NvmlError as error:
            if error.code not in ABSENT:
                raise
        return self.wide("nvmlDeviceGetCurrentClocksThrottleReasons", device)

    def fabric(self, device: Any) -> Fabric:
        """The fabric's state, in the newest form that the driver knows; what that lacks is 0."""
        for kind in (Fabric, FabricV2):
            try:
                return _as_newest(self.fill("nvmlDeviceGetGpuFabricInfoV", device, kind()))
            except NvmlError as error:
                if error.code not in (FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH):
                    raise
        return _as_newest(self.fill("nvmlDeviceGetGpuFabricInfo", device, FabricV1()))

    def processes(self, name: str, device: Any) -> list[Use]:
        """Processes, as nvmlDeviceGetComputeRunningProcesses_v3 gives them; their number may grow while it is asked."""
        length = ctypes.c_uint(0)
        for _ in range(_TRIES):
            values = (ProcessInfo * max(length.value, 1))()
            try:
                self._ask(name, device, ctypes.byref(length), values if length.value else None)
            except NvmlError as error:
                if error.code != INSUFFICIENT_SIZE:
                    raise
                length = ctypes.c_uint(length.value + _MORE_PROCESSES)
                continue
            return [
                Use(int(one.pid), None if one.used_bytes == UNAVAILABLE else int(one.used_bytes))
                for one in values[: length.value]
            ]
        raise NvmlError(INSUFFICIENT_SIZE, f"{name}: more processes came than it could list")

    def process_name(self, pid: int) -> str:
        """The command of a process on a GPU."""
        buffer = ctypes.create_string_buffer(_TEXT_BYTES)
        self._ask("nvmlSystemGetProcessName", ctypes.c_uint(pid), buffer, ctypes.c_uint(_TEXT_BYTES))
        return buffer.value.decode("utf-8", "replace")


def _number(value: _FieldValue) -> int:
    return int(getattr(value.value, _KINDS[value.kind] if value.kind < len(_KINDS) else "wide"))


def _ascii(given: bytes) -> str:
    return given.decode("ascii", "replace")


def _as_newest(info: ctypes.Structure) -> Fabric:
    names = [field[0] for field in info._fields_ if field[0] != "version"]
    return Fabric(**{name: getattr(info, name) for name in names})
