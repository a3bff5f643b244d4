"""Where a run's time went: plays, the longest tasks, their slowest hosts and what those did."""

from __future__ import annotations

from dataclasses import dataclass, field

from .reading import duration

TASKS = 8
_FLOOR_S = 1.0
_SHOWN_STEPS = 6
_STEP_FLOOR_S = 0.1


@dataclass
class _Task:
    """All runs of one task of one play; seconds."""

    name: str
    play: str
    total_s: float = 0.0
    hosts_s: dict[str, float] = field(default_factory=dict)
    steps_s: dict[str, dict[str, float]] = field(default_factory=dict)


class Timeline:
    """Takes the events of a run, each with its time in seconds of one clock.

    A task lasts until the next one starts, so the times of all tasks add up to the run.
    """

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self._tasks: dict[tuple[str, str], _Task] = {}
        self._running: tuple[_Task, float] | None = None
        self._of_uuid: dict[str, _Task] = {}
        self._host_started: dict[tuple[str, str], float] = {}
        self._play = ""
        self._began: float | None = None
        self._ended = 0.0

    def play_started(self, name: str, now: float) -> None:
        """A play begins."""
        self._close(now)
        self._play = name

    def task_started(self, uuid: str, name: str, now: float) -> None:
        """A task begins, on whatever hosts."""
        self._close(now)
        task = self._tasks.setdefault((self._play, name), _Task(name, self._play))
        self._of_uuid[uuid] = task
        self._running = (task, now)

    def host_started(self, uuid: str, host: str, now: float) -> None:
        """The task begins on one host."""
        self._host_started[uuid, host] = now

    def host_ended(self, uuid: str, host: str, now: float, steps_s: dict[str, float] | None = None) -> None:
        """The task is through on one host; ``steps_s`` is what took how long there, as the module says."""
        started, task = self._host_started.pop((uuid, host), None), self._of_uuid.get(uuid)
        if started is None or task is None:
            return
        task.hosts_s[host] = task.hosts_s.get(host, 0.0) + now - started
        if steps_s:
            task.steps_s[host] = steps_s

    def finish(self, now: float) -> None:
        """The run ends."""
        self._close(now)

    def total_s(self) -> float:
        """Seconds from the first event to the last."""
        return self._ended - self._began if self._began is not None else 0.0

    def _close(self, now: float) -> None:
        self._began = now if self._began is None else self._began
        self._ended = now
        if self._running is not None:
            task, since = self._running
            task.total_s += now - since
            self._running = None

    def lines(self, tasks: int = TASKS) -> list[str]:
        """Plays in their order, then the longest tasks first; what took less than a second is left out."""
        total_s = self.total_s() or 1.0
        plays: dict[str, float] = {}
        for task in self._tasks.values():
            plays[task.play] = plays.get(task.play, 0.0) + task.total_s
        longest = sorted(self._tasks.values(), key=lambda task: -task.total_s)[:tasks]
        rows = [(seconds, play) for play, seconds in plays.items() if seconds >= _FLOOR_S]
        out = [f"{duration(seconds):>13} {100 * seconds / total_s:3.0f} %  {play}" for seconds, play in rows]
        shown = [task for task in longest if task.total_s >= _FLOOR_S]
        if out and shown:
            out.append("the longest tasks:")
        for task in shown:
            out.append(f"{duration(task.total_s):>13} {100 * task.total_s / total_s:3.0f} %  {task.name}{_hosts(task)}")
            out += _steps(task)
        return out


def _slowest(task: _Task) -> str:
    return max(task.hosts_s, key=lambda host: task.hosts_s[host])


def _hosts(task: _Task) -> str:
    """Where several hosts took part, the slowest and the fastest of them."""
    if not task.hosts_s:
        return ""
    slowest = _slowest(task)
    if len(task.hosts_s) == 1:
        return f" [{slowest}]"
    fastest_s = min(task.hosts_s.values())
    return (
        f" [{len(task.hosts_s)} hosts, slowest {slowest} {duration(task.hosts_s[slowest])}, "
        f"fastest {duration(fastest_s)}]"
    )


def _steps(task: _Task) -> list[str]:
    """What the slowest host that told its steps spent the time on."""
    if not task.steps_s:
        return []
    host = max(task.steps_s, key=lambda name: task.hosts_s.get(name, 0.0))
    steps = sorted(task.steps_s[host].items(), key=lambda step: -step[1])[:_SHOWN_STEPS]
    told = ", ".join(f"{name} {duration(seconds)}" for name, seconds in steps if seconds >= _STEP_FLOOR_S)
    return [f"{'':21}{host}: {told}"] if told else []
