"""Refusals before anything is loaded, the SSH source, the module and the new connection."""

from __future__ import annotations

import json

import firewall_apply
import pytest
from ansible.module_utils.testing import patch_module_args
from firewall_host import render
from rackserve.firewall import FirewallError, arm, build_rules, foreign_tables, fresh_ssh_argv, ssh_source

BUILT = build_rules(
    [{"name": "engine", "port": 8000, "sources": ["10.0.0.1"]}, {"name": "ssh", "port": 22, "sources": []}],
    "owned_ports",
    ["10.9.0.0/24"],
)
TEXT = render(BUILT)


class Answers:
    """A host that answers by the first two words of a command, and remembers what it was asked."""

    def __init__(self, **answers):
        self.answers, self.calls = answers, []

    def __call__(self, argv):
        self.calls.append(argv)
        return self.answers.get("_".join(argv[:2]).replace("-", ""), (0, "", ""))

    def loaded(self):
        return [c for c in self.calls if c[:2] == ["nft", "-f"]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TEXT.replace("sha256:", "sha256:0", 1), "another digest"),
        (TEXT + "flush ruleset\n", "alone is ours"),
        (TEXT + "table ip filter {\n}\n", "alone is ours"),
        (TEXT + "add rule ip filter input drop\n", "alone is ours"),
    ],
)
def test_a_text_that_is_not_ours_is_refused(tmp_path, text, told):
    host = Answers()
    with pytest.raises(FirewallError, match=told):
        arm(tmp_path, host, BUILT, text, rollback_s=30, source=None)
    assert host.calls == []


def test_shutting_out_the_controller_is_refused(tmp_path):
    host = Answers()
    with pytest.raises(FirewallError, match=r"refuse SSH from 10\.8\.0\.1.*management_cidrs"):
        arm(tmp_path, host, BUILT, TEXT, rollback_s=30, source=("10.8.0.1", 22))
    assert host.calls == []


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"nft_c": (1, "", "syntax error")}, "nothing was changed.*syntax error"),
        ({"systemdrun_quiet": (1, "", "no bus")}, "no rollback can be armed"),
        ({"nft_j": (1, "", "Operation not permitted")}, "run as root"),
    ],
)
def test_without_syntax_or_way_back_nothing_is_loaded(tmp_path, answers, told):
    host = Answers(**answers)
    with pytest.raises(FirewallError, match=told):
        arm(tmp_path, host, BUILT, TEXT, rollback_s=30, source=None)
    assert host.loaded() == []


def test_the_rollback_is_armed_before_the_rules_are_loaded(tmp_path):
    host = Answers()
    result = arm(tmp_path, host, BUILT, TEXT, rollback_s=17, source=("10.9.0.4", 22))
    assert result.armed
    names = [c[0] if c[0] != "nft" else " ".join(c[:2]) for c in host.calls]
    assert names.index("systemd-run") < names.index("nft -f")
    timer = next(c for c in host.calls if c[0] == "systemd-run")
    assert "--on-active=17" in timer
    assert "--timer-property=AccuracySec=100ms" in timer


def test_check_mode_on_a_host_without_nft_says_so(tmp_path):
    host = Answers(nft_v=(127, "", ""))
    result = arm(tmp_path, host, BUILT, TEXT, rollback_s=30, source=None, check_mode=True)
    assert result.changed
    assert [f["code"] for f in result.findings] == ["firewall-no-nft"]
    assert list(tmp_path.iterdir()) == []


def _process(proc, pid, parent, environ):
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "stat").write_text(f"{pid} (a) b) S {parent} 1 1")
    (proc / str(pid) / "environ").write_bytes(environ)


def test_the_source_is_found_behind_sudo(tmp_path):
    _process(tmp_path, 30, 20, b"A=1\0")
    _process(tmp_path, 20, 1, b"X=2\0SSH_CONNECTION=fd01::9 5000 fd01::1 2222\0")
    assert ssh_source({}, tmp_path, 30) == ("fd01::9", 2222)
    assert ssh_source({"SSH_CONNECTION": "10.0.0.9 1 10.0.0.1 22"}, tmp_path, 30) == ("10.0.0.9", 22)
    assert ssh_source({}, tmp_path, 99) is None


def test_a_new_connection_shares_nothing():
    argv = fresh_ssh_argv(
        {
            "host": "10.0.0.1",
            "port": "2222",
            "user": "ops",
            "private_key": "k",
            "become": True,
            "args": ["-o ControlPath=/x -o UserKnownHostsFile='a b'", ""],
        },
        ["systemctl", "stop", "x"],
    )
    assert argv.index("ControlPath=none") < argv.index("ControlPath=/x")
    assert argv[-2:] == ["10.0.0.1", "sudo -n systemctl stop x"]
    assert argv[argv.index("-l") + 1] == "ops"
    assert fresh_ssh_argv({"connection": "local"}, ["true"]) == ["true"]
    assert fresh_ssh_argv({"host": "h", "user": "root", "become": True}, ["true"])[-1] == "true"
    with pytest.raises(FirewallError, match="ansible_host"):
        fresh_ssh_argv({"host": "-oProxyCommand=x"}, ["true"])


def chain(**more):
    return {
        "chain": {
            "family": "ip",
            "table": "filter",
            "name": "INPUT",
            "type": "filter",
            "hook": "input",
            "policy": "accept",
            **more,
        }
    }


def rule(*expr):
    return {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "expr": list(expr)}}


def dport(value, op="=="):
    return {"match": {"op": op, "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": value}}


def saddr(value):
    return {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": value}}


def meta(key, value):
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": value}}


ACCEPT, REJECT = {"accept": None}, {"reject": {"type": "icmpx"}}
STATE = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}
FLOWS = [f for f in BUILT["flows"] if f["low"] == 8000]


@pytest.mark.parametrize(
    ("entries", "severity"),
    [
        ([chain(), rule(dport(9), {"drop": None})], "note"),
        ([chain(policy="drop")], "error"),
        ([chain(), rule(STATE, ACCEPT), rule({"counter": {}}, REJECT)], "error"),
        ([chain(policy="drop"), rule(dport(8000), ACCEPT)], "note"),
        ([chain(policy="drop"), rule(dport({"set": [22, {"range": [7000, 9000]}]}), ACCEPT)], "note"),
        ([chain(policy="drop"), rule(dport(8000, "!="), ACCEPT)], "error"),
        ([chain(policy="drop"), rule(dport(8000), saddr({"prefix": {"addr": "10.0.0.0", "len": 8}}), ACCEPT)], "note"),
        ([chain(policy="drop"), rule(dport(8000), saddr("10.0.0.2"), ACCEPT)], "error"),
        ([chain(policy="drop"), rule(saddr("@trusted"), ACCEPT)], "error"),
        ([chain(policy="drop"), rule(meta("iifname", "lo"), ACCEPT)], "error"),
        ([chain(policy="drop"), rule(meta("iifname", "bond0"), meta("l4proto", "tcp"), ACCEPT)], "note"),
        ([chain(policy="drop"), rule({"xt": None}, ACCEPT)], "error"),
        (
            [
                chain(policy="drop"),
                rule(dport(8000), {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}, ACCEPT),
            ],
            "note",
        ),
    ],
)
def test_foreign_tables_are_judged(entries, severity):
    host = Answers(nft_j=(0, json.dumps({"nftables": entries}), ""))
    assert [f["severity"] for f in foreign_tables(host, FLOWS)] == [severity]
    nothing = foreign_tables(Answers(nft_j=(0, json.dumps({"nftables": [chain(hook="output")]}), "")), FLOWS)
    assert nothing == []


def call_module(capsys, host, monkeypatch, **params):
    monkeypatch.setattr(firewall_apply, "runner", lambda _module: host)
    with patch_module_args({"ruleset": TEXT, "rules": BUILT, **params}), pytest.raises(SystemExit):
        firewall_apply.main()
    return json.loads(capsys.readouterr().out)


def test_the_module_arms_confirms_and_fails_in_one_line(tmp_path, capsys, monkeypatch):
    host = Answers(nft_t=(0, TEXT, ""))
    armed = call_module(capsys, host, monkeypatch, root=str(tmp_path))
    assert (armed["changed"], armed["armed"], armed["confirmed"], armed["source"]) == (True, True, False, None)
    checked = call_module(capsys, host, monkeypatch, root=str(tmp_path), state="confirmed", _ansible_check_mode=True)
    assert (checked["changed"], checked["confirmed"]) == (True, False)
    kept = call_module(capsys, host, monkeypatch, root=str(tmp_path), state="confirmed")
    assert (kept["changed"], kept["confirmed"], kept["diff"]["before"]) == (True, True, "")
    again = call_module(capsys, host, monkeypatch, root=str(tmp_path))
    assert (again["changed"], again["armed"], again["confirmed"]) == (False, False, True)
    assert again["diff"]["before"] == again["diff"]["after"]
    short = call_module(capsys, host, monkeypatch, root=str(tmp_path), rollback_s=1)
    assert "outside 5-600" in short["msg"]
    bad = call_module(capsys, host, monkeypatch, root=str(tmp_path), ruleset=TEXT + "flush ruleset\n")
    assert bad["failed"]
    assert "alone is ours" in bad["msg"]


def test_a_program_that_is_missing_is_code_127():
    class Module:
        def get_bin_path(self, name):
            return None if name == "nft" else f"/bin/{name}"

        def run_command(self, argv):
            return 0, " ".join(argv), ""

    run = firewall_apply.runner(Module())
    assert run(["nft", "-v"])[0] == 127
    assert run(["true", "x"]) == (0, "/bin/true x", "")
