"""The lab's network: a hub namespace with a bridge, one namespace a host, one routed link to the machine.

The link is routed, not a bridge port, so that ssh, curl and ansible-playbook work in a plain shell while the hosts
have no way out: they know their own subnet and the /30 back to the machine, and the hub forwards only what the
machine began.
"""

from __future__ import annotations

import json
from pathlib import Path

from .spec import Host, Lab, LabError, Run

HUB_RULES = """\
table inet hub
delete table inet hub
table inet hub {{
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "{uplink}" oifname "br0" accept
  }}
}}
"""


def must(run: Run, *command: str) -> str:
    """Run a command that has to succeed; its output, or LabError with what it said."""
    status, out, err = run(list(command))
    if status != 0:
        raise LabError(f"{' '.join(command)}: {(err or out).strip()}")
    return out


def links(run: Run, namespace: str | None = None) -> set[str]:
    """Names of the links in a namespace (the machine's own without one)."""
    where = ["-n", namespace] if namespace else []
    return {link["ifname"] for link in json.loads(must(run, "ip", *where, "-json", "link", "show") or "[]")}


def namespaces(root: Path = Path("/")) -> set[str]:
    folder = root / "run/netns"
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def ensure_hub(lab: Lab, run: Run, present: set[str], root: Path = Path("/")) -> list[str]:
    """Build or finish the hub; what was done, as words."""
    done: list[str] = []
    if lab.hub not in present:
        must(run, "ip", "netns", "add", lab.hub)
        must(run, "ip", "-n", lab.hub, "link", "set", "lo", "up")
        done.append(f"namespace {lab.hub}")
    inside = links(run, lab.hub)
    if "br0" not in inside:
        must(run, "ip", "-n", lab.hub, "link", "add", "br0", "type", "bridge")
        must(run, "ip", "-n", lab.hub, "addr", "add", f"{lab.bridge_address}/{lab.prefix_length}", "dev", "br0")
        must(run, "ip", "-n", lab.hub, "link", "set", "br0", "up")
        done.append("bridge br0")
    if "up0" not in inside or lab.uplink_interface not in links(run):
        if "up0" in inside:
            must(run, "ip", "-n", lab.hub, "link", "del", "up0")
        must(run, "ip", "link", "add", lab.uplink_interface, "type", "veth", "peer", "name", "up0", "netns", lab.hub)
        must(run, "ip", "-n", lab.hub, "addr", "add", f"{lab.hub_address}/30", "dev", "up0")
        must(run, "ip", "-n", lab.hub, "link", "set", "up0", "up")
        must(run, "ip", "addr", "add", f"{lab.machine_address}/30", "dev", lab.uplink_interface)
        must(run, "ip", "link", "set", lab.uplink_interface, "up")
        must(run, "ip", "route", "replace", lab.subnet, "via", lab.hub_address, "dev", lab.uplink_interface)
        done.append(f"link {lab.uplink_interface}")
    if done:
        harden_hub(lab, run, root)
    return done


def harden_hub(lab: Lab, run: Run, root: Path = Path("/")) -> None:
    """Forward only what the machine began; br_netfilter, which would drop frames between hosts, is off in here."""
    enter = ["nsenter", f"--net=/run/netns/{lab.hub}"]
    must(run, *enter, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    if (root / "proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        must(run, *enter, "sysctl", "-q", "-w", "net.bridge.bridge-nf-call-iptables=0")
    rules = lab.state_dir / "hub.nft"
    rules.write_text(HUB_RULES.format(uplink="up0"))
    must(run, *enter, "nft", "-f", str(rules))


def ensure_host_link(lab: Lab, host: Host, run: Run, present: set[str], bridge_links: set[str]) -> bool:
    """Give a host its namespace, address and its two routes. True when something was built."""
    namespace, port = lab.namespace(host), f"v-{host.name}"
    if namespace in present and port in bridge_links:
        return False
    if namespace in present:
        must(run, "ip", "netns", "del", namespace)
    must(run, "ip", "netns", "add", namespace)
    must(run, "ip", "-n", lab.hub, "link", "add", port, "type", "veth", "peer", "name", "host0", "netns", namespace)
    must(run, "ip", "-n", lab.hub, "link", "set", port, "master", "br0", "up")
    must(run, "ip", "-n", namespace, "link", "set", "lo", "up")
    must(run, "ip", "-n", namespace, "addr", "add", f"{host.address}/{lab.prefix_length}", "dev", "host0")
    must(run, "ip", "-n", namespace, "link", "set", "host0", "up")
    must(run, "ip", "-n", namespace, "route", "add", lab.uplink, "via", lab.bridge_address)
    return True


def remove(lab: Lab, run: Run, root: Path = Path("/")) -> list[str]:
    """Take the whole network away; what was there, as words."""
    done: list[str] = []
    # The link first: the kernel takes it away with the hub, but some time after the namespace's name is gone.
    if lab.uplink_interface in links(run):
        must(run, "ip", "link", "del", lab.uplink_interface)
        done.append(f"link {lab.uplink_interface}")
    mine = [name for name in namespaces(root) if name == lab.hub or name.startswith(f"{lab.prefix}-")]
    for name in sorted(mine):
        must(run, "ip", "netns", "del", name)
        done.append(f"namespace {name}")
    return done
