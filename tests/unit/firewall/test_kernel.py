"""The rules in a real kernel: two namespaces, real listeners, IPv4 and IPv6, and a rollback that takes back."""

from __future__ import annotations

import pytest
from firewall_host import render
from rackserve.firewall import FirewallError, arm, build_rules, confirm, foreign_tables, live_digest

SSH = {"name": "ssh", "port": 22, "sources": []}


def engine(*sources):
    return {"name": "engine", "port": 8000, "sources": list(sources)}


def built_for(*flows, mode="owned_ports", management=("10.99.0.0/24", "fd99::/64")):
    return build_rules(list(flows), mode, list(management))


def load(host, tmp_path, built, **options):
    return arm(tmp_path, host.run, built, render(built), source=("10.99.0.2", 22), **{"rollback_s": 30, **options})


def test_listed_sources_pass_others_are_dropped_other_ports_are_not_ours(host, tmp_path):
    load(host, tmp_path, built_for(engine("10.99.0.2", "fd99::2")))
    assert host.reaches("10.99.0.1", 8000)
    assert host.reaches("fd99::1", 8000)
    load(host, tmp_path, built_for(engine("10.99.0.3", "fd99::3")))
    assert not host.reaches("10.99.0.1", 8000)
    assert not host.reaches("fd99::1", 8000)
    assert host.reaches("10.99.0.1", 8001)
    assert host.reaches("10.99.0.1", 22)


def test_strict_drops_what_nobody_listed_but_the_network_works(host, tmp_path):
    load(host, tmp_path, built_for(engine("10.99.0.2"), mode="strict"))
    assert host.reaches("10.99.0.1", 22)
    assert host.reaches("fd99::1", 22), "neighbour discovery must pass"
    assert host.reaches("10.99.0.1", 8000)
    assert not host.reaches("fd99::1", 8000)
    assert not host.reaches("10.99.0.1", 8001)


def test_a_foreign_table_stays_byte_for_byte_and_a_blocking_one_stops_the_run(host, tmp_path):
    host.nft("table ip site {\nchain in {\ntype filter hook input priority 0; policy accept;\ntcp dport 9 drop\n}\n}\n")
    before = host.run(["nft", "list", "table", "ip", "site"])[1]
    load(host, tmp_path, built_for(engine("10.99.0.2")))
    assert host.run(["nft", "list", "table", "ip", "site"])[1] == before
    host.nft(
        "table inet other {\nchain in {\ntype filter hook input priority 5; policy drop;\n"
        "tcp dport { 22, 80-90 } accept\n}\n}\n"
    )
    with pytest.raises(FirewallError, match=r"inet other.*tcp/8000"):
        load(host, tmp_path, built_for(engine("10.99.0.9")))
    vouched = foreign_tables(host.run, built_for(engine("10.99.0.9"))["flows"], ["nftables:inet other"])
    assert [f["severity"] for f in vouched] == ["note", "warning"]


def test_rules_nobody_confirms_are_taken_back_and_the_old_ones_hold(host, tmp_path):
    first = built_for(engine("10.99.0.2"))
    load(host, tmp_path, first)
    assert host.run(["systemctl", "stop", "rackserve-firewall-rollback.timer"])[0] == 0
    assert confirm(tmp_path, host.run, first, render(first)).confirmed
    cut = built_for(engine("10.99.0.3"))
    assert load(host, tmp_path, cut, rollback_s=10).armed
    assert not host.reaches("10.99.0.1", 8000)
    host.let_the_time_pass()
    assert host.reaches("10.99.0.1", 8000)
    assert live_digest(host.run) == first["digest"]
    assert (tmp_path / "etc/rackserve/firewall/rackserve.nft").read_text() == render(first)
    with pytest.raises(FirewallError, match="rollback fired first"):
        confirm(tmp_path, host.run, cut, render(cut))


def test_a_first_load_that_is_taken_back_leaves_no_table(host, tmp_path):
    load(host, tmp_path, built_for(engine("10.99.0.3")), rollback_s=10)
    host.let_the_time_pass()
    assert live_digest(host.run) is None
    assert host.run(["nft", "list", "ruleset"])[1] == ""


def test_an_unconfirmed_change_of_a_killed_run_is_taken_back_before_the_next(host, tmp_path):
    good = built_for(engine("10.99.0.2"))
    load(host, tmp_path, good)
    with pytest.raises(FirewallError, match="still armed"):
        confirm(tmp_path, host.run, good, render(good))
    again = load(host, tmp_path, good)
    assert again.healed
    assert again.armed
    saved = (tmp_path / "run/rackserve/firewall/rollback.nft").read_text()
    assert "8000" not in saved, "the way back must lead to the confirmed state, here no table"


def test_the_whole_way_and_nothing_to_do_afterwards(host, tmp_path):
    built = built_for(engine("10.99.0.2"), SSH)
    text = render(built)
    plan = load(host, tmp_path, built, check_mode=True)
    assert plan.changed
    assert not plan.armed
    assert list(tmp_path.iterdir()) == []
    assert live_digest(host.run) is None
    load(host, tmp_path, built)
    assert not (tmp_path / "etc").exists(), "the boot file waits for the confirmation"
    host.run(["systemctl", "stop", "rackserve-firewall-rollback.timer"])
    assert confirm(tmp_path, host.run, built, text).changed
    settled = load(host, tmp_path, built)
    assert (settled.changed, settled.armed, settled.confirmed) == (False, False, True)
    host.nft("flush ruleset")
    flushed = load(host, tmp_path, built, check_mode=True)
    assert flushed.changed
    assert flushed.before.startswith("# loaded: nothing")
