"""A copy of the repository with the stub release and an inventory of light hosts: the real playbooks run in it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import stub_release
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
INVENTORY = "inventories/light"
# Kept between copies: built once, or made by lab-up.
_KEPT = (".cache", "build", "inventories")
_NOT_COPIED = (":!tests", ":!docs", ":!molecule", ":!inventories", ":!.*")
# Written by `write_inventory`, or by lab-up.
_OWN_VARIABLES = ("all/cluster.yml", "all/connection.yml", "all/secrets.yml", "builder/build.yml")


class Site(NamedTuple):
    """Where a light lab lives: `net` is the second octet of its addresses, `images_dir` may be another lab's."""

    nodes: int
    prefix: str
    net: int
    state_dir: Path
    images_dir: Path

    @property
    def gateway_address(self) -> str:
        return f"10.{self.net}.0.10"

    def hosts(self) -> dict[str, str]:
        """{node: address}."""
        return {f"node{number}": f"10.{self.net}.0.{10 + number}" for number in range(1, self.nodes + 1)}


def management_cidr(net: int) -> str:
    """The link between the machine and the lab."""
    return f"10.{net}.1.0/30"


def copy(tree: Path, repository: Path = REPOSITORY) -> None:
    """Bring `tree` to the repository's present files (tracked, and new ones that git does not ignore)."""
    tree.mkdir(parents=True, exist_ok=True)
    for entry in tree.iterdir():
        if entry.name not in _KEPT:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    command = ["/usr/bin/git", "-c", f"safe.directory={repository}", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(
        [*command, "--", ".", *_NOT_COPIED],
        cwd=repository, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source, target = repository / name, tree / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    stub_release.add_to(tree, repository)


def write_inventory(tree: Path, site: Site, repository: Path = REPOSITORY) -> Path:
    """Write the inventory of `site`: the lab's own description with other hosts, addresses and release."""
    lab = repository / "inventories/lab"
    hosts = yaml.safe_load((lab / "hosts.yml").read_text())
    groups = hosts["all"]["children"]
    groups["gpu"]["hosts"] = {name: {"ansible_host": address} for name, address in site.hosts().items()}
    groups["gateway"]["hosts"] = {"gw": {"ansible_host": site.gateway_address}}
    folder = tree / INVENTORY
    for old in (folder / "group_vars").rglob("*.yml"):
        if old.name != "secrets.yml":
            old.unlink()
    for source in (lab / "group_vars").rglob("*.yml"):
        name = source.relative_to(lab / "group_vars")
        if str(name) not in _OWN_VARIABLES:
            _dump(folder / "group_vars" / name, _with_all_nodes(yaml.safe_load(source.read_text()), site))
    described = yaml.safe_load((lab / "group_vars/all/cluster.yml").read_text())["cluster"]
    connection = yaml.safe_load((lab / "group_vars/all/connection.yml").read_text())
    connection["ansible_control_path"] = f"%(directory)s/{site.prefix}-%%h"
    _dump(folder / "hosts.yml", hosts)
    _dump(folder / "group_vars/all/cluster.yml", {"cluster": describe(described, site)})
    _dump(folder / "group_vars/all/connection.yml", connection)
    _dump(folder / "group_vars/all/lab.yml", lab_variables(site))
    _dump(folder / "group_vars/builder/build.yml", {"serving_runtime_chroot": f"{site.state_dir}/hosts/builder/root"})
    return folder / "hosts.yml"


def describe(described: dict[str, Any], site: Site) -> dict[str, Any]:
    """The lab's description for a light lab: one deployment of the stub, one engine a node."""
    described.update(name="light", release=stub_release.RELEASE)
    described["network"]["management_cidrs"] = [management_cidr(site.net)]
    key = f"{INVENTORY}/.state/simulated-archive-keyring.asc"
    described["repositories"] = {"nvidia": {"uri": f"http://{site.gateway_address}:8081/", "key": key}}
    [deployment] = described["deployments"]
    deployment.update(name="stub", replicas=site.nodes)
    deployment["model"].update(card=stub_release.CARD, path=f"/srv/models/{stub_release.CARD}")
    return described


def lab_variables(site: Site) -> dict[str, Any]:
    """What tells lab-up to build this lab beside others of the machine; light hosts need little of it."""
    return {
        "lab_host_prefix": site.prefix,
        "lab_host_subnet": f"10.{site.net}.0.0/24",
        "lab_host_uplink": management_cidr(site.net),
        "lab_host_state_dir": str(site.state_dir),
        "lab_host_images_dir": str(site.images_dir),
        "lab_host_inventory_dir": "{{ playbook_dir }}/../" + INVENTORY,
        "lab_host_gateway_address": site.gateway_address,
        "lab_host_min_disk_mib": 8192,
        "lab_host_min_memory_mib": 2048 + 192 * site.nodes,
        "preflight_release_mib": 1024,
        "preflight_memory_floor_mib": 256,
        # All hosts have this machine's clock; on a busy one the check's own way to a host takes seconds.
        "preflight_clock_tolerance_s": 120,
    }


def _with_all_nodes(variables: dict[str, Any], site: Site) -> dict[str, Any]:
    """The lab's variables for other nodes: what it opens to its own four is opened to all of these."""
    for flow in variables.get("firewall_inbound_extra", []):
        if "sources" in flow:
            flow["sources"] = list(site.hosts())
    return variables


def _dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False, width=120))


def names(site: Site) -> Iterable[str]:
    """All hosts, the gateway first."""
    return ["gw", *site.hosts()]
