"""The judgement of a canary: wrong answers, slow answers, silence."""

from __future__ import annotations

import dataclasses
import importlib
import json
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from rackserve.completion.client import Answer, Ask, CompletionError, Endpoint
from rackserve.operation.canary import Limits, Speed, judge, median, too_slow

GOLDEN = {"cases": [{"prompt": "one", "text": " A", "max_tokens": 4}, {"prompt": "two", "max_tokens": 4}]}
LIMITS = Limits(ratio=1.5, slack_s=0.1, rounds=3, max_tokens=16)


class Engines:
    """{url: (seconds an answer, what it says, after how many requests it is silent)}; remembers who was asked."""

    def __init__(self, **engines: tuple[float, str, int]) -> None:
        self.engines = engines
        self.asked: list[tuple[str, str]] = []

    def __call__(self, endpoint: Endpoint, ask: Ask) -> Answer:
        seconds, says, until = self.engines[endpoint.base_url]
        if sum(name == endpoint.base_url for name, _ in self.asked) >= until:
            raise CompletionError("connection refused")
        self.asked.append((endpoint.base_url, ask.prompt))
        return Answer(text=says, tokens=ask.max_tokens, total_s=seconds)

    def judge(self, **given: Any) -> dict[str, Any]:
        new, *old = [Endpoint(name) for name in self.engines]
        return judge(new, old, "tiny", GOLDEN, LIMITS, ask=self, **given)


def test_a_good_one_is_let_through_and_all_are_asked_in_turn() -> None:
    engines = Engines(new=(0.55, " A", 99), old=(0.5, " A", 99), older=(0.5, " A", 99))
    verdict = engines.judge()
    assert verdict["ok"] and verdict["why"] == "" and verdict["compared"] == 1 and verdict["rounds"] == 3
    assert verdict["candidate"] == {"latency_s": 0.55, "tokens_per_s": round(16 / 0.55, 4)}
    # Nobody is always the first.
    assert [name for name, _ in engines.asked][-6:] == ["old", "older", "new", "new", "old", "older"]
    assert len({prompt for name, prompt in engines.asked[-9:] if name == "new"}) == 3


def test_a_slow_one_is_named_with_its_numbers() -> None:
    verdict = Engines(new=(2.0, " A", 99), old=(0.5, " A", 99)).judge()
    assert not verdict["ok"]
    assert verdict["why"] == (
        "answers too slowly: 2.00 s an answer, the engines on the old release 0.50 s "
        "(4.0 times, allowed 1.5), in each of 3 sets of 3"
    )
    assert verdict["rounds"] == 9


@pytest.mark.parametrize(("slow_sets", "ok"), [(0, True), (1, True), (2, True), (3, False)])
def test_slow_for_a_while_is_not_slow(slow_sets: int, ok: bool) -> None:
    engines = Engines(new=(0.5, " A", 99), old=(0.5, " A", 99))
    asked = 0

    def busy(endpoint: Endpoint, ask: Ask) -> Answer:
        nonlocal asked
        answer = engines(endpoint, ask)
        if endpoint.base_url != "new" or "Count" not in ask.prompt:
            return answer
        # The first is the one that warms up.
        asked += 1
        return dataclasses.replace(answer, total_s=2.0) if 1 < asked <= 1 + slow_sets * LIMITS.rounds else answer

    verdict = judge(Endpoint("new"), [Endpoint("old")], "tiny", GOLDEN, LIMITS, ask=busy)
    assert verdict["ok"] is ok
    assert verdict["rounds"] == min(slow_sets + 1, 3) * LIMITS.rounds
    prompts = [prompt for name, prompt in engines.asked if name == "new" and "Count" in prompt]
    assert len(set(prompts)) == len(prompts), "none is answered from the cache of prefixes"


def test_a_wrong_answer_is_named_with_both_texts() -> None:
    engines = Engines(new=(0.5, " B", 99), old=(0.5, " A", 99))
    assert engines.judge()["why"] == (
        "answers wrongly: to 'one' it says ' B', the engines on the old release ' A'"
    )  # fmt: skip
    assert engines.judge(compare_answers=False)["ok"]


def test_where_the_old_ones_do_not_agree_nothing_is_concluded_of_texts() -> None:
    assert Engines(new=(0.5, " B", 99), old=(0.5, " A", 99), older=(0.5, " C", 99)).judge()["ok"]


def test_a_silent_peer_is_left_out_and_without_one_nothing_is_proven() -> None:
    verdict = Engines(new=(0.5, " A", 99), old=(0.5, " A", 0), older=(0.5, " A", 99)).judge()
    assert verdict["ok"] and verdict["silent"] == ["old: connection refused"]
    alone = Engines(new=(0.5, " A", 99), old=(0.5, " A", 0)).judge()
    assert not alone["ok"] and "no engine on the old release answers" in alone["why"]


def test_one_that_stops_answering_is_not_fit() -> None:
    verdict = Engines(new=(0.5, " A", 3), old=(0.5, " A", 99)).judge()
    assert verdict["why"] == "stopped answering while it was compared: connection refused"


@pytest.mark.parametrize(
    ("mine", "theirs", "why"),
    [
        (Speed(0.08, 10), Speed(0.02, 100), ""),  # noise
        (Speed(0.7, 20), Speed(0.5, 29), ""),
        (Speed(0.8, 20), Speed(0.5, 32), "0.80 s an answer"),
        (Speed(0.7, 10), Speed(0.5, 32), "10.0 tokens/s"),
    ],
)
def test_limits(mine: Speed, theirs: Speed, why: str) -> None:
    said = too_slow(mine, theirs, LIMITS)
    assert (why in said) if why else said == ""


def test_a_median() -> None:
    assert (median([3, 1, 2]), median([4, 1, 2, 3])) == (2, 2.5)


def test_broken_golden_data_is_said() -> None:
    verdict = judge(Endpoint("n"), [Endpoint("o")], "m", {"cases": [{}]}, LIMITS, ask=Engines())
    assert "golden case 0" in verdict["why"]


def call(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    module = importlib.import_module("canary_check")
    with patch_module_args(options), pytest.raises(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    given = {"candidate": "http://127.0.0.1:9", "peers": ["http://127.0.0.1:9"], "model": "m", "timeout_s": 1}
    said = call(capsys, **given)
    assert said["failed"] and "Connection refused" in said["msg"]
    assert "must be at least 1" in call(capsys, **given, rounds=0)["msg"]
