"""A GPU as NVML shows it. Every reading becomes text, errors too, as nvidia-smi prints them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pynvml

MIB = 1024 * 1024
NOT_AVAILABLE = "N/A"
# What a call that fails leaves in a table; anything else is an unknown error.
ERROR_TEXTS = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: NOT_AVAILABLE,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: NOT_AVAILABLE,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH: NOT_AVAILABLE,
    pynvml.NVML_ERROR_NOT_FOUND: NOT_AVAILABLE,
    pynvml.NVML_ERROR_NOT_READY: NOT_AVAILABLE,
    pynvml.NVML_ERROR_DEPRECATED: "Requested functionality has been deprecated",
    pynvml.NVML_ERROR_GPU_IS_LOST: "GPU is lost",
    pynvml.NVML_ERROR_RESET_REQUIRED: "GPU requires reset",
    pynvml.NVML_ERROR_NO_PERMISSION: "Insufficient Permissions",
}
UNKNOWN_ERROR = "Unknown Error"


def bare(text: str) -> str:
    """NVML's text of an error, without the word that it is a simulated one."""
    return text.replace(" (simulated)", "")


def error_text(error: Any) -> str:
    return ERROR_TEXTS.get(error.value, UNKNOWN_ERROR)


class Gpu:
    """A device handle and short ways to ask it."""

    def __init__(self, handle: Any, index: int) -> None:
        self.handle = handle
        self.index = index

    @property
    def bus_id(self) -> str:
        return str(self.ask("PciInfo_v3").busId)

    def ask(self, name: str, *arguments: Any) -> Any:
        """Result of ``nvmlDeviceGet<name>``. A binding that does not know the call is like a library without it."""
        call = getattr(pynvml, f"nvmlDeviceGet{name}", None)
        if call is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return call(self.handle, *arguments)

    def fill(self, name: str, structure: str) -> Any:
        """Result of a call that fills a structure of the caller's (``c_nvml<structure>_t``)."""
        kind = getattr(pynvml, f"c_nvml{structure}_t", None)
        if kind is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        filled = kind()
        returned = self.ask(name, pynvml.byref(filled))
        if returned:  # some of the calls give the code back instead of raising it
            raise pynvml.NVMLError(returned)
        return filled

    def field(self, field: int, scope: int = 0) -> int:
        """A field value, as the type says that NVML gave it."""
        value = self.ask("FieldValues", [(field, scope)])[0]
        if value.nvmlReturn:
            raise pynvml.NVMLError(value.nvmlReturn)
        names = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal"}
        return int(getattr(value.value, names.get(value.valueType, "ullVal")))

    def text(self, read: Callable[[Gpu], str]) -> str:
        try:
            return read(self)
        except pynvml.NVMLError as error:
            return error_text(error)


def gpus() -> list[Gpu]:
    """All GPUs; raises NVMLError for one whose handle cannot be had."""
    return [Gpu(pynvml.nvmlDeviceGetHandleByIndex(index), index) for index in range(pynvml.nvmlDeviceGetCount())]
