"""Deep checks: only on a drained host, only where the program is, judged by what the programs print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from health_support import HealthHost

Answer = tuple[int, str, str]
ENGINES = ("vllm-tiny-deepseek-0.service",)
# Last lines of nccl-tests 2.17 and perftest 6.2, as they print them.
ALL_REDUCE = "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : {} \n#\n"
WRITE = """ #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]
 8388608    8850             0.00               {}              0.002951
---------------------------------------------------------------------------------------
"""
DCGM = {
    "DCGM Diagnostic": {
        "test_categories": [
            {"category": "Deployment", "tests": [{"name": "Denylist", "results": [{"gpu_id": "0", "status": "Pass"}]}]},
            {"category": "Integration", "tests": [{"name": "PCIe", "results": [
                {"gpu_id": "0", "status": "Pass"},
                {"gpu_id": "5", "status": "Fail", "warnings": [{"warning": "GPU 5 bandwidth is low"}]},
            ]}]},
        ]
    }
}  # fmt: skip


@pytest.fixture
def drained(host: HealthHost) -> Iterator[HealthHost]:
    host.down.update(ENGINES)
    yield host


def deep(host: HealthHost, check: str, answers: dict[str, Answer]) -> dict[str, Any]:
    def measure(words: list[str]) -> Answer:
        name = next((name for name in answers if name in words[:1] or name in " ".join(words)), "")
        return answers.get(name, (127, "", f"{words[0]}: not installed"))

    return host.check(only=[check], measure=measure)


CHECKS = ("deep-dcgm", "deep-all-reduce", "deep-ib-write")


@pytest.mark.parametrize("check", CHECKS)
def test_a_host_that_serves_is_left_alone(host: HealthHost, check: str) -> None:
    asked: list[list[str]] = []

    def measure(words: list[str]) -> Answer:
        asked.append(words)
        return 0, "", ""

    result = host.check(only=[check], measure=measure)
    assert result["checks"][0]["status"] == "skipped"
    assert "drain the host first" in result["checks"][0]["said"]
    assert asked == []


@pytest.mark.parametrize("check", CHECKS)
def test_without_the_program_it_is_skipped_and_without_an_answer_unknown(drained: HealthHost, check: str) -> None:
    missing = deep(drained, check, {})
    assert (missing["checks"][0]["status"], missing["findings"]) == ("skipped", [])
    assert "is not installed" in missing["checks"][0]["said"]
    names = ("dcgmi", "all_reduce_perf", "ib_write_bw")
    for answer in ((0, "nothing of use", ""), (1, "", "it broke")):
        silent = deep(drained, check, dict.fromkeys(names, answer))
        assert silent["checks"][0]["status"] == "unknown", silent["checks"]


def test_all_reduce_is_measured_and_compared_with_the_profile(drained: HealthHost) -> None:
    good = deep(drained, "deep-all-reduce", {"all_reduce_perf": (0, ALL_REDUCE.format("448.123"), "")})
    assert (good["findings"], good["measured"]) == ([], {"all_reduce_gbytes_s": 448.123})
    drained.expect["gpus"]["all_reduce_gbytes_s"] = 460
    try:
        slow = deep(drained, "deep-all-reduce", {"all_reduce_perf": (0, ALL_REDUCE.format("448.123"), "")})
    finally:
        del drained.expect["gpus"]["all_reduce_gbytes_s"]
    assert slow["findings"][0]["seen"] == "448.123 GB/s, the site says 460"


@pytest.mark.parametrize(("gbps", "found"), [("196.91", 0), ("120.50", 2)])
def test_each_port_reaches_nine_tenths_of_its_rate(drained: HealthHost, gbps: str, found: int) -> None:
    result = deep(drained, "deep-ib-write", {"ib_write_bw": (0, WRITE.format(gbps), "")})
    assert len(result["findings"]) == found
    assert result["measured"]["ib_write_gbits_s/mlx5_1/1"] == float(gbps)
    if found:
        assert result["findings"][0]["seen"] == "120.5 Gb/s, 90 % of its rate is 180"


def test_a_failed_test_of_dcgm_is_told_with_its_gpu(drained: HealthHost) -> None:
    result = deep(drained, "deep-dcgm", {"dcgmi": (226, json.dumps(DCGM), "")})
    told = [(finding["subject"], finding["severity"]) for finding in result["findings"]]
    assert told == [("GPU 5", "critical")]
    assert "PCIe" in result["findings"][0]["seen"] and "bandwidth is low" in result["findings"][0]["seen"]
