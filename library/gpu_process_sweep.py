#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""End processes that our own service left behind on GPUs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_process_sweep
short_description: End processes that our own service left behind on GPUs
description:
  - Looks at every process that NVML lists or that has a GPU's device open.
  - Ends only processes of O(user) in one of O(units) that is inactive, by SIGTERM and, after O(term_s), SIGKILL. Each
    is held by a pidfd where the kernel has them, and its start time, user, unit and the unit's state are looked at
    again before each signal, so that a recycled number is never hit.
  - All others are named and never signalled.
author: [rackserve contributors]
options:
  user:
    description: The service's user. One that the host does not have owns no process.
    type: str
    required: true
  units:
    description: The units of the plan whose processes may use GPUs.
    type: list
    elements: str
    required: true
  term_s:
    description: Seconds that a process has after SIGTERM.
    type: float
    default: 30
  kill_s:
    description: Seconds to wait after SIGKILL.
    type: float
    default: 10
attributes:
  check_mode: {support: full, description: Lists the processes and signals none.}
  diff_mode: {support: none, description: Processes are no state that is compared.}
  idempotent: {support: full, description: A second run finds nothing left behind.}
"""

EXAMPLES = r"""
- name: End what stopped engines left on GPUs
  gpu_process_sweep:
    user: vllm
    units: [vllm-deepseek-v3-0.service]
"""

RETURN = r"""
processes:
  description: Every process on a GPU.
  returned: success
  type: list
  elements: dict
  sample:
    - {pid: 4242, name: python3, uid: 64100, unit: vllm-deepseek-v3-0.service, verdict: left behind, outcome: ended,
       why: vllm-deepseek-v3-0.service is failed}
  contains:
    pid: {description: Its number., type: int, returned: always}
    name: {description: Its name., type: str, returned: always}
    uid: {description: The number of its user., type: int, returned: always}
    unit: {description: Its unit; empty outside of units., type: str, returned: always}
    verdict: {description: 'left behind, serving, foreign or unknown.', type: str, returned: always}
    outcome: {description: 'ended, killed or survived; empty where it was not signalled.', type: str, returned: always}
    why: {description: Why it has its verdict and what to do., type: str, returned: always}
survived:
  description: Processes that SIGKILL did not end.
  returned: success
  type: list
  elements: int
  sample: []
"""

import pwd
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.gpu.sweep import SweepError, Waits, sweep
from ansible.module_utils.rackserve.health.host_tools import run_command


def user_id(name: str) -> int:
    """The user's number; -1, which no process has, where the host does not know it."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return -1


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "str", "required": True},
            "units": {"type": "list", "elements": "str", "required": True},
            "term_s": {"type": "float", "default": 30},
            "kill_s": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    given = module.params
    uid = user_id(given["user"])
    if uid == 0:
        module.fail_json(msg=f"user {given['user']} is root: its processes are not ours alone; name the service's user")
    waits = Waits(given["term_s"], given["kill_s"])
    try:
        result = sweep(Path("/"), run_command, uid, given["units"], waits, check=module.check_mode)
    except SweepError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
