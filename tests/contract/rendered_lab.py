"""The lab's hosts as Ansible sees them: real inventory, real plan, real templar."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader, lookup_loader
from ansible.template import Templar, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from contract_support import REPO, ROLES

COMPILE = "{{ cluster | cluster_plan(groups, hostvars, root=playbook_dir ~ '/..') }}"


@cache
def load_plugins() -> None:
    """Once a process: Ansible warns the second time."""
    init_plugin_loader()
    filter_loader.add_directory(str(REPO / "filter_plugins"))
    lookup_loader.add_directory(str(REPO / "lookup_plugins"))


def document_lookup() -> Any:
    """The module of the lookup rackserve_document, as Ansible has loaded it."""
    load_plugins()
    return sys.modules[type(lookup_loader.get("rackserve_document")).__module__]


class RenderedLab:
    """Compiles the lab's plan once; evaluates role variables and templates for its hosts.

    `cache` is an empty folder that takes the place of the controller's cache of built releases and models, so that
    what is rendered depends on the repository alone.
    """

    def __init__(self, cache: Path, sample: str = "lab") -> None:
        self.cache = cache
        load_plugins()
        self.loader = DataLoader()
        self.loader.set_basedir(str(REPO / "playbooks"))
        inventory = InventoryManager(self.loader, sources=[str(REPO / "inventories" / sample / "hosts.yml")])
        self.variables = VariableManager(self.loader, inventory)
        self.inventory = inventory
        self._documents: dict[tuple[str, str], str] = {}
        self._defaults, self._constants = self._role_files("defaults"), self._role_files("vars")
        first = self.hosts[0]
        self.plan = json.loads(json.dumps(self._evaluate(COMPILE, self._inventory_variables(first))))
        self._fill_cache()

    def _fill_cache(self) -> None:
        """Records of a built release and of model weights, and a key, as far as roles read them when they render."""
        self.cache.mkdir(parents=True, exist_ok=True)
        (self.cache / "repository-key.asc").write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\nplaceholder\n")
        for host in self.plan["slices"].values():
            for model in host["models"]:
                (self.cache / "models" / model["name"]).mkdir(parents=True, exist_ok=True)
                (self.cache / "models" / model["name"] / "manifest.json").write_text("{}\n")
            installed = (host["release"], (host["gateway"] or {}).get("router_release"))
            for name in (release["id"] for release in installed if release):
                (self.cache / "releases" / name).mkdir(parents=True, exist_ok=True)
                record = json.dumps({"release": name, "manifest_sha256": "0" * 64})
                (self.cache / "releases" / name / f"{name}.json").write_text(record)

    @property
    def hosts(self) -> list[str]:
        """Hosts that take part in the cluster."""
        members = {host.name for name in ("gpu", "gateway", "monitoring") for host in self._group(name)}
        return sorted(members)

    def _group(self, name: str) -> list[Any]:
        return list(self.inventory.groups[name].get_hosts()) if name in self.inventory.groups else []

    def _inventory_variables(self, host: str) -> dict[str, Any]:
        variables = dict(self.variables.get_vars(host=self.inventory.get_host(host)))
        # A machine with a running lab has its generated secrets here; nothing rendered may depend on them.
        variables.pop("rackserve_secrets", None)
        hostvars = HostVars(self.inventory, self.variables, self.loader)
        return variables | {"playbook_dir": str(REPO / "playbooks"), "hostvars": hostvars}

    def _role_files(self, kind: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for role in ROLES:
            path = role / kind / "main.yml"
            if path.is_file():
                merged |= self.loader.load_from_file(str(path), trusted_as_template=True) or {}
        return merged

    def _evaluate(self, text: str, variables: dict[str, Any]) -> Any:
        return Templar(self.loader, variables=variables).template(trust_as_template(text))

    def evaluate(self, text: str, host: str, **extra: Any) -> Any:
        """A template's value on a host that runs every role with its slice; `extra` is what -e would give."""
        variables = self._defaults | self._inventory_variables(host) | self._constants
        given = {
            "rackserve": self.plan["slices"][host],
            "rackserve_plan": self.plan,
            "serving_runtime_cache_dir": str(self.cache),
            "model_store_cache_dir": str(self.cache / "models"),
            "nvidia_driver_key_file": str(self.cache / "repository-key.asc"),
            "cuda_key_file": str(self.cache / "repository-key.asc"),
        }
        return self._evaluate(text, variables | given | extra)

    def document(self, role: str, host: str, **extra: Any) -> dict[str, Any]:
        """A role's desired-state document on a host, as plain data."""
        if extra or (role, host) not in self._documents:
            text = json.dumps(self.evaluate(f"{{{{ {role}_document }}}}", host, **extra))
            if extra:
                return dict(json.loads(text))
            self._documents[role, host] = text
        return dict(json.loads(self._documents[role, host]))
