"""The driver's library (NVML) by ctypes, as far as settings need it: hosts have no pynvml before a release is there."""

from __future__ import annotations

import ctypes
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, INSUFFICIENT_SIZE, DRIVER_NOT_LOADED = 2, 3, 4, 7, 9
LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND, GPU_IS_LOST, VERSION_MISMATCH, DEPRECATED = 12, 13, 15, 18, 26
CLOCK_GRAPHICS, CLOCK_MEMORY = 0, 2
_TEXT_BYTES = 96
_LIST_LENGTH = 512
_WORDS = {
    NO_PERMISSION: "not permitted; run it as root",
    DRIVER_NOT_LOADED: "the kernel module nvidia is not loaded; modprobe nvidia",
    GPU_IS_LOST: "it fell off the bus: see journalctl -k -g 'NVRM: Xid'; drain the host, power it off and on",
    VERSION_MISMATCH: "library and kernel module are of different versions; drain the host and reboot it",
    DEPRECATED: "this driver no longer has it",
}


class NvmlError(Exception):
    """NVML refused: its return code, and one line."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Nvml:
    """One connection to the driver. Every method raises NvmlError."""

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError:
            text = f"{library} is not there; install the driver's packages of this release"
            raise NvmlError(LIBRARY_NOT_FOUND, text) from None
        self._ask("nvmlInit_v2")

    def _ask(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name, None)
        if function is None:
            raise NvmlError(FUNCTION_NOT_FOUND, f"this driver has no {name}")
        code = int(function(*arguments))
        if code:
            raise NvmlError(code, f"{name}: {_WORDS.get(code) or self._words(code)}")

    def _words(self, code: int) -> str:
        function = self._library.nvmlErrorString
        function.restype = ctypes.c_char_p
        text = function(ctypes.c_int(code)) or b""
        return str(text.decode("utf-8", "replace")) or f"error {code}"

    def count(self) -> int:
        """GPUs of the host."""
        number = ctypes.c_uint()
        self._ask("nvmlDeviceGetCount_v2", ctypes.byref(number))
        return number.value

    def device(self, index: int) -> ctypes.c_void_p:
        """The handle of a GPU, by its index in PCI order."""
        handle = ctypes.c_void_p()
        self._ask("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def text(self, name: str, device: ctypes.c_void_p) -> str:
        """One line of text, as nvmlDeviceGetUUID gives it."""
        buffer = ctypes.create_string_buffer(_TEXT_BYTES)
        self._ask(name, device, buffer, ctypes.c_uint(_TEXT_BYTES))
        return buffer.value.decode("utf-8", "replace")

    def number(self, name: str, device: ctypes.c_void_p, *arguments: int) -> int:
        """One number, as nvmlDeviceGetPowerManagementLimit (mW) gives it."""
        value = ctypes.c_uint()
        self._ask(name, device, *map(ctypes.c_uint, arguments), ctypes.byref(value))
        return value.value

    def wide(self, name: str, device: ctypes.c_void_p, *arguments: int) -> int:
        """One number of 64 bits."""
        value = ctypes.c_ulonglong()
        self._ask(name, device, *map(ctypes.c_uint, arguments), ctypes.byref(value))
        return value.value

    def pair(self, name: str, device: ctypes.c_void_p) -> tuple[int, int]:
        """Two numbers, as nvmlDeviceGetEccMode (current, pending) gives them."""
        first, second = ctypes.c_uint(), ctypes.c_uint()
        self._ask(name, device, ctypes.byref(first), ctypes.byref(second))
        return first.value, second.value

    def numbers(self, name: str, device: ctypes.c_void_p, *arguments: int) -> list[int]:
        """A list of numbers, as nvmlDeviceGetSupportedGraphicsClocks (MHz) gives it for a memory clock."""
        length = ctypes.c_uint(_LIST_LENGTH)
        values = (ctypes.c_uint * _LIST_LENGTH)()
        self._ask(name, device, *map(ctypes.c_uint, arguments), ctypes.byref(length), values)
        return list(values[: length.value])

    def users(self, device: ctypes.c_void_p) -> int:
        """Number of processes that compute on it."""
        length = ctypes.c_uint(0)
        try:
            self._ask("nvmlDeviceGetComputeRunningProcesses_v3", device, ctypes.byref(length), None)
        except NvmlError as error:
            if error.code != INSUFFICIENT_SIZE:
                raise
        return length.value

    def set(self, name: str, device: ctypes.c_void_p, *arguments: int) -> None:
        """Change something, as nvmlDeviceSetPowerManagementLimit (mW) does."""
        self._ask(name, device, *map(ctypes.c_uint, arguments))
