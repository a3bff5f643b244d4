#!/usr/bin/python
"""Records of runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_record
short_description: Record who changed a cluster, when, by which operation, and what came of it
description:
  - One file a run (mode 0640), written whole at each change; the oldest are removed.
  - V(begun) is for the holder of the lease. It marks records that are still open as cut off.
author: rackserve
options:
  folder:
    description: Where records are.
    type: path
    default: /var/lib/rackserve/runs
  state:
    description: Open a record, add a step to it, close it, or list the newest ones.
    type: str
    choices: [begun, step, done, failed, listed]
    required: true
  run:
    description: The record that V(begun) returned; with an empty one a step or an end changes nothing.
    type: str
    default: ""
  operation: {description: The operation's name., type: str, default: ""}
  who: {description: "Who runs it, and from where.", type: str, default: ""}
  plan_hash: {description: The plan it follows., type: str, default: ""}
  cluster: {description: The cluster's name., type: str, default: ""}
  versions: {description: Versions by name., type: dict, default: {}}
  details:
    description: "What it is about: C(host), C(deployment), C(release_from), C(release_to)."
    type: dict
    default: {}
  wanted: {description: Lines by host on what shall change., type: dict, default: {}}
  host: {description: Where a step was., type: str, default: ""}
  unit: {description: The unit of a step., type: str, default: ""}
  result: {description: What came of a step., type: str, choices: [ok, failed, put back], default: ok}
  text: {description: "More of a step, or why a run failed.", type: str, default: ""}
  keep: {description: Records that are kept., type: int, default: 200}
  most: {description: Records that V(listed) returns., type: int, default: 20}
attributes:
  check_mode: {support: full, description: Writes nothing; V(begun) returns an empty name.}
  diff_mode: {support: none, description: A record is about changes of other things.}
  idempotent: {support: partial, description: Closing a record is; V(begun) and V(step) add.}
"""

EXAMPLES = r"""
- name: Open a record
  run_record:
    state: begun
    operation: restart-serving
    who: ada@ops1
    plan_hash: "{{ rackserve.plan_hash }}"
"""

RETURN = r"""
run:
  description: The record's name.
  returned: when begun
  type: str
  sample: 20261126T152235Z-restart-serving-1f2e
resumes:
  description: The run of the same operation on the same subject that did not succeed; empty where there is none.
  returned: when begun
  type: str
  sample: ""
cut_off:
  description: Records that were still open.
  returned: when begun
  type: list
  elements: str
  sample: []
records:
  description: The newest records, the newest first.
  returned: when listed
  type: list
  elements: dict
  sample: [{id: 20261126T152235Z-site-1f2e, operation: site, who: ada@ops1, state: done, begun_at: 1795706555}]
previous_release:
  description:
    - The release that the newest change of a release began with.
    - Of a way back that did not end well, the release which it goes to.
  returned: when listed
  type: str
  sample: "2026.11"
"""

import os
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.operation.record import (
    RecordError,
    Run,
    add_step,
    begin,
    end,
    listed,
    previous_release,
)

TEXTS = ("run", "operation", "who", "plan_hash", "cluster", "host", "unit", "text")


def change(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what the options say."""
    folder, state, now_s = Path(given["folder"]), given["state"], time.time()
    if state == "listed":
        records = listed(folder)
        found = {"records": records[: given["most"]], "previous_release": previous_release(records)}
        return {"changed": False, **found}
    if state == "begun":
        run = Run(*(given[name] for name in Run._fields))
        return begin(folder, run, keep=given["keep"], now_s=now_s, salt=os.urandom(2).hex(), check=check)
    if not given["run"]:
        return {"changed": False}
    if state == "step":
        step = {name: given[name] for name in ("host", "unit", "result", "text")}
        return {"changed": add_step(folder, given["run"], step, now_s=now_s, check=check)}
    return {"changed": end(folder, given["run"], state, given["text"], now_s=now_s, check=check)}


def main() -> None:
    """Run the module."""
    spec: dict[str, Any] = {name: {"type": "str", "default": ""} for name in TEXTS}
    spec.update({name: {"type": "dict", "default": {}} for name in ("versions", "details", "wanted")})
    spec["folder"] = {"type": "path", "default": "/var/lib/rackserve/runs"}
    spec["state"] = {"type": "str", "choices": ["begun", "step", "done", "failed", "listed"], "required": True}
    spec["result"] = {"type": "str", "choices": ["ok", "failed", "put back"], "default": "ok"}
    spec.update(keep={"type": "int", "default": 200}, most={"type": "int", "default": 20})
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        result = change(module.params, module.check_mode)
    except RecordError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
