"""Whether the parts of a group belong together: joined when all are up, ended when one of them is gone.

An engine over several hosts holds connections between its processes. A part that ended cannot come back into them, and
the others do not notice: they go on answering their health checks, or hang. So each host's agent remembers which
invocation of every part it saw together, the vector, and ends its own parts as soon as another is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Optional

Units = Mapping[str, Optional[str]]
Vector = Mapping[str, str]


@dataclass(frozen=True)
class Group:
    """One group as one of its members sees it: `own` are this host's units, `peers` the others' by member."""

    name: str
    own: tuple[str, ...]
    peers: Mapping[str, tuple[str, ...]]

    @property
    def units(self) -> tuple[str, ...]:
        """All of its units."""
        return (*self.own, *(unit for units in self.peers.values() for unit in units))


class Patience(NamedTuple):
    """Seconds between looks, and of silence after which a member counts as gone."""

    interval_s: float
    lost_s: float

    @property
    def fresh_s(self) -> float:
        """Silence up to which an answer is good enough to join on."""
        return 3 * self.interval_s

    @property
    def late_s(self) -> float:
        """The longest step a silence grows by: a longer pause between looks is this program's own."""
        return 3 * self.interval_s


class Answer(NamedTuple):
    """What a member said last: its units' invocations, None for one that is not up, and what it is joined to."""

    units: Units
    joined: Vector | None


class Look(NamedTuple):
    """One look: this host's units, and of each member that was ever heard (number of its answers, the last one)."""

    at_s: float
    own: Units
    heard: Mapping[str, tuple[int, Answer]]


@dataclass(frozen=True)
class Memory:
    """What is known between looks. Only `joined` outlives the agent. `ending` while own parts of it have to go."""

    joined: Vector | None = None
    ending: bool = False
    at_s: float = 0.0
    answers: Mapping[str, int] = field(default_factory=dict)
    silent_s: Mapping[str, float] = field(default_factory=dict)


class Verdict(NamedTuple):
    """What follows: `end` these units of this host because of `why`; `waits` says what a join is waiting for."""

    end: tuple[str, ...] = ()
    why: str = ""
    waits: str = ""


def judge(group: Group, memory: Memory, look: Look, patience: Patience) -> tuple[Memory, Verdict]:
    """The next memory and what to do, from what was known and one more look.

    Symmetric: every member decides by the same rule, and no member is asked to do anything. A vector is forgotten only
    when nothing of it runs here any more, so that what is on its way out is never joined with.
    """
    memory = _listen(group, memory, look, patience)
    if memory.joined is None:
        vector, waits = _counted_in(group, look), ""
        if vector is None:
            vector, waits = _complete(group, memory, look, patience)
        return (memory, Verdict(waits=waits)) if vector is None else (replace(memory, joined=vector), Verdict())
    why = _lost(group, memory.joined, look) or _silence(group, memory, patience)
    if not why and not memory.ending:
        return memory, Verdict()
    left = {unit for unit in group.own if look.own.get(unit) == memory.joined.get(unit, "")}
    # A unit that lost its main process may have left others behind; they belong to what has to go.
    end = tuple(unit for unit in group.own if unit in left or look.own.get(unit) is None)
    if left:
        return replace(memory, ending=True), Verdict(end, why)
    return replace(memory, joined=None, ending=False), Verdict(end, why)


def _listen(group: Group, memory: Memory, look: Look, patience: Patience) -> Memory:
    step_s = min(max(0.0, look.at_s - memory.at_s), patience.late_s) if memory.at_s else 0.0
    answers, silent_s = {}, {}
    for peer in group.peers:
        answers[peer] = look.heard[peer][0] if peer in look.heard else 0
        told = answers[peer] != memory.answers.get(peer, 0)
        silent_s[peer] = 0.0 if told else memory.silent_s.get(peer, 0.0) + step_s
    return replace(memory, at_s=look.at_s, answers=answers, silent_s=silent_s)


def _counted_in(group: Group, look: Look) -> Vector | None:
    """A vector of another member that holds what runs here: its connections lead here, whatever else we can see."""
    for _number, answer in look.heard.values():
        if answer.joined and all(answer.joined.get(unit) == (look.own.get(unit) or "") for unit in group.own):
            return answer.joined
    return None


def _complete(group: Group, memory: Memory, look: Look, patience: Patience) -> tuple[Vector | None, str]:
    """(the vector of all units when all are up and nobody holds on to another one, what is missing)."""
    missing = sorted(unit for unit in group.own if look.own.get(unit) is None)
    if missing:
        return None, f"{', '.join(missing)} to be up here"
    vector: dict[str, str] = {unit: str(look.own[unit]) for unit in group.own}
    for peer, units in group.peers.items():
        if peer not in look.heard or memory.silent_s[peer] > patience.fresh_s:
            return None, f"an answer of {peer}"
        said = look.heard[peer][1].units
        missing = sorted(unit for unit in units if said.get(unit) is None)
        if missing:
            return None, f"{', '.join(missing)} to be up on {peer}"
        vector.update({unit: str(said[unit]) for unit in units})
    for peer in group.peers:
        joined = look.heard[peer][1].joined
        if joined is not None and dict(joined) != vector:
            return None, f"{peer} to end what is left there of an earlier start"
    return vector, ""


def _lost(group: Group, joined: Vector, look: Look) -> str:
    """Which part is gone, or is another than the one that was joined."""
    seen: dict[str, tuple[str | None, str]] = {unit: (look.own.get(unit), "here") for unit in group.own}
    for peer, units in group.peers.items():
        if peer in look.heard:
            seen.update({unit: (look.heard[peer][1].units.get(unit), f"on {peer}") for unit in units})
    for unit, (invocation, where) in seen.items():
        if unit in joined and invocation != joined[unit]:
            return f"{unit} {where} {'ended' if invocation is None else 'was started anew'}"
    return ""


def _silence(group: Group, memory: Memory, patience: Patience) -> str:
    late = {peer: memory.silent_s[peer] for peer in group.peers if memory.silent_s[peer] >= patience.lost_s}
    return ", ".join(f"the agent of {peer} said nothing for {silent:.0f} s" for peer, silent in late.items())
