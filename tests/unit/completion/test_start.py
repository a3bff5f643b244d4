"""Where an engine's start is, read from vLLM's own words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rackserve.completion.start import REFUSED_S, Stage, look, note_starts, refuses, stage_of, start_progress, usual_s

GIB = 1 << 30
# Lines of vLLM 0.32, shortened; a progress bar begins with a carriage return.
LINES = [
    "(APIServer pid=882) INFO [api_utils.py:286] non-default args: {} Enforce eager set, disabling torch.compile",
    "(EngineCore pid=961) INFO [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='/srv/models/m'",
    "(Worker pid=994) INFO [gpu_model_runner.py:68] Starting to load model /srv/models/m...",
    "(Worker pid=994) INFO [weight_utils.py:1108] checkpoints: EXT4. Checkpoint size: 640.00 GiB.",
    "\r(Worker pid=994) Loading safetensors checkpoint shards:   0% Completed | 0/160 [00:00<?, ?it/s]",
    "\r(Worker pid=994) Loading safetensors checkpoint shards:  25% Completed | 40/160 [00:30<01:30, 1.33it/s]",
    "(Worker pid=994) INFO [default_loader.py:501] Loading weights took 121.03 seconds",
    "(Worker pid=994) INFO [backends.py:10] Dynamo bytecode transform time: 9.93 s",
    "\rCapturing CUDA graphs (mixed prefill-decode, PIECEWISE):  30%|###   | 20/67 [00:01<00:03, 12.3it/s]",
    "(EngineCore pid=961) INFO [core.py:402] init engine (profile, create kv cache, warmup model) took 40.20 s",
    "INFO:     Application startup complete.",
]


@pytest.mark.parametrize(
    ("lines", "stage"),
    [
        (0, Stage(0, "importing vLLM")),
        (1, Stage(1, "reading the configuration")),
        (2, Stage(2, "starting workers")),
        (4, Stage(3, "loading weights")),
        (5, Stage(3, "loading weights", 0.0, 640.0 * GIB, "B")),
        (6, Stage(3, "loading weights", 160.0 * GIB, 640.0 * GIB, "B")),
        (7, Stage(4, "profiling memory")),
        (8, Stage(5, "compiling")),
        (9, Stage(6, "capturing CUDA graphs", 20, 67, "graphs")),
        (10, Stage(7, "starting the API")),
        (11, Stage(8, "waiting for the first answer")),
    ],
)
def test_the_stages_of_a_start(lines: int, stage: Stage) -> None:
    assert stage_of("\n".join(LINES[:lines])) == stage


def test_a_small_checkpoint_is_counted_in_shards() -> None:
    assert stage_of("\n".join(LINES[2:6]).replace("640.00", "0.01")) == Stage(3, "loading weights", 40, 160, "shards")
    assert stage_of("Starting to load model\rcheckpoint shards:  0% Completed | 0/0").total is None
    assert stage_of("Capturing CUDA graphs").total is None


class Host:
    """Answers systemctl and journalctl for units that began at second 1000."""

    def __init__(self, **lines: int) -> None:
        self.lines, self.asked = lines, []

    def __call__(self, command: Sequence[str]) -> str:
        self.asked.append(list(command))
        if command[0] == "systemctl":
            name = command[-1].partition(".")[0]
            return f"InvocationID={name}\nExecMainStartTimestampMonotonic=1000000000\nno pair\n"
        return "\n".join(LINES[: self.lines[command[-1].rpartition("=")[2]]])


def test_only_the_present_start_is_read() -> None:
    host = Host(a=6)
    found = look("a.service", host, 1030.0)
    assert (found.stage.done, found.elapsed_s) == (160 * GIB, 30.0)
    assert "_SYSTEMD_INVOCATION_ID=a" in host.asked[1] and "--all" in host.asked[1]
    assert look("a.service", lambda _command: "", 5.0) == (Stage(0, "importing vLLM"), 0.0)


def test_the_engine_furthest_behind_is_told(tmp_path: Path) -> None:
    told = start_progress(["a.service", "b.service"], 1, 2, Host(a=9, b=6), 1030.0, root=tmp_path)
    assert told == {
        "phase": "1 of 2 engines answer, b loading weights", "done": 160 * GIB, "total": 640 * GIB, "unit": "B",
        "start": 0, "elapsed_s": 0, "finished": False,
    }  # fmt: skip


def test_without_a_count_the_last_start_gives_the_estimate(tmp_path: Path) -> None:
    first = start_progress(["a.service"], 0, 1, Host(a=2), 1030.0, root=tmp_path)
    assert (first["phase"], first["total"], first["unit"], first["elapsed_s"]) == ("a starting workers", None, "", 30.0)
    note_starts(["a.service"], Host(a=11), 1062.5, tmp_path)
    assert usual_s("a.service", tmp_path) == 62.5
    told = start_progress(["a.service"], 0, 1, Host(a=2), 1030.0, root=tmp_path)
    assert (told["done"], told["total"], told["unit"]) == (30.0, 62.5, "s")


def test_an_engine_that_ran_before_is_not_taken_for_one_that_just_started(tmp_path: Path) -> None:
    note_starts(["a.service"], Host(a=11), 9000.0, tmp_path)
    assert usual_s("a.service", tmp_path) is None
    (tmp_path / "run/rackserve/starts/a.service.json").write_text(json.dumps(["broken"]))
    assert usual_s("a.service", tmp_path) is None


def test_engines_without_units_are_counted() -> None:
    told = start_progress([], 3, 4, Host(), 1.0)
    assert (told["phase"], told["done"], told["total"], told["unit"]) == ("waiting for answers", 3, 4, "engines")


def row(status: int | None, server: str = "http://10.0.0.1:8000") -> dict[str, Any]:
    return {"server": server, "status": status}


def test_who_answers_with_errors_for_long_is_given_up(tmp_path: Path) -> None:
    assert refuses([row(500)], 100.0, tmp_path) == ""
    assert refuses([row(500), row(None, "http://10.0.0.2:8000")], 100.0 + REFUSED_S - 1, tmp_path) == ""
    late = refuses([row(500)], 100.0 + REFUSED_S, tmp_path)
    assert late == "http://10.0.0.1:8000 has answered with errors for 30 s"
    assert refuses([row(500)], 101.0 + REFUSED_S, tmp_path) == "", "the next run begins to count anew"


@pytest.mark.parametrize("status", [None, 200, 408, 429, 502, 503, 504])
def test_what_a_start_says_is_no_reason(status: int | None, tmp_path: Path) -> None:
    assert refuses([row(404)], 100.0, tmp_path) == ""
    for now in (110.0, 100.0 + REFUSED_S, 500.0):
        assert refuses([row(status)], now, tmp_path) == ""
    assert refuses([row(404)], 501.0, tmp_path) == "", "it was interrupted"


def test_a_clock_that_began_anew_is_no_reason(tmp_path: Path) -> None:
    assert refuses([row(500)], 9000.0, tmp_path) == ""
    assert refuses([row(500)], 10.0, tmp_path) == ""
    assert refuses([row(500)], 10.0 + REFUSED_S, tmp_path) != ""
