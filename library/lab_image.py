#!/usr/bin/python
"""Ansible module: the root file system of the lab's hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_image
short_description: Build the root file system that all lab hosts share
description:
  - A bare Debian with the files of O(files) on top and a small package repository in /srv/packages.
  - Named by the digest of its recipe, built once, kept over the life of labs.
attributes:
  check_mode:
    support: full
    description: Says whether the image would be built.
  diff_mode:
    support: none
    description: An image is built or it is not.
  idempotent:
    support: full
    description: An image that is there is left alone.
options:
  images_dir:
    description: Folder of images.
    type: path
    required: true
  suite:
    description: Debian suite.
    type: str
    required: true
  installed:
    description: Packages in the image.
    type: list
    elements: str
    required: true
  offered:
    description: Packages in its repository, for the roles to install.
    type: list
    elements: str
    required: true
  masked_units:
    description: Units that a container must not run.
    type: list
    elements: str
    required: true
  enabled_units:
    description: Units of O(files) to enable.
    type: list
    elements: str
    required: true
  files:
    description: A folder that is copied over the tree.
    type: path
    required: true
author: rackserve
"""

EXAMPLES = r"""
- name: Build the image
  lab_image:
    images_dir: /var/lib/rackserve-lab/images
    suite: bookworm
    installed: [systemd, openssh-server, python3]
    offered: [haproxy]
    masked_units: [console-getty.service]
    enabled_units: [rackserve-lab-cgroups.service]
    files: roles/lab_host/files/image
"""

RETURN = r"""
path:
  description: The image's folder.
  returned: always
  type: str
  sample: /var/lib/rackserve-lab/images/0123456789ab
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.lab.image import Recipe, ensure
from ansible.module_utils.rackserve.lab.spec import LabError

NAMES = {"type": "list", "elements": "str", "required": True}
ARGUMENTS = {
    "images_dir": {"type": "path", "required": True},
    "suite": {"type": "str", "required": True},
    "installed": NAMES,
    "offered": NAMES,
    "masked_units": NAMES,
    "enabled_units": NAMES,
    "files": {"type": "path", "required": True},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    recipe = Recipe(
        suite=given["suite"],
        installed=tuple(given["installed"]),
        offered=tuple(given["offered"]),
        masked_units=tuple(given["masked_units"]),
        enabled_units=tuple(given["enabled_units"]),
        files=Path(given["files"]),
    )
    images = Path(given["images_dir"])
    if module.check_mode:
        path = images / recipe.digest
        module.exit_json(changed=not path.is_dir(), path=str(path))
    try:
        path, built = ensure(recipe, images, module.run_command)
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=built, path=str(path))


if __name__ == "__main__":
    main()
