#!/usr/bin/python
"""Membership and drain state of the gateway's servers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_servers
short_description: Membership, drain and idleness of the gateway's servers, at run time
description:
  - Changes a running HAProxy through its stats socket, never by a reload, so no client connection is closed.
  - A slot that keeps its address keeps its drain or maintenance; this module never makes a server ready unless asked.
  - Drains and maintenance are written to the server-state file with each change, so reloads and restarts keep them.
author: rackserve
options:
  socket:
    description: HAProxy's stats socket, level admin.
    type: path
    required: true
  state_file:
    description: The server-state file that HAProxy loads at start and at reload. Its folder must exist.
    type: path
    required: true
  servers:
    description: Every planned slot. Slots that are not named here are left alone.
    type: list
    elements: dict
    default: []
    suboptions:
      backend: {description: The backend that serves., type: str, required: true}
      probe_backend: {description: The backend whose checks it tracks., type: str, required: true}
      slot: {description: The server's name in both., type: str, required: true}
      address: {description: The engine's address; null for an empty slot., type: str}
      port: {description: The engine's port., type: int}
  missing:
    description:
      - What becomes of O(servers) that the running gateway does not have; they come with its next configuration.
      - With V(leave) they are returned as RV(missing) and the others are brought.
    type: str
    choices: [refuse, leave]
    default: refuse
  join_state:
    description: The state that a slot takes together with a new address.
    type: str
    choices: [ready, drain]
    default: ready
  targets:
    description: Servers as C(backend/slot) that O(state) and O(wait_idle_s) are about.
    type: list
    elements: str
    default: []
  doors:
    description: Targets by where they lead. Every serving server of that address and port; none is no error.
    type: list
    elements: dict
    default: []
    suboptions:
      address: {description: The address., type: str, required: true}
      port: {description: The port., type: int, required: true}
  state:
    description: The state of the O(targets). Left out, their state stays as it is.
    type: str
    choices: [ready, drain, maint]
  by:
    description:
      - The operation that asks. Its drains are noted, so that one that was cut off is found by its next run.
      - With V(ready) only targets that it drained itself change; a person's drain stays. V(roll-serving),
        V(upgrade-release) and V(rollback-release) also end each other's drains and those of V(restart-serving);
        V(return-host) ends those of V(drain-host) and V(replace-host).
    type: str
    default: ""
  wait_idle_s:
    description: Wait at most this long until no target has a session or a queued request; 0 does not wait.
    type: float
    default: 0
  others_out:
    description:
      - With V(drain) or V(maint), how many other servers of the targets' backends may be out of service meanwhile.
      - Where more are, nothing is changed and the failure names them. V(-1) does not ask.
    type: int
    default: -1
  others_wait_s:
    description: Seconds to wait for others that come back by themselves.
    type: float
    default: 30
  wait_up_s:
    description: Wait at most this long until targets that are not drained get requests; 0 does not wait.
    type: float
    default: 0
attributes:
  check_mode: {support: full, description: Sends nothing, writes nothing and does not wait.}
  diff_mode: {support: full, description: Shows address and state of each server that differs.}
  idempotent: {support: full, description: A second run changes nothing.}
"""

EXAMPLES = r"""
- name: Take an engine out and wait for its requests
  gateway_servers:
    socket: /run/haproxy/rackserve.sock
    state_file: /var/lib/rackserve/gateway/server-state
    targets: [be_deepseek-v3/r0]
    state: drain
    wait_idle_s: 600
"""

RETURN = r"""
servers:
  description: The planned slots and targets (all servers when none is named) as they are now.
  returned: success
  type: list
  elements: dict
  sample:
    - {backend: be_tiny, slot: r0, address: 10.77.0.11, port: 8000, admin: drain, drained_by: "", status: DRAIN,
       check: L7OK, sessions: 0, queued: 0}
  contains:
    backend: {description: The backend., type: str, returned: always}
    slot: {description: The server., type: str, returned: always}
    address: {description: The engine's address; null for an empty slot., type: str, returned: always}
    port: {description: The engine's port., type: int, returned: always}
    admin: {description: ready or drain or maint., type: str, returned: always}
    drained_by: {description: The operation that drained it; empty where none did., type: str, returned: always}
    status: {description: HAProxy's own word such as UP or DRAIN., type: str, returned: always}
    check: {description: What the last health check said., type: str, returned: always}
    sessions: {description: Requests on the engine now., type: int, returned: always}
    queued: {description: Requests that wait for this engine., type: int, returned: always}
missing:
  description: Planned slots that the running gateway does not have and that were left.
  returned: success
  type: list
  elements: str
  sample: [be_tiny/r4]
waited_s:
  description: Seconds until the targets were idle.
  returned: success
  type: float
  sample: 3.2
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.gateway.membership import STATES
from ansible.module_utils.rackserve.gateway.runtime import GatewayError, socket_command
from ansible.module_utils.rackserve.gateway.servers import apply, read_request

SLOT = {
    "backend": {"type": "str", "required": True},
    "probe_backend": {"type": "str", "required": True},
    "slot": {"type": "str", "required": True},
    "address": {"type": "str"},
    "port": {"type": "int"},
}
DOOR = {"address": {"type": "str", "required": True}, "port": {"type": "int", "required": True}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "required": True},
            "state_file": {"type": "path", "required": True},
            "servers": {"type": "list", "elements": "dict", "default": [], "options": SLOT},
            "missing": {"type": "str", "choices": ["refuse", "leave"], "default": "refuse"},
            "join_state": {"type": "str", "choices": ["ready", "drain"], "default": "ready"},
            "targets": {"type": "list", "elements": "str", "default": []},
            "doors": {"type": "list", "elements": "dict", "default": [], "options": DOOR},
            "state": {"type": "str", "choices": list(STATES)},
            "by": {"type": "str", "default": ""},
            "wait_idle_s": {"type": "float", "default": 0},
            "others_out": {"type": "int", "default": -1},
            "others_wait_s": {"type": "float", "default": 30},
            "wait_up_s": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        request = read_request(options)
        result = apply(
            socket_command(Path(options["socket"])), Path(options["state_file"]), request, check=module.check_mode
        )
    except GatewayError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
