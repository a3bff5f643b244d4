#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Read, write and prove a backup of what decides how a cluster is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: configuration_backup
short_description: Read, write and prove a backup of a cluster's configuration
description:
  - V(read) returns files of a host. V(written) puts files and folders of the controller into one archive with a sha256
    of each. V(verified) proves such an archive.
  - Files whose names are those of secrets, and encrypted ones, are left out and named. A file that holds the value of
    one of O(secrets) or a long line of it, a private key, or a connection's password in clear stops it, and nothing is
    written. So does a name that would leave the folder in which the archive is unpacked.
author: [rackserve contributors]
options:
  state:
    description: What to do.
    type: str
    choices: [read, written, verified]
    required: true
  folders:
    description: What to read, V(read) and V(written).
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: The folder in the archive; empty for its top., type: str, default: ""}
      path: {description: The folder., type: path, required: true}
      patterns: {description: Globs below it., type: list, elements: str, required: true}
  files: {description: 'Further files, C({name: base64}).', type: dict, default: {}}
  path: {description: The archive., type: path}
  head: {description: What the archive's index says beside its files., type: dict, default: {}}
  secrets:
    description: Values that must not be in the archive. The calling task carries C(no_log) where it logs.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full, description: 'Reads and judges everything, writes nothing.'}
  diff_mode: {support: none, description: An archive is new or it is not written.}
  idempotent: {support: partial, description: 'Reading and proving are; an archive that is there is never replaced.'}
"""

EXAMPLES = r"""
- name: Prove a backup
  configuration_backup:
    state: verified
    path: build/backups/lab.tar.gz
"""

RETURN = r"""
files:
  description: Contents by name, base64; with V(read).
  returned: success
  type: dict
  sample: {var/lib/rackserve/lease.json: e30K}
left_out:
  description: Files that were left out because they are secret.
  returned: success
  type: list
  elements: str
  sample: [site/group_vars/all/secrets.yml]
index:
  description: The archive's index; with V(written) and V(verified).
  returned: success
  type: dict
  sample: {kind: rackserve-backup, version: 1, cluster: lab, files: {plan.json: 681d6c…}}
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.backup import archive

FOLDER = {
    "name": {"type": "str", "default": ""},
    "path": {"type": "path", "required": True},
    "patterns": {"type": "list", "elements": "str", "required": True},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["read", "written", "verified"], "required": True},
            "folders": {"type": "list", "elements": "dict", "default": [], "options": FOLDER},
            "files": {"type": "dict", "default": {}},
            "path": {"type": "path"},
            "head": {"type": "dict", "default": {}},
            "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
        },
        supports_check_mode=True,
        required_if=[("state", "written", ["path"]), ("state", "verified", ["path"])],
    )
    given = module.params
    folders = [archive.Folder(one["name"], Path(one["path"]), one["patterns"]) for one in given["folders"]]
    result = {"changed": False, "files": {}, "left_out": [], "index": {}}
    try:
        if given["state"] == "verified":
            module.exit_json(**{**result, "index": archive.verify(Path(given["path"]))})
        files, left = archive.read_folders(folders)
        if given["state"] == "read":
            module.exit_json(**{**result, "files": archive.packed(files), "left_out": left})
        files.update(archive.unpacked(given["files"]))
        archive.refuse_names(given["path"], files)
        archive.refuse_secrets(files, given["secrets"])
        if not module.check_mode:
            result["index"] = archive.write(Path(given["path"]), files, given["head"], time.time())
    except archive.BackupError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**{**result, "changed": True, "left_out": left})


if __name__ == "__main__":
    main()
