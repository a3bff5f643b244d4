#!/usr/bin/python
"""Build an engine release on a builder."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_build
short_description: Build an engine release once, for all hosts of one OS, architecture and Python ABI
description:
  - Makes one relocatable tree of interpreter, standard library and every package of a hashed lock, with bytecode.
  - Packs it as a reproducible tar.zst with a manifest of every file, and checks that the engine imports in the
    target root.
  - Does nothing when the same lock, interpreter and recipe were built before. Runs as root, because it mounts and
    chroots in a private namespace.
options:
  release_id: {description: Name of the release., type: str, required: true}
  lock: {description: Requirements with hashes., type: path, required: true}
  wheelhouse: {description: Folder of wheels; missing ones are downloaded into it., type: path, required: true}
  output_dir: {description: The result is C(<output_dir>/<release_id>/)., type: path, required: true}
  release_path: {description: Where hosts have it. Default C(/opt/rackserve/releases/<release_id>)., type: path}
  chroot: {description: Root filesystem of the hosts; null builds for the builder's own., type: path}
  python: {description: Python version in that root., type: str, default: "3.11"}
  extra_files: {description: Content by path in the release., type: dict, default: {}}
  imports:
    description: Modules that must import in the finished tree. Default is what an engine needs.
    type: list
    elements: str
  find_links: {description: Local folders with wheels. Default is pip's own setting., type: list, elements: path}
  pip_command: {description: Command that runs pip. Default is the running interpreter's., type: list, elements: str}
  uv_command: {description: Command that runs uv., type: list, elements: str, default: [uv]}
  progress_s:
    description: >-
      Work in the background and return after so many seconds, finished or not; the task repeats until
      C(progress.finished). The work goes on without a controller, and the next call finds it. 0 works in this call.
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
  check_mode: {support: full, description: Says whether a build is due.}
  diff_mode: {support: full, description: Shows the old and the new manifest's digest.}
  idempotent: {support: full, description: The inputs' digest is kept with the result.}
author: [rackserve]
"""

EXAMPLES = r"""
- name: Build the release
  release_build:
    release_id: 2026.11-cpu
    lock: requirements/engine-cpu.txt
    wheelhouse: .cache/wheelhouse
    output_dir: .cache/releases
    chroot: /var/lib/machines/base
    progress_s: 5
    ticket: "{{ now().timestamp() }}"
  register: built
  until: built is failed or built.progress.finished
  retries: 10000
  delay: 0
"""

RETURN = r"""
id: {description: The release's name., type: str, returned: always, sample: 2026.11-cpu}
archive:
  description: Path of the tar.zst.
  type: str
  returned: always
  sample: .cache/releases/2026.11-cpu/2026.11-cpu.tar.zst
manifest_sha256: {description: Identity of the tree's content., type: str, returned: when built}
archive_sha256: {description: Digest of the archive., type: str, returned: when built}
bytes: {description: What the unpacked tree takes on disk., type: int, returned: when built}
built_for: {description: "os, arch and python_abi.", type: dict, returned: when built}
step_s: {description: Seconds of each step of the last build., type: dict, returned: when built}
progress:
  description: How far the work is; only C(finished) when it is done.
  type: dict
  returned: always
  sample: {phase: manifest, done: 1048576, total: 4194304, unit: B, start: 0, elapsed_s: 1.2, finished: false}
"""

import os
import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.progress.job import Asked, JobError, advance, job_folder
from ansible.module_utils.rackserve.progress.report import FINISHED
from ansible.module_utils.rackserve.release.build import BuildRequest, build, build_work, read_built, request_of
from ansible.module_utils.rackserve.release.host import ReleaseError, run_command

ARGUMENTS = {
    "release_id": {"type": "str", "required": True},
    "lock": {"type": "path", "required": True},
    "wheelhouse": {"type": "path", "required": True},
    "output_dir": {"type": "path", "required": True},
    "release_path": {"type": "path"},
    "chroot": {"type": "path"},
    "python": {"type": "str", "default": "3.11"},
    "extra_files": {"type": "dict", "default": {}},
    "imports": {"type": "list", "elements": "str"},
    "find_links": {"type": "list", "elements": "path"},
    "pip_command": {"type": "list", "elements": "str"},
    "uv_command": {"type": "list", "elements": "str", "default": ["uv"]},
    "progress_s": {"type": "float", "default": 0},
    "ticket": {"type": "str", "default": ""},
    "state_dir": {"type": "path"},
}
NOT_OF_THE_WORK = ("progress_s", "ticket", "state_dir")


def work(given: dict[str, Any], request: BuildRequest, check_mode: bool) -> dict[str, Any]:
    """Build here, or a step further in the background; nothing is started when nothing is to do."""
    folder = job_folder(given["state_dir"] or f"{given['output_dir']}/jobs", f"build-{request.release_id}")
    if check_mode or not given["progress_s"]:
        return {**build(request, run_command, check_mode), "progress": FINISHED}
    if not folder.exists():
        standing = build(request, run_command, check_mode=True)
        if not standing["changed"]:
            return {**standing, "progress": FINISHED}
    payload = {name: value for name, value in given.items() if name not in NOT_OF_THE_WORK}
    step = advance(Asked(folder, given["ticket"], given["progress_s"]), build_work, payload)
    return {"changed": True, **step.result, "progress": step.progress}


def main() -> None:
    """Read the options, build, answer."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    if given["find_links"] is None:
        given["find_links"] = os.environ.get("PIP_FIND_LINKS", "").split()
    given["pip_command"] = given["pip_command"] or [sys.executable, "-m", "pip"]
    request = request_of(given)
    before = (read_built(request) or {}).get("manifest_sha256", "none")
    try:
        result = work(given, request, module.check_mode)
    except (ReleaseError, JobError, OSError) as error:
        module.fail_json(msg=str(error))
    before = result.pop("before", before)
    after = result.get("manifest_sha256", "to be built")
    diff = {"before": f"{before}\n", "after": f"{after}\n"} if result["changed"] else {}
    module.exit_json(id=given["release_id"], diff=diff, **result)


if __name__ == "__main__":
    main()
