#!/usr/bin/python
"""Run a script with a release's own Python."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_run
short_description: Run a script with a built release's Python and keep what it writes
description:
  - Runs I(script) in a private namespace over the hosts' root filesystem; its one argument is I(output_dir), the only
    place it can write to. Runs again only when the script's text changed.
options:
  tree: {description: The unpacked release on the builder., type: path, required: true}
  release_path: {description: Where hosts have it., type: path, required: true}
  chroot: {description: Root filesystem of the hosts; null for the builder's own., type: path}
  script: {description: Script to run., type: path, required: true}
  output_dir: {description: Folder the script writes to., type: path, required: true}
attributes:
  check_mode: {support: full, description: Says whether the script would run.}
  diff_mode: {support: none, description: The files are the script's.}
  idempotent: {support: full, description: The script's digest is kept in the folder.}
author: [rackserve]
"""

EXAMPLES = r"""
- name: Make the lab's models
  release_run:
    tree: .cache/releases/2026.11-cpu/tree
    release_path: /opt/rackserve/releases/2026.11-cpu
    script: files/lab/tiny_models.py
    output_dir: .cache/models
"""

RETURN = r"""
stdout:
  description: What the script printed.
  type: str
  returned: when run
  sample: wrote tiny-dense and tiny-deepseek-v3
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.release.host import ReleaseError, run_command
from ansible.module_utils.rackserve.release.sandbox import Sandbox, run_script

ARGUMENTS = {
    "tree": {"type": "path", "required": True},
    "release_path": {"type": "path", "required": True},
    "chroot": {"type": "path"},
    "script": {"type": "path", "required": True},
    "output_dir": {"type": "path", "required": True},
}


def main() -> None:
    """Read the options, run, answer."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    root = Path(given["chroot"]) if given["chroot"] else None
    sandbox = Sandbox(root, Path(given["tree"]), given["release_path"])
    try:
        printed = run_script(sandbox, Path(given["script"]), Path(given["output_dir"]), run_command, module.check_mode)
    except (ReleaseError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=printed is not None, stdout=printed or "")


if __name__ == "__main__":
    main()
