#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Say what a host has of its fabric, what is still to do, and what stands in the way."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rdma_check
short_description: Compare a host with the RDMA fabric of the plan
description:
  - Reads dpkg's records and names what is to be installed and held, and what forbids it, such as a package in another
    version or a hold that somebody set.
  - With O(prove=true) it looks at kernel modules, adapters, their ports and device files, at the way from adapters to
    the memory of GPUs, and at what running units may lock.
  - It changes nothing and does not fail on findings.
options:
  fabric:
    description: The fabric of the plan, C({kind, hcas, rate_gbps, packages, modules, peer_memory}).
    type: dict
    required: true
  take_over:
    description: Foreign things the site gives up, such as V(hold:rdma-core).
    type: list
    elements: str
    default: []
  prove:
    description: Whether the running host is looked at, too.
    type: bool
    default: false
  units:
    description: Units that use the fabric; those that run are asked what they may lock.
    type: list
    elements: str
    default: []
  pinned:
    description: Adapters whose interrupts the site sends to fixed CPUs.
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
- name: Look at the fabric
  rdma_check:
    fabric:
      kind: infiniband
      hcas: 2
      rate_gbps: 200
      packages: {rdma-core: 44.0-2}
      modules: [ib_uverbs, mlx5_ib]
      peer_memory: dmabuf
    prove: true
  register: __rdma_fabric_seen
"""

RETURN = r"""
findings:
  description: C({severity, code, where, why, fix}); severity is error, warning or note.
  type: list
  elements: dict
  returned: always
  sample:
    - {severity: error, code: hca-count, where: infiniband adapters,
       why: "the host has 1 (mlx5_0), the plan says 2",
       fix: "lspci -d 15b3: and journalctl -k (mlx5_core) name the one that is gone; or correct network.fabric.hcas"}
install:
  description: Packages that are not installed, C(name=version).
  type: list
  elements: str
  returned: always
  sample: [rdma-core=44.0-2]
hold:
  description: Packages that dpkg does not hold.
  type: list
  elements: str
  returned: always
  sample: [rdma-core]
unfinished:
  description: One of our packages is unpacked and not configured, as a killed run leaves it.
  type: bool
  returned: always
change_holds:
  description: A hold of somebody else that O(take_over) names is in the way.
  type: bool
  returned: always
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.converge.errors import ConvergeError
from ansible.module_utils.rackserve.rdma.check import check_fabric


def main():
    """Compare and report."""
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "fabric": {"type": "dict", "required": True},
            "take_over": names,
            "prove": {"type": "bool", "default": False},
            "units": names,
            "pinned": names,
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )

    def run(argv):
        path = module.get_bin_path(argv[0])
        return module.run_command([path, *argv[1:]]) if path else (127, "", f"{argv[0]} is not installed")

    given = module.params
    options = {name: given[name] for name in ("take_over", "prove", "units", "pinned")}
    try:
        result = check_fabric(Path(given["root"]), run, given["fabric"], **options)
    except ConvergeError as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
