#!/usr/bin/python
"""Compare a host with its desired state in one execution, and apply what may be applied."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: converge
short_description: Converge a host to desired-state documents in one execution
version_added: "0.1.0"
description:
  - Compares files, directories, links, kernel knobs, units, packages, holds, users, repositories and keys in one pass.
  - Applies files, directories, links, absences, kernel knobs, CPUs of interrupts and the enablement of units. Never
    starts, stops, reloads or restarts a unit.
  - Packages, holds, users, repositories, keys, the activity of units, and items with C(applied_by), are only compared.
  - A file with C(gated_by) is not written while that unit runs, unless O(apply_gated) names the unit.
  - The documents are described in docs/converge.md.
options:
  documents:
    description:
      - Desired-state documents, each with C(role) and C(items).
      - In a task also one text, their list as JSON, which Ansible takes as it is. It evaluates every value of a list.
    type: list
    elements: dict
    required: true
  secrets:
    description: Values for C({secret:name}) in contents, by name.
    type: dict
    default: {}
  root:
    description:
      - Where every path of the documents is taken to begin.
      - Any other root than C(/) is a copied tree; systemd is not asked about it.
      - Units of a copied tree, and what is optional and not there, are listed in RV(not_judged).
    type: path
    default: /
  apply_gated:
    description: Units whose gated files are written although they run. Only a gated operation names any.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Compares only, and returns what would change.
    support: full
  diff_mode:
    description: Shows text for public files, digests for files that hold a secret or that not everybody may read.
    support: full
  idempotent:
    description: A second run with the same documents changes nothing.
    support: full
author:
  - rackserve contributors
"""

EXAMPLES = r"""
- name: Compare all roles of a host with what is wanted
  converge:
    documents: "{{ documents }}"
    secrets: "{{ secrets }}"
  check_mode: true
  register: drift

- name: Apply one role
  converge:
    documents:
      - role: host_baseline
        items:
          - {id: somaxconn, kind: knob, path: /proc/sys/net/core/somaxconn, value: "4096"}

- name: Write what waited for the gate, the unit being drained
  converge:
    documents: "{{ documents }}"
    apply_gated: [vllm-x.service]
"""

RETURN = r"""
roles:
  description: Of each role whether it is dirty, the ids that were (in check mode, would be) changed, what differed.
  returned: always
  type: dict
  sample: {host_baseline: {dirty: true, changed: [somaxconn],
           differs: [{id: somaxconn, kind: knob, why: "128, wanted 4096"}]}}
dirty_roles:
  description: Roles for which the comparison found something that their tasks should mend.
  returned: success
  type: list
  elements: str
  sample: [host_baseline]
overrides:
  description: Of each role whose document the site overrides, the ids of items that it changed or removed.
  returned: success
  type: dict
  sample: {}
stale:
  description: Running units that run on something other than what is wanted, which no run of converge alone puts right.
  returned: always
  type: list
  elements: dict
  sample: [{unit: vllm-x.service, role: vllm, why: "waiting for the gate: /etc/systemd/system/vllm-x.service"}]
inactive:
  description: Units that should be active and are not.
  returned: always
  type: list
  elements: dict
  sample: [{unit: vllm-x.service, role: vllm}]
not_judged:
  description: Items that could not be compared, and why.
  returned: always
  type: list
  elements: dict
  sample: []
reload_needed:
  description: Whether systemd was (in check mode, would be) told to read its files again.
  returned: always
  type: bool
  sample: false
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.converge.answer import ARGUMENTS, answer


def main() -> None:
    """Hand the options to the core; its errors end the module with one line."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    result = answer(module.params, check=module.check_mode, diff=module._diff)
    if result.pop("failed", False):
        module.fail_json(**result)
    # Without this Ansible sends all documents back as part of the answer, a third of a megabyte a host.
    module.exit_json(**result, invocation={"module_args": {**module.params, "documents": "...", "secrets": "..."}})


if __name__ == "__main__":
    main()
