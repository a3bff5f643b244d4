#!/usr/bin/python
"""Find what engines compiled for releases that are gone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_caches
short_description: List engines' caches by release, and remove those of releases that are gone
description:
  - A cache is stale when its release is not installed and no unit of the host uses its folder.
  - What is not known to be ours is reported and never removed.
options:
  path: {description: Folder of all caches., type: path, default: /var/cache/rackserve}
  releases: {description: Folder of the installed releases., type: path, default: /opt/rackserve/releases}
  remove: {description: Remove the stale ones., type: bool, default: false}
attributes:
  check_mode: {support: full, description: Removes nothing and says that it would.}
  diff_mode: {support: none, description: The result lists what is removed.}
  idempotent: {support: full, description: A second run finds nothing stale.}
author: [rackserve]
"""

EXAMPLES = r"""
- name: List caches of releases that are gone
  engine_caches:
    remove: false
"""

RETURN = r"""
caches:
  description: Every cache with its size in bytes; C(stale) says why nobody is going to use it.
  type: list
  elements: dict
  returned: always
  sample:
    - {path: /var/cache/rackserve/tiny-0/2026.10, engine: tiny-0, release: "2026.10", size: 1048576,
       stale: release 2026.10 is not installed and no unit uses it, ours: true}
removed: {description: What was removed., type: list, elements: str, returned: always, sample: []}
lines: {description: "What is stale, one line each.", type: list, elements: str, returned: always, sample: []}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.progress.reading import amount
from ansible.module_utils.rackserve.release.caches import find_caches, prune


def main() -> None:
    """Read the options, look, remove what may be removed."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/cache/rackserve"},
            "releases": {"type": "path", "default": "/opt/rackserve/releases"},
            "remove": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        caches = find_caches(Path("/"), given["path"], given["releases"])
        going = [one for one in caches if one.stale and one.ours]
        removed = prune(caches) if given["remove"] and not module.check_mode else []
    except OSError as problem:
        module.fail_json(msg=f"{problem.filename}: {problem.strerror}")
    lines = [
        f"{one.path}: {amount(one.size, 'B')}, {one.stale}{'' if one.ours else ' (not known to be ours: left)'}"
        for one in caches
        if one.stale
    ]
    changed = bool(given["remove"] and going)
    module.exit_json(changed=changed, caches=[one._asdict() for one in caches], removed=removed, lines=lines)


if __name__ == "__main__":
    main()
