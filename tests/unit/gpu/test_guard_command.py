"""The guard's words, as unit and role use them."""

from __future__ import annotations

from typing import Any

import pytest
from rackserve.gpu.command import guard_argv
from rackserve.gpu.guard import read_arguments
from rackserve_gpu import FilterModule

PYTHON = "/opt/rackserve/releases/r/bin/python3"


def engine(name: str, gpus: list[int], **changed: Any) -> dict[str, Any]:
    return {
        "name": name,
        "unit": f"vllm-{name}.service",
        "argv": [PYTHON, "-m", "vllm"],
        "gpu_ids": gpus,
        "gpu_memory_needed_mib": 90042,
        **changed,
    }


def test_the_words_are_the_ones_the_guard_reads() -> None:
    mine, beside, shares = engine("a-0", [3, 2]), engine("b-0", [0, 1]), engine("c-0", [2])
    words = guard_argv(mine, [mine, beside, shares], "/x/a-0", ["agent", "Xorg"], True)
    assert words[:3] == [PYTHON, "-I", "/x/a-0"]
    request, settle_s = read_arguments(words[3:])
    assert (request.unit, request.gpus, request.needed_mib) == ("vllm-a-0.service", [2, 3], 90042)
    assert (request.allowed_units, request.ignored_names) == (["vllm-c-0.service"], ["agent", "Xorg"])
    assert (request.noun, settle_s) == ("simulated GPU", 10)


def test_an_engine_without_gpus_has_no_guard() -> None:
    assert guard_argv(engine("a-0", []), [], "/x", [], False) == []
    bare = engine("a-0", [0])
    del bare["gpu_ids"]
    assert guard_argv(bare, [], "/x", [], False) == []


@pytest.mark.parametrize("needed", [None, 0])
def test_a_literal_instance_may_lack_what_it_demands(needed: int | None) -> None:
    words = guard_argv(engine("a-0", [0], gpu_memory_needed_mib=needed), [], "/x", [], False)
    assert read_arguments(words[3:])[0].needed_mib == 0


def test_the_filter_names_the_engines_own_copy() -> None:
    run = FilterModule().filters()["gpu_guard_argv"]
    assert run(engine("a-0", [0]), [], "/usr/local/lib/x")[2] == "/usr/local/lib/x/a-0"
    assert "--simulated" in run(engine("a-0", [0]), [], "/x", None, True)
