"""Isolation: no way out, no way in but planned ones, no door beside the key, units that give up privileges."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import LAB_HOSTS, REPO, STATE, whole
from isolation import (
    ALL,
    CLIENT_ADDRESS,
    FOREIGN_ADDRESS,
    MACHINE,
    NODES,
    PREFIX,
    answers,
    foreign_host,
    guarded_prefixes,
    interesting_ports,
    ip,
    link_local,
    open_ports,
    planned,
    routes_in_source,
    ssh,
    start_scan,
)

Shell = Callable[[str, str], str]
Run = Callable[..., subprocess.CompletedProcess[str]]
MOST_EXPOSED = 2.0
PRIVILEGED = yaml.safe_load((REPO / "files/privileged.yml").read_text("utf-8"))


@pytest.fixture(scope="module")
def foreign() -> Iterator[str]:
    """A host on the lab's network that is not in the plan."""
    with foreign_host() as name:
        yield name


@pytest.fixture(scope="module")
def addresses(plan: dict[str, Any]) -> dict[str, str]:
    return {name: part["address"] for name, part in plan["slices"].items()}


def listeners(shell: Shell, host: str, kind: str = "t") -> set[tuple[str, int]]:
    """(address, port) of every socket that listens beyond the loopback."""
    rows = [line.split()[3].rpartition(":") for line in shell(host, f"ss -Hln{kind}").splitlines()]
    return {(where, int(port)) for where, _, port in rows if not where.startswith(("127.", "[::1]"))}


# 1. No way out.

OUTSIDE = """
import json, socket
found = {}
def ask(name, kind, address, port):
    one = socket.socket(socket.AF_INET, kind)
    one.settimeout(1)
    try:
        one.connect((address, port))
        if kind == socket.SOCK_DGRAM:
            one.send(bytes.fromhex("000101000001000000000000076578616d706c6503636f6d0000010001"))
            one.recv(512)
        found[name] = "reached"
    except OSError as error:
        found[name] = type(error).__name__
for target in json.loads(__GIVEN__):
    ask(target[0], socket.SOCK_DGRAM if target[1] == "udp" else socket.SOCK_STREAM, target[2], target[3])
try:
    socket.getaddrinfo("example.com", 443)
    found["name"] = "reached"
except OSError as error:
    found["name"] = type(error).__name__
print(json.dumps(found))
"""


@pytest.fixture
def outside() -> Iterator[list[Any]]:
    """Addresses outside the lab: two that do answer, on this machine's own outward address, and well-known ones."""
    own = ip("route", "get", "203.0.113.1")[0]["prefsrc"]
    stream, datagram = socket.create_server((own, 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagram.bind((own, 0))
    ports = [one.getsockname()[1] for one in (stream, datagram)]

    def echo() -> None:
        while True:
            try:
                _, peer = datagram.recvfrom(512)
                datagram.sendto(b"here", peer)
            except OSError:
                return

    threading.Thread(target=echo, daemon=True).start()
    answering = [["machine-tcp", "tcp", own, ports[0]], ["machine-udp", "udp", own, ports[1]]]
    yield [*answering, ["dns", "udp", "8.8.8.8", 53], ["web", "tcp", "1.1.1.1", 443], ["uplink", "tcp", MACHINE, 22]]
    stream.close()
    datagram.close()


def asked(command: list[str], script: str, given: Any) -> dict[str, Any]:
    """Run a script with a Python that reads it from its input; what it printed as JSON."""
    text = script.replace("__GIVEN__", repr(json.dumps(given)))
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_node1_reaches_nothing_outside(outside: list[Any], shell: Shell) -> None:
    """Even with a default route by hand. This machine reaches the first two addresses, so that the test can fail."""
    here = asked(["/usr/bin/python3", "-"], OUTSIDE, outside[:2])
    assert (here["machine-tcp"], here["machine-udp"]) == ("reached", "reached")
    inside = [*ssh("node1"), "python3 -"]
    before = shell("node1", "ip route")
    assert "default" not in before
    assert "reached" not in asked(inside, OUTSIDE, outside).values()
    shell("node1", "ip route add default via 10.77.0.1")
    try:
        found = asked(inside, OUTSIDE, outside)
    finally:
        shell("node1", "ip route del default")
    assert "reached" not in found.values(), found
    assert len(found) == len(outside) + 1
    assert shell("node1", "ip route") == before


# 2. No way in but planned ones.


def scans(targets: list[tuple[str | None, str, str]], ports: str) -> list[dict[int, str]]:
    """Scan (namespace, host, address) all at once."""
    running = [start_scan(where, address, ports) for where, _, address in targets]
    return [answers(scan) for scan in running]


def test_every_port_of_gateway_and_node_scanned(foreign: str, plan: dict[str, Any], addresses: dict[str, str]) -> None:
    """All 65,535 ports, from a foreign host and from a host of the cluster: the plan's answer, nothing else does."""
    pairs = [(foreign, FOREIGN_ADDRESS), (f"{PREFIX}-node2", addresses["node2"])]
    targets = [(where, host, addresses[host]) for where, _ in pairs for host in ("gw", "node1")]
    for (where, host, _), found in zip(targets, scans(targets, "all"), strict=True):
        source = dict(pairs)[where]
        assert {port for port, what in found.items() if what == "open"} == planned(plan, source, host), (where, host)


def test_only_planned_flows_answer_between_all_hosts(
    foreign: str, plan: dict[str, Any], addresses: dict[str, str], shell: Shell
) -> None:
    """What listens anywhere, what is planned and a sample; from every host and the machine, both ways."""
    listening = {port for host in ALL for _, port in listeners(shell, host)}
    ports = interesting_ports(plan, listening)
    sources = {foreign: FOREIGN_ADDRESS, None: MACHINE} | {f"{PREFIX}-{host}": addresses[host] for host in ALL}
    seen = 0
    for where, source in sources.items():
        targets = [(where, host, addresses[host]) for host in ALL if addresses[host] != source]
        for (_, host, _), found in zip(targets, scans(targets, ports), strict=True):
            opened = {port for port, what in found.items() if what == "open"}
            assert opened == planned(plan, source, host), (where, host)
            seen += len(opened)
    expected = sum(len(planned(plan, source, host)) for source in sources.values() for host in ALL)
    assert seen == expected - sum(len(planned(plan, addresses[host], host)) for host in ALL)
    assert seen > len(plan["instances"])


def test_ipv6_is_no_way_around_the_rules(foreign: str, plan: dict[str, Any], shell: Shell) -> None:
    for host in ("gw", "node1"):
        ports = interesting_ports(plan, {port for _, port in listeners(shell, host)})
        assert open_ports(foreign, link_local(host), ports) == set()


def test_no_lab_host_reaches_the_machine_or_the_hub() -> None:
    """Neither a port opened for this test, which the machine itself reaches, nor anything that listens there."""
    shown = subprocess.run(["/usr/bin/ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    with socket.create_server((MACHINE, 0)) as server:
        mine = server.getsockname()[1]
        assert open_ports(None, MACHINE, str(mine)) == {mine}
        ports = {mine, 22} | {int(line.split()[3].rpartition(":")[2]) for line in shown.splitlines()}
        text = ",".join(map(str, sorted(ports)))
        inside = [f"{PREFIX}-node1", f"{PREFIX}-gw"]
        targets = [(where, "machine", address) for where in inside for address in (MACHINE, "10.77.0.1", "10.77.1.2")]
        assert {what for found in scans(targets, text) for what in found.values()} <= {"silent"}


@pytest.mark.parametrize("host", ALL)
def test_what_listens_beyond_the_loopback_is_planned(host: str, plan: dict[str, Any], shell: Shell) -> None:
    """The sockets of an engine's ranks stay on the loopback; nothing listens on UDP."""
    everybody = [MACHINE, FOREIGN_ADDRESS, *(part["address"] for part in plan["slices"].values())]
    assert {port for _, port in listeners(shell, host)} == {p for one in everybody for p in planned(plan, one, host)}
    assert listeners(shell, host, "u") == set()


@whole
def test_a_client_network_finds_the_gateway_and_nothing_else(
    foreign: str, plan: dict[str, Any], addresses: dict[str, str], playbook: Run
) -> None:
    opened = {"cluster_overrides": {"gateway": {"client_cidrs": [f"{CLIENT_ADDRESS}/32"]}}}
    try:
        assert playbook("site", "--tags", "firewall", "-e", json.dumps(opened)).returncode == 0
        found = {host: open_ports(foreign, addresses[host], "all", CLIENT_ADDRESS) for host in ("gw", "node1")}
        others = open_ports(foreign, addresses["gw"], str(plan["gateway"]["port"]), FOREIGN_ADDRESS)
    finally:
        again = playbook("site", "--tags", "firewall")
    assert found == {"gw": {plan["gateway"]["port"]}, "node1": set()}
    assert others == set()
    assert again.returncode == 0, again.stdout
    assert open_ports(foreign, addresses["gw"], str(plan["gateway"]["port"]), CLIENT_ADDRESS) == set()


# 3. No door beside the key.


@pytest.fixture(scope="module")
def package(plan: dict[str, Any]) -> Path:
    """The vLLM that the hosts run, as files."""
    release = LAB_HOSTS / "node1/root" / plan["release"]["path"].lstrip("/")
    (found,) = [path.parent for path in release.glob("lib/python3*/dist-packages/vllm/envs.py")]
    return found


ENGINE_ASKED = """
import http.client, json
address, port = json.loads(__GIVEN__)
found = {}
def ask(method, path, body=None):
    one = http.client.HTTPConnection(address, port, timeout=20)
    one.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    return one.getresponse().status
spec = http.client.HTTPConnection(address, port, timeout=20)
spec.request("GET", "/openapi.json")
paths = json.loads(spec.getresponse().read())["paths"]
for path, methods in paths.items():
    found[path.replace("{response_id}", "x")] = ask(next(iter(methods)).upper(), path, "no JSON")
asked = json.dumps({"model": "tiny-deepseek", "prompt": "x", "max_tokens": 1})
print(json.dumps({"served": found, "bypass": ask("POST", "/invocations", asked)}))
"""


@pytest.fixture(scope="module")
def served(plan: dict[str, Any]) -> dict[str, Any]:
    """Every path the running engine says it serves, with its answer to a caller on its own host who has no key."""
    one = plan["instances"][0]
    return asked([*ssh(one["host"]), "python3 -"], ENGINE_ASKED, [one["address"], one["port"]])


def test_the_engine_itself_leaves_doors_open(served: dict[str, Any], package: Path) -> None:
    """Why the gateway and the firewall have to close them: on its own host, without a key, they answer."""
    unguarded = {path: status for path, status in served["served"].items() if status not in (401, 404)}
    assert served["bypass"] == 200
    assert {"/invocations", "/tokenize", "/detokenize", "/metrics"} <= set(unguarded)
    prefixes = guarded_prefixes(package)
    assert not any(path.startswith(prefixes) for path in unguarded), unguarded
    assert set(served["served"]) <= routes_in_source(package)


def gateway_answer(base_url: str, path: str, key: str = "", method: str = "POST") -> int:
    host = base_url.removeprefix("https://")
    trusted = ssl.create_default_context(cafile=str(STATE / "gateway-ca.pem"))
    one = http.client.HTTPSConnection(host, timeout=30, context=trusted)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    one.putrequest(method, path, skip_accept_encoding=True)
    body = b"no JSON" if method == "POST" else b""
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        one.putheader(name, value)
    one.endheaders(body)
    status = one.getresponse().status
    one.close()
    return status


OPEN_PATHS = {"/v1/models", "/v1/completions", "/v1/chat/completions", "/v1/embeddings"}
FASTAPI_PATHS = {"/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect", "/static/x"}
TRICKS = (
    *("//invocations", "/v1/../invocations", "/v1/completions/../../invocations", "/%69nvocations", "/INVOCATIONS"),
    *("/v1/models/../../tokenize", "/v1/completions/", "/v1/completions/x", "/v1/completions;/../../invocations"),
    *("/invocations?path=/v1/completions", "/invocations/v1/completions", "/v1/completions%2f..%2f..%2finvocations"),
    "http://gw/invocations",
)


def test_the_gateway_closes_every_path_but_its_own(
    served: dict[str, Any], package: Path, base_url: str, secrets: dict[str, str]
) -> None:
    """All that this engine serves, all that vLLM could serve, and other spellings: 401 without a key, 404 with one."""
    routes = set(served["served"]) | routes_in_source(package) | FASTAPI_PATHS
    assert len(routes) > 40
    for path in sorted(routes - {"/health"}) + list(TRICKS):
        assert gateway_answer(base_url, path) == 401, path
    assert gateway_answer(base_url, "/invocations", method="OPTIONS") == 401
    assert gateway_answer(base_url, "/v1/completions", method="OPTIONS") == 401
    for path in sorted(routes - OPEN_PATHS - {"/health"}) + list(TRICKS):
        for key in ("api_key_client", "api_key_operator"):
            assert gateway_answer(base_url, path, secrets[key]) == 404, (path, key)
    assert gateway_answer(base_url, "/v1/models", secrets["api_key_client"], "GET") == 200
    assert gateway_answer(base_url, "/health", method="GET") == 200


def test_engines_answer_the_gateway_and_nobody_else(foreign: str, plan: dict[str, Any]) -> None:
    """Not even other engines' hosts, or operators: those ask through the gateway, or on the host itself."""
    gateway = f"{PREFIX}-{plan['gateway']['host']}"
    for one in plan["instances"]:
        others = [f"{PREFIX}-{host}" for host in NODES if host != one["host"]]
        targets = [(where, one["host"], one["address"]) for where in (gateway, foreign, None, *others)]
        found = scans(targets, str(one["port"]))
        assert found == [{one["port"]: "open"}] + [{one["port"]: "silent"}] * (len(targets) - 1), one["name"]


# 4. Units give up what they do not need.


def our_units(shell: Shell, host: str) -> dict[str, dict[str, str]]:
    """Loaded services whose file is ours, with their properties."""
    shown = shell(host, "systemctl show '*.service' -p Id,FragmentPath,User,DynamicUser,Type,ActiveState --no-pager")
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.split("\n\n")]
    return {
        one["Id"]: one
        for one in blocks
        if one.get("FragmentPath", "").startswith("/etc/systemd/system/")
        and one["Id"].startswith(("rackserve", "vllm"))
    }


@pytest.mark.parametrize("host", ALL)
def test_units_on_the_host(host: str, plan: dict[str, Any], shell: Shell) -> None:
    """Long-running ones: a user of their own and an exposure of 2.0 at most. Root ones: once, and listed."""
    units = our_units(shell, host)
    expected = {item["unit"] for item in plan["instances"] if item["host"] == host}
    expected |= {"rackserve-gateway.service"} if host == plan["gateway"]["host"] else {"rackserve-engine-watch.service"}
    assert expected <= {name for name, one in units.items() if one["ActiveState"] == "active"}
    for name, one in units.items():
        if one["User"] in ("", "root") and one["DynamicUser"] != "yes":
            assert one["Type"] == "oneshot", name
            assert any(fnmatch(name, entry["unit"]) for entry in PRIVILEGED["units"]), f"{name} runs as root, unlisted"
        elif one["ActiveState"] == "active":
            verdict = shell(host, f"systemd-analyze security --no-pager {name} | tail -1")
            score = re.search(r": ([\d.]+) ", verdict)
            assert score and float(score[1]) <= MOST_EXPOSED, f"{name}: {verdict}"
