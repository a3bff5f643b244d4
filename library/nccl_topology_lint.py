#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Say whether NCCL can read a topology file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nccl_topology_lint
short_description: Judge a topology file by NCCL's own rules
description:
  - NCCL reads C(NCCL_TOPO_FILE) with a parser of its own that is no XML parser; what it refuses stops every job of the
    host when it begins. This module follows that parser, and fails on what NCCL refuses.
  - What NCCL reads, and what does nothing or harm in it, is returned as warnings.
  - NCCL passes over a file that is not there; here that is a failure, since there is nothing to judge.
options:
  path:
    description: The file.
    type: path
    required: true
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
- name: Refuse a file that would stop every job
  nccl_topology_lint:
    path: /opt/nccl/topo.xml
"""

RETURN = r"""
findings:
  description: What is wrong, in the order of the file; C(level) is V(error) or V(warning). Of a failure, too.
  type: list
  elements: dict
  returned: when the file can be read
  sample:
    - line: 1
      level: error
      reason: an XML declaration (expected >, got '?')
      fix: delete the line <?xml ...?>
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.nccl.lint import errors, lint_file


def main():
    """Read and judge."""
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
    path = module.params["path"]
    try:
        findings = lint_file(Path(path))
    except OSError as problem:
        module.fail_json(msg=f"{path}: {problem.strerror}; name a file that is there, or leave NCCL_TOPO_FILE unset")
    refused = errors(findings)
    if refused:
        module.fail_json(msg=f"NCCL refuses {path}: {refused[0]}", findings=findings)
    module.exit_json(changed=False, findings=findings)


if __name__ == "__main__":
    main()
