#!/usr/bin/python
"""Copy weights from host to host in a chain."""

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_relay
short_description: One host's part in a copy of weights from host to host
description:
  - Every host of a chain gets the files it lacks from the host before it, hashes them while it writes, and passes them
    on at the same time. A host that dies is passed by.
  - O(state=started) opens the firewall to O(peers) and starts a transient unit without privileges, which goes on
    without a controller. O(state=followed) says how far it is. O(state=finished) ends it, closes the firewall and
    moves the proven files into O(path).
  - O(state=marked) leaves this host's mark in O(path), O(state=looked) says whether another host's lies over it,
    because both share one file system; O(state=unmarked) takes it away, and for V(fed) what an earlier copy left there.
options:
  state:
    description: Which step.
    type: str
    choices: [marked, looked, unmarked, started, followed, finished]
    required: true
  model: {description: Name of the model., type: str, required: true}
  path: {description: Folder of the model., type: path, required: true}
  manifest: {description: "Text of the manifest, or its path on this host.", type: raw, default: ""}
  role:
    description: >-
      V(source) has all files, V(fed) gets them from somebody else into O(path) and passes them on, V(receiver) gets
      them from O(parents).
    type: str
    choices: [source, fed, receiver]
    default: receiver
  wanted: {description: Files that this host lacks., type: list, elements: str, default: []}
  address: {description: This host's address on the data network; nothing else is listened at., type: str, default: ""}
  port: {description: Port of the relay on every host., type: int, default: 0}
  peers: {description: Addresses of all hosts that take part., type: list, elements: str, default: []}
  parents:
    description: "Hosts to get files from, nearest first, C({name, address, port})."
    type: list
    elements: dict
    default: []
  token: {description: What all hosts of this copy know and nobody else; made anew for each., type: str, default: ""}
  nonce: {description: "Content of the mark, another for each host.", type: str, default: ""}
  group: {description: Group of the model's files., type: str, default: vllm}
  streams: {description: Files at a time., type: int, default: 4}
  limit_mib_s: {description: MiB a second that this host sends at most; 0 is no limit., type: float, default: 0}
  linger_s: {description: Seconds without a connection after which the unit ends by itself., type: float, default: 300}
  longest_s: {description: "Seconds after which it ends; the firewall closes.", type: int, default: 86400}
  progress_s: {description: Seconds that O(state=followed) waits., type: float, default: 5}
attributes:
  check_mode: {support: full, description: Starts and moves nothing and says that it would.}
  diff_mode: {support: none, description: It is only called where something differs.}
  idempotent: {support: partial, description: "Starting again takes the place of an earlier start; what came is kept."}
author: [rackserve]
"""

EXAMPLES = r"""
- name: Get the weights from the host before
  weights_relay:
    state: started
    model: tiny
    path: /srv/models/tiny
    manifest: "{{ lookup('ansible.builtin.file', 'manifest.json', rstrip=false) }}"
    wanted: [model.safetensors]
    address: 10.0.0.12
    port: 8690
    peers: [10.0.0.11, 10.0.0.12]
    parents: [{name: node1, address: 10.0.0.11, port: 8690}]
    token: "{{ token }}"
"""

RETURN = r"""
shared: {description: Another host's mark lies over ours., type: bool, returned: state is looked, sample: false}
door:
  description: C(opened), or C(unfiltered) where no firewall of ours filters the port.
  type: str
  returned: state is started
  sample: opened
relay:
  description: >-
    What came (C(bytes), C(seconds), C(files)), from whom (C(received)), which hosts were passed by and why (C(left)),
    which files came twice (C(resent)).
  type: dict
  returned: state is followed, when finished
  sample: {bytes: 4194304, seconds: 1.2, files: [a], received: {node1: 4194304}, left: {}, resent: [], proven: {}}
taken: {description: Files moved into the folder., type: list, elements: str, returned: state is finished, sample: [a]}
proven:
  description: Files whose digest was right while they came, with size and modification time in ns.
  type: dict
  returned: state is finished
  sample: {a: [4194304, 1795430400000000000]}
progress: {description: How far it is; only C(finished) when it is., type: dict, returned: state is followed}
"""

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.model.verify import ModelError
from ansible.module_utils.rackserve.progress.report import FINISHED
from ansible.module_utils.rackserve.relay.door import DoorError
from ansible.module_utils.rackserve.relay.unit import Asked, HostError, step

ARGUMENTS = {
    "state": {
        "type": "str",
        "choices": ["marked", "looked", "unmarked", "started", "followed", "finished"],
        "required": True,
    },
    "model": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
    "manifest": {"type": "raw", "default": ""},
    "role": {"type": "str", "choices": ["source", "fed", "receiver"], "default": "receiver"},
    "wanted": {"type": "list", "elements": "str", "default": []},
    "address": {"type": "str", "default": ""},
    "port": {"type": "int", "default": 0},
    "peers": {"type": "list", "elements": "str", "default": []},
    "parents": {"type": "list", "elements": "dict", "default": []},
    "token": {"type": "str", "default": "", "no_log": True},
    "nonce": {"type": "str", "default": ""},
    "group": {"type": "str", "default": "vllm"},
    "streams": {"type": "int", "default": 4},
    "limit_mib_s": {"type": "float", "default": 0},
    "linger_s": {"type": "float", "default": 300},
    "longest_s": {"type": "int", "default": 86400},
    "progress_s": {"type": "float", "default": 5},
}
PARTS = ("model", "role", "wanted", "address", "port", "peers", "parents", "group", "streams", "limit_mib_s")


def manifest_text(given: Any) -> str:
    """The manifest's text from text, a path, or a dict (Ansible turns text that looks like JSON into one)."""
    if isinstance(given, dict):
        return json.dumps(given, indent=1, sort_keys=True) + "\n"
    return Path(given).read_text(encoding="utf-8") if str(given).startswith("/") else str(given)


def main() -> None:
    """Read the options, take the step, answer."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params

    def run(words):
        path = module.get_bin_path(words[0])
        return module.run_command([path, *words[1:]]) if path else (127, "", f"{words[0]} is not installed")

    if module.check_mode:
        would = given["state"] == "started" and given["role"] == "receiver"
        module.exit_json(changed=would, shared=False, proven={}, taken=[], progress=FINISHED)
    try:
        asked = Asked(
            **{name: given[name] for name in PARTS},
            folder=Path(given["path"]),
            manifest=manifest_text(given["manifest"]),
            linger_s=given["linger_s"],
            longest_s=given["longest_s"],
        )
        module.exit_json(**step(asked, given["state"], given, run))
    except (HostError, DoorError, ModelError, OSError) as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
