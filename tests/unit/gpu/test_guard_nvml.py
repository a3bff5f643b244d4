"""How the guard asks pynvml, with a module in its place that records what it is asked."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from gpu_support import MIB
from rackserve.gpu import guard
from rackserve.gpu.guard import Nvml, NvmlError, Use


class FakeNvmlError(Exception):
    """As pynvml's: the code is `value`."""

    def __init__(self, value: int) -> None:
        super().__init__(f"code {value}")
        self.value = value


def process(pid: int, mib: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=None if mib is None else mib * MIB)


@pytest.fixture
def pynvml(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """One GPU with a computing process that also draws, and one that only draws; no MPS."""
    fake: Any = ModuleType("pynvml")

    def refuse(code: int) -> Any:
        def call(*_arguments: Any) -> None:
            raise FakeNvmlError(code)

        return call

    fake.NVMLError, fake.nvmlMemory_v2, fake.refuse = FakeNvmlError, 0x02000028, refuse
    fake.nvmlInit = lambda: None
    fake.nvmlDeviceGetCount = lambda: 1
    fake.nvmlDeviceGetHandleByIndex = lambda index: f"handle {index}"
    fake.nvmlDeviceGetUUID = lambda _handle: "GPU-1"
    memory = SimpleNamespace(total=100 * MIB, reserved=1 * MIB, used=9 * MIB, free=90 * MIB)
    fake.nvmlDeviceGetMemoryInfo = lambda _handle, version: {fake.nvmlMemory_v2: memory}[version]
    fake.nvmlDeviceGetComputeRunningProcesses_v3 = lambda _handle: [process(7, 5)]
    fake.nvmlDeviceGetGraphicsRunningProcesses_v3 = lambda _handle: [process(7, 5), process(8, None)]
    fake.nvmlDeviceGetMPSComputeRunningProcesses_v3 = refuse(guard.NOT_SUPPORTED)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


@pytest.mark.usefixtures("pynvml")
def test_a_gpu_is_read_with_all_that_use_it() -> None:
    reader = Nvml()
    assert reader.count() == 1
    seen = reader.gpu(0)
    assert (seen.index, seen.uuid) == (0, "GPU-1")
    assert [value // MIB for value in (seen.total_bytes, seen.reserved_bytes, seen.used_bytes, seen.free_bytes)] == [
        100,
        1,
        9,
        90,
    ]
    assert seen.uses == [Use(7, 5 * MIB), Use(8, None)]


def test_older_bindings_give_bytes(pynvml: Any) -> None:
    pynvml.nvmlDeviceGetUUID = lambda _handle: b"GPU-2"
    assert Nvml().gpu(0).uuid == "GPU-2"


def test_what_nvml_refuses_keeps_its_code(pynvml: Any) -> None:
    pynvml.nvmlDeviceGetHandleByIndex = pynvml.refuse(guard.GPU_IS_LOST)
    with pytest.raises(NvmlError, match="code 15") as refused:
        Nvml().gpu(0)
    assert refused.value.code == guard.GPU_IS_LOST
    pynvml.nvmlInit = pynvml.refuse(guard.DRIVER_NOT_LOADED)
    with pytest.raises(NvmlError, match="code 9"):
        Nvml()


@pytest.mark.parametrize(
    ("name", "code", "passes"),
    [
        ("Compute", guard.NOT_SUPPORTED, False),
        ("Graphics", guard.FUNCTION_NOT_FOUND, True),
        ("Graphics", guard.GPU_IS_LOST, False),
    ],
)
def test_a_list_that_is_missing_is_no_empty_list(name: str, code: int, passes: bool, pynvml: Any) -> None:
    """Only drawing and MPS may be unknown to a driver; without the list of computing processes nothing is proven."""
    setattr(pynvml, f"nvmlDeviceGet{name}RunningProcesses_v3", pynvml.refuse(code))
    if passes:
        assert Nvml().gpu(0).uses == [Use(7, 5 * MIB)]
    else:
        with pytest.raises(NvmlError):
            Nvml().gpu(0)


def test_without_pynvml_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NvmlError) as refused:
        Nvml()
    assert refused.value.code == guard.NO_PYNVML
