"""What isolation tests stand on: a foreign host on the lab's network, scans, and the plan's flows read anew."""

from __future__ import annotations

import ast
import contextlib
import ipaddress
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).resolve().parents[2]
PREFIX = "rslab"
NODES = ("node1", "node2", "node3", "node4")
ALL = ("gw", *NODES)
MACHINE = "10.77.1.1"
FOREIGN = f"{PREFIX}-foreign"
FOREIGN_ADDRESS, CLIENT_ADDRESS = "10.77.0.200", "10.77.0.201"
SCANNER = Path(__file__).parent / "port_scan.py"
# Ports of the lab's own package mirror: it is the site's, so the inventory and not the plan opens it.
SITE_PORTS = yaml.safe_load((REPO / "inventories/lab/group_vars/gateway/firewall.yml").read_text("utf-8"))


def ssh(host: str) -> list[str]:
    """The command that logs in to a lab host."""
    return ["/usr/bin/ssh", "-F", str(REPO / "inventories/lab/.state/ssh_config"), host]


def ip(*words: str) -> Any:
    """Run `ip -json`; what it printed."""
    done = subprocess.run(["/sbin/ip", "-json", *words], capture_output=True, text=True, check=True, timeout=20)
    return json.loads(done.stdout or "[]")


@contextlib.contextmanager
def foreign_host() -> Iterator[str]:
    """A host on the lab's bridge that no plan knows, with two addresses; its network namespace."""
    subprocess.run(["/sbin/ip", "netns", "del", FOREIGN], capture_output=True, check=False, timeout=20)
    try:
        ip("netns", "add", FOREIGN)
        ip("-n", PREFIX, "link", "add", "v-foreign", "type", "veth", "peer", "name", "host0", "netns", FOREIGN)
        ip("-n", PREFIX, "link", "set", "v-foreign", "master", "br0", "up")
        ip("-n", FOREIGN, "link", "set", "lo", "up")
        for address in (FOREIGN_ADDRESS, CLIENT_ADDRESS):
            ip("-n", FOREIGN, "addr", "add", f"{address}/24", "dev", "host0")
        ip("-n", FOREIGN, "link", "set", "host0", "up")
        ip("-n", FOREIGN, "route", "add", "default", "via", "10.77.0.1")
        yield FOREIGN
    finally:
        subprocess.run(["/sbin/ip", "netns", "del", FOREIGN], capture_output=True, check=False, timeout=20)


def start_scan(namespace: str | None, address: str, ports: str, source: str = "") -> subprocess.Popen[str]:
    """Begin a scan from a network namespace, from the machine's own without one; from `source`."""
    enter = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
    command = [*enter, sys.executable, str(SCANNER), address, ports, source]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answers(scan: subprocess.Popen[str]) -> dict[int, str]:
    """What a scan found on ports that did not refuse."""
    out, err = scan.communicate(timeout=300)
    assert scan.returncode == 0, err
    return {int(port): what for port, what in json.loads(out)["answers"].items()}


def open_ports(namespace: str | None, address: str, ports: str, source: str = "") -> set[int]:
    """Ports that let a connection in."""
    return {port for port, what in answers(start_scan(namespace, address, ports, source)).items() if what == "open"}


def planned(plan: dict[str, Any], source: str, host: str) -> set[int]:
    """TCP ports of `host` that the plan and the lab's inventory open to an address."""
    addresses = {name: part["address"] for name, part in plan["slices"].items()}
    rows = [(flow["to"], flow["port"], flow["from"]) for flow in plan["firewall"]["flows"]]
    rows += [("gw", rule["port"], rule["sources"]) for rule in SITE_PORTS["firewall_inbound_extra"]]
    asking = ipaddress.ip_address(source)
    return {
        port
        for to, port, sources in rows
        if to == host and any(asking in ipaddress.ip_network(addresses.get(one, one)) for one in sources)
    }


def interesting_ports(plan: dict[str, Any], listeners: set[int]) -> str:
    """Where scanning everything costs too much: what listens anywhere, what is planned, and a sample."""
    flows = {flow["port"] for flow in plan["firewall"]["flows"]}
    return ",".join(map(str, sorted(listeners | flows | set(range(1, 1025)) | set(range(1025, 65536, 251)))))


def link_local(host: str) -> str:
    """A host's IPv6 address on the link, with the interface the foreign host reaches it by."""
    shown = ip("-n", f"{PREFIX}-{host}", "-6", "addr", "show", "dev", "host0")
    local = [one["local"] for one in shown[0]["addr_info"] if one["scope"] == "link"]
    return f"{local[0]}%host0"


def routes_in_source(package: Path) -> set[str]:
    """Paths that any part of the installed vLLM could serve, switched on or not: literals given to its routers."""
    found: set[str] = set()
    calls = {"get", "post", "put", "delete", "websocket", "api_route", "add_api_route", "mount", "Mount"}
    for path in (package / "entrypoints").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in calls and isinstance(node.args[0].value, str) and node.args[0].value.startswith("/"):
                found.add(re.sub(r"\{[^}]*\}", "x", node.args[0].value))
    return found


def guarded_prefixes(package: Path) -> tuple[str, ...]:
    """Path prefixes for which the installed vLLM asks for its key."""
    text = (package / "entrypoints/serve/middleware/authenticate.py").read_text("utf-8")
    (node,) = [
        one.value
        for one in ast.parse(text).body
        if isinstance(one, ast.Assign) and getattr(one.targets[0], "id", "") == "GUARDED_PREFIX"
    ]
    prefixes: tuple[str, ...] = ast.literal_eval(node)
    return prefixes
