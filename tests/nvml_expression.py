"""Evaluates what the catalogue of faults gives for NVML; runs on lab hosts and beside a built driver."""

from __future__ import annotations

import json
import os
import sys

SIMULATED = "/usr/lib/nvidia-smi-simulated"


def evaluate(expressions: list[str]) -> list[str]:
    """What each expression gives; the name of the exception where it raises one."""
    if os.path.isdir(SIMULATED):  # noqa: PTH112 - nothing but the interpreter is known here
        sys.path.insert(0, SIMULATED)
    import pynvml  # noqa: PLC0415 - where it lies is known now

    def fabric(handle: object) -> object:
        info = pynvml.c_nvmlGpuFabricInfo_t()
        pynvml.nvmlDeviceGetGpuFabricInfo(handle, pynvml.byref(info))
        return info

    names = {**vars(pynvml), "handle": pynvml.nvmlDeviceGetHandleByIndex, "fabric": fabric}
    results = []
    for expression in ["nvmlInit()", *expressions]:
        try:
            results.append(str(eval(expression, names)))  # noqa: S307 - from our own catalogue
        except pynvml.NVMLError as error:
            results.append(type(error).__name__)
    return results[1:]


if __name__ == "__main__":
    print(json.dumps(evaluate(json.loads(sys.argv[1]))))  # noqa: T201 - its answer
