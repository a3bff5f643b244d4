"""One reading of long work, its smoothed rate, and both as a line for people."""

from __future__ import annotations

from typing import Any, NamedTuple

_MINUTE_S = 60
_HOUR_S = 3600
_HALF_LIFE_S = 15.0
_QUIET_S = 15.0
# Before so many seconds or such a share, the rate of a transfer is that of its beginning.
_EARLY_S = 10.0
_EARLY_SHARE = 0.01
_DIGITS_BELOW = 10


class Reading(NamedTuple):
    """How far one phase is. ``unit`` is "B" (bytes), "s" (``total`` is what the phase usually takes) or a plural noun.

    ``start`` is what was there when the phase began (a resumed copy), ``elapsed_s`` the seconds since then.
    """

    phase: str
    done: float = 0.0
    total: float | None = None
    unit: str = ""
    start: float = 0.0
    elapsed_s: float = 0.0


def read_progress(result: Any) -> Reading | None:
    """The unfinished progress in a module's result, None where it has none."""
    found = result.get("progress") if isinstance(result, dict) else None
    if not isinstance(found, dict) or found.get("finished") or not found.get("phase"):
        return None
    total = found.get("total")
    return Reading(
        phase=str(found["phase"]),
        done=float(found.get("done") or 0),
        total=float(total) if total else None,
        unit=str(found.get("unit") or ""),
        start=float(found.get("start") or 0),
        elapsed_s=float(found.get("elapsed_s") or 0),
    )


class Meter:
    """Rate of the work that its readings describe, recent ones counting most; all times in seconds of one clock."""

    def __init__(self, half_life_s: float = _HALF_LIFE_S) -> None:
        """What was seen ``half_life_s`` ago counts for half."""
        self._half_life_s = half_life_s
        self._last: tuple[Reading, float] | None = None
        self._advanced_at = 0.0
        self._gained, self._spent_s, self._watched_s = 0.0, 0.0, 0.0

    @property
    def rate(self) -> float | None:
        """Amount a second; None where nothing was gained yet."""
        return self._gained / self._spent_s if self._gained > 0 and self._spent_s > 0 else None

    def add(self, reading: Reading, now: float) -> None:
        """Take the reading of time ``now`` in; another phase or unit, or less done than before, starts anew."""
        last = self._last
        self._last = (reading, now)
        same = last is not None and (last[0].phase, last[0].unit) == (reading.phase, reading.unit)
        if last is None or not same or reading.done < last[0].done:
            gained = reading.done - reading.start
            known = gained > 0 and reading.elapsed_s > 0
            self._gained, self._spent_s = (gained, reading.elapsed_s) if known else (0.0, 0.0)
            self._watched_s = self._spent_s
            self._advanced_at = now
            return
        passed_s = now - last[1]
        fading = 0.5 ** (passed_s / self._half_life_s)
        self._gained = fading * self._gained + reading.done - last[0].done
        self._spent_s = fading * self._spent_s + passed_s
        self._watched_s += passed_s
        if reading.done > last[0].done:
            self._advanced_at = now

    def left_s(self) -> float | None:
        """Seconds until the phase is done at this rate; None where that cannot be told, or not yet."""
        if self._last is None or self._last[0].total is None:
            return None
        reading, total = self._last[0], self._last[0].total
        missing = max(0.0, total - reading.done)
        if reading.unit == "s":
            return missing or None
        early = self._watched_s < _EARLY_S and reading.done - reading.start < _EARLY_SHARE * total
        return None if early or not self.rate else missing / self.rate

    def quiet_s(self, now: float) -> float:
        """Seconds since ``done`` last grew."""
        return now - self._advanced_at


def duration(seconds: float) -> str:
    """Seconds for people: "0.4 s", "12 s", "3 min 20 s", "1 h 05 min"."""
    if 0 < seconds < _DIGITS_BELOW:
        return f"{seconds:.1f} s"
    whole = int(seconds + 0.5)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02d} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02d} min"


def amount(value: float, unit: str) -> str:
    """An amount with its unit; bytes as MiB or GiB."""
    if unit == "B":
        return f"{value / (1 << 30):.1f} GiB" if value >= 1 << 30 else f"{value / (1 << 20):.0f} MiB"
    if unit == "s":
        return duration(value)
    return f"{value:.0f} {unit}".rstrip()


def speed(rate: float, unit: str) -> str:
    """A rate with its unit a second, "120 MiB/s"; slow ones with a digit after the point."""
    scale, name = (1 << 20, "MiB") if unit == "B" else (1, unit)
    value = rate / scale
    return f"{value:.1f} {name}/s" if value < _DIGITS_BELOW else f"{value:.0f} {name}/s"


def percent(reading: Reading) -> int | None:
    """Share done, 0 to 100; None where no total is known."""
    return min(100, int(100 * reading.done / reading.total)) if reading.total else None


def line(reading: Reading, meter: Meter, now: float) -> str:
    """What people read: phase, amounts, percent, rate, time left; and for how long nothing has moved."""
    share, left_s = percent(reading), meter.left_s()
    if reading.unit == "s" and reading.total:
        if left_s is None:
            return f"{reading.phase}, {duration(reading.done)}, usually {duration(reading.total)}"
        return f"{reading.phase}, {duration(reading.done)} of about {duration(reading.total)} ({share} %), " + (
            f"{duration(left_s)} left"
        )
    if not reading.unit:
        return f"{reading.phase} for {duration(reading.elapsed_s)}"
    parts = [f"{reading.phase} {amount(reading.done, reading.unit)}"]
    if reading.total:
        parts = [f"{reading.phase} {amount(reading.done, reading.unit)} of {amount(reading.total, reading.unit)}"]
        parts[0] += f" ({share} %)"
    if meter.quiet_s(now) >= _QUIET_S:
        return f"{parts[0]}, nothing new for {duration(meter.quiet_s(now))}"
    if meter.rate:
        parts.append(speed(meter.rate, reading.unit))
    if left_s is not None:
        parts.append(f"{duration(left_s)} left")
    return ", ".join(parts)
