"""`fab status` and `fab gpus`: answers of hosts to lines; one that is silent does not hold up the others."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time

import pytest
from rackserve.oncall import gpus
from rackserve.oncall.hosts import Host
from rackserve.oncall.script import STATUS, journal_command, sections, shell_command
from rackserve.oncall.status import broken_units, read, table
from rackserve.oncall.sweep import Answer, sweep

NODE = """motd of the site
@@rackserve addresses
192.168.7.7 {address}
@@rackserve load
3.50 1.00 0.50 1/99 1234
8
100.5
@@rackserve memory
MemTotal:       1000 kB
MemAvailable:    420 kB
@@rackserve disk
/dev/sda1 100 40 60 40% /
/dev/sdb1 100 {disk} 5 {disk}% /data of models
@@rackserve units
Type=exec
RemainAfterExit=no
NRestarts=0
Result=success
Id=vllm-m-0.service
ActiveState={engine}
SubState=dead

Type=oneshot
RemainAfterExit=no
Id=rackserve-host-health.service
ActiveState=inactive
@@rackserve gpus
{gpus}
8
@@rackserve health
100
160
rackserve_health_finding{{check="gpu-lost",severity="critical",subject="GPU 3",caused_by=""}} 1
rackserve_health_finding{{check="gpu-xid",severity="critical",subject="GPU 3",caused_by="gpu-lost"}} 1
rackserve_health_exit_code 2
@@rackserve lease
@@rackserve end
"""
GATEWAY = """@@rackserve load
0.1 0 0 1/1 1
2
@@rackserve units
Id=rackserve-gateway.service
ActiveState=active
NRestarts=0
@@rackserve lease
{"owner": "ada@ops", "operation": "roll-serving", "expires_at": 99999999999}
@@rackserve servers
frontend fe_metrics
  bind 10.0.0.9:8404
backend be_m
  server r0 10.0.0.1:8000 track probe_m/r0
  server r1 10.0.0.2:8000 track probe_m/r1
  server r2 0.0.0.0:1 track probe_m/r2 disabled
backend probe_m
  server r0 10.0.0.1:8000 check
@@rackserve notes
{"be_m/r1": "roll-serving"}
@@rackserve metrics
haproxy_server_current_sessions{proxy="be_m",server="r0"} 5
haproxy_server_current_queue{proxy="be_m",server="r0"} 1
haproxy_server_status{proxy="be_m",server="r0",state="DOWN"} 0
haproxy_server_status{proxy="be_m",server="r0",state="UP"} 1
haproxy_server_status{proxy="be_m",server="r1",state="UP"} 0
haproxy_server_status{proxy="be_m",server="r1",state="DRAIN"} 1
@@rackserve end
"""
HOSTS = [
    Host("node1", ("gpu",), "10.0.0.1"),
    Host("node2", ("gpu",), "10.0.0.2"),
    Host("gw", ("gateway",), "10.0.0.9"),
]


def node(engine: str = "active", gpus: int = 8, disk: int = 60, address: str = "") -> str:
    return NODE.format(engine=engine, gpus=gpus, disk=disk, address=address)


def test_a_host_is_read() -> None:
    seen = read(node())
    assert seen.load == (3.5, 8)
    assert (seen.memory_free, seen.disk, seen.gpus) == (42, ("/data of models", 60), (8, 8))
    assert (seen.health, seen.findings) == ("critical", ["critical gpu-lost on GPU 3"])
    assert broken_units(seen.units) == []


@pytest.mark.parametrize(("switched", "units"), [("disabled", 2), ("enabled", 3), ("static", 3)])
def test_a_unit_that_is_switched_off_is_not_missed(switched: str, units: int) -> None:
    removed = f"Id=vllm-m-1.service\nUnitFileState={switched}\nActiveState=inactive\nSubState=dead\n\n"
    seen = read(node().replace("Type=exec", removed + "Type=exec"))
    assert len(seen.units) == units
    assert len(broken_units(seen.units)) == units - 2


@pytest.mark.parametrize(
    ("result", "when", "state", "broken"),
    [
        ("no", "1996", "inactive", 0),
        ("no", "0", "inactive", 1),
        ("yes", "1996", "inactive", 1),
        ("no", "9", "failed", 1),
    ],
)
def test_a_unit_whose_condition_is_not_met_is_not_missed(result: str, when: str, state: str, broken: int) -> None:
    unit = {"Id": "rackserve-x.service", "Type": "simple", "ActiveState": state, "UnitFileState": "enabled"}
    asked = {"ConditionResult": result, "ConditionTimestampMonotonic": when}
    assert len(broken_units([{**unit, **asked}])) == broken


def test_the_table_tells_what_serves_what_is_out_and_what_is_wrong() -> None:
    answers = {"node1": Answer(node()), "node2": Answer(node("inactive", 7, 95)), "gw": Answer(GATEWAY)}
    lines, fine = table(HOSTS, answers)
    assert not fine
    assert lines[0].split()[:4] == ["host", "engines", "in", "flight"]
    assert lines[1].split()[:5] == ["node1", "1/1", "5", "UP", "8/8"]
    assert lines[2].split()[:5] == ["node2", "0/1", "0", "DRAIN", "7/8"]
    assert lines[3].split()[:5] == ["gw", "-", "-", "-", "-"]
    text = "\n".join(lines)
    assert "gw: ada@ops holds the lease for roll-serving" in text
    assert "node2: vllm-m-0.service inactive (dead, success)" in text
    assert "node2: the driver has 7 of 8 GPUs on the PCI bus" in text
    assert "node2: /data of models is 95 % full" in text
    assert "be_m/r1 (10.0.0.2:8000) is DRAIN, drained by roll-serving" in text
    assert "rackserve-host-health" not in text


def test_nothing_wrong_is_said_to_be_fine() -> None:
    quiet = "\n".join(line for line in GATEWAY.splitlines() if "r1" not in line)
    lines, fine = table(HOSTS[2:], {"gw": Answer(quiet.replace("99999999999", "1"))})
    assert fine and len(lines) == 2


def test_one_that_does_not_answer_and_one_that_breaks_off_are_named() -> None:
    answers = {
        "node1": Answer("", "Unable to connect"),
        "node2": Answer(node().replace("@@rackserve end", "")),
        "gw": Answer(GATEWAY),
    }
    lines, fine = table(HOSTS, answers)
    assert not fine
    assert "node1: Unable to connect" in lines
    assert any(line.startswith("node2: the answer breaks off") for line in lines)


def test_a_unit_that_was_started_again_is_told() -> None:
    assert broken_units([{"Id": "a", "ActiveState": "active", "NRestarts": "4"}]) == ["a was started again 4 times"]
    watch = {"Id": "rackserve-engine-watch.service", "ActiveState": "active", "NRestarts": "4"}
    assert broken_units([watch]) == []
    assert len(broken_units([{**watch, "ActiveState": "failed"}])) == 1
    waiting = {"Id": "b", "Type": "oneshot", "RemainAfterExit": "yes", "ActiveState": "inactive"}
    assert len(broken_units([waiting])) == 1


def test_hosts_are_asked_at_once_and_a_silent_one_is_given_up() -> None:
    together, never = threading.Barrier(2, timeout=10), threading.Event()

    def ask(host: Host) -> str:
        if host.name == "gw":
            never.wait()
        together.wait()
        if host.name == "node2":
            raise OSError("No route\n to host")
        return "here"

    found = sweep(HOSTS, ask, 1.0)
    assert list(found) == ["node1", "node2", "gw"]
    assert found["node1"].text == "here"
    assert found["node2"].problem == "No route to host"
    assert found["gw"].problem.startswith("no answer within 1 s")
    never.set()


def test_the_script_runs_here_and_comes_to_its_end() -> None:
    bash = shutil.which("bash")
    assert bash
    started_s = time.monotonic()
    done = subprocess.run([bash, "-c", STATUS], capture_output=True, text=True, check=False, timeout=30)
    seen = read(done.stdout)
    assert seen.load[1] >= 1 and seen.memory_free >= 0, done.stderr
    assert time.monotonic() - started_s < 30
    assert set(sections(done.stdout)) >= {"load", "memory", "disk", "units", "gpus", "health", "lease", "end"}


def test_command_lines() -> None:
    assert shell_command("a 'b'", True) == "sudo -n bash -c 'a '\"'\"'b'\"'\"'' </dev/null"

    words = journal_command("vllm-*", "1 hour ago", 50, True)
    assert words == "journalctl --no-pager -o short-iso -n 50 '--since=1 hour ago' -f '--unit=vllm-*'"
    for unit, since in (("a;b", ""), ("-x", ""), ("a", "$(x)")):
        with pytest.raises(ValueError, match="give a"):
            journal_command(unit, since, 1, False)


def test_a_command_that_reads_standard_input_does_not_wait_for_a_person() -> None:
    """As grep does, of no file, on a host without adapters."""
    command = shell_command("cat; echo end", False)
    with subprocess.Popen(
        ["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "end\n"


def test_gpus_with_their_users_and_xids() -> None:
    text = """@@rackserve cards
0, NVIDIA H20, 97, 80000, 97871, 61, 410.1, 1830, 0
exit 0
@@rackserve users
GPU-1, 4242, python3, 80000
@@rackserve xids
2026-11-26T00:00:00 NVRM: Xid (PCI:0000:0a:00): 79
@@rackserve end
"""
    sick = "@@rackserve cards\nexit 124\n@@rackserve end\n"
    lines, fine = gpus.table({"n1": Answer(text), "n2": Answer(sick), "n3": Answer("", "No route")})
    assert not fine
    assert lines[1].split() == ["n1", "0", "NVIDIA", "H20", "97", "80000", "97871", "61", "410.1", "1830", "0"]
    assert "n1: 4242 python3 uses 80000 MiB" in lines
    assert any("Xid" in line for line in lines)
    assert "n2: nvidia-smi hangs: drain it" in lines and "n3: No route" in lines


def test_a_host_without_gpus_is_no_fault() -> None:
    lines, fine = gpus.table(
        {"gw": Answer("@@rackserve cards\nbash: nvidia-smi: not found\nexit 127\n@@rackserve end\n")}
    )
    assert fine and "exit 127" in lines[-1]


def test_engines_may_listen_in_another_network_than_the_one_ansible_uses() -> None:
    host = Host("node2", ("gpu",), "172.16.0.2")
    lines, _ = table([host, HOSTS[2]], {"node2": Answer(node(address="10.0.0.2")), "gw": Answer(GATEWAY)})
    assert lines[1].split()[:4] == ["node2", "1/1", "0", "DRAIN"]
