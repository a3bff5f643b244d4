"""A group in simulated time: hosts with systemd and the agent, a network that can be cut, engines that connect.

Engines are what makes the rule necessary: all that are up for `CONNECT_S` connect with each other, and one whose
partner ended never works again, whatever it says.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from rackserve.group.judge import Answer, Group, Look, Memory, Patience, Vector, judge

STEP_S = 0.1
RESTART_S = 5.0
CONNECT_S = 6.0
PATIENCE = Patience(interval_s=1.0, lost_s=15.0)


@dataclass
class Unit:
    """A unit under systemd with Restart=always."""

    name: str
    restart_s: float = RESTART_S
    starts: int = 0
    invocation: str | None = None
    born_at_s: float = 0.0
    start_at_s: float | None = 0.0
    partners: dict[str, str] = field(default_factory=dict)

    def start(self, now_s: float, boot: int) -> None:
        self.starts += 1
        self.invocation, self.born_at_s, self.start_at_s = f"{self.starts}.{boot}", now_s, None
        self.partners = {}

    def end(self, now_s: float) -> None:
        if self.invocation is not None:
            self.invocation, self.start_at_s = None, now_s + self.restart_s


@dataclass
class Agent:
    """The agent of one host; `kept` is what its runtime folder holds."""

    group: Group
    memory: Memory = field(default_factory=Memory)
    kept: Vector | None = None
    alive: bool = True
    heard: dict[str, tuple[int, Answer]] = field(default_factory=dict)
    next_look_s: float = 0.0
    said: Answer | None = None
    back_at_s: float | None = None


class Cluster:
    """`hosts` members with `units` units each; `seed` decides who looks when and how long an answer takes."""

    def __init__(self, hosts: int, seed: int = 0, units: int = 1) -> None:
        self.random = random.Random(seed)  # noqa: S311 - the same run for the same seed
        self.now_s, self.boot = 1.0, dict.fromkeys(range(hosts), 0)
        self.units = {f"u{host}{part}": Unit(f"u{host}{part}") for host in range(hosts) for part in range(units)}
        self.place = {name: int(name[1]) for name in self.units}
        self.agents = {host: Agent(self._group(host, hosts)) for host in range(hosts)}
        self.polls: list[tuple[float, int, int]] = []
        self.cut: set[frozenset[int]] = set()
        self.up = set(range(hosts))
        for host in range(hosts):
            self._schedule(host)

    def _own(self, host: int) -> tuple[str, ...]:
        return tuple(name for name, where in self.place.items() if where == host)

    def _group(self, host: int, hosts: int) -> Group:
        return Group("g", self._own(host), {f"h{other}": self._own(other) for other in range(hosts) if other != host})

    def _schedule(self, host: int) -> None:
        self.agents[host].next_look_s = self.now_s + self.random.random()
        self.polls = [poll for poll in self.polls if poll[1] != host]
        self.polls += [(self.now_s + self.random.random(), host, other) for other in self.agents if other != host]

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s = round(self.now_s + STEP_S, 3)
            for name, unit in self.units.items():
                due = unit.start_at_s is not None and unit.start_at_s <= self.now_s
                if due and self.place[name] in self.up:
                    unit.start(self.now_s, self.boot[self.place[name]])
            for host, agent in list(self.agents.items()):
                if agent.back_at_s is not None and agent.back_at_s <= self.now_s:
                    self.start_agent(host)
            self._connect()
            self._poll()
            for host, agent in self.agents.items():
                if host in self.up and agent.alive and agent.next_look_s <= self.now_s:
                    self._look(agent)

    def _connect(self) -> None:
        ready = all(unit.invocation and self.now_s - unit.born_at_s >= CONNECT_S for unit in self.units.values())
        whole = len({frozenset(pair) for pair in self.cut}) == 0
        if ready and whole and not any(unit.partners for unit in self.units.values()):
            vector = {name: str(unit.invocation) for name, unit in self.units.items()}
            for unit in self.units.values():
                unit.partners = dict(vector)

    def _poll(self) -> None:
        due = [poll for poll in self.polls if poll[0] <= self.now_s]
        for poll in due:
            _, host, other = poll
            self.polls.remove(poll)
            self.polls.append((self.now_s + PATIENCE.interval_s + self.random.random() / 2, host, other))
            agent, peer = self.agents[host], self.agents[other]
            can = frozenset((host, other)) not in self.cut and {host, other} <= self.up
            if can and agent.alive and peer.alive and peer.said is not None:
                count = agent.heard.get(f"h{other}", (0, None))[0]
                agent.heard[f"h{other}"] = (count + 1, peer.said)

    def _look(self, agent: Agent) -> None:
        own = {name: self.units[name].invocation for name in agent.group.own}
        look = Look(self.now_s, own, dict(agent.heard))
        agent.memory, verdict = judge(agent.group, agent.memory, look, PATIENCE)
        agent.kept = agent.memory.joined
        for name in verdict.end:
            self.units[name].end(self.now_s)
        agent.said = Answer(own, agent.memory.joined)
        agent.next_look_s = self.now_s + PATIENCE.interval_s

    def kill(self, name: str) -> None:
        """End a unit; its agent holds a handle on it and looks at once."""
        self.units[name].end(self.now_s)
        self.agents[self.place[name]].next_look_s = self.now_s

    def stop_agent(self, host: int, back_s: float | None = None) -> None:
        """End an agent; systemd starts it again after `back_s`, where that is given."""
        self.agents[host].alive = False
        self.agents[host].back_at_s = None if back_s is None else self.now_s + back_s

    def start_agent(self, host: int) -> None:
        """As after a restart: everything is forgotten but what was kept."""
        old = self.agents[host]
        self.agents[host] = Agent(old.group, Memory(joined=old.kept), old.kept)
        self._schedule(host)

    def power_off(self, host: int) -> None:
        self.up.discard(host)
        for name in self._own(host):
            self.units[name].invocation, self.units[name].start_at_s = None, None
        self.stop_agent(host)
        self.agents[host].kept = None

    def power_on(self, host: int) -> None:
        self.up.add(host)
        self.boot[host] += 1
        for name in self._own(host):
            self.units[name].start_at_s = self.now_s + 1
        self.start_agent(host)

    def starts(self) -> dict[str, int]:
        return {name: unit.starts for name, unit in self.units.items()}

    def broken(self) -> list[str]:
        """Units that run and whose partners do not."""
        now = {name: unit.invocation for name, unit in self.units.items()}
        return [name for name, unit in self.units.items() if unit.invocation and unit.partners not in ({}, now)]

    def stable(self) -> bool:
        """Everybody is joined to what runs now, and nobody's connections lead nowhere."""
        now = {name: unit.invocation for name, unit in self.units.items()}
        joined = all(agent.memory.joined == now for agent in self.agents.values())
        return joined and None not in now.values() and not self.broken()
