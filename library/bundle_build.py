#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Collect everything a release needs into one signed folder."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_build
short_description: Collect packages, wheels, the engine's archive and collections into one folder with a signed manifest
description:
  - Debian packages are resolved by apt with folders of its own, against the given sources and the state of a host, and
    become a flat repository that is signed. Every file stands in C(MANIFEST.json) with its sha256; C(MANIFEST.json.asc)
    is the site's signature.
  - Does nothing when a complete bundle of the same inputs is there. No secret is an option; gpg reads the passphrase.
options:
  name: {description: Name of the bundle., type: str, required: true}
  output_dir: {description: The result is C(<output_dir>/<name>)., type: path, required: true}
  debs:
    description: >-
      C(packages) (name to exact version), C(sources) (a deb822 file), C(status) (dpkg's status of a host; empty: every
      dependency is collected), C(architecture). Without it no packages are collected.
    type: dict
  wheels:
    description: Locks whose wheels are collected, each C({lock, python, folder, wheelhouse}).
    type: list
    elements: dict
    default: []
  files:
    description: Files that are taken along, each C({source, path}).
    type: list
    elements: dict
    default: []
  collections: {description: Requirements of collections., type: path}
  signing:
    description: >-
      C(key) (fingerprint), C(gpg_home) (default gpg's own), C(passphrase_file) (default asks gpg's agent).
    type: dict
    required: true
  pip_command: {description: Command that runs pip., type: list, elements: str, default: [pip]}
  galaxy_command: {description: Command that runs ansible-galaxy., type: list, elements: str, default: [ansible-galaxy]}
  refresh: {description: Collect anew although nothing that was given changed., type: bool, default: false}
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
  state_dir:
    description: Folder of the background work's state. Default C(<output_dir>/jobs).
    type: path
attributes:
  check_mode: {support: full, description: Says whether a bundle is to be made; resolves and downloads nothing.}
  diff_mode: {support: none, description: A bundle is too large to show.}
  idempotent: {support: full, description: The digests of all inputs are kept in the manifest.}
author: [rackserve contributors]
"""

EXAMPLES = r"""
- name: Make the bundle
  bundle_build:
    name: 2026.11-ubuntu-22.04
    output_dir: .cache/bundles
    debs:
      packages: {libnccl2: 2.27.7-1+cuda13.0}
      sources: inventories/site/bundle.sources
      architecture: amd64
    signing: {key: 0123456789ABCDEF0123456789ABCDEF01234567}
  register: made
"""

RETURN = r"""
path: {description: The bundle., type: str, returned: always, sample: .cache/bundles/2026.11-ubuntu-22.04}
files: {description: Number of files., type: int, returned: when made, sample: 61}
bytes: {description: Size of all files., type: int, returned: when made, sample: 5368709120}
packages: {description: Number of packages., type: int, returned: when made, sample: 48}
progress:
  description: How far the work is; only C(finished) when it is done.
  type: dict
  returned: always
  sample: {phase: hashing, done: 1048576, total: 4194304, unit: B, start: 0, elapsed_s: 1.2, finished: false}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.bundle.collect import collect, collect_work, standing
from ansible.module_utils.rackserve.progress.job import Asked, JobError, advance, job_folder
from ansible.module_utils.rackserve.progress.report import FINISHED, Report
from ansible.module_utils.rackserve.release.host import ReleaseError, run_command

ARGUMENTS = {
    "name": {"type": "str", "required": True},
    "output_dir": {"type": "path", "required": True},
    "debs": {"type": "dict"},
    "wheels": {"type": "list", "elements": "dict", "default": []},
    "files": {"type": "list", "elements": "dict", "default": []},
    "collections": {"type": "path"},
    "signing": {"type": "dict", "required": True},
    "pip_command": {"type": "list", "elements": "str", "default": ["pip"]},
    "galaxy_command": {"type": "list", "elements": "str", "default": ["ansible-galaxy"]},
    "refresh": {"type": "bool", "default": False},
    "progress_s": {"type": "float", "default": 0},
    "ticket": {"type": "str", "default": ""},
    "state_dir": {"type": "path"},
}
NOT_OF_THE_WORK = ("refresh", "progress_s", "ticket", "state_dir")


def work(given: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Collect here, or a step further in the background; nothing is started when nothing is to do."""
    folder = job_folder(given["state_dir"] or f"{given['output_dir']}/jobs", f"bundle-{given['name']}")
    payload = {name: value for name, value in given.items() if name not in NOT_OF_THE_WORK}
    if not folder.exists():
        there = None if given["refresh"] else standing(payload)
        if there is not None:
            return {**there, "progress": FINISHED}
    if check_mode:
        return {"changed": True, "path": f"{given['output_dir']}/{given['name']}", "progress": FINISHED}
    if not given["progress_s"]:
        return {**collect(payload, run_command, Report()), "progress": FINISHED}
    step = advance(Asked(folder, given["ticket"], given["progress_s"]), collect_work, payload)
    return {"changed": True, **step.result, "progress": step.progress}


def main() -> None:
    """Read the options, collect, answer."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = work(module.params, module.check_mode)
    except (ReleaseError, JobError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
