#!/usr/bin/python
"""Files of an engine, kept before a change and put back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_files
short_description: Keep the files of an engine before a gated change, and put them back when it went wrong
description:
  - What is kept stands in a folder that only root reads, as a whole or not at all, until it is forgotten.
  - V(kept) leaves what is kept already, for then a change was cut off and what stands now may be half of it.
  - V(put_back) ends the unit at once, brings its files back and starts it.
author: rackserve
options:
  unit: {description: The engine's unit., type: str, required: true}
  state:
    description: Keep the files, put them back, forget what is kept, or only say what the unit starts.
    type: str
    choices: [kept, put_back, absent, observed]
    required: true
  paths: {description: "Files that the change may write, for V(kept).", type: list, elements: path, default: []}
  start: {description: Start the unit after its files are back., type: bool, default: true}
  folder:
    description: Where kept files are.
    type: path
    default: /var/lib/rackserve/kept
attributes:
  check_mode: {support: full, description: Touches neither files nor units.}
  diff_mode: {support: none, description: Files may hold secrets.}
  idempotent: {support: partial, description: "V(kept) and V(absent) are; V(put_back) ends and starts the unit again."}
"""

EXAMPLES = r"""
- name: Keep what an engine runs on
  engine_files:
    unit: vllm-tiny-0.service
    state: kept
    paths: [/etc/systemd/system/vllm-tiny-0.service, /etc/rackserve/vllm/tiny-0.env]
"""

RETURN = r"""
release:
  description: The release that the unit starts, or that the kept one does; empty where there is no unit.
  returned: success
  type: str
  sample: "2026.11"
kept:
  description: Whether something is kept.
  returned: success
  type: bool
  sample: true
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.operation.files import (
    FilesError,
    Run,
    forget,
    keep,
    put_back,
    read_kept,
    unit_release,
)


def change(given: dict[str, Any], run: Run, check: bool, root: Path) -> dict[str, Any]:
    """Do what the options say."""
    folder, unit = root / given["folder"].lstrip("/"), given["unit"]
    if given["state"] == "kept":
        result = keep(root, folder, unit, given["paths"], check=check)
    elif given["state"] == "put_back":
        result = put_back(root, folder, unit, run, start=given["start"], check=check)
    elif given["state"] == "absent":
        result = {"changed": forget(folder, unit, check=check), "release": unit_release(root, unit)}
    else:
        result = {"changed": False, "release": unit_release(root, unit)}
    return {**result, "kept": read_kept(folder, unit) is not None}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["kept", "put_back", "absent", "observed"], "required": True},
            "paths": {"type": "list", "elements": "path", "default": []},
            "start": {"type": "bool", "default": True},
            "folder": {"type": "path", "default": "/var/lib/rackserve/kept"},
        },
        supports_check_mode=True,
    )
    try:
        result = change(module.params, module.run_command, module.check_mode, Path("/"))
    except (FilesError, OSError) as error:
        module.fail_json(msg=f"{module.params['unit']}: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
