#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Say what a host has of the wanted GPU driver, what is still to do, and what stands in the way."""

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_check
short_description: Compare a host with the GPU driver it should have
description:
  - Reads dpkg's records and the loaded kernel module. Names what is to be installed and held, and what forbids it,
    such as our packages in another version, packages of another driver, or a hold that somebody set.
  - With O(prove=true) the running driver is asked as well. The one of module, NVML library, nvidia-persistenced, Fabric
    Manager and packages that is not of the release's version is named, and GPUs are compared with the hardware profile.
  - It changes nothing and does not fail on findings.
options:
  driver:
    description:
      - The driver of the plan, C({version, packages, source, kernel_modules, fabric_manager, gpus, expect}).
      - Packages by name with their exact versions; C(expect) is C({model, memory_mib, nvlinks, fabric}).
    type: dict
    required: true
  take_over:
    description: Foreign things the site gives up, such as V(package:nvidia-driver-535) or V(hold:nvidia-open).
    type: list
    elements: str
    default: []
  prove:
    description: Whether the running driver is asked, too.
    type: bool
    default: false
  upgrade:
    description: Ours in another version is no error but one of RV(reasons), and RV(install) replaces it.
    type: bool
    default: false
  units:
    description: Engines that must not run, and with them no process that has a GPU open.
    type: list
    elements: str
    default: []
  boot:
    description: Whether the host may be rebooted is judged, too.
    type: bool
    default: false
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
- name: Look at the driver
  driver_check:
    driver: {version: 580.65.06, packages: {nvidia-open: 580.65.06-1}, gpus: 8}
    prove: true
  register: __nvidia_driver_seen
"""

RETURN = r"""
findings:
  description: C({severity, code, where, why, fix}); severity is error, warning or note.
  type: list
  elements: dict
  returned: always
  sample:
    - {severity: error, code: driver-differs, where: package nvidia-open,
       why: "driver 575.57.08 installed, release says 580.65.06",
       fix: "run playbooks/upgrade-driver.yml, which drains the host first"}
reasons:
  description: With O(upgrade=true) why there is something to upgrade, one line each.
  type: list
  elements: str
  returned: always
  sample: []
install:
  description: Packages to install, C(name=version).
  type: list
  elements: str
  returned: always
  sample: [nvidia-open=580.65.06-1]
hold:
  description: Packages that dpkg does not hold.
  type: list
  elements: str
  returned: always
  sample: [nvidia-open]
remove:
  description: Packages of another driver that O(take_over) names.
  type: list
  elements: str
  returned: always
  sample: []
replaced:
  description: With O(upgrade=true) packages of an earlier release of ours that this one does not have.
  type: list
  elements: str
  returned: always
  sample: []
run_runfile:
  description: The runfile has to be run.
  type: bool
  returned: always
modules:
  description: The driver's loaded modules in the order in which they can be unloaded.
  type: list
  elements: str
  returned: always
  sample: [nvidia_uvm, nvidia]
nouveau:
  description: The kernel's own driver is loaded.
  type: bool
  returned: always
initramfs_older:
  description: Kernels whose initramfs is older than the blacklist of nouveau.
  type: list
  elements: str
  returned: always
  sample: []
unfinished:
  description: One of our packages is unpacked and not configured, as a killed run leaves it.
  type: bool
  returned: always
change_holds:
  description: A hold of somebody else that O(take_over) names is in the way.
  type: bool
  returned: always
module_version:
  description: Version of the loaded kernel module; empty when there is none.
  type: str
  returned: always
  sample: 580.65.06
nvml_version:
  description: Version that NVML gives; empty without O(prove).
  type: str
  returned: always
  sample: 580.65.06
gpus:
  description: Number of GPUs that NVML lists; 0 without O(prove).
  type: int
  returned: always
  sample: 8
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.converge.errors import ConvergeError
from ansible.module_utils.rackserve.driver.check import Asked, check_driver


def main():
    """Compare and report."""
    module = AnsibleModule(
        argument_spec={
            "driver": {"type": "dict", "required": True},
            "take_over": {"type": "list", "elements": "str", "default": []},
            "prove": {"type": "bool", "default": False},
            "upgrade": {"type": "bool", "default": False},
            "units": {"type": "list", "elements": "str", "default": []},
            "boot": {"type": "bool", "default": False},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )

    def run(argv):
        path = module.get_bin_path(argv[0])
        return module.run_command([path, *argv[1:]]) if path else (127, "", f"{argv[0]} is not installed")

    given = module.params
    try:
        asked = Asked(*(given[name] for name in Asked._fields))
        result = check_driver(Path(given["root"]), run, given["driver"], asked)
    except ConvergeError as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
