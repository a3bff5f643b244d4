#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Collect what a diagnosis needs of a host: readings and logs, bounded, without secrets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_evidence
short_description: Collect evidence of a host for a diagnosis, without secrets
description:
  - One execution reads units, their last starts in the journal, the kernel log, files of ours, GPUs, the health report,
    ports, disks, weights, the gateway and the lease, asks each engine for one token, and returns texts and readings.
  - Secrets are taken out on the host - those that our files there hold, by their values, and what looks like one.
  - It only reads. What does not answer in time is left out and named.
options:
  plan:
    description: The plan's part of this host (the filter C(host_question)); empty looks at the host alone.
    type: dict
    default: {}
  since_s:
    description: Logs of the last so many seconds count.
    type: float
    default: 86400
  lines:
    description: At most so many lines of each unit's journal.
    type: int
    default: 600
  budget_s:
    description: Nothing new is begun after this time.
    type: float
    default: 45
  controller_epoch_s:
    description: The controller's clock in seconds since the epoch, to compare with; 0 compares nothing.
    type: float
    default: 0
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
- name: Collect evidence
  host_evidence:
    plan: "{{ rackserve | host_question }}"
    since_s: 3600
  register: rackserve_evidence
"""

RETURN = r"""
sources:
  description: Texts, C({name, kind, unit, state, cut, text}); C(cut) lines before the text were left out.
  type: list
  elements: dict
  returned: always
  sample: [{name: kernel.log, kind: kernel, unit: "", state: "", cut: 0, text: "..."}]
readings:
  description: Units, engines, gateway, processes, volumes, weights, preflight, firewall, health; C(missed) what failed.
  type: dict
  returned: always
  sample: {units: {}, engines: [], missed: []}
plan:
  description: The part of the plan that was given.
  type: dict
  returned: always
  sample: {units: [vllm-tiny-0.service]}
redacted:
  description: How many places held something that was taken out.
  type: int
  returned: always
  sample: 2
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.diagnose.look import look_at_host
from ansible.module_utils.rackserve.health.host_tools import run_command


def main() -> None:
    """Look, and return what was seen."""
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "default": {}},
            "since_s": {"type": "float", "default": 86400},
            "lines": {"type": "int", "default": 600},
            "budget_s": {"type": "float", "default": 45},
            "controller_epoch_s": {"type": "float", "default": 0},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    given = module.params
    result = look_at_host(Path(given["root"]), lambda words: run_command(words, 10.0), given["plan"], given)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
