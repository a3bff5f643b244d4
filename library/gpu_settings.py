#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Set clocks, power limits and modes of GPUs to what they support, and give back what was there before."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_settings
short_description: Clocks, power limits and modes of GPUs
description:
  - Asks each GPU through NVML what it is set to and what it supports, and sets what differs on those in O(gpus).
  - A value that a GPU does not support fails the module, with the supported ones, before anything is set.
  - What was there before is recorded on the host first; a recorded setting that is not wanted any more gets it back.
  - A GPU with a running unit of O(gpus) is left alone. Nothing is reset and nobody is signalled.
options:
  settings:
    description:
      - Settings by name, C(persistence_mode), C(power_limit_w), C(application_clocks), C(locked_graphics_clocks),
        C(locked_memory_clocks) and C(ecc), as C(cluster.gpu_settings) has them. Empty gives everything back.
    type: dict
    required: true
  gpus:
    description: GPUs to set, C({index, units}), with the index in PCI order and the units that use it.
    type: list
    elements: dict
    required: true
  simulated:
    description: The GPUs are simulated; lines say so.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says what would be set. Without a driver, as before the first installation, it would set everything.
  diff_mode:
    support: full
    description: One line a setting.
  idempotent:
    support: full
    description: What is as wanted is not set again.
author: [rackserve contributors]
"""

EXAMPLES = r"""
- name: Hold the clocks of two GPUs
  gpu_settings:
    settings:
      power_limit_w: 450
      locked_graphics_clocks: {low_mhz: min, high_mhz: 1830}
    gpus:
      - {index: 0, units: [vllm-x-0.service]}
      - {index: 1, units: [vllm-x-0.service]}

- name: Give back what was there before
  gpu_settings: {settings: {}, gpus: []}
"""

RETURN = r"""
changes:
  description: What was set (in check mode, would be).
  type: list
  elements: str
  returned: always
  sample: ["GPU 0: power_limit_w 700 W, wanted 450 W"]
waiting:
  description: What differs on GPUs that serve, with their running units.
  type: list
  elements: dict
  returned: always
  sample: [{units: [vllm-x-0.service], what: "GPU 1: power_limit_w 700 W, wanted 450 W"}]
notes:
  description: What is set and takes effect with the next reboot.
  type: list
  elements: str
  returned: always
  sample: []
supported:
  description: Clocks that each GPU supports, by its index.
  type: dict
  returned: always
  sample: {"0": memory 2619 with graphics 345 to 1980 step 15 MHz}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.gpu.settings.nvml import LIBRARY_NOT_FOUND, Nvml, NvmlError
from ansible.module_utils.rackserve.gpu.settings.program import running_units
from ansible.module_utils.rackserve.gpu.settings.record import RecordError
from ansible.module_utils.rackserve.gpu.settings.report import report
from ansible.module_utils.rackserve.gpu.settings.session import SettingError, read_wanted, settle


def main():
    """Settle and report."""
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "dict", "required": True},
            "gpus": {"type": "list", "elements": "dict", "required": True},
            "simulated": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        wanted = read_wanted(module.params)
    except (ValueError, KeyError, TypeError) as problem:
        module.fail_json(msg=f"gpu_settings: gpus must be a list of {{index, units}} ({problem})")
    try:
        outcome = settle(wanted, Nvml(), Path("/"), running_units, check=module.check_mode)
    except NvmlError as problem:
        if module.check_mode and problem.code == LIBRARY_NOT_FOUND:
            module.exit_json(changed=bool(wanted.settings), **report(wanted), msg=str(problem))
        module.fail_json(msg=f"gpu_settings: {problem}")
    except (SettingError, RecordError) as problem:
        module.fail_json(msg=f"gpu_settings: {problem}")
    result = report(wanted, outcome)
    if outcome.refusals:
        module.fail_json(msg=" | ".join(outcome.refusals), **result)
    module.exit_json(changed=bool(outcome.changed), **result)


if __name__ == "__main__":
    main()
