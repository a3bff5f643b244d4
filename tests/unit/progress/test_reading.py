"""Rate, time left, and what people read; the clock is a number."""

from __future__ import annotations

import pytest
from rackserve.progress.reading import Meter, Reading, amount, duration, line, percent, read_progress, speed

MIB = 1 << 20


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.44, "0.4 s"), (12.4, "12 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3900, "1 h 05 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_amounts_and_speeds() -> None:
    assert (amount(5 * MIB, "B"), amount(1536 * MIB, "B")) == ("5 MiB", "1.5 GiB")
    assert (amount(3, "wheels"), amount(70, "s"), amount(3, "")) == ("3 wheels", "1 min 10 s", "3")
    assert (speed(2.5 * MIB, "B"), speed(120 * MIB, "B"), speed(0.5, "shards")) == (
        "2.5 MiB/s",
        "120 MiB/s",
        "0.5 shards/s",
    )


def test_a_steady_copy_tells_rate_and_time_left() -> None:
    meter = Meter()
    for second in range(0, 25, 5):
        reading = Reading("sending", second * 10 * MIB, 400 * MIB, "B", 0, second)
        meter.add(reading, 100.0 + second)
    assert meter.rate == pytest.approx(10 * MIB)
    assert meter.left_s() == pytest.approx(20)
    assert line(reading, meter, 120.0) == "sending 200 MiB of 400 MiB (50 %), 10 MiB/s, 20 s left"


def test_the_first_reading_of_work_found_running_has_the_rate_since_its_start() -> None:
    meter = Meter()
    meter.add(Reading("sending", 300 * MIB, 400 * MIB, "B", start=100 * MIB, elapsed_s=20), 7.0)
    assert meter.rate == pytest.approx(10 * MIB)
    assert meter.left_s() == pytest.approx(10)


def test_what_was_seen_a_half_life_ago_counts_for_half() -> None:
    meter = Meter(half_life_s=10)
    meter.add(Reading("x", 0, 1e9, "B"), 0.0)
    meter.add(Reading("x", 1000, 1e9, "B"), 10.0)
    assert meter.rate == pytest.approx(100)
    meter.add(Reading("x", 5000, 1e9, "B"), 20.0)
    assert meter.rate == pytest.approx((1000 / 2 + 4000) / (10 / 2 + 10))


def test_a_slow_beginning_gives_no_estimate() -> None:
    meter = Meter()
    for second, done in ((0, 0), (1, 1), (2, 2)):
        meter.add(Reading("sending", done, 1000, "B", 0, 0), float(second))
    assert meter.rate == pytest.approx(1) and meter.left_s() is None
    meter.add(Reading("sending", 400, 1000, "B", 0, 0), 3.0)
    assert meter.left_s() == pytest.approx(600 / 140, rel=0.1)
    slow = Meter()
    slow.add(Reading("sending", 0, 1000, "B"), 0.0)
    slow.add(Reading("sending", 5, 1000, "B"), 10.0)
    assert slow.left_s() == pytest.approx(1990)


@pytest.mark.parametrize(
    "other", [Reading("b", 10, 100, "B"), Reading("a", 10, 100, "files"), Reading("a", 5, 100, "B")]
)
def test_another_phase_unit_or_attempt_starts_anew(other: Reading) -> None:
    meter = Meter()
    meter.add(Reading("a", 0, 100, "B"), 0.0)
    meter.add(Reading("a", 8, 100, "B"), 1.0)
    meter.add(other, 2.0)
    assert meter.rate is None and meter.left_s() is None


def test_what_stands_still_is_said_to() -> None:
    meter, reading = Meter(), Reading("sending", 50 * MIB, 100 * MIB, "B")
    meter.add(reading, 0.0)
    meter.add(reading, 10.0)
    assert "nothing new" not in line(reading, meter, 10.0)
    meter.add(reading, 20.0)
    assert line(reading, meter, 20.0) == "sending 50 MiB of 100 MiB (50 %), nothing new for 20 s"


def test_two_readings_of_one_moment_do_not_divide_by_zero() -> None:
    meter = Meter()
    meter.add(Reading("a", 0, 100, "B"), 1.0)
    meter.add(Reading("a", 8, 100, "B"), 1.0)
    assert meter.rate is None


def test_phases_measured_in_time() -> None:
    meter = Meter()
    usual = Reading("bytecode", 5, 20, "s", 0, 5)
    meter.add(usual, 0.0)
    assert line(usual, meter, 0.0) == "bytecode, 5.0 s of about 20 s (25 %), 15 s left"
    late = Reading("bytecode", 30, 20, "s", 0, 30)
    meter.add(late, 25.0)
    assert line(late, meter, 25.0) == "bytecode, 30 s, usually 20 s"
    assert percent(late) == 100


def test_phases_without_an_end_tell_what_they_know() -> None:
    meter, reading = Meter(), Reading("downloading", 8 * MIB, None, "B", 0, 4)
    meter.add(reading, 0.0)
    assert line(reading, meter, 0.0) == "downloading 8 MiB, 2.0 MiB/s"
    assert line(Reading("flushing", elapsed_s=12), Meter(), 0.0) == "flushing for 12 s"


@pytest.mark.parametrize(
    "result", [None, {}, {"progress": 3}, {"progress": {"finished": True, "phase": "x"}}, {"progress": {"done": 3}}]
)
def test_results_without_unfinished_progress(result: object) -> None:
    assert read_progress(result) is None


def test_progress_in_a_result() -> None:
    told = {"phase": "x", "done": 1, "total": None, "unit": "B", "start": 0, "elapsed_s": 2.5, "finished": False}
    assert read_progress({"progress": told}) == Reading("x", 1.0, None, "B", 0.0, 2.5)
    assert read_progress({"progress": {"phase": "x"}}) == Reading("x")
