#!/usr/bin/python
# Copyright: rackserve contributors
# SPDX-License-Identifier: Apache-2.0
"""Load our nftables table with an armed way back, and keep it once a new connection proved that SSH works."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_apply
short_description: Load table inet rackserve with an armed rollback
description:
  - O(state=armed) checks the ruleset with C(nft -c), saves the table as it is, arms a transient systemd timer that puts
    it back after O(rollback_s) seconds, and loads the ruleset. Nothing is done where everything agrees already.
  - The caller then opens a B(new) SSH connection and stops the timer C(rackserve-firewall-rollback.timer) over it.
  - O(state=confirmed) writes the boot file C(/etc/rackserve/firewall/rackserve.nft) and the digest of what is loaded,
    C(/run/rackserve/firewall.sha256). It refuses while the timer still runs or after it fired.
  - Refuses rules under which the controller's real source (SSH_CONNECTION as the host sees it) could not connect.
  - Foreign tables are reported and never touched; one that would block a flow stops the module.
options:
  ruleset:
    description: The text for C(nft -f), rendered from O(rules). It may hold only C(table inet rackserve).
    type: str
    required: true
  rules:
    description: What the filter C(firewall_rules) returned; its digest stands in the table's comment.
    type: dict
    required: true
  state:
    description: Which of the two steps to take.
    type: str
    choices: [armed, confirmed]
    default: armed
  rollback_s:
    description: Seconds until the old rules come back by themselves, 5 to 600.
    type: int
    default: 30
  take_over:
    description: Names of foreign settings the site vouches for, such as V(nftables:inet firewalld).
    type: list
    elements: str
    default: []
  root:
    description: Directory under which the files are written.
    type: path
    default: /
attributes:
  check_mode:
    support: full
    description: The ruleset is checked with C(nft -c); nothing is loaded or written, no timer is armed.
  diff_mode:
    support: full
    description: The boot file before and after.
  idempotent:
    support: full
    description: Compares the boot file, the digest file and the loaded table's digest.
author: [rackserve contributors]
"""

EXAMPLES = r"""
- name: Load the rules with a way back
  firewall_apply:
    ruleset: "{{ firewall_ruleset }}"
    rules: "{{ firewall_rules }}"
    rollback_s: 30
  register: __firewall_armed
"""

RETURN = r"""
armed:
  description: A rollback waits and must be cancelled over a new connection.
  type: bool
  returned: always
  sample: true
confirmed:
  description: Boot file, digest file and loaded table agree with the ruleset.
  type: bool
  returned: always
healed:
  description: An unconfirmed change of an earlier run was taken back first.
  type: bool
  returned: always
source:
  description: The address the controller comes from as the host sees it; null on a local connection.
  type: str
  returned: always
  sample: 10.77.1.1
findings:
  description: Foreign tables that filter input, as findings {severity, code, where, why, fix}.
  type: list
  elements: dict
  returned: always
  sample:
    - {severity: note, code: firewall-foreign-table, where: nftables table ip site,
       why: it filters input and lets the rest pass, fix: none}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.firewall.apply import MISSING, arm, confirm, ssh_source, summary
from ansible.module_utils.rackserve.firewall.rules import FirewallError


def runner(module):
    """Return run(argv) -> (code, stdout, stderr); a program that is missing gives code 127."""

    def run(argv):
        path = module.get_bin_path(argv[0])
        return module.run_command([path, *argv[1:]]) if path else (MISSING, "", f"{argv[0]} is not installed")

    return run


def main():
    """Arm or confirm."""
    module = AnsibleModule(
        argument_spec={
            "ruleset": {"type": "str", "required": True},
            "rules": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["armed", "confirmed"], "default": "armed"},
            "rollback_s": {"type": "int", "default": 30},
            "take_over": {"type": "list", "elements": "str", "default": []},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    given, run = module.params, runner(module)
    shortest_s, longest_s = 5, 600
    if not shortest_s <= given["rollback_s"] <= longest_s:
        module.fail_json(msg=f"rollback_s {given['rollback_s']} is outside {shortest_s}-{longest_s}")
    root = Path(given["root"])
    source = ssh_source(os.environ, root / "proc", os.getpid())
    try:
        if given["state"] == "armed":
            result = arm(
                root,
                run,
                given["rules"],
                given["ruleset"],
                rollback_s=given["rollback_s"],
                source=source,
                take_over=given["take_over"],
                check_mode=module.check_mode,
            )
        else:
            result = confirm(root, run, given["rules"], given["ruleset"], module.check_mode)
    except FirewallError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(source=source[0] if source else None, **summary(result))


if __name__ == "__main__":
    main()
