#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Take one step of the ladder of actions on a host whose health is not well."""

from __future__ import annotations

DOCUMENTATION = r"""
module: health_action
short_description: Take one step of the ladder of actions on an unhealthy host
description:
  - Looks whether a step may be taken, records it on the host, and takes it. C(act-on-health) decides which.
  - V(restart_fabric_manager), V(gpu_reset) and V(reboot) are refused while an engine runs, while any process is on a
    GPU, and on the host from which Ansible runs. V(reboot) and V(drain) are only recorded; the playbook does them.
  - V(quarantine) runs where the gateway is and turns drains of C(act-on-health) into ones that no operation ends;
    V(hand_over) turns them into ones that C(return-host) ends, V(lift) does that with a quarantine.
author: [rackserve contributors]
options:
  step:
    description: The step; V(look) only reads.
    type: str
    required: true
    choices: [look, drain, restart_fabric_manager, gpu_reset, reboot, quarantine, hand_over, lift]
  check: {description: The check whose finding it is for., type: str, default: ""}
  subject: {description: What the finding is about., type: str, default: ""}
  units: {description: Units that must not run., type: list, elements: str, default: []}
  controller: {description: The machine id of where Ansible runs; empty where it has none., type: str, default: ""}
  controller_boot:
    description: The boot id of the kernel on which Ansible runs, also from inside a container; empty where it has none.
    type: str
    default: ""
  simulated: {description: The GPUs are simulated and cannot be reset., type: bool, default: false}
  targets: {description: C(backend/slot) whose drain becomes another one., type: list, elements: str, default: []}
  state_file: {description: The gateway's server-state file., type: path}
attributes:
  check_mode: {support: full, description: Says whether the step may be taken and takes none.}
  diff_mode: {support: none, description: A step is no state that is compared.}
  idempotent: {support: none, description: Each call takes the step; the decision does not ask for it twice.}
"""

EXAMPLES = r"""
- name: Reset the GPUs of a drained host
  health_action:
    step: gpu_reset
    check: gpu-recovery-action
    subject: GPU 3
    units: [vllm-deepseek-v3-0.service]
"""

RETURN = r"""
busy: {description: What runs or is on GPUs; with V(look)., returned: success, type: list, elements: str, sample: []}
tried:
  description: Steps that were taken before; with V(look).
  returned: success
  type: list
  elements: dict
  sample: [{step: drain, check: gpu-lost, subject: GPU 3, at: 1795430400}]
cannot: {description: Steps that this host does not have; with V(look)., returned: success, type: list, elements: str}
problem: {description: Why nothing may be done here; with V(look)., returned: success, type: str, sample: ""}
commands:
  description: The commands that the step ran.
  returned: success
  type: list
  elements: str
  sample: [nvidia-smi --gpu-reset]
"""

import os
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.gateway.quarantine import renote
from ansible.module_utils.rackserve.gateway.runtime import GatewayError
from ansible.module_utils.rackserve.health.actions import ActionError, Host, look, take
from ansible.module_utils.rackserve.health.host_tools import run_command
from ansible.module_utils.rackserve.health.ladder import HANDED_OVER, OPERATION, QUARANTINED

STEPS = ["look", "drain", "restart_fabric_manager", "gpu_reset", "reboot", "quarantine", "hand_over", "lift"]
# By whom the servers have to be drained, and whose drain it becomes.
NOTES = {
    "quarantine": (OPERATION, QUARANTINED),
    "hand_over": (OPERATION, HANDED_OVER),
    "lift": (QUARANTINED, HANDED_OVER),
}
NOTHING = {"busy": [], "tried": [], "cannot": [], "problem": "", "commands": []}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "required": True, "choices": STEPS},
            "check": {"type": "str", "default": ""},
            "subject": {"type": "str", "default": ""},
            "units": {"type": "list", "elements": "str", "default": []},
            "controller": {"type": "str", "default": ""},
            "controller_boot": {"type": "str", "default": ""},
            "simulated": {"type": "bool", "default": False},
            "targets": {"type": "list", "elements": "str", "default": []},
            "state_file": {"type": "path"},
        },
        supports_check_mode=True,
        required_if=[("step", step, ["targets", "state_file"]) for step in NOTES],
    )
    given, dry = module.params, module.check_mode
    step, connection = given["step"], os.environ.get("SSH_CONNECTION", "")
    known = (given["controller"], connection, given["simulated"], given["controller_boot"])
    host = Host(Path("/"), run_command, tuple(given["units"]), *known)
    try:
        if step == "look":
            module.exit_json(changed=False, **{**NOTHING, **look(host)})
        if step in NOTES:
            changed = renote(Path(given["state_file"]), given["targets"], *NOTES[step], check=dry)
            module.exit_json(changed=changed, **NOTHING)
        commands = take(host, step, given["check"], given["subject"], time.time(), dry=dry)
    except (ActionError, GatewayError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, **{**NOTHING, "commands": commands})


if __name__ == "__main__":
    main()
