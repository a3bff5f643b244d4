#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Name causes from evidence of hosts, or from a bundle, a folder or a log file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: diagnose_case
short_description: Name the causes that evidence points to, ranked
description:
  - Runs the rules of docs/diagnose.md over what M(host_evidence) collected of each host, or over O(input), and ranks
    what holds; what follows from a cause is told below it. It runs on the controller.
  - Secrets are taken out of everything it returns or writes, by value and by what looks like one.
options:
  hosts:
    description: Evidence by host, C({sources, readings, plan}) or C({lost}), as the filter C(diagnose_hosts) gives it.
    type: dict
    default: {}
  input:
    description:
      - A bundle, another archive, a folder or a log file, read instead of O(hosts).
      - Nothing is unpacked to disk, links are not followed, and number, size and growth of members are limited.
    type: path
  output:
    description: File for all causes, JSON.
    type: path
  bundle:
    description: File for everything that was collected, one archive (tar.gz) with a manifest.
    type: path
  secrets:
    description: Secrets by name, to take out wherever they stand.
    type: dict
    default: {}
  inventory:
    description: What stands after C(-i) in commands.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Writes no file.
  diff_mode:
    support: none
    description: The files are reports, there is nothing to compare with.
  idempotent:
    support: partial
    description: Reading is; a bundle is written anew each time.
author: [rackserve contributors]
"""

EXAMPLES = r"""
- name: Say what a log file from elsewhere points to
  diagnose_case:
    input: /srv/case-4711/vllm.log
"""

RETURN = r"""
causes:
  description: Ranked; what follows from one is in its C(follows).
  type: list
  elements: dict
  returned: always
  sample:
    - {cause: gpu-oom-kv, category: memory, impact: down, confidence: 0.95, host: node2, unit: vllm-a-0.service,
       says: "the KV cache that is left on the GPU cannot hold one request of max_model_len", why: "...",
       evidence: [{host: node2, file: journal/vllm-a-0.service.log, line: 41, text: "..."}], fix: "...", run: "...",
       follows: [{cause: unit-crash-loop, host: node2, unit: vllm-a-0.service}]}
lines:
  description: The same for a terminal.
  type: list
  elements: str
  returned: always
  sample: ["Looked at 5 hosts, 90 texts", "No cause found: nothing that was collected points to a fault."]
redacted:
  description: How many places held something that was taken out here.
  type: int
  returned: always
  sample: 0
written:
  description: Files that were, or in check mode would be, written.
  type: list
  elements: str
  returned: always
  sample: [/tmp/case.tar.gz]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.diagnose.program import DiagnoseError, examine


def main() -> None:
    """Examine, and say what was found."""
    module = AnsibleModule(
        argument_spec={
            "hosts": {"type": "dict", "default": {}},
            "input": {"type": "path"},
            "output": {"type": "path"},
            "bundle": {"type": "path"},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "inventory": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        result = examine(given["hosts"], given["secrets"], given, check=module.check_mode)
    except DiagnoseError as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
