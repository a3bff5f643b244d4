#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Say how many nodes and GPUs a Ray cluster has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ray_cluster_info
short_description: Nodes and GPUs of a Ray cluster, counted within a time limit
description:
  - Asks C(ray health-check) and counts what C(ray status) prints, each within O(timeout_s), because both wait for ever
    where the head is gone and one of them ends well where there is no cluster.
  - Fails where the cluster does not have O(nodes) nodes and O(gpus) GPUs within O(wait_s) seconds.
options:
  python: {description: Python of the release that carries Ray., type: path, required: true}
  address: {description: "Where the head listens, C(host:port).", type: str, required: true}
  token_file: {description: File that holds the cluster's token., type: path, required: true}
  nodes: {description: Nodes the cluster has to have., type: int, default: 1}
  gpus: {description: GPUs the cluster has to have., type: int, default: 0}
  timeout_s: {description: Seconds one question may take., type: float, default: 10}
  wait_s: {description: Seconds the cluster may take to be complete., type: float, default: 0}
  must: {description: "Fail where it is not complete; otherwise RV(why) says it.", type: bool, default: true}
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
- name: Wait until all hosts have joined
  ray_cluster_info:
    python: /opt/rackserve/releases/2026.11/bin/python3
    address: 10.0.0.11:6379
    token_file: /etc/rackserve/ray/token
    nodes: 4
    gpus: 32
    wait_s: 300
"""

RETURN = r"""
complete:
  description: Whether the cluster has what was asked for.
  type: bool
  returned: always
nodes:
  description: Nodes that are alive.
  type: int
  returned: always
  sample: 4
gpus:
  description: GPUs of all nodes.
  type: float
  returned: always
  sample: 32.0
gpus_used:
  description: GPUs that are taken.
  type: float
  returned: always
  sample: 32.0
why:
  description: What is missing, and where to look; empty where nothing is.
  type: str
  returned: always
  sample: ""
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.ray.cluster import info


def main():
    """Ask and report."""
    module = AnsibleModule(
        argument_spec={
            "python": {"type": "path", "required": True},
            "address": {"type": "str", "required": True},
            "token_file": {"type": "path", "required": True, "no_log": False},
            "nodes": {"type": "int", "default": 1},
            "gpus": {"type": "int", "default": 0},
            "timeout_s": {"type": "float", "default": 10},
            "wait_s": {"type": "float", "default": 0},
            "must": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    result = info(module.params)
    if module.params["must"] and not result["complete"]:
        module.fail_json(msg=f"ray_cluster_info: {result['why']}", **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
