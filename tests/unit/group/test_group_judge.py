"""The rule by which parts of a group are ended together, in simulated time."""

from __future__ import annotations

import random

import pytest
from group_sim import PATIENCE, Cluster
from rackserve.group.judge import Answer, Group, Look, Memory, Verdict, judge

SEEDS = range(12)
HOSTS = (2, 3, 4)


def settled(hosts: int, seed: int, units: int = 1) -> Cluster:
    cluster = Cluster(hosts, seed, units)
    cluster.run(12)
    assert cluster.stable()
    assert set(cluster.starts().values()) == {1}
    return cluster


@pytest.mark.parametrize("hosts", HOSTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_single_kill_restarts_all_others_exactly_once(hosts: int, seed: int) -> None:
    for victim in range(hosts):
        cluster = settled(hosts, seed)
        cluster.kill(f"u{victim}0")
        cluster.run(2.6)
        gone = [name for name, unit in cluster.units.items() if unit.invocation is None]
        assert len(gone) == hosts, "a part went on for longer than two rounds"
        cluster.run(120)
        assert set(cluster.starts().values()) == {2}
        assert cluster.stable()


@pytest.mark.parametrize("seed", SEEDS)
def test_several_units_of_one_host_go_together_as_well(seed: int) -> None:
    cluster = settled(2, seed, units=3)
    cluster.kill("u11")
    cluster.run(120)
    assert set(cluster.starts().values()) == {2}
    assert cluster.stable()


@pytest.mark.parametrize("seed", SEEDS)
def test_slow_restarts_are_waited_for(seed: int) -> None:
    """One part takes a minute to come back; the others are not ended again meanwhile."""
    cluster = settled(3, seed)
    cluster.units["u00"].restart_s = 60
    cluster.kill("u20")
    cluster.run(180)
    assert set(cluster.starts().values()) == {2}
    assert cluster.stable()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_agent_that_restarts_costs_nothing(seed: int) -> None:
    cluster = settled(3, seed)
    for host in (0, 1, 2):
        cluster.stop_agent(host)
        cluster.run(5)
        cluster.start_agent(host)
        cluster.run(5)
    assert set(cluster.starts().values()) == {1}
    assert cluster.stable()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_kill_while_an_agent_is_away_is_found_when_it_is_back(seed: int) -> None:
    for away in (0, 1):
        cluster = settled(3, seed)
        cluster.stop_agent(away)
        cluster.kill("u10")
        cluster.run(8)
        cluster.start_agent(away)
        cluster.run(120)
        assert set(cluster.starts().values()) == {2}, away
        assert cluster.stable()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_that_slept_through_a_restart_is_never_joined_with(seed: int) -> None:
    """Its agent is cut off for less than the silence that counts, while the others restart."""
    cluster = settled(3, seed)
    cluster.cut = {frozenset((0, 2)), frozenset((1, 2))}
    cluster.kill("u10")
    cluster.run(12)
    assert cluster.starts() == {"u00": 2, "u10": 2, "u20": 1}
    assert [cluster.agents[host].memory.joined for host in (0, 1)] == [None, None]
    cluster.cut = set()
    cluster.run(120)
    assert cluster.starts() == {"u00": 2, "u10": 2, "u20": 2}
    assert cluster.stable()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_short_cut_is_no_loss_and_a_long_one_restarts_both_sides_once(seed: int) -> None:
    cluster = settled(3, seed)
    cluster.cut = {frozenset((0, 1)), frozenset((0, 2))}
    cluster.run(PATIENCE.lost_s - 4)
    cluster.cut = set()
    cluster.run(20)
    assert set(cluster.starts().values()) == {1}
    cluster.cut = {frozenset((0, 1)), frozenset((0, 2))}
    cluster.run(600)
    assert set(cluster.starts().values()) == {2}
    cluster.cut = set()
    cluster.run(60)
    assert set(cluster.starts().values()) == {2}
    assert cluster.stable()


@pytest.mark.parametrize("away_s", [1, 40, 400])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_host_that_is_lost_comes_back_into_the_group(seed: int, away_s: int) -> None:
    for victim in range(3):
        cluster = settled(3, seed)
        cluster.power_off(victim)
        cluster.run(away_s)
        cluster.power_on(victim)
        cluster.run(120)
        assert set(cluster.starts().values()) == {2}, victim
        assert cluster.stable()


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_it_ends_in_one_joined_group(seed: int) -> None:
    """Kills, agents and hosts lost, cuts, at random moments and on top of each other; then quiet."""
    chance = random.Random(seed)  # noqa: S311 - the same run for the same seed
    cluster = Cluster(chance.choice(HOSTS), seed, chance.choice((1, 2)))
    hosts = list(cluster.agents)
    for _ in range(25):
        cluster.run(chance.choice((0.1, 0.7, 3, 8, 20)))
        host = chance.choice(hosts)
        what = chance.choice(("kill", "kill", "agent", "power", "cut", "heal"))
        if what == "kill" and host in cluster.up:
            cluster.kill(f"u{host}0")
        elif what == "agent" and host in cluster.up:
            cluster.stop_agent(host, back_s=3)
        elif what == "power":
            cluster.power_off(host) if host in cluster.up else cluster.power_on(host)
        elif what == "cut" and len(hosts) > 1:
            cluster.cut.add(frozenset(chance.sample(hosts, 2)))
        elif what == "heal":
            cluster.cut.clear()
    cluster.cut.clear()
    for host in hosts:
        if host not in cluster.up:
            cluster.power_on(host)
    cluster.run(90)
    assert cluster.stable(), (cluster.broken(), [agent.memory.joined for agent in cluster.agents.values()])
    before = cluster.starts()
    cluster.run(300)
    assert cluster.starts() == before


GROUP = Group("m-0", ("a",), {"n2": ("b",)})
VECTOR = {"a": "1", "b": "1"}


def look(at_s: float, own: str | None, number: int, other: str | None, joined: dict[str, str] | None = None) -> Look:
    return Look(at_s, {"a": own}, {"n2": (number, Answer({"b": other}, joined))})


def test_what_is_waited_for_is_said() -> None:
    def waits(seen: Look) -> str:
        return judge(GROUP, Memory(), seen, PATIENCE)[1].waits

    assert waits(look(1, None, 1, "1")) == "a to be up here"
    assert waits(Look(1, {"a": "1"}, {})) == "an answer of n2"
    assert waits(look(1, "1", 1, None)) == "b to be up on n2"
    assert waits(look(1, "1", 1, "1", {"a": "0", "b": "1"})).startswith("n2 to end what is left")
    assert judge(GROUP, Memory(), look(1, "1", 1, "1", VECTOR), PATIENCE)[0].joined == VECTOR


def test_an_old_answer_is_not_joined_on() -> None:
    memory = Memory()
    for at_s in (1, 2, 3, 4, 5):
        memory, verdict = judge(GROUP, memory, look(at_s, None, 1, "1"), PATIENCE)
    memory, verdict = judge(GROUP, memory, look(6, "1", 1, "1"), PATIENCE)
    assert verdict.waits == "an answer of n2"
    assert judge(GROUP, memory, look(7, "1", 2, "1"), PATIENCE)[0].joined == VECTOR


def test_why_is_said_and_only_what_was_joined_is_ended() -> None:
    def after(seen: Look) -> tuple[Memory, Verdict]:
        return judge(GROUP, Memory(joined=VECTOR), seen, PATIENCE)

    assert after(look(1, "1", 1, "2"))[1] == Verdict(("a",), "b on n2 was started anew")
    assert after(look(1, "2", 1, "1")) == (after(look(1, "2", 1, "1"))[0], Verdict((), "a here was started anew"))
    # Its main process is gone: what it left behind goes too.
    memory, verdict = after(look(1, None, 1, "1"))
    assert verdict == Verdict(("a",), "a here ended")
    assert memory.joined is None


def test_the_vector_is_kept_until_nothing_of_it_runs_here() -> None:
    """A process that does not die at once is asked again, and nobody joins with it."""
    memory = Memory(joined=VECTOR)
    for at_s in (1, 2, 3):
        memory, verdict = judge(GROUP, memory, look(at_s, "1", at_s, None), PATIENCE)
        assert (memory.joined, verdict.end) == (VECTOR, ("a",))
    # Were the other back as it was, this one is on its way out all the same.
    memory, verdict = judge(GROUP, memory, look(4, "1", 4, "1"), PATIENCE)
    assert (memory.joined, verdict.end) == (VECTOR, ("a",))
    memory, verdict = judge(GROUP, memory, look(5, None, 5, "1"), PATIENCE)
    assert memory.joined is None


def test_a_pause_of_this_host_is_not_the_others_silence() -> None:
    memory = Memory(joined=VECTOR)
    memory, _ = judge(GROUP, memory, look(1, "1", 1, "1"), PATIENCE)
    memory, verdict = judge(GROUP, memory, look(3601, "1", 1, "1"), PATIENCE)
    assert verdict == Verdict()
    for at_s in range(3602, 3614):
        memory, verdict = judge(GROUP, memory, look(at_s, "1", 1, "1"), PATIENCE)
    assert verdict == Verdict(("a",), "the agent of n2 said nothing for 15 s")


def test_a_unit_that_is_new_in_the_description_ends_nothing() -> None:
    """The plan grew while the old group runs: what was not joined is not compared."""
    grown = Group("m-0", ("a",), {"n2": ("b", "c")})
    memory, verdict = judge(grown, Memory(joined=VECTOR), look(1, "1", 1, "1"), PATIENCE)
    assert (memory.joined, verdict) == (VECTOR, Verdict())
