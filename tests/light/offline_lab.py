"""A light lab that is installed from a bundle, and a net around it that counts whatever leaves for somewhere else.

Hosts and controller have a way out as far as they know: a default route and a name server. Both end in the hub of the
lab, where each packet for another address than the cluster's is written down and dropped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import light_tree
import yaml
from light_lab import LightLab

sys.path.insert(0, str(light_tree.REPOSITORY / "module_utils"))

from rackserve.bundle.debs import write_repository
from rackserve.bundle.signature import Signer
from rackserve.progress.report import Report
from rackserve.release.host import must, run_command

HOST_DIR = "/srv/rackserve/bundle"
BUNDLE_KEY = f"{light_tree.INVENTORY}/bundle-key.asc"
# Addresses for documentation: nobody has them.
NAME_SERVER = "192.0.2.53"
WATCH = """\
table inet watch
delete table inet watch
table inet watch {{
  counter outside {{ }}
  set tried {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags dynamic; size 4096; }}
  set tried6 {{ type ipv6_addr . ipv6_addr . inet_proto . inet_service; flags dynamic; size 4096; }}
  chain write_down {{
    counter name outside
    meta nfproto ipv4 meta l4proto {{ tcp, udp }} add @tried {{ ip saddr . ip daddr . meta l4proto . th dport }}
    meta nfproto ipv6 meta l4proto {{ tcp, udp }} add @tried6 {{ ip6 saddr . ip6 daddr . meta l4proto . th dport }}
    drop
  }}
  chain hosts {{
    type filter hook prerouting priority -300;
    iifname != "br0" return
    ip daddr != {{ {subnet}, {uplink}, 224.0.0.0/4 }} goto write_down
    ip6 daddr != {{ fe80::/10, ff00::/8 }} goto write_down
  }}
  chain controller {{
    type filter hook output priority -300;
    ip daddr != {{ {subnet}, {uplink}, 127.0.0.0/8, 224.0.0.0/4 }} goto write_down
    ip6 daddr != {{ ::1, fe80::/10, ff00::/8 }} goto write_down
  }}
}}
"""


class Key:
    """A throw-away key: `fingerprint`, gpg's folder `home`, and `public`, a file; gone after `forget`."""

    def __init__(self, name: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="rsk-"))  # a short path: gpg's agent has a socket there
        gpg = [
            "gpg",
            "--homedir",
            str(self.home),
            "--batch",
            "--quiet",
            "--passphrase",
            "",
            "--pinentry-mode",
            "loopback",
        ]
        must(
            run_command, [*gpg, "--quick-generate-key", f"{name} <{name}@localhost>", "ed25519", "sign"], "making a key"
        )
        listed = must(run_command, [*gpg, "--list-keys", "--with-colons"], "listing keys")
        self.fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        self.public = self.home / "key.asc"
        self.public.write_text(must(run_command, [*gpg, "--armor", "--export"], "exporting the key"))

    @property
    def signer(self) -> Signer:
        return Signer(self.fingerprint, str(self.home))

    def forget(self) -> None:
        run_command(["gpgconf", "--homedir", str(self.home), "--kill", "all"])
        shutil.rmtree(self.home, ignore_errors=True)


class OfflineLab(LightLab):
    """Light hosts whose packages come from a bundle; between `cut_off` and `down` nothing of it reaches the world."""

    watched = False

    def copy(self) -> None:
        """As of a light lab; NVIDIA's packages come from a folder of each host, and no host serves the lab's mirror."""
        super().copy()
        variables = self.inventory.parent / "group_vars/all"
        described = yaml.safe_load((variables / "cluster.yml").read_text())
        described["cluster"]["repositories"] = {"nvidia": {"uri": f"file://{HOST_DIR}/debs/", "key": BUNDLE_KEY}}
        (variables / "cluster.yml").write_text(yaml.safe_dump(described, sort_keys=False))
        lab = {**yaml.safe_load((variables / "lab.yml").read_text()), "lab_host_mirror_host": ""}
        (variables / "lab.yml").write_text(yaml.safe_dump(lab, sort_keys=False))

    @property
    def image(self) -> Path:
        """What every host is before anything is installed."""
        options = subprocess.run(
            ["/usr/bin/findmnt", "--noheadings", "--output", "OPTIONS", str(self.state_dir / "hosts/gw/root")],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        return Path(next(word[len("lowerdir=") :] for word in options.split(",") if word.startswith("lowerdir=")))

    def write_sources(self, folder: Path, key: Key) -> Path:
        """What a builder has: NVIDIA's repository (the simulated one) and the distribution's (the image's, signed)."""
        distribution = folder / "distribution"
        shutil.copytree(self.image / "srv/packages", distribution, ignore=shutil.ignore_patterns("Packages"))
        write_repository(distribution, "the distribution", key.signer, run_command, Report())
        [mirror] = [path.parent for path in (self.state_dir / "mirror").glob("*/InRelease")]
        nvidia_key = self.inventory.parent / ".state/simulated-archive-keyring.asc"
        sources = folder / "bundle.sources"
        sources.write_text(
            f"Types: deb\nURIs: file:{mirror}/\nSuites: ./\nSigned-By: {nvidia_key}\n\n"
            f"Types: deb\nURIs: file:{distribution}/\nSuites: ./\nSigned-By: {key.public}\n"
        )
        return sources

    def cut_off(self) -> None:
        """Hosts as an installer leaves them: the world's repositories by name, and none of the lab's packages."""
        sources = "deb http://deb.debian.org/debian bookworm main\n"
        for host in self.hosts:
            self.shell(
                host,
                "rm -rf /srv/packages /etc/apt/sources.list.d/rackserve-lab.sources /var/lib/apt/lists/*; "
                f"printf '{sources}' > /etc/apt/sources.list; echo nameserver {NAME_SERVER} > /etc/resolv.conf",
            )
        self._watch()
        (self.state_dir / "resolv.conf").write_text(f"nameserver {NAME_SERVER}\noptions timeout:1 attempts:1\n")
        self.watched = True

    def _watch(self) -> None:
        rules = self.state_dir / "watch.nft"
        rules.write_text(WATCH.format(subnet=f"10.{self.place.net}.0.0/24", uplink=self.management_cidr))
        hub = ["/usr/bin/nsenter", f"--net=/run/netns/{self.prefix}"]
        must(run_command, [*hub, "nft", "-f", str(rules)], "watching the hub")
        # The controller is at home on the management link, also when it runs in the hub.
        own = f"10.{self.place.net}.1.2"
        bridge = json.loads(must(run_command, [*hub, "ip", "-json", "-6", "addr", "show", "dev", "br0"], "reading br0"))
        link_local = bridge[0]["addr_info"][0]["local"]
        routes = [
            [*hub, "ip", "route", "change", f"10.{self.place.net}.0.0/24", "dev", "br0", "src", own],
            [*hub, "ip", "route", "replace", "default", "dev", "br0", "src", own],
            [*hub, "ip", "-6", "route", "replace", "default", "dev", "br0"],
        ]
        for host in self.hosts:
            ip = ["ip", "-n", f"{self.prefix}-{host}"]
            routes.append([*ip, "route", "replace", "default", "via", f"10.{self.place.net}.0.1"])
            routes.append([*ip, "-6", "route", "replace", "default", "via", link_local, "dev", "host0"])
        for command in routes:
            must(run_command, command, "a route that leads into the watch")

    def command(self, program: str, *arguments: str) -> list[str]:
        """Once cut off, ansible runs in the hub: what it reaches is the lab, and the watch sees the rest."""
        plain = super().command(program, *arguments)
        return [*self.inside(), *plain] if self.watched and not self._of_the_machine(arguments) else plain

    def inside(self) -> list[str]:
        """Words in front of a command that make it run where the cluster is all the network there is."""
        line = f'mount --bind {self.state_dir}/resolv.conf /etc/resolv.conf && exec "$@"'
        return [
            "/usr/bin/nsenter", f"--net=/run/netns/{self.prefix}",
            "/usr/bin/unshare", "--mount", "/bin/sh", "-c", line, "sh",
        ]  # fmt: skip

    @staticmethod
    def _of_the_machine(arguments: tuple[str, ...]) -> bool:
        return arguments[:1] in (("playbooks/lab-up.yml",), ("playbooks/lab-down.yml",))

    def fresh(self) -> None:
        """Bare hosts again, cut off anew where they were."""
        self.watched = False
        super().fresh()

    def outside(self) -> tuple[int, list[str]]:
        """(packets that left for somewhere else, who wanted what: "source destination protocol port", sorted)."""
        packets, tried = 0, []
        listed = must(
            run_command,
            ["/usr/bin/nsenter", f"--net=/run/netns/{self.prefix}", "nft", "--json", "list", "table", "inet", "watch"],
            "reading the watch",
        )
        for entry in json.loads(listed)["nftables"]:
            if "counter" in entry:
                packets += int(entry["counter"]["packets"])
            for element in entry.get("set", {}).get("elem", []):
                tried.append(" ".join(str(word) for word in _words(element)))
        return packets, sorted(tried)

    def forget_outside(self) -> None:
        """Count from nothing again."""
        hub = ["/usr/bin/nsenter", f"--net=/run/netns/{self.prefix}", "nft"]
        for what in (["flush", "set", "inet", "watch", "tried"], ["flush", "set", "inet", "watch", "tried6"]):
            must(run_command, [*hub, *what], "emptying the watch")
        must(run_command, [*hub, "reset", "counters", "table", "inet", "watch"], "emptying the watch")

    def probe(self) -> list[str]:
        """Try to get out in every way there is; what the watch has to know afterwards, without the sources."""
        source = (
            "import socket\n"
            "for family, address in ((socket.AF_INET, '192.0.2.80'), (socket.AF_INET6, '2001:db8::80')):\n"
            "    with socket.socket(family, socket.SOCK_STREAM) as one:\n"
            "        one.settimeout(1)\n"
            "        try:\n"
            "            one.connect((address, 80))\n"
            "        except OSError:\n"
            "            pass\n"
        )
        for host in self.hosts:
            self.python(host, source)
            self.shell(host, "timeout 2 getent hosts deb.debian.org || true")
        subprocess.run([*self.inside(), sys.executable, "-c", source], check=True)
        subprocess.run([*self.inside(), "/usr/bin/timeout", "2", "getent", "hosts", "deb.debian.org"], check=False)
        return sorted([f"{NAME_SERVER} udp 53", "192.0.2.80 tcp 80", "2001:db8::80 tcp 80"] * (len(self.hosts) + 1))

    def policy(self, host: str, packages: list[str]) -> dict[str, set[str]]:
        """{package: where apt knows it from}: addresses of repositories; dpkg's own record is left out."""
        found: dict[str, set[str]] = {}
        package = ""
        for line in self.shell(host, f"LC_ALL=C apt-cache policy {' '.join(packages)}").splitlines():
            words = line.split()
            if not line.startswith(" "):
                package = line.rstrip(":")
                found[package] = set()
            elif len(words) > 1 and words[0].isdigit() and ":" in words[1]:
                found[package].add(words[1])
        return found


def _words(element: Any) -> list[Any]:
    value = element.get("elem", element) if isinstance(element, dict) else element
    value = value.get("val", value) if isinstance(value, dict) else value
    return list(value["concat"]) if isinstance(value, dict) else [value]
