"""Faults under constant load. Without RACKSERVE_WHOLE=1, the one that covers most."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import INVENTORY, REPO, STATE, Run, case, eventually, whole
from rackserve.completion.client import Endpoint
from scenarios import RESULTS, Outcome, record, table
from stage import PROCESSES, Stage, cut_power, cut_run, give_power, partition, scene

Shell = Callable[[str, str], str]
BEGUN = "stream begun there"
PARTED_S = 60
WATCH = "rackserve-engine-watch.service"


@pytest.fixture(scope="module", autouse=True)
def shown(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print the table of everything recorded."""
    yield
    terminal = request.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and RESULTS.exists():
        terminal.write_line(f"\n\n{table(json.loads(RESULTS.read_text()))}\n")


@pytest.fixture
def stage(plan: dict[str, Any], shell: Shell, base_url: str, secrets: dict[str, str]) -> Iterator[Stage]:
    """The third engine as the victim; afterwards every engine answers again."""
    endpoint = Endpoint(base_url, str(STATE / "gateway-ca.pem"), secrets["api_key_operator"], timeout_s=180)
    made = Stage(plan, shell, endpoint, plan["instances"][2])
    made.prove()
    # These scenarios would spend what systemd and the watch allow one engine in an hour.
    shell(
        made.victim["host"], f"systemctl reset-failed {made.victim['unit']}; rm -f /run/rackserve-engine-watch/*.json"
    )
    yield made
    made.prove()


def said_by_watch(stage: Stage, since: str) -> list[str]:
    """Lines of the watch on the victim's host that tell of an engine it ended."""
    lines = stage.on_victim(f"journalctl -u {WATCH} --since @{since} -o cat").splitlines()
    return [line for line in lines if " ended " in line]


def gates(name: str, *short: str) -> Any:
    """A parameter that the short subset leaves out unless named."""
    return case(name, name=name.replace(" ", "-"), quick=name in short)


@pytest.mark.parametrize("process", [gates(name, "engine core") for name in PROCESSES])
def test_killed(process: str, stage: Stage) -> None:
    """Nobody but a stream already begun there notices; the engine comes back by itself and leaves no process."""
    with scene(stage, f"{process} killed (SIGKILL)") as at:
        pid = stage.pid(process)
        at.strike(lambda: stage.on_victim(f"kill -KILL {pid}"))
        at.recover()
    assert set(at.outcome.failed) <= {BEGUN}, at.errors()
    assert stage.strays(at.before) == []


@pytest.mark.parametrize("process", [gates(name) for name in PROCESSES])
def test_frozen(process: str, stage: Stage) -> None:
    """A frozen engine is taken out by the gateway, ended by the watch on its host and started by systemd."""
    since = stage.on_victim("date +%s")
    with scene(stage, f"{process} frozen (SIGSTOP)") as at:
        pid = stage.pid(process)
        at.strike(lambda: stage.on_victim(f"kill -STOP {pid}"))
        at.recover()
    (line,) = said_by_watch(stage, since)
    assert f"{stage.victim['unit']} hangs: " in line
    assert "systemd starts it again" in line
    assert {what for what in at.outcome.failed if not what.startswith(BEGUN)} == set(), at.errors()
    assert stage.strays(at.before) == []


@whole
def test_saturated_engines_are_no_false_alarm(stage: Stage) -> None:
    """More requests than all engines take: no server goes down, no engine is ended; what finds no room is told so."""
    since = stage.on_victim("date +%s")
    units = {item["unit"]: item["host"] for item in stage.plan["instances"]}
    restarts = "systemctl show -P NRestarts,MainPID {}"
    before = {unit: stage.shell(host, restarts.format(unit)) for unit, host in units.items()}
    room = sum(item["max_inflight_per_server"] * len(units) for item in stage.plan["gateway"]["deployments"][:1])
    with scene(stage, "all engines saturated", clients=room + 16, tokens=100, long=100) as at:
        at.strike(lambda: time.sleep(60))
        assert at.statuses.first(lambda said: any(state == "DOWN" for state in said.values()), at.began_s) is None
    refused = [item for item in at.load.records if item.error in ("HTTP 429", "HTTP 503")]
    assert sum(at.outcome.failed.values()) == len(refused), at.errors()
    assert {unit: stage.shell(host, restarts.format(unit)) for unit, host in units.items()} == before
    assert said_by_watch(stage, since) == []


@whole
def test_host_rebooted(stage: Stage) -> None:
    """An orderly reboot without a drain: the engine is back by itself; what it refuses meanwhile goes elsewhere."""
    with scene(stage, "host rebooted") as at:
        at.strike(lambda: stage.on_victim("systemd-run --quiet --collect --on-active=1 systemctl reboot"))
        at.recover()
    assert {what for what in at.outcome.failed if not what.startswith(BEGUN)} == set(), at.errors()


@whole
def test_host_powered_off(stage: Stage, playbook: Run) -> None:
    """The plug pulled: site names the host and does not wait for it; powered on again, it serves without more."""
    host = stage.victim["host"]

    def person() -> None:
        done = playbook("site")
        assert done.returncode != 0
        assert f"{host}" in done.stdout.partition("PLAY RECAP")[2]
        assert "unreachable=1" in done.stdout, done.stdout[-2000:]
        give_power(host)
        booted = playbook("lab-up")
        assert booted.returncode == 0, booted.stdout[-2000:]

    with scene(stage, "host powered off") as at:
        at.strike(lambda: cut_power(host))
        at.recover(help_it=person)
        at.outcome.human = "powered it on (lab: `lab-up.yml`)"
    assert {what for what in at.outcome.failed if not what.startswith(BEGUN)} == set(), at.errors()


@whole
def test_host_partitioned(stage: Stage) -> None:
    """No packet comes or goes for a while: out of service; and back with the engine that ran all the time."""
    pid = stage.pid("API server")
    with scene(stage, "host partitioned for a minute") as at, contextlib.ExitStack() as cut:

        def strike() -> None:
            cut.enter_context(partition(stage.victim["host"]))

        def heal() -> None:
            time.sleep(max(0, at.began_s + PARTED_S - time.monotonic()))
            cut.close()

        at.strike(strike)
        at.recover(help_it=heal)
        at.outcome.human = "nothing"
    assert {what for what in at.outcome.failed if not what.startswith(BEGUN)} == set(), at.errors()
    assert stage.pid("API server") == pid


@whole
@pytest.mark.parametrize(
    ("how", "fault"),
    [("systemctl restart {}", "gateway restarted"), ("systemctl kill -s KILL {}", "gateway killed (SIGKILL)")],
    ids=["restarted", "killed"],
)
def test_gateway(how: str, fault: str, stage: Stage) -> None:
    """The one door: what is in flight breaks, new connections are refused for a moment, then all servers are up."""
    gateway = stage.plan["gateway"]["host"]
    slots = [item["gateway_target"].rpartition("/")[2] for item in stage.plan["instances"]]
    with scene(stage, fault) as at:
        at.everywhere = True
        at.strike(lambda: stage.shell(gateway, how.format("rackserve-gateway.service")))
        time.sleep(2)
        # A busy machine may need seconds to log in: it began when the gateway was gone.
        went = at.statuses.first(at.gone, at.began_s) or at.struck_s
        back = at.statuses.wait(lambda said: all(said.get(slot) == "UP" for slot in slots), went, 60)
        stage.prove(60)
        at.outcome.again_s = back - went
        at.wait_for_burst()
    late = [item for item in at.load.records if item.error and item.started_s > went + 5]
    assert late == [], at.errors()


@whole
def test_model_shard_corrupted(stage: Stage, playbook: Run) -> None:
    """The running engine is not touched; its next start is refused, and site brings the shard and the engine."""
    model, unit = stage.victim["model_path"], stage.victim["unit"]
    shard = f"{model}/model-00002-of-00003.safetensors"

    def strike() -> None:
        stage.on_victim(f"dd if=/dev/urandom of={shard} bs=64k count=4 seek=8 conv=notrunc status=none")
        stage.prove()
        stage.on_victim(f"kill -KILL {stage.pid('engine core')}")

    def person() -> None:
        eventually(lambda: stage.on_victim(f"if [ -e {model}/READY ]; then echo there; fi") == "", 60)
        said = stage.on_victim(f"journalctl -u {unit} -o cat | grep -F 'is not what was proven' | tail -1")
        assert "model-00002-of-00003.safetensors was written to and has other content" in said
        assert "playbooks/site.yml proves the model" in said
        done = playbook("site")
        assert done.returncode == 0, done.stdout[-3000:]

    with scene(stage, "model shard corrupted, then its engine killed") as at:
        at.strike(strike)
        at.recover(help_it=person)
        at.outcome.human = "`site.yml`, named in the journal"
    assert set(at.outcome.failed) <= {BEGUN}, at.errors()


@whole
def test_disk_full(stage: Stage) -> None:
    """No room for the engine's files, and the engine killed: after room was made, it serves."""
    unit = stage.victim["unit"]
    cache = stage.on_victim(f"systemctl show --value --property=WorkingDirectory {unit}").strip()
    filled = (
        f"mount -t tmpfs -o size=256k,uid=$(id -u vllm),gid=$(id -g vllm),mode=700 full {cache};"
        f" dd if=/dev/zero of={cache}/ballast bs=4k status=none 2>/dev/null || true;"
        f" df --output=avail {cache} | tail -1"
    )

    def strike() -> None:
        assert stage.on_victim(filled) == "0"
        stage.on_victim(f"kill -KILL {stage.pid('engine core')}")

    with scene(stage, "disk full, then its engine killed") as at:
        try:
            at.strike(strike)
            at.recover()
        finally:
            stage.on_victim(f"rm -f {cache}/ballast; umount -l {cache}")
    assert set(at.outcome.failed) <= {BEGUN}, at.errors()
    assert stage.on_victim(f"systemctl is-active {unit}") == "active"


@whole
def test_journal_flooded(stage: Stage) -> None:
    """Something on the host writes 200,000 lines at once: nobody notices, and the engine's own lines are kept."""
    lines = "yes 'a line of the flood' | head -n 200000"
    flood = f'systemd-run --quiet --collect --wait -p LogRateLimitIntervalSec=0 sh -c "{lines}"'
    with scene(stage, "journal flooded (200,000 lines)") as at:
        at.strike(lambda: stage.on_victim(flood))
        stage.prove()
        time.sleep(5)
        since = f"--since=-{time.monotonic() - at.began_s:.0f}s"
        kept = stage.on_victim(f"journalctl -u {stage.victim['unit']} {since} -o cat | grep -c 'POST /v1/completions'")
        assert int(kept) > 0
        assert at.statuses.first(at.down, at.began_s) is None
    assert at.outcome.failed == {}, at.errors()


@whole
def test_clock_off(stage: Stage, module: Callable[..., dict[str, Any]]) -> None:
    """Hosts of the lab share the machine's clock, so the offset is given to the check as the controller's clock."""
    host = stage.victim["host"]

    def findings(offset_s: float) -> list[dict[str, Any]]:
        asked = {"supported_os": {"debian": ["12"]}, "controller_epoch_s": time.time() + offset_s}
        report = module(host, "host_preflight", **asked, clock_tolerance_s=20)
        return [item for item in report["findings"] if item["code"] == "clock-off"]

    (late,) = findings(90)
    assert late["severity"] == "error"
    assert "it differs from the controller's by -" in late["why"]
    record(Outcome("clock off by 90 s (as the check sees it)", human=f"what the check names: {late['fix']}"))
    assert findings(0) == []


@whole
def test_controller_killed(stage: Stage, playbook: Run) -> None:
    """A run of everything loses its controller half way: nobody notices, and the next run finds nothing broken."""
    program = str(Path(sys.executable).parent / "ansible-playbook")
    command = [program, "-i", str(INVENTORY), "playbooks/site.yml", "-e", "full=true"]
    with scene(stage, "controller killed in mid-run (SIGKILL)") as at:

        def strike() -> None:
            with subprocess.Popen(
                command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
            ) as run:
                assert run.stdout is not None
                seen: list[str] = []
                while "vllm : " not in "".join(seen[-1:]):
                    seen.append(run.stdout.readline())
                    assert seen[-1], "the run ended before it came to the engines: " + "".join(seen[-40:])
                cut_run(run)

        at.strike(strike)
        stage.prove()
        assert at.statuses.first(at.down, at.began_s) is None
        at.outcome.human = "`site.yml` again"
    assert at.outcome.failed == {}, at.errors()
    done = playbook("site")
    assert done.returncode == 0, done.stdout[-3000:]
