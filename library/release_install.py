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
"""

RETURN = r"""
installed:
  description: The release stands at its path; false only in check mode.
  type: bool
  returned: always
  sample: true
path: {description: That path., type: str, returned: always, sample: /opt/rackserve/releases/2026.11-cpu}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.release.host import ReleaseError, run_command
from ansible.module_utils.rackserve.release.install import InstallRequest, install, installed_manifest

ARGUMENTS = {
    "release_id": {"type": "str", "required": True},
    "archive": {"type": "path", "required": True},
    "path": {"type": "path", "required": True},
    "manifest_sha256": {"type": "str", "required": True},
    "unpacked_bytes": {"type": "int", "required": True},
}


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
        before = installed_manifest(request.path)
        changed = install(request, run_command, module.check_mode)
    except (ReleaseError, OSError) as error:
        module.fail_json(msg=str(error))
    diff = {"before": f"{before or 'absent'}\n", "after": f"{request.manifest_sha256}\n"} if changed else {}
    installed = not (changed and module.check_mode)
    module.exit_json(changed=changed, installed=installed, path=str(request.path), diff=diff)


if __name__ == "__main__":
    main()
