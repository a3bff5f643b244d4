"""When an engine is taken for hung, and everything that looks like it and is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rackserve.watch.judge import Look, Memory, Patience, Verdict, judge, read_figure

PATIENCE = Patience(interval_s=5, hang_s=30, restarts=3)
STEP = (10.0, 100.0, 50.0, 0.1, 3.0, 0.0)


def later(steps: float) -> tuple[float, ...]:
    return (STEP[0] + steps, *STEP[1:])


def after(looks: list[Look]) -> list[Verdict]:
    """The verdicts of a row of looks."""
    memory, verdicts = Memory(), []
    for look in looks:
        memory, verdict = judge(memory, look, PATIENCE)
        verdicts.append(verdict)
    return verdicts


def looks(until_s: int, make: Callable[[int], Look]) -> list[Look]:
    return [make(at_s) for at_s in range(0, until_s, 5)]


def silent(at_s: float, **changes: object) -> Look:
    """A look at an engine whose core is frozen: /metrics answer, nothing moves, a request waits since second 10."""
    given = {
        "generation": "7.1",
        "figure": STEP,
        "answered": False,
        "waiting_s": max(0.0, at_s - 10),
        "main_cpu_s": at_s,
    }
    return Look(at_s, **{**given, **changes})  # type: ignore[arg-type]


def ends_at(verdicts: list[Verdict]) -> int | None:
    return next((5 * number for number, verdict in enumerate(verdicts) if verdict.hung), None)


def test_a_frozen_core_is_asked_and_then_ended() -> None:
    verdicts = after(looks(60, silent))
    assert [verdict.ask for verdict in verdicts[:6]] == [False, False, True, True, True, True]
    assert ends_at(verdicts) == 30
    assert verdicts[6].hung == (
        "its scheduler made no step for 30 s, a request for one token is unanswered for 20 s"
    )  # fmt: skip


def test_a_frozen_api_server_stands_still() -> None:
    frozen = after([silent(0), *looks(60, lambda at: silent(at, figure=None, main_cpu_s=4.0))[1:]])
    assert ends_at(frozen) == 30
    assert "its API server said nothing for 30 s" in frozen[6].hung


def test_a_starved_api_server_is_given_four_times_as_long() -> None:
    busy = after([silent(0), *looks(150, lambda at: silent(at, figure=None, main_cpu_s=at / 50))[1:]])
    assert ends_at(busy) == 120


def test_the_api_server_frozen_before_the_first_look_is_not_known_to_compute() -> None:
    assert ends_at(after(looks(300, lambda at: silent(at, figure=None, main_cpu_s=4.0)))) is None


def test_saturated_engines_answer_late_and_are_left() -> None:
    """The request for a token waits for minutes behind others, and a step takes 20 s."""
    assert ends_at(after(looks(600, lambda at: silent(at, figure=later(at // 20))))) is None


def test_a_long_prompt_shows_in_the_cache_it_fills() -> None:
    filling = looks(300, lambda at: silent(at, figure=(*STEP[:3], 0.1 + at / 1000, *STEP[4:])))
    assert ends_at(after(filling)) is None


def test_an_answer_is_a_sign_of_life() -> None:
    verdicts = after(looks(300, lambda at: silent(at, answered=at % 25 == 0, waiting_s=0.0)))
    assert ends_at(verdicts) is None


def test_silence_without_a_request_unanswered_ends_nothing() -> None:
    """Connections refused, as of an engine that is shutting down: nobody waits."""
    assert ends_at(after(looks(300, lambda at: silent(at, waiting_s=0.0)))) is None


def test_an_engine_that_has_not_computed_yet_is_left_to_its_start() -> None:
    assert ends_at(after(looks(900, lambda at: silent(at, figure=(0.0,) * 6)))) is None
    assert not any(verdict.ask for verdict in after(looks(900, lambda at: silent(at, figure=None))))


def test_a_new_main_process_begins_anew() -> None:
    assert ends_at(after(looks(120, lambda at: silent(at, generation=f"7.{at // 25}")))) is None


@pytest.mark.parametrize("excuse", ["traced", "asleep"])
def test_a_debugger_and_sleep_mode_are_no_hang(excuse: str) -> None:
    assert ends_at(after(looks(300, lambda at: silent(at, excused=excuse)))) is None


def test_a_pause_of_the_whole_machine_is_no_silence() -> None:
    """Suspended for an hour, or the watch itself had no CPU time: the clock of the engine begins anew."""
    row = [silent(0), silent(5), silent(3605, waiting_s=3600.0), silent(3610, waiting_s=3605.0)]
    assert ends_at(after(row)) is None
    again = [silent(at, waiting_s=float(at)) for at in range(3615, 3660, 5)]
    hung = [look.at_s for look, verdict in zip(row + again, after(row + again)) if verdict.hung]
    assert hung[0] == 3635


def test_a_unit_without_processes_is_nothing_to_judge() -> None:
    assert after([silent(at, generation="", figure=None) for at in (0, 60, 120)]) == [Verdict()] * 3


PAGE = """# HELP vllm:generation_tokens_total x
vllm:generation_tokens_total{engine="0",model_name="m {x}"} 40.0
vllm:generation_tokens_total{engine="1",model_name="m"} 2.0
vllm:iteration_tokens_total_count{engine="0"} 7.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0"} 5.0
vllm:admission_rejections_total{reason="max_num_queued_reqs"} 9.0
vllm:num_requests_waiting{engine="0"} NaN?
vllm:engine_sleep_state{engine="0",sleep_state="awake"} 1.0
"""


def test_the_figure_holds_what_only_the_core_moves() -> None:
    assert read_figure(PAGE) == ((7.0, 42.0, 0.0, 0.0, 0.0, 0.0), False)
    assert read_figure(PAGE.replace('"awake"} 1.0', '"awake"} 0.0'))[1]
    assert read_figure("") == ((0.0,) * 6, False)
