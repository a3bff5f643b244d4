#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Say which topology NCCL detects on a host, and keep it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nccl_topology
short_description: The topology that NCCL detects on a host
description:
  - Reads PCI devices, NUMA nodes, adapters and interfaces below O(root), and GPUs through the driver's library, and
    says what NCCL itself would write to C(NCCL_TOPO_DUMP_FILE) with one process a GPU. NCCL is not needed.
  - C(observed) is for people, inventories and comparison. Only C(inject), which names CPUs and PCI devices and nothing
    that can go stale, may be given to C(NCCL_TOPO_FILE), and a host with a correct C(/sys) does not need that.
  - With O(dest) both are kept there, each written in one step, and what changed since the last record is returned.
options:
  root:
    description: Directory that is taken for the root of the host.
    type: path
    default: /
  gpus:
    description:
      - GPUs, each C({index, bus_id, compute_capability, gdr, nvlinks}). C(bus_id) and C(nvlinks), one for each active
        link, are bus ids as NVML writes them; C(compute_capability) is like V(9.0). Other keys are passed over, so that
        what M(gpu_info) returns can be given.
      - Without it GPUs are read through NVML.
    type: list
    elements: dict
  dest:
    description: Folder that C(observed.xml) and C(inject.xml) are written to; nothing is written without it.
    type: path
attributes:
  check_mode:
    support: full
    description: Says what would be written.
  diff_mode:
    support: full
    description: Shows both files before and after.
  idempotent:
    support: full
    description: A file that is as it should be is not written.
author: [rackserve contributors]
"""

EXAMPLES = r"""
- name: Judge a tree that was copied from a host
  nccl_topology:
    root: /srv/copies/node7
    gpus: [{index: 0, bus_id: "00000000:18:00.0", compute_capability: "9.0", gdr: true, nvlinks: []}]

- name: Keep it, and see what changed
  nccl_topology:
    dest: /var/lib/rackserve/nccl
  register: topology
"""

RETURN = r"""
observed:
  description: What NCCL detects, as XML; ranks are GPU indices.
  type: str
  returned: always
inject:
  description: CPUs and PCI devices of it alone, as XML.
  type: str
  returned: always
findings:
  description: What is odd about the host, each C({severity, code, where, why, fix}).
  type: list
  elements: dict
  returned: always
  sample:
    - severity: warning
      code: link-narrow
      where: PCI device 0000:18:00.0
      why: its link has 8 of 16 lanes; NCCL counts on 16
      fix: reseat the card or riser, compare with lspci -vv (LnkSta); then look again
drift:
  description: What changed since the record in O(dest), as findings; empty without a record.
  type: list
  elements: dict
  returned: always
  sample: []
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.gpu.settings.nvml import NvmlError
from ansible.module_utils.rackserve.nccl import gpus, record
from ansible.module_utils.rackserve.nccl.document import TopologyError
from ansible.module_utils.rackserve.nccl.topology import observe


def main():
    """Observe, compare, keep, report."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/"},
            "gpus": {"type": "list", "elements": "dict"},
            "dest": {"type": "path"},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        known = given["gpus"] if given["gpus"] is not None else gpus.read()
        result = observe(Path(given["root"]), known).texts()
        kept = {"differing": [], "before": {}, "drift": []}
        if given["dest"]:
            kept = record.compare(Path(given["dest"]), result)
            if not module.check_mode:
                record.keep(Path(given["dest"]), result, kept["differing"])
    except (TopologyError, NvmlError, OSError) as problem:
        module.fail_json(msg=f"nccl_topology: {problem}")
    diff = [
        {"before": kept["before"][name], "after": result[name.partition(".")[0]], "before_header": name}
        for name in kept["differing"]
    ]
    module.exit_json(changed=bool(kept["differing"]), diff=diff, drift=kept["drift"], **result)


if __name__ == "__main__":
    main()
