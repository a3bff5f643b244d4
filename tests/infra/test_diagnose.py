"""Failures on the lab, each named first by diagnose; healthy hosts name none; no secret in any bundle.

RACKSERVE_WHOLE=1 runs all of them (make test-diagnose).
"""

from __future__ import annotations

import json
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from canary import canaries, search_text
from conftest import REPO, STATE, Run, eventually, whole
from failures import ENGINES, FAULTS, FILES, LOST, NODE, TLS, Failure, as_file, expired

Shell = Callable[[str, str], str]
Module = Callable[..., dict[str, Any]]
Diagnose = Callable[..., list[dict[str, Any]]]
pytestmark = whole
CATALOGUE = yaml.safe_load((REPO / "files/simulated/faults.yml").read_text("utf-8"))
SHOWS_S, READY_S = 120, 400
# Hosts count back from when they are asked, which is some seconds after a test began.
ASKED_S = 15


def named(name: str, *values: Any) -> Any:
    return pytest.param(*values, id=name.replace(" ", "-"))


def told(causes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Causes, without what the lab's own machine cannot give its hosts."""
    return [one for one in causes if "PID 1 lacks CAP_SYS_RESOURCE" not in json.dumps(one["evidence"])]


@pytest.fixture(scope="module")
def struck() -> list[float]:
    """When each fault was put on: its lines stay in the journal when it is gone."""
    return []


@pytest.fixture
def diagnose(playbook: Run, struck: list[float], tmp_path: Path) -> Diagnose:
    """Run the playbook; its causes of log lines not older than `since`. Lines of the fault before are older by now."""
    if struck:
        time.sleep(max(0, struck[-1] + ASKED_S - time.time()))

    def run(*arguments: str, since: float = 0.0) -> list[dict[str, Any]]:
        output = tmp_path / "causes.json"
        age = time.time() - (since or time.time()) + ASKED_S
        done = playbook("diagnose", "-e", f"diagnose_output={output}", "-e", f"diagnose_since_s={age}", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        found: list[dict[str, Any]] = json.loads(output.read_text())
        return told(found)

    return run


@pytest.fixture
def fields(plan: dict[str, Any]) -> dict[str, str]:
    """What the lines of failures name: the engine of the node."""
    (one,) = [item for item in plan["instances"] if item["host"] == NODE]
    return {"unit": one["unit"], "name": one["name"], "address": one["address"], "port": str(one["port"]),
            "model": one["model_path"], "folder": "/etc/systemd/system"}  # fmt: skip


@pytest.fixture
def settled(plan: dict[str, Any], module: Module, shell: Shell) -> Iterator[None]:
    """Every engine is up in the gateway, before and after."""
    gateway = plan["gateway"]
    slots = {str(item["gateway_target"]) for item in plan["instances"] if item["gateway_target"]}

    def up() -> bool:
        asked = {"socket": gateway["stats_socket"], "state_file": gateway["server_state_file"]}
        servers = module("gw", "gateway_servers", **asked)["servers"]
        states = {f"{one['backend']}/{one['slot']}": one["status"] for one in servers}
        return all(states[slot].startswith("UP") for slot in slots)

    eventually(up, READY_S)
    yield
    shell(NODE, "systemctl reset-failed")
    eventually(up, READY_S)


def first(causes: list[dict[str, Any]]) -> tuple[str, str]:
    return (causes[0]["cause"], causes[0]["host"]) if causes else ("", "")


@pytest.mark.usefixtures("settled")
def test_healthy_hosts_name_none_and_nothing_is_changed(diagnose: Diagnose, playbook: Run) -> None:
    assert diagnose() == []
    done = playbook("diagnose", "--check", "-e", "diagnose_since_s=60")
    assert done.returncode == 0
    recap = done.stdout.partition("PLAY RECAP")[2]
    assert recap.count("changed=0") == recap.count("changed=")


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("failure", [named(one.name, one) for one in (*FILES, *ENGINES)])
def test_a_failure_is_named_first(failure: Failure, diagnose: Diagnose, shell: Shell, fields: dict[str, str]) -> None:
    began = time.time()
    try:
        for line in failure.inject:
            shell(failure.on, line.format(**fields))
        if failure.until:
            eventually(lambda: "yes" in shell(failure.on, failure.until.format(**fields)), SHOWS_S)
        causes = diagnose("--limit", f"{failure.on},gw", since=began)
    finally:
        for line in failure.undo:
            shell(failure.on, line.format(**fields))
    assert first(causes) == (failure.cause, failure.on), causes
    assert causes[0]["evidence"] and causes[0]["run"]


@pytest.mark.parametrize(
    ("fault", "parameters", "cause"),
    [named(cause if fault in ("xid", "kernel-log") else fault, fault, given, cause) for fault, given, cause in FAULTS],
)
def test_a_fault_of_the_catalogue_is_named_first(
    *, fault: str, parameters: dict[str, Any], cause: str, diagnose: Diagnose, module: Module,
    struck: list[float],
) -> None:  # fmt: skip
    began = time.time()
    asked = {"catalogue": CATALOGUE, "fault": fault, "parameters": parameters}
    try:
        module(NODE, "simulated_fault", **asked)
        struck.append(time.time())
        causes = diagnose("--limit", f"{NODE},gw", since=began)
    finally:
        module(NODE, "simulated_fault", catalogue=CATALOGUE, fault="all", state="absent")
    assert first(causes) == (cause, NODE), causes


@pytest.mark.usefixtures("settled")
def test_an_engine_drained_and_forgotten(plan: dict[str, Any], diagnose: Diagnose, module: Module) -> None:
    gateway = plan["gateway"]
    (target,) = [item["gateway_target"] for item in plan["instances"] if item["host"] == NODE]
    asked = {"socket": gateway["stats_socket"], "state_file": gateway["server_state_file"], "targets": [target]}
    try:
        module("gw", "gateway_servers", **asked, state="drain")
        causes = diagnose()
    finally:
        module("gw", "gateway_servers", **asked, state="ready")
    assert first(causes) == ("gateway-drained", NODE), causes
    assert target in causes[0]["run"]


@pytest.mark.usefixtures("settled")
def test_an_expired_certificate(diagnose: Diagnose, shell: Shell, secrets: dict[str, str]) -> None:
    try:
        shell("gw", f"cp -p {TLS} {TLS}.kept")
        shell("gw", as_file(TLS, expired(secrets["gateway_tls_pem"])))
        causes = diagnose("--limit", "gw")
    finally:
        shell("gw", f"mv {TLS}.kept {TLS}")
    assert first(causes) == ("tls-expired", "gw"), causes


@pytest.mark.usefixtures("settled")
def test_a_host_that_does_not_answer_is_a_finding_and_no_stop(diagnose: Diagnose) -> None:
    link = ["/usr/sbin/ip", "-n", "rslab", "link", "set", f"v-{LOST}"]
    try:
        subprocess.run([*link, "down"], check=True)
        causes = diagnose()
    finally:
        subprocess.run([*link, "up"], check=True)
    assert first(causes) == ("host-unreachable", LOST), causes
    assert {one["host"] for one in causes} == {LOST}


# None of them is known to anybody: they are found by what they look like.
STRANGERS = {
    "bearer": "Authorization: Bearer 7f0c2d9e41ab55aa",
    "hugging face": "token hf_QwErTyUiOpAsDfGhJkLzXcVbNm012345",
    "url": "GET https://joe:n0tF0rY0u-42@mirror.example/x",
    "argument": "vllm serve x --api-key zx81-spectrum-0042 --port 1",
}
SEEDED = ("7f0c2d9e41ab55aa", "hf_QwErTyUiOpAsDfGhJkLzXcVbNm012345", "n0tF0rY0u-42", "zx81-spectrum-0042")


def test_no_secret_is_in_a_bundle(
    playbook: Run, shell: Shell, secrets: dict[str, str], fields: dict[str, str], tmp_path: Path
) -> None:
    """Those of the site and of others, in units, files and logs; and the bundle says the same as the hosts did."""
    keys = [STATE / name for name in ("id_ed25519", "simulated-archive-key.asc")]
    needles = canaries(secrets, [path for path in keys if path.exists()])
    needles |= {f"seeded {number}": [text] for number, text in enumerate(SEEDED)}
    bundle, output = tmp_path / "case.tar.gz", tmp_path / "causes.json"
    folder = f"/etc/systemd/system/{fields['unit']}.d"
    source = f"/etc/rackserve/vllm/{fields['name']}.secret.env"
    try:
        shell(NODE, f"mkdir -p {folder}")
        for text in STRANGERS.values():
            shell(NODE, f"echo '# {text}' >> {folder}/seeded.conf")
        # The engine's own key as well, by a line that no argument of a process shows.
        shell(NODE, f"sed -n 's/^VLLM_API_KEY=/# key /p' {source} >> {folder}/seeded.conf")
        words = ("-e", f"diagnose_bundle={bundle}", "-e", f"diagnose_output={output}", "-vvvvvv")
        done = playbook("diagnose", *words)
    finally:
        shell(NODE, f"rm -rf {folder}; systemctl daemon-reload")
    assert done.returncode == 0, done.stdout[-2000:]
    assert search_text(done.stdout + done.stderr, needles) == set()
    assert search_text(output.read_text(), needles) == set()
    texts = {}
    with tarfile.open(bundle) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            texts[member.name] = content.read().decode("utf-8", "replace")
    assert len(texts) > 100
    assert {name: found for name, text in texts.items() if (found := search_text(text, needles))} == {}
    (seeded,) = [text for name, text in texts.items() if name.endswith("seeded.conf")]
    assert seeded.count("[redacted]") >= 5
    again = playbook("diagnose", "-e", f"diagnose_input={bundle}", "-e", f"diagnose_output={tmp_path / 'again.json'}")
    assert again.returncode == 0, again.stdout
    causes = [one["cause"] for one in json.loads((tmp_path / "again.json").read_text())]
    assert causes == [one["cause"] for one in json.loads(output.read_text())]
