#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Check the health of a host: GPUs, NVLinks, RDMA, disks, memory, time, services, versions, kernel log."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_health
short_description: Check the health of a host
description:
  - Runs a catalogue of checks (docs/health.md), each with a severity, a threshold and its source, why it matters and
    the fix, and ranks what they find, causes first; what only follows from another finding names it in C(caused_by).
  - A check that cannot read its source says C(unknown), never C(pass); one that has no meaning on this host C(skipped).
  - It only reads, and does not fail on findings; C(exit_code) carries the worst.
options:
  expect:
    description: What the plan says of this host, as its slice has it (C(health)); empty compares with nothing.
    type: dict
    default: {}
  level:
    description:
      - V(fast) reads, in less than two seconds. V(deep) also measures (DCGM, nccl-tests, ib_write_bw, each where it is
        installed) and loads the host; it leaves a host alone whose engines run.
    type: str
    choices: [fast, deep]
    default: fast
  only:
    description: Checks to run; empty runs all of the level.
    type: list
    elements: str
    default: []
  skip:
    description: Checks not to run.
    type: list
    elements: str
    default: []
  state:
    description: Counters that the host's own timer keeps; growth since then is judged. It is only read.
    type: path
    default: /var/lib/rackserve-health/state.json
  root:
    description: Directory that is taken for the root of the host, such as a copied tree.
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
- name: Look at a host
  host_health:
    expect:
      gpus: {count: 8, model: NVIDIA H20, nvlinks: 18}
      fabric: {kind: infiniband, hcas: 2, rate_gbps: 200}
  register: rackserve_health

- name: Judge a copied tree
  host_health:
    root: /srv/case-4711
    state: /srv/case-4711/state.json
    only: [rdma-port-down, rdma-rate]
"""

RETURN = r"""
status:
  description: The worst severity; C(unknown) where nothing worse than info was found and something was not readable.
  type: str
  returned: always
  sample: critical
exit_code:
  description: 0 nothing or info, 1 warning, 2 critical, 3 unknown.
  type: int
  returned: always
  sample: 2
findings:
  description: What was found, causes first; see docs/health.md for the keys.
  type: list
  elements: dict
  returned: always
  sample:
    - {id: gpu-lost, severity: critical, subject: GPU 3, seen: "it fell off the bus", threshold: any, source: NVML,
       why: "Every call on it fails.", fix: "drain the host, power it off and on", caused_by: ""}
unknown:
  description: Checks that could not read their source, or a part of it.
  type: list
  elements: dict
  returned: always
  sample: [{id: gpu-xid, why: "journalctl -k: run as root", caused_by: ""}]
checks:
  description: Every check that ran, with what it cost.
  type: list
  elements: dict
  returned: always
  sample: [{id: gpu-lost, status: pass, said: "", severity: critical, wall_ms: 0.6, cpu_ms: 0.3}]
measured:
  description: What deep checks measured, for the comparison with other hosts.
  type: dict
  returned: always
  sample: {all_reduce_gbytes_s: 476.2}
wall_s:
  description: Seconds that all checks took.
  type: float
  returned: always
  sample: 0.21
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.health.answer import ARGUMENTS, answer


def main() -> None:
    """Look and report."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    result = answer(module.params)
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
