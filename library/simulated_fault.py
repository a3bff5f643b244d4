#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Put a fault on a simulated host, or take it off."""

from __future__ import annotations

DOCUMENTATION = r"""
module: simulated_fault
short_description: Put a fault on a simulated host by name, or take it off
description:
  - Changes what driver, sysfs, proc and kernel log of a simulated host show, as the catalogue says.
  - Refuses hosts with real hardware.
  - Taking a fault off puts back what was there before the first fault came, less what other faults still change.
    Lines in the kernel log and events stay.
author: rackserve
options:
  catalogue:
    description: The content of files/simulated/faults.yml.
    type: dict
    required: true
  fault:
    description:
      - Name of the fault; V(all) takes off every fault.
      - Without it nothing is changed and the module tells which faults are on.
    type: str
    default: ""
  parameters:
    description:
      - Parameters of the fault; what is left out has its default.
      - Taking off concerns every fault of the name that has the parameters given here.
    type: dict
    default: {}
  state:
    description: Put on, or take off.
    type: str
    choices: [present, absent]
    default: present
  root:
    description: Directory under which everything is read and written.
    type: path
    default: /
attributes:
  check_mode: {support: full, description: Says what would change; nothing is written, started or stopped.}
  diff_mode: {support: full, description: Every value, file, unit and log line that changes.}
  idempotent: {support: full, description: Compares with what the faults that are on want.}
"""

EXAMPLES = r"""
- name: Let GPU 3 fall off the bus
  simulated_fault:
    catalogue: "{{ lookup('ansible.builtin.file', 'files/simulated/faults.yml') | from_yaml }}"
    fault: gpu-off-bus
    parameters: {gpu: 3}

- name: Mend everything
  simulated_fault:
    catalogue: "{{ lookup('ansible.builtin.file', 'files/simulated/faults.yml') | from_yaml }}"
    fault: all
    state: absent
"""

RETURN = r"""
active:
  description: The faults that are on. C(complete) is false where a reboot left only a part.
  returned: success
  type: list
  elements: dict
  sample: [{fault: gpu-off-bus, parameters: {gpu: 3}, reboot: vanishes, complete: true}]
seen:
  description: Where the fault is seen on this host.
  returned: success
  type: list
  elements: dict
  sample:
    - {source: kernel-log, where: journalctl -k, reading: "NVRM: Xid (PCI:0000:5d:00): 79,", reboot: vanishes,
       state: "", state_reading: "", bytes: 0}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.simulated.catalogue import FaultError, load
from ansible.module_utils.rackserve.simulated.faults import active, clear, inject


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "catalogue": {"type": "dict", "required": True},
            "fault": {"type": "str", "default": ""},
            "parameters": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    given, root = module.params, Path(module.params["root"])
    try:
        catalogue = load(given["catalogue"])
        if not given["fault"]:
            module.exit_json(changed=False, active=active(root, catalogue), seen=[])
        change = inject if given["state"] == "present" else clear
        result = change(
            root, module.run_command, catalogue, given["fault"], given["parameters"], check=module.check_mode
        )
    except FaultError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
