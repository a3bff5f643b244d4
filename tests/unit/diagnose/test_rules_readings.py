"""Rules over readings: one thing of a healthy cluster is changed, with all that follows from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from diagnose_support import GATEWAY, causes, changed, down, engine_of, healthy_cluster, running, server_of

Cluster = dict[str, Any]
Inject = Callable[[Cluster], None]
NODE = "node2"
ENGINE = engine_of(NODE)


def unit(cluster: Cluster, name: str = ENGINE, host: str = NODE, **other: Any) -> None:
    cluster[host]["readings"]["units"][name] = running(**other)


def out(cluster: Cluster, **other: Any) -> None:
    """The engine does not run: its unit, what it says, and what the gateway says."""
    readings = cluster[NODE]["readings"]
    unit(cluster, **{"pid": 0, "running_digest": "", "wanted_digest": "", "active_s": 0.0, **other})
    readings["engines"][0].update(state="inactive", said="its unit is not active")
    readings["processes"] = [one for one in readings["processes"] if one["unit"] != ENGINE]
    down(cluster, NODE)


def log(cluster: Cluster, text: str, kind: str = "engine", host: str = NODE, name: str = ENGINE) -> None:
    cluster[host]["sources"].append({"name": f"journal/{name}.log", "kind": kind,
                                     "unit": name if kind == "engine" else "", "state": "troubled",
                                     "text": text})  # fmt: skip


FAILING = {"active": "activating", "sub": "auto-restart", "result": "exit-code", "status": 1, "restarts": 4}
FAILED = {"active": "failed", "sub": "failed", "result": "exit-code", "status": 2}
STOPPED = {"active": "inactive", "sub": "dead", "result": "success"}
DEAD = "Engine core initialization failed. See root cause above.\n"


def bad_flag(c: Cluster) -> None:
    out(c, **FAILED, drop_ins=[f"/etc/systemd/system/{ENGINE}.d/x.conf"])
    log(c, "cli.py: error: unrecognized arguments: --use-v2-block-manager\n")


def crash_loop_without_a_word(c: Cluster) -> None:
    out(c, **FAILING)


def engine_dies_unknown(c: Cluster) -> None:
    out(c, **FAILING)
    log(c, DEAD)


def out_of_kv(c: Cluster) -> None:
    out(c, **FAILING)
    log(
        c,
        "ValueError: 4.38 GiB KV cache is needed, which is larger than the available KV cache memory (1.0 GiB)\n"
        + DEAD,
    )


def start_limit(c: Cluster) -> None:
    out(c, **{**FAILED, "result": "start-limit-hit", "status": 1})


def masked(c: Cluster) -> None:
    out(c, **STOPPED, load="masked", enabled="masked")


def missing(c: Cluster) -> None:
    out(c, **STOPPED, load="not-found", enabled="")


def bad_unit_file(c: Cluster) -> None:
    out(c, **STOPPED, load="bad-setting")


def stopped(c: Cluster) -> None:
    out(c, **STOPPED)


def not_executable(c: Cluster) -> None:
    out(c, **{**FAILING, "status": 203})


def killed(c: Cluster) -> None:
    out(c, **{**FAILED, "result": "signal", "status": 9})


def killed_and_back(c: Cluster) -> None:
    loading(c)
    unit(c, active_s=20.0, restarts=1)
    log(c, "systemd: vllm-a-0.service: Main process exited, code=killed, status=9/KILL\n")


def failed_only(c: Cluster) -> None:
    out(c, **{**FAILED, "status": 1})


def start_timeout(c: Cluster) -> None:
    out(c, **{**FAILED, "result": "timeout", "status": 0})


def oom_killed(c: Cluster) -> None:
    out(c, **{**FAILING, "result": "oom-kill", "status": 9})


def oom_by_the_host(c: Cluster) -> None:
    oom_killed(c)
    log(
        c, "kernel: Out of memory: Killed process 4112 (VLLM::EngineCor) total-vm:98216384kB\n", "kernel", name="kernel"
    )


def assert_failed(c: Cluster) -> None:
    out(c, **STOPPED, asserted="no")


def weights_gone(c: Cluster) -> None:
    assert_failed(c)
    c[NODE]["readings"]["weights"][0].update(ready=False)


def weights_corrupt(c: Cluster) -> None:
    out(c, **FAILING)
    log(c, "/srv/models/x is not what was proven: model.safetensors was written to and has other content: fix\n")
    c[NODE]["readings"]["weights"][0].update(ready=False)


def weights_corrupt_while_serving(c: Cluster) -> None:
    c[NODE]["readings"]["weights"][0].update(changed=["model.safetensors has 12 bytes instead of 14"])


def frozen(c: Cluster) -> None:
    readings = c[NODE]["readings"]
    readings["processes"][0].update(state="T", unit=ENGINE, name="VLLM::EngineCor")
    readings["engines"][0].update(state="hung", said="no completion within 12 s")
    down(c, NODE)


def hung(c: Cluster) -> None:
    c[NODE]["readings"]["engines"][0].update(state="hung", said="no completion within 12 s")
    down(c, NODE)


def stuck(c: Cluster) -> None:
    hung(c)
    c[NODE]["readings"]["processes"][0].update(state="D", stuck=True, unit=ENGINE)


def refuses_key(c: Cluster) -> None:
    c[NODE]["readings"]["engines"][0].update(state="refused", said="HTTP 401")
    down(c, NODE)


def errors(c: Cluster) -> None:
    c[NODE]["readings"]["engines"][0].update(state="failed", said="HTTP 500 for one token")
    down(c, NODE)


def loading(c: Cluster) -> None:
    unit(c, active_s=20.0)
    c[NODE]["readings"]["engines"][0].update(state="loading", said="connection refused")
    down(c, NODE)


def stale(c: Cluster) -> None:
    unit(c, running_digest="b" * 64)


def needs_reload(c: Cluster) -> None:
    unit(c, reload="yes")


def drop_in(c: Cluster) -> None:
    unit(c, drop_ins=[f"/etc/systemd/system/{ENGINE}.d/x.conf"])


def disabled(c: Cluster) -> None:
    unit(c, enabled="disabled")


def preflight(code: str, where: str, why: str) -> Inject:
    def inject(c: Cluster) -> None:
        c[NODE]["readings"]["preflight"].append({"code": code, "where": where, "why": why, "fix": "mend it"})

    return inject


def port_taken(c: Cluster) -> None:
    out(c, **FAILING)
    preflight("port-taken", "port 8000", "process 812 (nginx) listens on it")(c)
    log(
        c,
        "OSError: [Errno 98] error while attempting to bind on address ('0', 8000): address already in use\n",
    )


def full(c: Cluster) -> None:
    out(c, **FAILING)
    c[NODE]["readings"]["volumes"][0].update(free_mib=12)
    log(c, "OSError: [Errno 28] No space left on device\n" + DEAD)


def no_inodes(c: Cluster) -> None:
    c[NODE]["readings"]["volumes"][0].update(inodes_free=12)


def closed(c: Cluster) -> None:
    c[NODE]["readings"]["volumes"][0].update(read_only=True)


def skewed(c: Cluster) -> None:
    c[NODE]["readings"]["clock"]["offset_s"] = -3600.0


def flushed(c: Cluster) -> None:
    c[NODE]["readings"]["firewall"]["lost"] = True


def gateway(**other: Any) -> Inject:
    return lambda c: c["gw"]["readings"]["gateway"].update(other)


def expired(c: Cluster) -> None:
    c["gw"]["readings"]["gateway"]["tls"].update(left_s=-60)


def expires(c: Cluster) -> None:
    c["gw"]["readings"]["gateway"]["tls"].update(left_s=86400)


def broken_pem(c: Cluster) -> None:
    c["gw"]["readings"]["gateway"]["tls"] = {"path": "/x", "problem": "it holds no private key"}


def gateway_dead(c: Cluster) -> None:
    unit(c, GATEWAY, "gw", **STOPPED, pid=0)
    gateway(problem="cannot ask HAProxy through /run/haproxy/rackserve.sock: Connection refused", servers=[])(c)


def gateway_silent(c: Cluster) -> None:
    gateway(problem="cannot ask HAProxy through /run/haproxy/rackserve.sock: timed out", servers=[])(c)


def drained(c: Cluster) -> None:
    server_of(c, NODE).update(admin="drain", status="DRAIN")


def drained_by_cut_off(c: Cluster) -> None:
    server_of(c, NODE).update(admin="drain", status="DRAIN", drained_by="roll-serving")


def all_drained(c: Cluster) -> None:
    for one in c["gw"]["readings"]["gateway"]["servers"]:
        one.update(admin="drain", status="DRAIN")


def server_down_only(c: Cluster) -> None:
    down(c, NODE)


def no_server(c: Cluster) -> None:
    for host in ("node1", "node2", "node3", "node4"):
        server_of(c, host).update(status="no answer")


def other_addresses(c: Cluster) -> None:
    server_of(c, NODE).update(address="10.77.0.99")


def gateway_stale(c: Cluster) -> None:
    gateway(config={"wanted": "a" * 64, "running": "b" * 64})(c)


def behind_plan(c: Cluster) -> None:
    c[NODE]["readings"]["behind_plan"] = [{"unit": ENGINE, "missing": ["--max-num-seqs=24"], "extra": []}]


def lease_left(c: Cluster) -> None:
    gateway(lease={"owner": "ada@ops1", "operation": "roll-serving", "left_s": -600, "age_s": 7800})(c)


def at_work(c: Cluster) -> None:
    gateway(lease={"owner": "ada@ops1", "operation": "roll-serving", "left_s": 3600, "age_s": 60})(c)


def lease_broken(c: Cluster) -> None:
    gateway(lease={"problem": "cannot read the lease: it is no JSON"})(c)


def lost(text: str) -> Inject:
    def inject(c: Cluster) -> None:
        c[NODE] = {"lost": text}
        down(c, NODE)

    return inject


def incomplete(c: Cluster) -> None:
    c[NODE]["readings"]["missed"].append("kernel log: journalctl did not answer within 10 s")


def health(check: str, severity: str) -> Inject:
    def inject(c: Cluster) -> None:
        one = {"id": check, "severity": severity, "subject": "GPU 3", "seen": "x", "fix": "mend it", "caused_by": ""}
        c[NODE]["readings"]["health"]["findings"].append(one)

    return inject


def foreign_process(c: Cluster) -> None:
    out(c, **FAILING)
    health("gpu-foreign-process", "warning")(c)
    log(c, "GPU 0 (GPU-5e1d) is held by process 812 (train) of user joe, 4096 MiB, unit session-3.scope: end it\n")


CASES: list[tuple[Inject, str, str]] = [
    (bad_flag, "engine-bad-argument", NODE),
    (crash_loop_without_a_word, "unit-crash-loop", NODE),
    (engine_dies_unknown, "engine-core-died", NODE),
    (out_of_kv, "gpu-oom-kv", NODE),
    (start_limit, "unit-start-limit", NODE),
    (masked, "unit-masked", NODE),
    (missing, "unit-missing", NODE),
    (bad_unit_file, "unit-bad-file", NODE),
    (stopped, "unit-stopped", NODE),
    (not_executable, "unit-not-executable", NODE),
    (killed, "unit-killed", NODE),
    (failed_only, "unit-failed", NODE),
    (start_timeout, "unit-start-timeout", NODE),
    (oom_killed, "unit-oom-kill", NODE),
    (oom_by_the_host, "host-oom", NODE),
    (assert_failed, "unit-assert", NODE),
    (weights_gone, "weights-not-ready", NODE),
    (weights_corrupt, "weights-changed", NODE),
    (weights_corrupt_while_serving, "weights-changed", NODE),
    (frozen, "engine-frozen", NODE),
    (hung, "engine-hung", NODE),
    (stuck, "engine-stuck", NODE),
    (refuses_key, "engine-refuses-key", NODE),
    (errors, "engine-errors", NODE),
    (loading, "engine-loading", NODE),
    (stale, "unit-stale", NODE),
    (needs_reload, "unit-stale", NODE),
    (drop_in, "unit-drop-in", NODE),
    (disabled, "unit-disabled", NODE),
    (port_taken, "port-in-use", NODE),
    (full, "disk-full", NODE),
    (no_inodes, "disk-full", NODE),
    (closed, "read-only", NODE),
    (preflight("read-only", "/srv", "it is mounted read-only"), "read-only", NODE),
    (preflight("model-unreadable", "/srv/models/x", "uid 64110 may not read it"), "permission-denied", NODE),
    (preflight("address-missing", "interface host0", "it carries nothing"), "address-moved", NODE),
    (preflight("uid-taken", "/etc/passwd", "user joe has uid 64110"), "uid-taken", NODE),
    (preflight("release-differs", "/opt/rackserve/current", "it runs on 2026.10"), "release-differs", NODE),
    (preflight("secret-readable", "/etc/rackserve/x", "its mode is 0644"), "secret-readable", NODE),
    (preflight("firewall-lost", "table inet rackserve", "not loaded"), "firewall-flushed", NODE),
    (skewed, "clock-skew", NODE),
    (flushed, "firewall-flushed", NODE),
    (expired, "tls-expired", "gw"),
    (expires, "tls-expires", "gw"),
    (broken_pem, "tls-unreadable", "gw"),
    (gateway_dead, "unit-stopped", "gw"),
    (gateway_silent, "gateway-down", "gw"),
    (drained, "gateway-drained", NODE),
    (drained_by_cut_off, "gateway-drained-by-operation", NODE),
    (server_down_only, "gateway-server-down", NODE),
    (no_server, "gateway-no-server", "gw"),
    (other_addresses, "gateway-addresses", "gw"),
    (gateway_stale, "gateway-stale", "gw"),
    (behind_plan, "unit-behind-plan", NODE),
    (lease_left, "lease-forgotten", "gw"),
    (lease_broken, "lease-unreadable", "gw"),
    (at_work, "operation-at-work", "gw"),
    (killed_and_back, "unit-killed", NODE),
    (lost("Failed to connect to the host via ssh: connect to host 10.77.0.12 port 22: No route to host"),
     "host-unreachable", NODE),
    (lost("root@10.77.0.12: Permission denied (publickey)."), "host-login-refused", NODE),
    (lost("Host key verification failed."), "host-key-changed", NODE),
    (lost("host_evidence: Timed out after 120 seconds"), "host-not-readable", NODE),
    (incomplete, "evidence-incomplete", NODE),
    (health("gpu-lost", "critical"), "gpu-lost", NODE),
    (foreign_process, "gpu-foreign-process", NODE),
]  # fmt: skip


def test_a_healthy_cluster_names_none() -> None:
    assert causes(healthy_cluster()) == []


@pytest.mark.parametrize(("inject", "cause", "host"), CASES, ids=[cause for _, cause, _ in CASES])
def test_a_failure_names_its_cause_first(inject: Inject, cause: str, host: str) -> None:
    cluster = changed(healthy_cluster())
    inject(cluster)
    found = causes(cluster)
    assert [(one["cause"], one["host"]) for one in found][:1] == [(cause, host)], found
    assert found[0]["evidence"]
    assert "<inventory>" not in found[0]["run"]


@pytest.mark.parametrize(("inject", "cause", "host"), CASES, ids=[cause for _, cause, _ in CASES])
def test_nothing_that_follows_stands_beside_it(inject: Inject, cause: str, host: str) -> None:
    """One failure is one cause; a drop-in beside a bad flag is the one more thing to know."""
    cluster = changed(healthy_cluster())
    inject(cluster)
    beside = {one["cause"] for one in causes(cluster)[1:]}
    assert beside <= {"unit-drop-in", "gateway-down"}, (cause, host)


@pytest.mark.parametrize(
    ("by", "run"),
    [
        ("", '"state": "ready"}\''),
        ("drain-host", f"playbooks/return-host.yml -e host={NODE}"),
        ("quarantine", f"playbooks/lift-quarantine.yml -e host={NODE} -e confirm={NODE}"),
        ("upgrade-release", "playbooks/upgrade-release.yml"),
    ],
)
def test_who_drained_decides_what_gives_back(by: str, run: str) -> None:
    cluster = changed(healthy_cluster())
    server_of(cluster, NODE).update(admin="drain", status="DRAIN", drained_by=by)
    cause = causes(cluster)[0]
    assert cause["run"].endswith(run)
    assert ("did not finish" in cause["evidence"][0]["text"]) is (by == "upgrade-release")


def test_every_engine_down_and_two_causes_are_two_causes() -> None:
    cluster = changed(healthy_cluster())
    bad_flag(cluster)
    cluster["node3"] = {"lost": "connect to host 10.77.0.13 port 22: Connection timed out"}
    down(cluster, "node3")
    found = causes(cluster)
    assert [(one["cause"], one["host"]) for one in found][:2] == [
        ("engine-bad-argument", NODE), ("host-unreachable", "node3"),
    ]  # fmt: skip
    assert {each["cause"] for each in found[1]["follows"]} == {"gateway-server-down"}


def test_what_an_operation_drained_and_stopped_is_its_work() -> None:
    """It holds the lease, and what it drained comes back."""
    cluster = changed(healthy_cluster())
    stopped(cluster)
    server_of(cluster, NODE).update(admin="drain", status="DRAIN", drained_by="roll-serving")
    at_work(cluster)
    found = causes(cluster)
    assert [one["cause"] for one in found] == ["operation-at-work"]
    assert [(each["cause"], each["host"]) for each in found[0]["follows"]] == [("unit-stopped", NODE)]
    cluster = changed(healthy_cluster())
    stopped(cluster)
    at_work(cluster)
    assert [one["cause"] for one in causes(cluster)] == ["unit-stopped", "operation-at-work"], "it drained nothing"


def test_what_fails_during_an_operation_is_named_first() -> None:
    cluster = changed(healthy_cluster())
    bad_flag(cluster)
    server_of(cluster, NODE).update(admin="drain", status="DRAIN", drained_by="roll-serving")
    at_work(cluster)
    assert causes(cluster)[0]["cause"] == "engine-bad-argument"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("python3: what this program runs on has changed: it ends, systemd starts it again\nsystemd: Deactivated", ""),
        ("systemd: Failed with result 'watchdog'.", "unit-crash-loop"),
    ],
)
def test_a_watch_that_ended_on_purpose_is_no_crash_loop(text: str, cause: str) -> None:
    cluster, watch = healthy_cluster(), "rackserve-engine-watch.service"
    unit(cluster, watch, restarts=5, active_s=30.0)
    log(cluster, text, "unit", name=watch)
    assert [one["cause"] for one in causes(cluster)] == ([cause] if cause else [])


def test_an_engine_that_ends_again_and_again_is_one_whatever_its_journal_says() -> None:
    cluster = healthy_cluster()
    unit(cluster, restarts=5, active_s=30.0)
    assert [one["cause"] for one in causes(cluster)] == ["unit-crash-loop"]
