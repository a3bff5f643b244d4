"""Whether an engine hangs: a saturated one answers late too, so progress and one unanswered token tell them apart."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import NamedTuple

METRICS_TIMEOUT_S = 5.0
# Only messages of the engine core move these; requests that the API server counts, rejects or aborts do not.
_FIGURES = (
    "vllm:iteration_tokens_total_count",
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
)
_AWAKE = 'sleep_state="awake"'

Figure = tuple[float, ...]


@dataclass(frozen=True)
class Patience:
    """Seconds between looks and without a sign of life; restarts of one engine within an hour."""

    interval_s: float
    hang_s: float
    restarts: int

    @property
    def ask_s(self) -> float:
        """Silence after which the engine is asked for a token."""
        return self.hang_s / 3

    @property
    def late_s(self) -> float:
        """A pause between two looks that means that this program, or the whole machine, did not run."""
        return 3 * self.interval_s + 2 * METRICS_TIMEOUT_S

    @property
    def mute_s(self) -> float:
        """Silence after which an API server that says nothing is given up although it burns CPU time."""
        return 4 * self.hang_s


class Look(NamedTuple):
    """One look at an engine. `generation` is empty while its unit runs nothing, `figure` None without /metrics."""

    at_s: float
    generation: str
    figure: Figure | None
    answered: bool
    waiting_s: float
    main_cpu_s: float
    excused: str = ""


@dataclass(frozen=True)
class Memory:
    """What is known of an engine since its start, or since its last sign of life; moments in seconds."""

    generation: str = ""
    proven: bool = False
    life_at_s: float = 0.0
    last_at_s: float = 0.0
    figure: Figure | None = None
    main_cpu_s: float = -1.0
    cpu_at_s: float = 0.0


class Verdict(NamedTuple):
    """What to do: nothing, `ask` for a token, or end the engine because of `hung`."""

    ask: bool = False
    hung: str = ""


def judge(memory: Memory, look: Look, patience: Patience) -> tuple[Memory, Verdict]:
    """Whether an engine hangs, from what was known and one more look. Silence alone never ends an engine.

    It has to have computed since its start; it has to leave a request for one token unanswered; and where its API
    server says nothing at all, that one has to stand still as well, or stay silent four times as long.
    """
    now = look.at_s
    if look.generation != memory.generation:
        memory = Memory(look.generation, life_at_s=now, figure=look.figure, cpu_at_s=now)
    if not look.generation:
        return replace(memory, last_at_s=now), Verdict()
    paused = memory.last_at_s > 0 and now - memory.last_at_s > patience.late_s
    moved = look.figure is not None and look.figure != memory.figure
    computed = look.answered or (look.figure is not None and look.figure[0] > 0)
    memory = replace(
        memory,
        proven=memory.proven or computed,
        life_at_s=now if paused or moved or look.answered or look.excused else memory.life_at_s,
        last_at_s=now,
        figure=memory.figure if look.figure is None else look.figure,
        main_cpu_s=look.main_cpu_s,
        cpu_at_s=now if paused or look.main_cpu_s != memory.main_cpu_s else memory.cpu_at_s,
    )
    silent_s = now - memory.life_at_s
    if not memory.proven or silent_s < patience.ask_s:
        return memory, Verdict()
    if silent_s < patience.hang_s or look.waiting_s < patience.hang_s / 2:
        return memory, Verdict(ask=True)
    if look.figure is not None:
        why = f"its scheduler made no step for {silent_s:.0f} s"
    elif now - memory.cpu_at_s >= patience.hang_s / 2 or silent_s >= patience.mute_s:
        why = f"its API server said nothing for {silent_s:.0f} s"
    else:
        return memory, Verdict(ask=True)
    return memory, Verdict(hung=f"{why}, a request for one token is unanswered for {look.waiting_s:.0f} s")


def read_figure(text: str) -> tuple[Figure, bool]:
    """(what the scheduler reported, whether the engine was put to sleep on purpose) of a /metrics page."""
    sums = dict.fromkeys(_FIGURES, 0.0)
    asleep = False
    for line in text.splitlines():
        name, _, rest = line.partition("{")
        if name in sums:
            with contextlib.suppress(ValueError):
                sums[name] += float(line.rpartition(" ")[2])
        elif name == "vllm:engine_sleep_state" and _AWAKE in rest:
            asleep = asleep or line.rpartition(" ")[2] in ("0", "0.0")
    return tuple(sums.values()), asleep
