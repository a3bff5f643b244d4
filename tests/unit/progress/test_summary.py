"""Where the time of a run went."""

from __future__ import annotations

from rackserve.progress.summary import Timeline


def run() -> Timeline:
    timeline = Timeline()
    timeline.play_started("Compile", 0.0)
    timeline.task_started("1", "Compile", 0.2)
    timeline.host_started("1", "localhost", 0.2)
    timeline.host_ended("1", "localhost", 0.5)
    timeline.play_started("Bring engines", 0.6)
    timeline.task_started("2", "vllm : Wait", 0.6)
    for host, end in (("node1", 20.0), ("node2", 50.6)):
        timeline.host_started("2", host, 0.6)
        timeline.host_ended("2", host, end, {"weights": 0.6 * end, "warm-up": 4.0, "nothing": 0.01})
    timeline.task_started("3", "vllm : Say", 60.6)
    timeline.host_started("3", "node1", 60.6)
    timeline.host_ended("3", "node1", 63.0)
    timeline.host_ended("3", "a host that was skipped", 63.0)
    timeline.host_ended("unknown", "node1", 63.0)
    timeline.finish(63.6)
    return timeline


def test_times_add_up_and_the_slowest_host_is_named() -> None:
    timeline = run()
    assert timeline.total_s() == 63.6
    assert [" ".join(line.split()) for line in timeline.lines()] == [
        "1 min 03 s 99 % Bring engines",
        "the longest tasks:",
        "1 min 00 s 94 % vllm : Wait [2 hosts, slowest node2 50 s, fastest 19 s]",
        "node2: weights 30 s, warm-up 4.0 s",
        "3.0 s 5 % vllm : Say [node1]",
    ]


def test_the_list_is_short() -> None:
    lines = run().lines(tasks=1)
    assert not any("vllm : Say" in line for line in lines)


def test_the_same_task_again_is_one_row() -> None:
    timeline = Timeline()
    timeline.play_started("P", 0.0)
    for number in range(3):
        timeline.task_started(str(number), "Copy", number * 2.0)
        timeline.host_started(str(number), "a", number * 2.0)
        timeline.host_ended(str(number), "a", number * 2.0 + 1.5)
    timeline.finish(6.0)
    assert [" ".join(line.split()) for line in timeline.lines()][2:] == ["6.0 s 100 % Copy [a]"]


def test_nothing_long_is_nothing_to_say() -> None:
    timeline = Timeline()
    assert (timeline.lines(), timeline.total_s()) == ([], 0.0)
    timeline.task_started("1", "No play", 1.0)
    timeline.finish(1.5)
    assert timeline.lines() == []
