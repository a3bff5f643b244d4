"""GPUs as NCCL counts them: from what a caller knows, or from NVML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..gpu.info.nvml import Nvml
from ..gpu.settings.nvml import LIBRARY, NvmlError
from . import sysfs
from .document import TopologyError

# Links NCCL asks for, by compute capability times ten.
_MOST_LINKS = ((60, 0), (70, 4), (80, 6), (90, 12))
_MOST_LINKS_NOW = 18
_PEER_TO_PEER = 0
_MIG_ON = 1


@dataclass(frozen=True)
class Gpu:
    """index and bus_id as NCCL has them; gdr None: judged by its class; nvlinks: a bus id for each active link."""

    index: int
    bus_id: str
    sm: int
    gdr: bool | None
    nvlinks: tuple[str, ...]


def from_facts(given: Iterable[Any]) -> list[Gpu]:
    """GPUs of [{index, bus_id, compute_capability, gdr, nvlinks}], in the order of index. Raises TopologyError.

    A link is a bus id, or {remote_bus_id, active}; keys that are not named here are passed over.
    """
    found = []
    for place, entry in enumerate(given):
        if not isinstance(entry, Mapping) or not entry.get("bus_id"):
            raise TopologyError(f"gpus[{place}]: {entry!r} has no bus_id; write {{index, bus_id, compute_capability}}")
        if entry.get("mig_mode"):
            raise TopologyError(f"gpus[{place}]: MIG is on; NCCL's topology is of whole GPUs. nvidia-smi -mig 0")
        sm = _sm(entry.get("compute_capability"), place)
        links = [_link(link) for link in entry.get("nvlinks") or []]
        gdr = entry.get("gdr")
        gdr = None if gdr is None else str(gdr).lower() in ("1", "true", "yes")
        bus = sysfs.bus_id(str(entry["bus_id"]))
        kept = tuple(link for link in links[: _most_links(sm)] if link)
        found.append(Gpu(int(entry.get("index", place)), bus, sm, gdr, kept))
    for key in ("index", "bus_id"):
        seen = [getattr(gpu, key) for gpu in found]
        if len(seen) != len(set(seen)):
            raise TopologyError(f"gpus: two of them have the same {key}; each GPU has its own")
    return sorted(found, key=lambda gpu: gpu.index)


def _sm(given: Any, place: int) -> int:
    major, _, minor = str(given).partition(".")
    if not major.isdigit() or not (minor or "0").isdigit():
        raise TopologyError(f"gpus[{place}]: compute_capability {given!r} is not like 9.0")
    return int(major) * 10 + int(minor or "0")


def _most_links(sm: int) -> int:
    return next((links for below, links in _MOST_LINKS if sm < below), _MOST_LINKS_NOW)


def _link(given: Any) -> str:
    if isinstance(given, Mapping):
        given = given.get("remote_bus_id") if given.get("active", True) else None
    return sysfs.bus_id(str(given)) if given else ""


def _remote(nvml: Nvml, device: Any, link: int) -> str | None:
    """Where an active link ends, None where NCCL would pass over it."""
    try:
        if not nvml.number("nvmlDeviceGetNvLinkState", device, link):
            return None
        if not nvml.number("nvmlDeviceGetNvLinkCapability", device, link, _PEER_TO_PEER):
            return None
        return nvml.link_remote(device, link)
    except NvmlError:
        return None


def read(library: str = LIBRARY) -> list[dict[str, Any]]:
    """GPUs of this host by NVML, as `from_facts` takes them. Raises NvmlError; TopologyError where MIG is on."""
    nvml = Nvml(library)
    found = []
    for index in range(nvml.count()):
        device = nvml.device(index)
        if _mig(nvml, device):
            raise TopologyError(
                f"GPU {index}: MIG is on; NCCL's topology is of whole GPUs. nvidia-smi -i {index} -mig 0"
            )
        major, minor = nvml.pair("nvmlDeviceGetCudaComputeCapability", device)
        remotes = (_remote(nvml, device, link) for link in range(_most_links(major * 10 + minor)))
        found.append(
            {
                "index": index,
                "bus_id": nvml.bus_id(device),
                "compute_capability": f"{major}.{minor}",
                "nvlinks": [remote for remote in remotes if remote],
            }
        )
    return found


def _mig(nvml: Nvml, device: Any) -> bool:
    try:
        return nvml.pair("nvmlDeviceGetMigMode", device)[0] == _MIG_ON
    except NvmlError:
        return False
