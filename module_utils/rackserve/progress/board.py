"""Progress of one task on many hosts, as few lines as tell something new."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from .reading import Meter, Reading, amount, duration, line, percent, speed

INTERVAL_S = 5.0
FEW = 4
_WIDEST_FIRST = 3


class _Host(NamedTuple):
    reading: Reading
    meter: Meter


class Board:
    """The hosts that work at one task; times in seconds of one clock."""

    def __init__(self, interval_s: float = INTERVAL_S, few: int = FEW) -> None:
        """A host, or with more than ``few`` hosts all together, gets a line every ``interval_s`` at most."""
        self._interval_s = interval_s
        self._few = few
        self._hosts: dict[str, _Host] = {}
        self._said_at: dict[str, float] = {}
        self._done = 0

    def finished(self, host: str) -> None:
        """``host`` is through, well or not."""
        if self._hosts.pop(host, None) is not None:
            self._done += 1

    def update(self, host: str, reading: Reading, now: float) -> str | None:
        """Take a reading in; the line to show now, None when it is too early for one."""
        known = self._hosts.get(host)
        meter = known.meter if known else Meter()
        meter.add(reading, now)
        self._hosts[host] = _Host(reading, meter)
        many = len(self._hosts) > self._few
        who = "" if many else host
        # A little less than the interval: polls that come every interval are all shown.
        if now - self._said_at.get(who, now - self._interval_s) < 0.9 * self._interval_s:
            return None
        self._said_at[who] = now
        return self._together() if many else f"{host}: {line(reading, meter, now)}"

    def _together(self) -> str:
        """All hosts in one line: how many are in which phase, the sums, and the one that will be last."""
        phases = Counter(one.reading.phase for one in self._hosts.values())
        parts = [", ".join(f"{count} {phase}" for phase, count in phases.most_common(_WIDEST_FIRST))]
        phase = phases.most_common(1)[0][0]
        same = [one for one in self._hosts.values() if one.reading.phase == phase and one.reading.total]
        unit = same[0].reading.unit if same else ""
        if unit not in ("", "s"):
            done, total = sum(one.reading.done for one in same), sum(one.reading.total or 0 for one in same)
            share = percent(Reading(phase, done, total))
            parts.append(f"{amount(done, unit)} of {amount(total, unit)} ({share} %)")
            rate = sum(one.meter.rate or 0 for one in same)
            if rate:
                parts.append(speed(rate, unit))
        estimates = [(left_s, name) for name, one in self._hosts.items() if (left_s := one.meter.left_s())]
        if estimates:
            left_s, name = max(estimates)
            parts.append(f"last {name}, {duration(left_s)} left")
        return f"{len(self._hosts)} hosts at work, {self._done} through: " + "; ".join(parts)
