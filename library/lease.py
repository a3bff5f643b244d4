#!/usr/bin/python
"""One change at a time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lease
short_description: Let one change at a time run on a cluster
description:
  - Holds a file that names who changes the cluster, under which plan, doing what and until when.
  - An owner renews its own lease. A lease that has expired is taken over with a note.
author: rackserve
options:
  path:
    description: The lease file.
    type: path
    default: /var/lib/rackserve/lease.json
  owner:
    description: Who takes or gives back the lease.
    type: str
    required: true
  plan_hash:
    description: The plan that the change follows.
    type: str
    default: ""
  operation:
    description: What the lease is for, in a word or two.
    type: str
    default: ""
  ttl_s:
    description: The lease expires after this many seconds.
    type: int
    default: 7200
  break_lock:
    description: The holder whose lease may be taken although it has not expired; any other name is refused.
    type: str
    default: ""
  state:
    description: Take (or renew) the lease, or give it back.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode: {support: full, description: Says whether the lease could be taken and writes nothing.}
  diff_mode: {support: full, description: Shows the lease before and after.}
  idempotent: {support: partial, description: Giving back is; taking again moves the expiry.}
"""

EXAMPLES = r"""
- name: Let nobody else change the cluster
  lease:
    owner: alice@ops1
    plan_hash: "{{ rackserve.plan_hash }}"
    operation: roll-serving
    break_lock: "{{ break_lock | default('') }}"
"""

RETURN = r"""
holder:
  description: The lease as it is now; null when nobody holds it.
  returned: success
  type: dict
  sample: {owner: ada@ops1, plan_hash: 681d6c3739da, operation: site, acquired_at: 1795430400, expires_at: 1795434000}
note:
  description: Whose lease was taken over or broken; empty when none was.
  returned: success
  type: str
  sample: ""
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.lease import Lease, LeaseError, acquire, release


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/lib/rackserve/lease.json"},
            "owner": {"type": "str", "required": True},
            "plan_hash": {"type": "str", "default": ""},
            "operation": {"type": "str", "default": ""},
            "ttl_s": {"type": "int", "default": 7200},
            "break_lock": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    options = module.params
    path, breaking, check = Path(options["path"]), options["break_lock"], module.check_mode
    try:
        if options["state"] == "absent":
            result = release(path, options["owner"], breaking, check=check)
        else:
            now_s = int(time.time())
            wanted = Lease(
                options["owner"], options["plan_hash"], options["operation"], now_s, now_s + options["ttl_s"]
            )
            result = acquire(path, wanted, breaking, check=check, now_s=now_s)
    except LeaseError as error:
        module.fail_json(msg=str(error))
    if result["note"]:
        module.warn(result["note"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
