#!/usr/bin/python
"""Build the simulated machine of a hardware profile."""

from __future__ import annotations

DOCUMENTATION = r"""
module: simulated_machine
short_description: Build the simulated hardware of a profile for the lab's hosts
description:
  - Checks the profile, then writes a folder with the state of its GPUs, its C(sys) and its C(proc).
  - The folder's name ends in a digest of its content. It is written beside its place and renamed, so it is whole or
    not there.
  - Run it as root where hosts overlay the folder. Without root the marks that hide the real machine are left out.
attributes:
  check_mode:
    support: full
    description: Says whether the folder would be written.
  diff_mode:
    support: none
    description: A machine is built or it is not.
  idempotent:
    support: full
    description: A machine that is there is left alone.
options:
  name:
    description: Name of the profile, that is its file's name without C(.yml).
    type: str
    required: true
  profile:
    description: The profile's content; see C(docs/hardware.md).
    type: dict
    required: true
  dest:
    description: Folder of machines; this one becomes C(<dest>/<name>-<digest>).
    type: path
    required: true
author: rackserve
"""

EXAMPLES = r"""
- name: Build the simulated machine
  simulated_machine:
    name: h20-8
    profile: "{{ lookup('file', 'files/hardware/h20-8.yml') | from_yaml }}"
    dest: /var/lib/rackserve-lab/machines
"""

RETURN = r"""
path:
  description: The machine's folder.
  returned: always
  type: str
  sample: /var/lib/rackserve-lab/machines/h20-8-0123456789ab
problems:
  description: Everything that is wrong with the profile.
  returned: when the profile is refused
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.hardware.profile import ProfileError
from ansible.module_utils.rackserve.simulated.machine import build, machine_folder, path_of

ARGUMENTS = {
    "name": {"type": "str", "required": True},
    "profile": {"type": "dict", "required": True},
    "dest": {"type": "path", "required": True},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    name, profile, dest = module.params["name"], module.params["profile"], Path(module.params["dest"])
    try:
        if module.check_mode:
            path = path_of(machine_folder(name, profile), name, dest)
            module.exit_json(changed=not path.is_dir(), path=str(path))
        path, built = build(name, profile, dest)
    except ProfileError as error:
        problems = str(error).splitlines()
        more = f" (and {len(problems) - 1} more in problems)" if problems[1:] else ""
        module.fail_json(msg=problems[0] + more, problems=problems)
    except OSError as error:
        module.fail_json(msg=f"{dest}: cannot write the machine {name}: {error}; free space or name another dest")
    module.exit_json(changed=built, path=str(path))


if __name__ == "__main__":
    main()
