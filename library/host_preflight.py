#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Say what on a host would stop the deployment, before anything is changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_preflight
short_description: Check a host before anything on it is changed
description:
  - One execution reads platform, disk, memory, clock, addresses, ports, users, weights, secret files, release, foreign
    settings and the loaded firewall, and returns findings. It changes nothing and does not fail on findings.
options:
  supported_os:
    description: Operating systems, os-release ID to a list of VERSION_ID.
    type: dict
    required: true
  distributions:
    description: Distributions the plan has packages for, such as V(debian-12); empty for any.
    type: list
    elements: str
    default: []
  interface:
    description: The interface that must carry O(address).
    type: str
  address:
    description: This host's address in the cluster.
    type: str
  ports:
    description: Ports we need, C({port, unit}); each must be free or held by that unit.
    type: list
    elements: dict
    default: []
  disk:
    description: Space we need, C({path, needed_mib, unless}); needs on one filesystem add up.
    type: list
    elements: dict
    default: []
  written:
    description: Files and folders that the roles write; their file systems must not be read-only.
    type: list
    elements: str
    default: []
  memory_floor_mib:
    description: Least memory in MiB.
    type: int
    default: 0
  swap:
    description: Whether swap in use is reported.
    type: str
    choices: [report, ignore]
    default: report
  controller_epoch_s:
    description: The controller's clock in seconds since the epoch; 0 leaves the comparison out.
    type: float
    default: 0
  clock_tolerance_s:
    description: Seconds the clocks may differ.
    type: float
    default: 5
  user:
    description: The service user.
    type: str
    default: ''
  uid:
    description: The service user's uid, which nobody else may have.
    type: int
    default: 0
  gid:
    description: The service user's gid.
    type: int
    default: 0
  models:
    description:
      - Weights said to be present, C({name, path}), which the service user must be able to read.
      - Whether they are whole is told by the index and the headers of the shards; their content is not read.
    type: list
    elements: dict
    default: []
  secret_files:
    description: Files that hold secrets, C({path, mode}); they may be no more open than that. A path may be a pattern.
    type: list
    elements: dict
    default: []
  release:
    description: The plan's release, C({id, path, current}).
    type: dict
    default: {}
  units:
    description: Units that run on the release.
    type: list
    elements: str
    default: []
  knobs:
    description: Kernel settings we set, key to value; foreign files with another value are reported.
    type: dict
    default: {}
  limits:
    description: Login limits we set, C({domain, type, item, value}).
    type: list
    elements: dict
    default: []
  governor:
    description: The CPU governor we set; services of others that set one are reported.
    type: str
    default: ''
  isolation:
    description: Whether an IOMMU or ACS in the way of GPUs and RDMA adapters is reported.
    type: str
    choices: [report, ignore]
    default: ignore
  take_over:
    description: Names of foreign settings the site lets us override.
    type: list
    elements: str
    default: []
  root:
    description: Directory that is taken for the root of the host.
    type: path
    default: /
attributes:
  check_mode:
    support: full
    description: Never changes anything.
  diff_mode:
    support: none
    description: Nothing is changed, so there is no difference to show.
  idempotent:
    support: full
    description: Only reads.
author: [rackserve contributors]
"""

EXAMPLES = r"""
- name: Look at the host
  host_preflight:
    supported_os: {debian: ["12"]}
    interface: bond0
    address: 10.0.0.11
    ports: [{port: 8000, unit: vllm-demo-0.service}]
  register: __preflight_host
"""

RETURN = r"""
findings:
  description: C({severity, code, where, why, fix}); severity is error, warning or note.
  type: list
  elements: dict
  returned: always
  sample:
    - {severity: error, code: port-taken, where: port 8000,
       why: "process 812 (nginx) listens on it, vllm-x.service needs it",
       fix: "stop that process, or choose another port in the description"}
clock:
  description: The host's clock in seconds since the epoch, and how far it seems ahead of O(controller_epoch_s).
  type: dict
  returned: always, empty without O(controller_epoch_s)
  sample: {epoch_s: 1795693645.9, offset_s: 0.4}
drift_roles:
  description: Roles whose state was lost without a file having changed, such as V(firewall) after a flush.
  type: list
  elements: str
  returned: always
  sample: [firewall]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.preflight.checks import check_host

LISTS = {
    "ports": "dict",
    "disk": "dict",
    "models": "dict",
    "secret_files": "dict",
    "limits": "dict",
    "units": "str",
    "distributions": "str",
    "written": "str",
    "take_over": "str",
}


def main():
    """Check and report."""
    spec = {name: {"type": "list", "elements": elements, "default": []} for name, elements in LISTS.items()}
    spec.update({name: {"type": "dict", "default": {}} for name in ("release", "knobs")})
    module = AnsibleModule(
        argument_spec={
            **spec,
            "supported_os": {"type": "dict", "required": True},
            "interface": {"type": "str"},
            "address": {"type": "str"},
            "memory_floor_mib": {"type": "int", "default": 0},
            "swap": {"type": "str", "choices": ["report", "ignore"], "default": "report"},
            "governor": {"type": "str", "default": ""},
            "isolation": {"type": "str", "choices": ["report", "ignore"], "default": "ignore"},
            "controller_epoch_s": {"type": "float", "default": 0},
            "clock_tolerance_s": {"type": "float", "default": 5},
            "user": {"type": "str", "default": ""},
            "uid": {"type": "int", "default": 0},
            "gid": {"type": "int", "default": 0},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )

    def run(argv):
        path = module.get_bin_path(argv[0])
        return module.run_command([path, *argv[1:]]) if path else (127, "", f"{argv[0]} is not installed")

    module.exit_json(changed=False, **check_host(Path(module.params["root"]), run, module.params))


if __name__ == "__main__":
    main()
