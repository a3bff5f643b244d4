#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Judge a trial of a topology, and give it to NCCL where it helps."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nccl_trial
short_description: Give a topology to NCCL where a trial showed that it helps
description:
  - Judges I(candidate) by NCCL's own rules, against the devices of the host, and by what the program C(all_reduce.py)
    of the role C(nccl) measured with and without it, and NCCL's own dumps of both.
  - Where all of that is in order, it is written to I(dest) in one step; otherwise I(dest) is removed, and NCCL detects
    everything by itself.
options:
  candidate:
    description: Topology that was tried.
    type: path
    required: true
  folder:
    description: Folder of the trial, with C(result.json), C(default.xml) and C(injected.xml).
    type: path
    required: true
  use:
    description: V(inject) takes it unless it is slower, V(measure) only where it is faster.
    type: str
    choices: [inject, measure]
    required: true
  dest:
    description: File that engines name in C(NCCL_TOPO_FILE).
    type: path
    required: true
  root:
    description: Directory that is taken for the root of the host.
    type: path
    default: /
attributes:
  check_mode:
    support: full
    description: Says what would be written.
  diff_mode:
    support: full
    description: Shows the file before and after.
  idempotent:
    support: full
    description: The same trial gives the same file.
author: [rackserve contributors]
"""

EXAMPLES = r"""
- name: Take it where it is faster
  nccl_trial:
    candidate: /var/lib/rackserve/nccl/inject.xml
    folder: /var/lib/rackserve/nccl/trial
    use: measure
    dest: /etc/rackserve/nccl/topology.xml
"""

RETURN = r"""
taken:
  description: NCCL is given the topology.
  type: bool
  returned: always
findings:
  description: Why it is not taken, or what was measured, each C({severity, code, where, why, fix}).
  type: list
  elements: dict
  returned: always
  sample:
    - severity: note
      code: topology-no-gain
      where: topology
      why: "it gains nothing: times as shares of the default's are 32768 bytes 1.00"
      fix: nothing to do
"""

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.nccl import record
from ansible.module_utils.rackserve.nccl.trial import judge_trial


def main():
    """Read the trial, judge, write or remove."""
    module = AnsibleModule(
        argument_spec={
            "candidate": {"type": "path", "required": True},
            "folder": {"type": "path", "required": True},
            "use": {"type": "str", "choices": ["inject", "measure"], "required": True},
            "dest": {"type": "path", "required": True},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    given = module.params
    folder, dest = Path(given["folder"]), Path(given["dest"])
    try:
        candidate = Path(given["candidate"]).read_text("utf-8")
        result = json.loads((folder / "result.json").read_text("utf-8"))
        found = {name: folder / f"{name}.xml" for name in ("default", "injected")}
        dumps = {name: path.read_text("utf-8") for name, path in found.items() if path.exists()}
        taken, findings = judge_trial(Path(given["root"]), candidate, result, dumps, given["use"])
        before, after = dest.read_text("utf-8") if dest.exists() else "", candidate if taken else ""
        if before != after and not module.check_mode:
            record.settle(dest, after)
    except (OSError, ValueError, KeyError) as problem:
        module.fail_json(msg=f"the trial cannot be judged: {problem!r}; run playbooks/measure-topology.yml again")
    diff = {"before": before, "after": after, "before_header": str(dest)}
    module.exit_json(changed=before != after, taken=taken, findings=findings, diff=diff)


if __name__ == "__main__":
    main()
