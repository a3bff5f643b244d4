"""How one GPU compares with what is wanted of it, for the drift probe; nothing is set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .judge import Difference, differences
from .nvml import Nvml, NvmlError
from .reading import Library, read_gpu, uuid_of
from .record import RecordError, Records, has_prior
from .wanted import resolve


class Look(NamedTuple):
    """``differences`` of a GPU, or the ``problem`` that keeps it from being judged or set."""

    differences: list[Difference]
    problem: str = ""


class Looker:
    """Looks at GPUs of one host, by one connection to the driver that is opened when first needed."""

    def __init__(self, root: Path, nvml: Library | None = None) -> None:
        self._root, self._nvml = root, nvml

    def look(self, index: int, settings: Mapping[str, Any]) -> Look:
        """Compare one GPU; without settings and without a record the driver is not even asked."""
        if not settings and not has_prior(self._root):
            return Look([])
        try:
            self._nvml = self._nvml or Nvml()
            count, records = self._nvml.count(), Records(self._root)
            if index >= count:
                return Look([], f"NVML shows {count} GPUs from 0 on" if settings else "")
            if not settings and uuid_of(self._nvml, index) not in records.prior:
                return Look([])
            gpu = read_gpu(self._nvml, index)
        except (NvmlError, RecordError) as problem:
            return Look([], str(problem))
        values, refusals = resolve(settings, gpu)
        if refusals:
            return Look([], "; ".join(refusals))
        return Look(differences(gpu, values, records.prior.get(gpu.uuid, {}), records.locks.get(gpu.uuid, {})))
