"""`topo -m` and `nvlink`: how the GPUs are connected."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml

from .device import NOT_AVAILABLE, Gpu

LEVELS = {
    pynvml.NVML_TOPOLOGY_INTERNAL: "PIX",
    pynvml.NVML_TOPOLOGY_SINGLE: "PIX",
    pynvml.NVML_TOPOLOGY_MULTIPLE: "PXB",
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: "PHB",
    pynvml.NVML_TOPOLOGY_NODE: "NODE",
    pynvml.NVML_TOPOLOGY_SYSTEM: "SYS",
}
LEGEND = """
Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)
  PIX  = Connection traversing at most a single PCIe bridge
  NV#  = Connection traversing a bonded set of # NVLinks"""
AFFINITY_WORDS = 16
WORD = 64
FIELD_LINK_SPEED = 164
COUNTERS = {
    "Replay Errors": pynvml.NVML_NVLINK_ERROR_DL_REPLAY,
    "Recovery Errors": pynvml.NVML_NVLINK_ERROR_DL_RECOVERY,
    "CRC Errors": pynvml.NVML_NVLINK_ERROR_DL_CRC_FLIT,
}


def links(gpu: Gpu) -> list[tuple[int, bool]]:
    """Number and activity of every NVLink."""
    found = []
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            found.append((link, bool(gpu.ask("NvLinkState", link))))
        except pynvml.NVMLError:
            break
    return found


def links_to(gpu: Gpu, other: Gpu) -> int:
    """Active links that lead to the other GPU: directly, or through a switch."""
    count = 0
    for link in (link for link, active in links(gpu) if active):
        try:
            switch = gpu.ask("NvLinkRemoteDeviceType", link) == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH
        except pynvml.NVMLError:
            switch = False
        count += switch or gpu.ask("NvLinkRemotePciInfo", link).busId == other.bus_id
    return count


def connection(gpu: Gpu, other: Gpu) -> str:
    count = min(links_to(gpu, other), links_to(other, gpu))
    if count:
        return f"NV{count}"
    try:
        return LEVELS.get(gpu.ask("TopologyCommonAncestor", other.handle), "SYS")
    except pynvml.NVMLError:
        return NOT_AVAILABLE


def ranges(words: list[int]) -> str:
    numbers = [place * WORD + bit for place, word in enumerate(words) for bit in range(WORD) if word >> bit & 1]
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] + 1 == number:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(str(end) for end in part) for part in parts)


def matrix(gpus: list[Gpu]) -> Iterator[str]:
    names = [f"GPU{gpu.index}" for gpu in gpus]
    yield "\t".join(["", *names, "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"])
    for gpu in gpus:
        cells = [" X " if gpu is other else connection(gpu, other) for other in gpus]
        cpus = gpu.text(lambda one: ranges(list(one.ask("CpuAffinity", AFFINITY_WORDS))))
        nodes = gpu.text(lambda one: ranges(list(one.ask("MemoryAffinity", 1, pynvml.NVML_AFFINITY_SCOPE_NODE))))
        own = gpu.text(lambda one: str(one.ask("NumaNodeId")))
        yield "\t".join([f"GPU{gpu.index}", *cells, cpus, nodes, "", own])
    yield LEGEND


def link_head(gpu: Gpu) -> str:
    return f"GPU {gpu.index}: {gpu.ask('Name')} (UUID: {gpu.ask('UUID')})"


def link_states(gpus: list[Gpu]) -> Iterator[str]:
    for gpu in gpus:
        for place, (link, active) in enumerate(links(gpu)):
            if not place:
                yield link_head(gpu)
            yield f"\t Link {link}: " + (
                f"{gpu.field(FIELD_LINK_SPEED, link) / 1000:.3f} GB/s" if active else "<inactive>"
            )


def link_errors(gpus: list[Gpu]) -> Iterator[str]:
    for gpu in gpus:
        for place, (link, _active) in enumerate(links(gpu)):
            if not place:
                yield link_head(gpu)
            for name, counter in COUNTERS.items():
                yield f"\t Link {link}: {name}: {gpu.ask('NvLinkErrorCounter', link, counter)}"
