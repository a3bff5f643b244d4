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
  find_links: {description: Local folders with wheels. Default is pip's own setting., type: list, elements: path}
  pip_command: {description: Command that runs pip. Default is the running interpreter's., type: list, elements: str}
  uv_command: {description: Command that runs uv., type: list, elements: str, default: [uv]}
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
"""

import os
import sys
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.release.build import BuildRequest, build, read_built
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
    "find_links": {"type": "list", "elements": "path"},
    "pip_command": {"type": "list", "elements": "str"},
    "uv_command": {"type": "list", "elements": "str", "default": ["uv"]},
}


def main() -> None:
    """Read the options, build, answer."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    links = given["find_links"]
    if links is None:
        links = os.environ.get("PIP_FIND_LINKS", "").split()
    request = BuildRequest(
        release_id=given["release_id"],
        lock=Path(given["lock"]),
        wheelhouse=Path(given["wheelhouse"]),
        output_dir=Path(given["output_dir"]),
        python=given["python"],
        chroot=Path(given["chroot"]) if given["chroot"] else None,
        release_path=given["release_path"] or "",
        find_links=[Path(link) for link in links],
        extra_files=given["extra_files"],
        pip_command=given["pip_command"] or [sys.executable, "-m", "pip"],
        uv_command=given["uv_command"],
    )
    before = (read_built(request) or {}).get("manifest_sha256", "none")
    try:
        result = build(request, run_command, module.check_mode)
    except (ReleaseError, OSError) as error:
        module.fail_json(msg=str(error))
    after = result.get("manifest_sha256", "to be built")
    diff = {"before": f"{before}\n", "after": f"{after}\n"} if result["changed"] else {}
    module.exit_json(id=given["release_id"], diff=diff, **result)


if __name__ == "__main__":
    main()
