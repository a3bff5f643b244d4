#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Say what a host's GPUs are, what they are set to, and how they are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Facts of GPUs, read through NVML
description:
  - Asks the driver's library, which needs no other program and no Python package. Nothing is set.
  - What a GPU or its driver does not have is null, with the reason in C(unread); it is never 0.
  - A GPU that cannot be asked, as one that fell off the bus, keeps its place in RV(gpus) with every fact null.
  - Where there is no driver to ask the module fails, because no GPUs and GPUs that are not known are not the same.
options: {}
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
- name: Look at the GPUs
  gpu_info: {}
  register: __gpus_seen
"""

RETURN = r"""
gpus:
  description: One entry a GPU, in PCI order.
  type: list
  elements: dict
  returned: always
  contains:
    index: {description: Index in PCI order., type: int, returned: always}
    uuid: {description: UUID., type: str, returned: always}
    name: {description: Product name., type: str, returned: always}
    serial: {description: Serial number., type: str, returned: always}
    vbios_version: {description: Version of its firmware., type: str, returned: always}
    bus_id: {description: PCI address in NVML's form., type: str, returned: always, sample: "00000000:18:00.0"}
    compute_capability: {description: Compute capability., type: str, returned: always, sample: "9.0"}
    memory_mib: {description: "Memory, MiB.", type: int, returned: always}
    memory: {description: "C({total,reserved,used,free}_mib).", type: dict, returned: always}
    persistence_mode: {description: Persistence mode., type: bool, returned: always}
    mig_mode: {description: Whether it is cut into instances., type: bool, returned: always}
    performance_state: {description: "P0 is the fastest.", type: str, returned: always}
    recovery_action: {description: "What the driver asks for: none, reset, reboot, drain_p2p, drain_and_reset.",
                      type: str, returned: always}
    pcie: {description: "C(generation), C(width) now, C(generation_max), C(width_max).", type: dict, returned: always}
    power: {description: "C({limit,enforced,default,min,max,draw}_w), W.", type: dict, returned: always}
    clocks: {description: "C(current), C(max), C(applications), C(default_applications), each in MHz.", type: dict,
             returned: always}
    supported_clocks: {description: Graphics clocks by memory clock in MHz., type: dict, returned: always}
    ecc: {description: "C(current), C(pending), C(volatile) and C(aggregate) counts, C(sram_threshold_exceeded).",
          type: dict, returned: always}
    remapped_rows: {description: "C(correctable), C(uncorrectable), C(pending), C(failure), C(histogram) of banks.",
                    type: dict, returned: always}
    nvlinks: {description: "C({link, active, version, remote_bus_id, remote_type}), links that are down too.",
              type: list, returned: always}
    fabric: {description: "C(state), C(status), C(clique_id), C(cluster_uuid), C(health), C(health_mask).", type: dict,
             returned: always}
    throttle_reasons: {description: What holds the clocks down now., type: list, returned: always,
                       sample: [sw_power_cap]}
    processes: {description: "C({pid, type, name, used_mib}); type C, G and M: computes, draws, computes by MPS.",
                type: list, returned: always}
    temperatures: {description: "C(gpu_c), C(memory_c), C(tlimit_c) left to the limit, and both kinds of thresholds.",
                   type: dict, returned: always}
    unread: {description: "Fields that are null, C({field, reason}).", type: list, returned: always,
             sample: [{field: nvlinks, reason: "nvmlDeviceGetNvLinkState: Not Supported"}]}
driver_version:
  description: Version of the loaded driver.
  type: str
  returned: always
  sample: 580.65.06
nvml_version:
  description: Version of the library.
  type: str
  returned: always
cuda_version:
  description: CUDA version that the driver can do.
  type: str
  returned: always
  sample: "13.0"
findings:
  description: C({severity, code, where, why, fix}) of what could not be known; severity is error, warning or note.
  type: list
  elements: dict
  returned: always
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.gpu.info.facts import gpu_info
from ansible.module_utils.rackserve.gpu.settings.nvml import NvmlError


def main():
    """Read and report."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        result = gpu_info()
    except NvmlError as problem:
        module.fail_json(msg=f"gpu_info: {problem}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
