#!/usr/bin/python
"""Ansible module: the lab's hosts, network and supervisors as one desired state."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_hosts
short_description: Build or remove the embedded lab of systemd-nspawn hosts
description:
  - Brings bridge, namespaces, overlays and supervisor processes of all lab hosts to the described state in one call.
  - A half-built lab is finished; a host whose network or root is missing is rebuilt from its own files.
  - A host that was booted with another machine or other binds is booted afresh; its files stay.
attributes:
  check_mode:
    support: none
    description: The lab is the machine's own test bed; a dry run of it would prove nothing.
  diff_mode:
    support: none
    description: Returns what was done in words instead.
  idempotent:
    support: full
    description: A second call does nothing.
options:
  state:
    description: V(present) builds and boots, V(absent) stops and removes everything but the image.
    type: str
    choices: [present, absent]
    default: present
  prefix:
    description: Names namespaces, the uplink interface and the control groups.
    type: str
    required: true
  hosts:
    description: The hosts.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Host name.
        type: str
        required: true
      address:
        description: Address inside O(subnet).
        type: str
        required: true
      machine:
        description: Hardware profile that it simulates, for messages. Another one has the host booted afresh.
        type: str
        default: ''
      binds:
        description: Folders of this machine that it sees read only, source:target. Others have it booted afresh.
        type: list
        elements: str
        default: []
  subnet:
    description: The lab's network; its first address is the bridge.
    type: str
    required: true
  uplink:
    description: A /30 between the machine and the lab.
    type: str
    required: true
  state_dir:
    description: Where hosts live.
    type: path
    required: true
  image_dir:
    description: The root file system all hosts share, read only.
    type: path
    required: true
  control_dir:
    description: Folder of the ssh control sockets, whose names begin with O(prefix); V(absent) closes them.
    type: path
    required: true
  boot:
    description: The supervisor program.
    type: path
    required: true
  client_dir:
    description: Where the client's key, known_hosts and ssh_config are kept.
    type: path
    required: true
  min_disk_mib:
    description: Free disk below which a new lab is refused, in MiB.
    type: int
    default: 16384
  min_memory_mib:
    description: Memory below which the lab is refused, in MiB.
    type: int
    default: 7168
author: rackserve
"""

EXAMPLES = r"""
- name: Build the lab
  lab_hosts:
    prefix: rslab
    hosts:
      - {name: gw, address: 10.77.0.10}
      - name: node1
        address: 10.77.0.11
        machine: h20-8
        binds: ["/var/lib/rackserve-lab/machines/h20-8-0123456789ab:/usr/local/lib/rackserve-lab/hardware"]
    subnet: 10.77.0.0/24
    uplink: 10.77.1.0/30
    state_dir: /var/lib/rackserve-lab
    image_dir: /var/lib/rackserve-lab/images/current
    boot: /var/lib/rackserve-lab/lab-boot
    client_dir: inventories/lab/.state
    control_dir: ~/.ansible/cp
"""

RETURN = r"""
done:
  description: What was done for each host and for the network; with V(absent), what was removed.
  returned: always
  type: raw
  sample: {node1: [root, booted]}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.lab import build
from ansible.module_utils.rackserve.lab.spec import Host, Lab, LabError

HOST = {
    "name": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "machine": {"type": "str", "default": ""},
    "binds": {"type": "list", "elements": "str", "default": []},
}
ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "prefix": {"type": "str", "required": True},
    "hosts": {"type": "list", "elements": "dict", "default": [], "options": HOST},
    "subnet": {"type": "str", "required": True},
    "uplink": {"type": "str", "required": True},
    "state_dir": {"type": "path", "required": True},
    "image_dir": {"type": "path", "required": True},
    "control_dir": {"type": "path", "required": True},
    "boot": {"type": "path", "required": True},
    "client_dir": {"type": "path", "required": True},
    "min_disk_mib": {"type": "int", "default": 16384},
    "min_memory_mib": {"type": "int", "default": 7168},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=False)
    given = module.params
    lab = Lab(
        prefix=given["prefix"],
        hosts=tuple(Host(h["name"], h["address"], h["machine"], tuple(h["binds"])) for h in given["hosts"]),
        subnet=given["subnet"],
        uplink=given["uplink"],
        state_dir=Path(given["state_dir"]),
        image_dir=Path(given["image_dir"]),
        client_dir=Path(given["client_dir"]),
        control_dir=Path(given["control_dir"]),
    )

    try:
        if given["state"] == "absent":
            removed = build.down(lab, module.run_command)
            module.exit_json(changed=bool(removed), done=removed)
        done = build.up(lab, module.run_command, Path(given["boot"]), given["min_disk_mib"], given["min_memory_mib"])
        module.exit_json(changed=bool(done), done=done)
    except LabError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
