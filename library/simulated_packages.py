#!/usr/bin/python
"""Ansible module: the lab's mirror of simulated driver packages."""

from __future__ import annotations

DOCUMENTATION = r"""
module: simulated_packages
short_description: Build a signed repository of simulated GPU driver packages
description:
  - Compiles the simulated driver for each version of O(packages), packs it under the names of NVIDIA's packages and
    signs the repository with the lab's own key, which is made once.
  - Named by the digest of its sources and key, built once.
attributes:
  check_mode:
    support: none
    description: The mirror is a file tree of the controller; it is built or it is not.
  diff_mode:
    support: none
    description: A mirror is built or it is not.
  idempotent:
    support: full
    description: A mirror that is there is left alone.
options:
  packages:
    description: The package set, the content of files/simulated/packages.yml.
    type: dict
    required: true
  driver:
    description: Folder of the driver's sources.
    type: path
    required: true
  pynvml:
    description: The pynvml.py that the simulated nvidia-smi brings.
    type: path
    required: true
  mirrors_dir:
    description: Folder of mirrors.
    type: path
    required: true
  keys_dir:
    description: Folder of the lab's keys; the repository's public key is simulated-archive-keyring.asc there.
    type: path
    required: true
author: rackserve
"""

EXAMPLES = r"""
- name: Build the mirror
  simulated_packages:
    packages: "{{ lookup('ansible.builtin.file', 'files/simulated/packages.yml') | from_yaml }}"
    driver: files/simulated/driver
    pynvml: .venv/lib/python3.11/site-packages/pynvml.py
    mirrors_dir: /var/lib/rackserve-lab/mirror
    keys_dir: inventories/lab/.state
"""

RETURN = r"""
path:
  description: The repository's folder.
  returned: always
  type: str
  sample: /var/lib/rackserve-lab/mirror/0123456789ab
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.simulated.package_set import PackagesError
from ansible.module_utils.rackserve.simulated.packages import Recipe, ensure

PATH = {"type": "path", "required": True}
ARGUMENTS = {
    "packages": {"type": "dict", "required": True},
    "driver": PATH,
    "pynvml": PATH,
    "mirrors_dir": PATH,
    "keys_dir": PATH,
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=False)
    given = module.params
    recipe = Recipe(given["packages"], Path(given["driver"]), Path(given["pynvml"]), Path(given["keys_dir"]))
    try:
        path, changed = ensure(recipe, Path(given["mirrors_dir"]), module.run_command)
    except PackagesError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, path=str(path))


if __name__ == "__main__":
    main()
