#!/usr/bin/python
"""Record the golden completions of a release and a model."""

from __future__ import annotations

DOCUMENTATION = r"""
module: golden_record
short_description: Record what a release must answer for a model, from a real engine
description:
  - Starts the engine of a built release in a private namespace with loopback only, asks it alone and eight at a time,
    stops it, and writes texts and log-probabilities.
  - Fails when best and second choice ever lie closer than I(min_margin), or when batching changes a text.
options:
  release_id: {description: Name of the release., type: str, required: true}
  tree: {description: The unpacked release on the builder., type: path, required: true}
  release_path: {description: Where hosts have it; what argv names., type: path, required: true}
  chroot: {description: Root filesystem of the hosts; null for the builder's own., type: path}
  model: {description: Name the engine serves the model under., type: str, required: true}
  model_dir: {description: The model on the builder., type: path, required: true}
  model_path: {description: Where argv expects it., type: path, required: true}
  hardware_class: {description: Hardware the answers are of., type: str, required: true}
  argv: {description: The unit's command., type: list, elements: str, required: true}
  env: {description: The unit's environment., type: dict, default: {}}
  port: {description: Port in argv., type: int, required: true}
  output: {description: File to write., type: path, required: true}
  min_margin: {description: Nats between best and second choice., type: float, default: 1.0}
attributes:
  check_mode: {support: full, description: Says whether a recording is due.}
  diff_mode: {support: none, description: The file is made from answers.}
  idempotent: {support: full, description: "The file names release, model, command and environment it is of."}
author: [rackserve]
"""

EXAMPLES = r"""
- name: Record
  golden_record:
    release_id: 2026.11-cpu
    tree: .cache/releases/2026.11-cpu/tree
    release_path: /opt/rackserve/releases/2026.11-cpu
    model: tiny
    model_dir: .cache/models/tiny-dense
    model_path: /srv/models/tiny-dense
    hardware_class: lab-cpu
    argv: "{{ instance.argv }}"
    env: "{{ instance.env }}"
    port: 8000
    output: .cache/golden/2026.11-cpu--tiny-dense--lab-cpu.json
"""

RETURN = r"""
lowest_margin: {description: "Smallest margin found, nats.", type: float, returned: when recorded, sample: 1.4}
tolerance:
  description: Allowed difference of a log-probability, nats.
  type: float
  returned: when recorded
  sample: 0.05
ready_s: {description: Seconds until the engine was ready., type: float, returned: when recorded, sample: 14.2}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.release.golden import GoldenRequest, record
from ansible.module_utils.rackserve.release.host import ReleaseError, run_command
from ansible.module_utils.rackserve.release.sandbox import Sandbox

ARGUMENTS = {
    "release_id": {"type": "str", "required": True},
    "tree": {"type": "path", "required": True},
    "release_path": {"type": "path", "required": True},
    "chroot": {"type": "path"},
    "model": {"type": "str", "required": True},
    "model_dir": {"type": "path", "required": True},
    "model_path": {"type": "path", "required": True},
    "hardware_class": {"type": "str", "required": True},
    "argv": {"type": "list", "elements": "str", "required": True},
    "env": {"type": "dict", "default": {}},
    "port": {"type": "int", "required": True},
    "output": {"type": "path", "required": True},
    "min_margin": {"type": "float", "default": 1.0},
}


def main() -> None:
    """Read the options, record, answer."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    root = Path(given["chroot"]) if given["chroot"] else None
    request = GoldenRequest(
        sandbox=Sandbox(root, Path(given["tree"]), given["release_path"]),
        model_dir=Path(given["model_dir"]),
        output=Path(given["output"]),
        env={str(key): str(value) for key, value in given["env"].items()},
        **{key: given[key] for key in ("release_id", "model", "model_path", "hardware_class")},
        **{key: given[key] for key in ("argv", "port", "min_margin")},
    )
    try:
        result = record(request, run_command, module.check_mode)
    except (ReleaseError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
