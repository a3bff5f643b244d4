"""Ray's own words, recorded from Ray 2.60.0, and what is made of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from rackserve.ray.cluster import Cluster, Seen, Status, info, look, parse_status, run_for, wait

RECORDED = Path(__file__).parent / "recorded"
CLUSTER = Cluster("/opt/r/bin/python3", "10.0.0.11:6379", "/etc/token")


def recorded(name: str) -> str:
    return (RECORDED / f"status-{name}.txt").read_text()


class Ray:
    """Answers `ray` commands: (exit status, output) by command; None hangs."""

    def __init__(self, **answers: tuple[int | None, str]) -> None:
        self.answers, self.asked = answers, list[list[str]]()

    def __call__(self, command: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
        assert timeout_s == 10
        self.asked.append(list(command))
        return self.answers[command[3].replace("-", "_")]


HEALTHY: tuple[int | None, str] = (0, "")


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("one", Status(1, 2.0, 0.0)),
        ("two", Status(2, 4.0, 0.0)),
        ("two-verbose", Status(2, 4.0, 0.0)),
        ("none", None),
        ("wrong-token", None),
    ],
)
def test_what_ray_prints_is_counted(name: str, status: Status | None) -> None:
    assert parse_status(recorded(name)) == status


def test_used_gpus_are_counted_and_nodes_without_any_are_nodes() -> None:
    assert parse_status(recorded("two").replace("0.0/4.0 GPU", "3.0/4.0 GPU")) == Status(2, 4.0, 3.0)
    assert parse_status(recorded("one").replace(" 0.0/2.0 GPU\n", "")) == Status(1, 0.0, 0.0)


def test_a_cluster_is_asked_with_the_releases_own_ray() -> None:
    ray = Ray(health_check=HEALTHY, status=(0, recorded("two")))
    assert look(CLUSTER, ray) == Seen(2, 4.0, 0.0)
    assert ray.asked == [
        ["/opt/r/bin/python3", "-m", "ray.scripts.scripts", word, "--address", "10.0.0.11:6379"]
        for word in ("health-check", "status")
    ]


@pytest.mark.parametrize(
    ("health", "status", "why"),
    [
        ((None, ""), HEALTHY, "ray health-check gave no answer within 10 s"),
        ((1, recorded("wrong-token")), HEALTHY, "the token in /etc/token is not this cluster's"),
        ((1, "Traceback\nValueError: x\n"), HEALTHY, "ray health-check ended with 1: ValueError: x"),
        (HEALTHY, (None, ""), "ray status gave no answer within 10 s"),
        (HEALTHY, (0, recorded("none")), "the head answers and tells of no node yet"),
    ],
)
def test_what_is_wrong_is_said(health: tuple[int | None, str], status: tuple[int | None, str], why: str) -> None:
    seen = look(CLUSTER, Ray(health_check=health, status=status))
    assert seen.why.startswith(f"10.0.0.11:6379: {why}")


def test_a_cluster_is_waited_for_until_it_is_complete() -> None:
    now = [0.0]
    ray = Ray(health_check=HEALTHY, status=(0, recorded("one")))

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 20:
            ray.answers["status"] = (0, recorded("two"))

    def ask(wait_s: float) -> Seen:
        return wait(CLUSTER, (2, 4), wait_s, ray, sleep=sleep, clock=lambda: now[0])

    assert ask(10).why.startswith("10.0.0.11:6379: it has 1 of 2 nodes and 2 of 4 GPUs")
    assert ask(60) == Seen(2, 4.0, 0.0)
    ray.answers["health_check"] = (None, "")
    assert "gave no answer" in ask(0).why


def test_the_module_returns_what_it_saw() -> None:
    given = {"python": "/opt/r/bin/python3", "address": "10.0.0.11:6379", "token_file": "/etc/token", "nodes": 2,
             "gpus": 4, "timeout_s": 10, "wait_s": 0}  # fmt: skip
    ray = Ray(health_check=HEALTHY, status=(0, recorded("two")))
    assert info(given, ray) == {"complete": True, "nodes": 2, "gpus": 4.0, "gpus_used": 0.0, "why": ""}
    assert info({**given, "nodes": 3}, ray)["complete"] is False


def test_commands_are_run_with_the_token_and_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    run = run_for(str(tmp_path / "token"))
    script = (
        "import os; print(os.environ['RAY_AUTH_MODE'], os.environ['RAY_AUTH_TOKEN_PATH'], 'RAY_ADDRESS' in os.environ)"
    )
    assert run([sys.executable, "-c", script], 30) == (0, f"token {tmp_path / 'token'} False\n")
    assert run([sys.executable, "-c", "import time; time.sleep(60)"], 0.5) == (None, "")
    assert run([str(tmp_path / "missing")], 1)[0] == 127
