#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Say what a host has of the wanted CUDA toolkit, cuDNN and NCCL, what is still to do, and what stands in the way."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_check
short_description: Compare a host with the CUDA toolkit, cuDNN and NCCL it should have
description:
  - Reads dpkg's records, the alternative C(cuda) and the dynamic linker's cache. Names what is to be installed and
    held, and what forbids it, such as our packages in another version, another cuDNN, or a hold that somebody set.
  - With O(prove=true) headers, C(version.json) and libraries are read as well, and each one that is not of the
    release's version is named with the command that mends it.
  - It changes nothing and does not fail on findings.
options:
  parts:
    description: C(cuda), C(cudnn) and C(nccl) of the plan, each C({version, packages}); packages by name with versions.
    type: dict
    required: true
  take_over:
    description: >-
      Foreign things the site gives up, such as V(package:libcudnn9-cuda-12), V(hold:libnccl2) or V(alternative:cuda).
    type: list
    elements: str
    default: []
  change:
    description: Whether installed packages of another version may be exchanged while no process uses their libraries.
    type: bool
    default: false
  prove:
    description: Whether files are read, too.
    type: bool
    default: false
  root:
    description: Directory that is taken for the root of the host.
    type: path
    default: /
attributes:
  check_mode:
    support: full
    description: Never changes anything.
  diff_mode:
    support: none
    description: Nothing is changed, so there is no difference to show.
  idempotent:
    support: full
    description: Only reads.
author: [rackserve contributors]
"""

EXAMPLES = r"""
- name: Look at NCCL
  cuda_check:
    parts: {nccl: {version: 2.27.7, packages: {libnccl2: 2.27.7-1+cuda13.0, libnccl-dev: 2.27.7-1+cuda13.0}}}
    prove: true
  register: __cuda_seen
"""

RETURN = r"""
findings:
  description: C({severity, code, where, why, fix}); severity is error, warning or note.
  type: list
  elements: dict
  returned: always
  sample:
    - {severity: error, code: cuda-mismatch, where: header /usr/include/nccl.h,
       why: "release 2.27.7, packages 2.27.7, header 2.26.2, library 2.27.7",
       fix: "apt-get install --reinstall --allow-change-held-packages $(dpkg -S /usr/include/nccl.h | cut -d: -f1)"}
install:
  description: Packages that are not installed, C(name=version); with O(change=true) those of another version as well.
  type: list
  elements: str
  returned: always
  sample: [libnccl2=2.27.7-1+cuda13.0]
hold:
  description: Packages that dpkg does not hold, with the installed parts of the toolkit.
  type: list
  elements: str
  returned: always
  sample: [libnccl2, cuda-nvcc-13-0]
remove:
  description: Packages of another cuDNN that O(take_over) names.
  type: list
  elements: str
  returned: always
  sample: []
unfinished:
  description: One of our packages is unpacked and not configured, as a killed run leaves it.
  type: bool
  returned: always
change_holds:
  description: A hold is in the way of what O(change) or O(take_over) allows.
  type: bool
  returned: always
commands:
  description: What leads C(/usr/local/cuda) to the toolkit; empty where it does, or where the link is not ours.
  type: list
  elements: list
  returned: always
  sample: [[update-alternatives, --install, /usr/local/cuda, cuda, /usr/local/cuda-13.0, "1000"]]
stale_cache:
  description: The dynamic linker does not find the toolkit's runtime.
  type: bool
  returned: always
toolkits:
  description: Folders of all toolkits on the host.
  type: list
  elements: str
  returned: always
  sample: [/usr/local/cuda-12.8, /usr/local/cuda-13.0]
link:
  description: Where C(/usr/local/cuda) leads; empty where it is missing.
  type: str
  returned: always
  sample: /usr/local/cuda-13.0
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.converge.errors import ConvergeError
from ansible.module_utils.rackserve.cuda.check import check_cuda


def main():
    """Compare and report."""
    module = AnsibleModule(
        argument_spec={
            "parts": {"type": "dict", "required": True},
            "take_over": {"type": "list", "elements": "str", "default": []},
            "change": {"type": "bool", "default": False},
            "prove": {"type": "bool", "default": False},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )

    def run(argv):
        path = module.get_bin_path(argv[0])
        return module.run_command([path, *argv[1:]]) if path else (127, "", f"{argv[0]} is not installed")

    given = dict(module.params)
    try:
        result = check_cuda(Path(given.pop("root")), run, given.pop("parts"), **given)
    except ConvergeError as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
