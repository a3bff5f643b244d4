#!/usr/bin/python
"""Verify a model's files against its manifest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_verify
short_description: Compare a model's folder with its manifest and mark it READY
description:
  - Reports what is missing, corrupt, or unreadable for the service user. Hashes in parallel, and only files that
    changed since they were last found right.
  - Writes C(READY) (the manifest's sha256) when everything is right, removes it when anything is wrong.
options:
  path: {description: Folder of the model., type: path, required: true}
  manifest: {description: "Text of the manifest, or its path on this host.", type: raw, required: true}
  user: {description: Service user who must be able to read all files., type: str}
  full: {description: Hash every file even when nothing seems changed., type: bool, default: false}
  threads: {description: Files hashed at once., type: int, default: 4}
  marks:
    description: Folder for C(READY) and its table, made where it is missing. Default is O(path).
    type: path
  proven:
    description: "Files that were hashed already in this run, C({name: [size, modification time in ns]})."
    type: dict
    default: {}
  fail: {description: Fail when the model is not ready., type: bool, default: false}
attributes:
  check_mode: {support: full, description: "Compares and hashes, leaves READY as it is."}
  diff_mode: {support: full, description: Shows whether READY stands before and after.}
  idempotent: {support: full, description: A second run on an unchanged folder changes nothing.}
author: [rackserve]
"""

EXAMPLES = r"""
- name: Verify the weights
  model_verify:
    path: /srv/models/tiny-deepseek-v3
    manifest: "{{ lookup('ansible.builtin.file', 'manifest.json', rstrip=false) }}"
    user: vllm
    fail: true
"""

RETURN = r"""
missing:
  description: Files of the manifest that are not there.
  type: list
  elements: str
  returned: always
  sample: []
corrupt:
  description: Files of another size or content.
  type: list
  elements: str
  returned: always
  sample: [config.json]
unreadable:
  description: Files or folders the user cannot read.
  type: list
  elements: str
  returned: always
  sample: []
ready: {description: Nothing is wrong., type: bool, returned: always, sample: false}
hashed: {description: How many files were read in full., type: int, returned: always, sample: 12}
right:
  description: Files that are right, with size and modification time in ns.
  type: dict
  returned: always
  sample: {config.json: [1523, 1795430400000000000]}
manifest_sha256: {description: What READY holds., type: str, returned: always}
"""

import grp
import json
import pwd
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.model.verify import READY, ModelError, Reader, explain, manifest_digest, verify

ARGUMENTS = {
    "path": {"type": "path", "required": True},
    "manifest": {"type": "raw", "required": True},
    "user": {"type": "str"},
    "full": {"type": "bool", "default": False},
    "threads": {"type": "int", "default": 4},
    "marks": {"type": "path"},
    "proven": {"type": "dict", "default": {}},
    "fail": {"type": "bool", "default": False},
}


def manifest_text(given: Any) -> str:
    """The manifest's text from text, a path, or a dict (Ansible turns text that looks like JSON into one)."""
    if isinstance(given, dict):
        return json.dumps(given, indent=1, sort_keys=True) + "\n"
    return Path(given).read_text(encoding="utf-8") if str(given).startswith("/") else str(given)


def reader_of(user: str) -> Reader:
    """The ids of ``user``. Raises ModelError when there is no such user."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError as missing:
        raise ModelError(f"user {user} does not exist on this host: run the role serving_runtime first") from missing
    groups = [group.gr_gid for group in grp.getgrall() if user in group.gr_mem]
    return Reader(entry.pw_uid, frozenset([entry.pw_gid, *groups]))


def main() -> None:
    """Read the options, verify, answer."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    folder = Path(given["path"])
    marks = Path(given["marks"] or folder)
    try:
        text = manifest_text(given["manifest"])
        reader = reader_of(given["user"]) if given["user"] else None
        before = (marks / READY).exists()
        if given["marks"] and not module.check_mode:
            marks.mkdir(parents=True, exist_ok=True)
        settings = {"full": given["full"], "threads": given["threads"], "check_mode": module.check_mode}
        right: dict[str, list[int]] = {}
        settings.update(proven=given["proven"], right=right)
        verdict = verify(folder, text, reader=reader, marks=marks, **settings)
    except (ModelError, OSError) as error:
        module.fail_json(msg=str(error))
    result = {**verdict._asdict(), "ready": verdict.ready, "right": right, "manifest_sha256": manifest_digest(text)}
    if verdict.changed:
        result["diff"] = {"before": f"READY: {before}\n", "after": f"READY: {verdict.ready}\n"}
    if given["fail"] and not verdict.ready:
        module.fail_json(msg=explain(verdict, folder), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
