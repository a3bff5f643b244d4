#!/usr/bin/python
"""Send files with rsync in the background."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rsync_send
short_description: Send files with rsync, and say how far it is
description:
  - Runs rsync in the background on the host where the task runs, usually the controller. The transfer goes on without a
    controller's process, and the next call with the same state folder finds it, so no two of them write one file.
options:
  transfer: {description: Name of the transfer in the state folder., type: str, required: true}
  source: {description: "A file, or the folder of O(files) with a slash behind it.", type: str, required: true}
  target: {description: "Where it goes, C([user@host:]path).", type: str, required: true}
  files: {description: Files below the source; without any the source itself., type: list, elements: str, default: []}
  options: {description: Options for rsync., type: list, elements: str, default: []}
  rsync_path: {description: Command that starts rsync on the other side., type: str, default: rsync}
  rsh: {description: Command that reaches the other side., type: str, default: ssh}
  state_dir: {description: Folder of the transfers' state., type: path, required: true}
  progress_s:
    description: >-
      Work in the background and return after so many seconds, finished or not; the task repeats until
      C(progress.finished). The work goes on without a controller, and the next call finds it.
    type: float
    default: 5
  ticket:
    description: Anything that is the same for all calls of one task and new in each run.
    type: str
    default: ""
attributes:
  check_mode: {support: full, description: Sends nothing and says that it would.}
  diff_mode: {support: none, description: rsync is only called where something differs.}
  idempotent: {support: partial, description: "It always says changed; rsync sends what differs."}
author: [rackserve]
"""

EXAMPLES = r"""
- name: Send the archive
  rsync_send:
    transfer: node1-archive
    source: /var/cache/a.tar.zst
    target: root@10.0.0.11:/opt/a.tar.zst
    options: [--partial, --inplace, --times]
    state_dir: /var/cache/jobs
    ticket: "{{ now().timestamp() }}"
  delegate_to: localhost
  register: sent
  until: sent is failed or sent.progress.finished
  retries: 10000
  delay: 0
"""

RETURN = r"""
bytes: {description: Size of the files., type: int, returned: when finished, sample: 456174539}
step_s: {description: Seconds by phase of what was done., type: dict, returned: when work was done}
progress:
  description: How far the work is; only C(finished) when it is done.
  type: dict
  returned: always
  sample: {phase: sending, done: 1048576, total: 4194304, unit: B, start: 0, elapsed_s: 1.2, finished: false}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.progress.job import Asked, JobError, advance, job_folder
from ansible.module_utils.rackserve.progress.report import FINISHED
from ansible.module_utils.rackserve.release.host import ReleaseError
from ansible.module_utils.rackserve.release.send import send_work

ARGUMENTS = {
    "transfer": {"type": "str", "required": True},
    "source": {"type": "str", "required": True},
    "target": {"type": "str", "required": True},
    "files": {"type": "list", "elements": "str", "default": []},
    "options": {"type": "list", "elements": "str", "default": []},
    "rsync_path": {"type": "str", "default": "rsync"},
    "rsh": {"type": "str", "default": "ssh"},
    "state_dir": {"type": "path", "required": True},
    "progress_s": {"type": "float", "default": 5},
    "ticket": {"type": "str", "default": ""},
}
FIELDS = ("source", "target", "files", "options", "rsync_path", "rsh")


def main() -> None:
    """Read the options, send a while, answer."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    if module.check_mode:
        module.exit_json(changed=True, progress=FINISHED)
    asked = Asked(job_folder(given["state_dir"], given["transfer"]), given["ticket"], given["progress_s"])
    try:
        step = advance(asked, send_work, {name: given[name] for name in FIELDS})
    except (ReleaseError, JobError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, progress=step.progress, step_s=step.step_s, **step.result)


if __name__ == "__main__":
    main()
