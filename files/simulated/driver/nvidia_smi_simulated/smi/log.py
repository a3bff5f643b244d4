"""The whole of `nvidia-smi -q`, as a tree that can be printed as XML or as text, or compared."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pynvml

from .device import MIB, NOT_AVAILABLE, Gpu
from .fields import GPU, Tree
from .readers import Read, egm


@dataclass
class Node:
    """An element: text, or elements below it."""

    tag: str
    text: str | None = None
    children: list[Node] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)


def whole(gpus: list[Gpu]) -> Node:
    """What the system and all GPUs say now."""
    cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
    return Node(
        "nvidia_smi_log",
        children=[
            Node("timestamp", time.strftime("%a %b %d %H:%M:%S %Y")),
            Node("driver_version", pynvml.nvmlSystemGetDriverVersion()),
            Node("cuda_version", f"{cuda // 1000}.{cuda % 1000 // 10}"),
            Node("attached_gpus", str(pynvml.nvmlDeviceGetCount())),
            *(gpu_node(gpu) for gpu in gpus),
        ],
    )


def gpu_node(gpu: Gpu) -> Node:
    children = [*nodes(gpu, GPU), supported_clocks(gpu), processes(gpu), Node("accounted_processes")]
    children.append(Node("capabilities", children=[Node("egm", gpu.text(egm))]))
    return Node("gpu", children=children, attributes={"id": gpu.bus_id})


def nodes(gpu: Gpu, tree: Tree) -> list[Node]:
    return [node(gpu, tag, what) for tag, what in tree]


def node(gpu: Gpu, tag: str, what: Read | Tree) -> Node:
    return Node(tag, children=nodes(gpu, what)) if isinstance(what, list) else Node(tag, gpu.text(what))


def supported_clocks(gpu: Gpu) -> Node:
    try:
        memory = gpu.ask("SupportedMemoryClocks")
        return Node("supported_clocks", children=[memory_clock(gpu, clock) for clock in memory])
    except pynvml.NVMLError:
        return Node("supported_clocks", NOT_AVAILABLE)


def memory_clock(gpu: Gpu, clock: int) -> Node:
    graphics = gpu.ask("SupportedGraphicsClocks", clock)
    return Node(
        "supported_mem_clock",
        children=[
            Node("value", f"{clock} MHz"),
            *(Node("supported_graphics_clock", f"{value} MHz") for value in graphics),
        ],
    )


def processes(gpu: Gpu) -> Node:
    return Node("processes", children=[process(pid, memory) for pid, memory in running(gpu)])


def running(gpu: Gpu) -> list[tuple[int, int | None]]:
    """Process and bytes of all that compute on the GPU."""
    try:
        return [(found.pid, found.usedGpuMemory) for found in gpu.ask("ComputeRunningProcesses")]
    except pynvml.NVMLError:
        return []


def process_name(pid: int) -> str:
    try:
        return str(pynvml.nvmlSystemGetProcessName(pid))
    except pynvml.NVMLError:
        return "[Not Found]"


def process(pid: int, memory: int | None) -> Node:
    used = NOT_AVAILABLE if memory is None else f"{memory // MIB} MiB"
    texts = {
        "gpu_instance_id": NOT_AVAILABLE,
        "compute_instance_id": NOT_AVAILABLE,
        "pid": str(pid),
        "type": "C",
        "process_name": process_name(pid),
        "used_memory": used,
    }
    return Node("process_info", children=[Node(tag, text) for tag, text in texts.items()])


def readings(root: Node) -> Iterator[tuple[str, str]]:
    """Path and value of every element without elements below; `[n]` where one repeats."""
    return _readings(root, "")


def _readings(parent: Node, above: str) -> Iterator[tuple[str, str]]:
    seen: dict[str, int] = {}
    for child in parent.children:
        number = seen.get(child.tag, 0)
        seen[child.tag] = number + 1
        path = f"{above}{child.tag}" + (f"[{number}]" if number else "")
        if child.children:
            yield from _readings(child, f"{path}/")
        else:
            yield path, (child.text or "").strip()
