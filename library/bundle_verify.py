#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Prove that a bundle is what its maker signed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_verify
short_description: Check a bundle's signature and every file's sha256
description:
  - Fails unless the manifest is signed by a key of O(key_file), and the folder holds exactly the manifest's files.
options:
  path: {description: The bundle., type: path, required: true}
  key_file:
    description: Public key of who made it, C(.asc) in ASCII or C(.gpg) in binary.
    type: path
    required: true
  progress_s:
    description: >-
      Work in the background and return after so many seconds, finished or not; the task repeats until
      C(progress.finished). 0 works in this call.
    type: float
    default: 0
  ticket:
    description: With O(progress_s), anything that is the same for all calls of one task and new in each run.
    type: str
    default: ""
  state_dir: {description: Folder of the background work's state., type: path, default: /run/rackserve/jobs}
attributes:
  check_mode: {support: full, description: Changes nothing in any mode.}
  diff_mode: {support: none, description: Nothing is changed.}
  idempotent: {support: full, description: Only reads.}
author: [rackserve contributors]
"""

EXAMPLES = r"""
- name: Prove the bundle
  bundle_verify:
    path: /srv/rackserve/bundle
    key_file: inventories/site/bundle-key.asc
"""

RETURN = r"""
signed_by:
  description: Fingerprint of the key.
  type: str
  returned: when finished
  sample: 0123456789ABCDEF0123456789ABCDEF01234567
files: {description: Number of files., type: int, returned: when finished, sample: 61}
bytes: {description: Size of all files., type: int, returned: when finished, sample: 5368709120}
about:
  description: What the manifest says besides its files.
  type: dict
  returned: when finished
  sample: {bundle: 2026.11-ubuntu-22.04}
progress:
  description: How far the work is; only C(finished) when it is done.
  type: dict
  returned: always
  sample: {finished: true}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.bundle.manifest import verify, verify_work
from ansible.module_utils.rackserve.progress.job import Asked, JobError, advance, job_folder
from ansible.module_utils.rackserve.progress.report import FINISHED, Report
from ansible.module_utils.rackserve.release.host import ReleaseError, run_command

ARGUMENTS = {
    "path": {"type": "path", "required": True},
    "key_file": {"type": "path", "required": True},
    "progress_s": {"type": "float", "default": 0},
    "ticket": {"type": "str", "default": ""},
    "state_dir": {"type": "path", "default": "/run/rackserve/jobs"},
}


def main() -> None:
    """Verify here, or a step further in the background."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    payload = {"folder": given["path"], "key_file": given["key_file"]}
    try:
        if given["progress_s"]:
            folder = job_folder(given["state_dir"], f"verify-{Path(given['path']).name}")
            step = advance(Asked(folder, given["ticket"], given["progress_s"]), verify_work, payload)
            result = {**step.result, "progress": step.progress}
        else:
            result = verify(Path(given["path"]), Path(given["key_file"]), run_command, Report())
            result["progress"] = FINISHED
    except (ReleaseError, JobError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
