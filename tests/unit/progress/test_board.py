"""Many hosts at one task."""

from __future__ import annotations

from rackserve.progress.board import Board
from rackserve.progress.reading import Reading

GIB = 1 << 30


def copy(done: float, phase: str = "sending") -> Reading:
    return Reading(phase, done * GIB, 10 * GIB, "B")


def test_few_hosts_have_a_line_each_and_not_too_often() -> None:
    board = Board(interval_s=5)
    assert board.update("a", copy(0), 0.0) == "a: sending 0 MiB of 10.0 GiB (0 %)"
    assert board.update("b", copy(0), 1.0) == "b: sending 0 MiB of 10.0 GiB (0 %)"
    assert board.update("a", copy(1), 4.0) is None
    assert board.update("a", copy(2), 5.0) == "a: sending 2.0 GiB of 10.0 GiB (20 %), 415 MiB/s, 20 s left"


def test_many_hosts_share_one_line() -> None:
    board = Board(interval_s=5, few=2)
    for number in range(64):
        board.update(f"n{number:02}", copy(0), 0.0)
    said = [board.update(f"n{number:02}", copy(1 if number != 7 else 0.5), 10.0) for number in range(64)]
    lines = [line for line in said if line]
    assert len(lines) == 1 and lines[0].startswith("64 hosts at work, 0 through: 64 sending; 1.0 GiB of 640.0 GiB")
    for number in range(32, 64):
        board.finished(f"n{number:02}")
    board.finished("a host without progress")
    line = board.update("n00", copy(0, "verifying"), 20.0)
    assert line is not None
    assert line.startswith("32 hosts at work, 32 through: 31 sending, 1 verifying; 30.5 GiB of 310.0 GiB (9 %)")
    assert line.endswith("/s; last n07, 3 min 10 s left")


def test_many_hosts_in_phases_without_amounts() -> None:
    board = Board(interval_s=5, few=1)
    board.update("a", Reading("flushing"), 0.0)
    assert board.update("b", Reading("flushing"), 6.0) == "2 hosts at work, 0 through: 2 flushing"
    usual = Reading("bytecode", 5, 20, "s")
    board.update("a", usual, 7.0)
    assert board.update("b", usual, 12.0) == "2 hosts at work, 0 through: 2 bytecode; last b, 15 s left"
