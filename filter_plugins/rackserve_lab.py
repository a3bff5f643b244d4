"""Filters of the lab; the logic is in module_utils/rackserve/lab."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from rackserve.lab.build import with_light_nodes
from rackserve.lab.spec import LabError


def lab_host_list(addresses: dict[str, str], extra: int, subnet: str) -> list[dict[str, str]]:
    """Hosts the inventory names, {name: address}, and `extra` light ones beside them."""
    named = [{"name": name, "address": address} for name, address in json.loads(json.dumps(addresses)).items()]
    try:
        return with_light_nodes(named, int(extra), str(subnet))
    except LabError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"lab_host_list": lab_host_list}
