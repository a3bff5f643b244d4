#!/usr/bin/python
"""Install a shipped release on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_install
short_description: Unpack a release archive, verify every file and put it at its path
description:
  - Unpacks to C(<path>.part), compares every file with the manifest, writes C(RELEASE.json) last and renames.
  - A release is immutable, so another build under the same id is refused. Nothing stands at I(path) until all is
    verified.
options:
  release_id: {description: Name of the release., type: str, required: true}
  archive: {description: The tar.zst on this host., type: path, required: true}
  path: {description: Where the release shall stand., type: path, required: true}
  manifest_sha256: {description: Identity the tree must have., type: str, required: true}
  unpacked_bytes: {description: Disk space the tree takes., type: int, required: true}
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
    description: Folder of the background work's state on the host.
    type: path
    default: /run/rackserve/jobs
attributes:
  check_mode: {support: full, description: Says whether the release would be installed.}
  diff_mode: {support: full, description: Shows the marker before and after.}
  idempotent: {support: full, description: Decided by the marker.}
author: [rackserve]
"""

EXAMPLES = r"""
- name: Install the release
  release_install:
    release_id: 2026.11-cpu
    archive: /opt/rackserve/ship/2026.11-cpu.tar.zst
    path: /opt/rackserve/releases/2026.11-cpu
    manifest_sha256: "{{ build.manifest_sha256 }}"
    unpacked_bytes: "{{ build.bytes }}"
    progress_s: 5
    ticket: "{{ now().timestamp() }}"
  register: installed
  until: installed is failed or installed.progress.finished
  retries: 10000
  delay: 0
"""

RETURN = r"""
installed:
  description: The release stands at its path; false only in check mode.
  type: bool
  returned: always
  sample: true
path: {description: That path., type: str, returned: always, sample: /opt/rackserve/releases/2026.11-cpu}
step_s: {description: Seconds by phase of what was done., type: dict, returned: when work was done}
progress:
  description: How far the work is; only C(finished) when it is done.
  type: dict
  returned: always
  sample: {phase: verifying, done: 1048576, total: 4194304, unit: B, start: 0, elapsed_s: 1.2, finished: false}
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.progress.job import HOST_JOBS, Asked, JobError, Step, advance, job_folder
from ansible.module_utils.rackserve.progress.report import FINISHED, Report
from ansible.module_utils.rackserve.release.host import ReleaseError
from ansible.module_utils.rackserve.release.install import InstallRequest, install, install_work

ARGUMENTS = {
    "release_id": {"type": "str", "required": True},
    "archive": {"type": "path", "required": True},
    "path": {"type": "path", "required": True},
    "manifest_sha256": {"type": "str", "required": True},
    "unpacked_bytes": {"type": "int", "required": True},
    "progress_s": {"type": "float", "default": 0},
    "ticket": {"type": "str", "default": ""},
    "state_dir": {"type": "path", "default": HOST_JOBS},
}


FIELDS = ("release_id", "archive", "path", "manifest_sha256", "unpacked_bytes")


def work(given: dict[str, Any], request: InstallRequest, check_mode: bool) -> Step:
    """Install here, or a step further in the background; nothing is started when nothing is to do."""
    asked = Asked(job_folder(given["state_dir"], f"install-{request.release_id}"), given["ticket"], given["progress_s"])
    report = Report()
    if check_mode or not given["progress_s"]:
        return Step(True, {"changed": install(request, check_mode, report=report)}, FINISHED, report.step_s)
    if not asked.folder.exists() and not install(request, check_mode=True):
        return Step(True, {"changed": False}, FINISHED, {})
    return advance(asked, install_work, {name: given[name] for name in FIELDS})


def main() -> None:
    """Read the options, install, answer."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    request = InstallRequest(
        release_id=given["release_id"],
        path=Path(given["path"]),
        archive=Path(given["archive"]),
        manifest_sha256=given["manifest_sha256"],
        unpacked_bytes=given["unpacked_bytes"],
    )
    try:
        step = work(given, request, module.check_mode)
    except (ReleaseError, JobError, OSError) as error:
        module.fail_json(msg=str(error))
    changed = step.result.get("changed", True)
    diff = {"before": "absent\n", "after": f"{request.manifest_sha256}\n"} if changed else {}
    told = {"path": given["path"], "diff": diff, "progress": step.progress, "step_s": step.step_s}
    module.exit_json(changed=changed, installed=step.finished and not (changed and module.check_mode), **told)


if __name__ == "__main__":
    main()
