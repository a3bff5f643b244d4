#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Say what a host has of RDMA, what each adapter is for, and what NCCL should take of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rdma_info
short_description: RDMA adapters of a host, judged by what the kernel shows
description:
  - Reads C(sys/class/infiniband) and what belongs to it, routes, mounts and module versions. It starts no program and
    changes nothing.
  - A port is usable when it can carry traffic now. A value that cannot be read is null and named in RV(findings).
  - Adapters whose purpose nothing decides stay C(unknown) and are left out of RV(nccl_ib_hca); O(purposes) decides it.
options:
  root:
    description: Directory that is taken for the root of the host, such as a copied tree.
    type: path
    default: /
  purposes:
    description: What adapters are for where the operator knows it, name to V(compute), V(storage), V(management) or
      V(unknown). It wins over everything that is read.
    type: dict
    default: {}
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
  rdma_info: {}
  register: __rdma_seen

- name: Judge the tree of another host
  rdma_info:
    root: /tmp/host7
    purposes: {mlx5_8: storage}
"""

RETURN = r"""
hcas:
  description: Every RDMA device, also soft ones and virtual functions.
  type: list
  elements: dict
  returned: always
  contains:
    name: {description: "Name, such as mlx5_0.", type: str, returned: always}
    driver: {description: Driver of its PCI device., type: str, returned: always}
    bus_id: {description: PCI address as in sysfs; null for a soft device., type: str, returned: always}
    numa_node: {description: "NUMA node, -1 where the firmware does not say it.", type: int, returned: always}
    kind: {description: "C(pf), C(vf), C(bond) or C(soft).", type: str, returned: always}
    netdevs: {description: "Its network interfaces, those of VLANs and of its bond too.", type: list, returned: always}
    purpose: {description: "C(compute), C(storage), C(management) or C(unknown).", type: str, returned: always}
    purpose_reason: {description: What says so., type: str, returned: always}
    fw_ver: {description: Firmware., type: str, returned: always}
    hca_type: {description: "Type, such as MT4129.", type: str, returned: always}
    board_id: {description: Board., type: str, returned: always}
    node_guid: {description: GUID of the device., type: str, returned: always}
    sys_image_guid: {description: GUID of the card., type: str, returned: always}
    ports:
      description: Its ports.
      type: list
      elements: dict
      returned: always
      contains:
        port: {description: Number., type: int, returned: always}
        state: {description: "Logical state, such as ACTIVE.", type: str, returned: always}
        phys_state: {description: "State of the link, such as LinkUp.", type: str, returned: always}
        link_layer: {description: InfiniBand or Ethernet., type: str, returned: always}
        rate_gbps: {description: "Rate as sysfs has it, Gb/s; of a port that is down it says nothing.", type: float,
                    returned: always}
        lid: {description: Local identifier., type: int, returned: always}
        sm_lid: {description: That of the subnet manager., type: int, returned: always}
        gids: {description: "Used GIDs, C({index, gid, type, netdev, ipv4}).", type: list, returned: always}
        gid_index: {description: The GID that NCCL takes by itself., type: int, returned: always}
        netdev: {description: Its network interface., type: str, returned: always}
        usable: {description: Whether it can carry traffic; null where that cannot be read., type: bool,
                 returned: always}
        reason: {description: Why., type: str, returned: always}
nccl_ib_hca:
  description: Value for NCCL_IB_HCA, exact names, one link layer, usable ports of compute adapters; empty where none.
  type: str
  returned: always
  sample: "=mlx5_0:1,mlx5_1:1"
gdr:
  description: How adapters reach the memory of GPUs, C(dmabuf), C(peermem) or C(none).
  type: str
  returned: always
  sample: dmabuf
findings:
  description: C({severity, code, where, why, fix}); severity is error, warning or note.
  type: list
  elements: dict
  returned: always
  sample:
    - {severity: note, code: rdma-none, where: /sys/class/infiniband, why: "no usable RDMA: directory empty",
       fix: "nothing, where the host is meant to have none; else lspci and journalctl -k name the adapter that is gone"}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.rdma.info import rdma_info


def main():
    """Read and report."""
    module = AnsibleModule(
        argument_spec={"root": {"type": "path", "default": "/"}, "purposes": {"type": "dict", "default": {}}},
        supports_check_mode=True,
    )
    try:
        result = rdma_info(Path(module.params["root"]), module.params["purposes"])
    except ValueError as problem:
        module.fail_json(msg=f"rdma_info: {problem}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
