#!/usr/bin/python
"""Judge an engine on a new release."""

from __future__ import annotations

DOCUMENTATION = r"""
module: canary_check
short_description: Compare an engine on a new release with engines that still run the old one
description:
  - Asks all of them in turn, each at its own port, so run it where all ports are open, such as the gateway.
  - Fails when the engine says something else than the others to a golden prompt, or when its median answer takes longer
    than O(ratio) times theirs.
author: rackserve
options:
  candidate: {description: "The engine, such as C(http://10.0.0.1:8000).", type: str, required: true}
  peers: {description: Engines on the old release., type: list, elements: str, required: true}
  model: {description: The served model name., type: str, required: true}
  api_key: {description: Bearer key., type: str, default: ""}
  golden: {description: Golden answers; their prompts are asked., type: dict, default: {}}
  compare_answers:
    description: Compare texts. Switched off, a release that chooses other tokens on purpose is let through.
    type: bool
    default: true
  ratio: {description: How many times slower it may be., type: float, default: 1.5}
  slack_s: {description: Seconds of difference that count as noise., type: float, default: 0.1}
  rounds: {description: How often each is asked; up to 3 times as often while it looks slow., type: int, default: 5}
  max_tokens: {description: Tokens of one answer., type: int, default: 32}
  timeout_s: {description: Seconds for one answer., type: float, default: 60}
attributes:
  check_mode: {support: full, description: Only asks; it does the same in check mode.}
  diff_mode: {support: none, description: It changes nothing.}
  idempotent: {support: full, description: It changes nothing.}
"""

EXAMPLES = r"""
- name: Compare the first engine on a new release with two others
  canary_check:
    candidate: http://10.77.0.11:8000
    peers: [http://10.77.0.12:8000, http://10.77.0.13:8000]
    model: tiny
    api_key: "{{ engine_key }}"
"""

RETURN = r"""
why:
  description: Why the engine is not fit; empty when it is.
  returned: always
  type: str
  sample: "answers too slowly: 2.10 s an answer, the engines on the old release 0.52 s (4.0 times, allowed 1.5)"
candidate:
  description: Medians of the engine.
  returned: always
  type: dict
  sample: {latency_s: 0.52, tokens_per_s: 61.2}
peers:
  description: Medians of the others.
  returned: always
  type: dict
  sample: {latency_s: 0.5, tokens_per_s: 63.9}
compared:
  description: Golden prompts whose answers were compared.
  returned: always
  type: int
  sample: 3
rounds:
  description: How often each engine was asked for its speed.
  returned: always
  type: int
  sample: 5
silent:
  description: Peers that did not answer.
  returned: always
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.completion.client import Endpoint
from ansible.module_utils.rackserve.operation.canary import Limits, judge


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "candidate": {"type": "str", "required": True},
            "peers": {"type": "list", "elements": "str", "required": True},
            "model": {"type": "str", "required": True},
            "api_key": {"type": "str", "default": "", "no_log": True},
            "golden": {"type": "dict", "default": {}},
            "compare_answers": {"type": "bool", "default": True},
            "ratio": {"type": "float", "default": 1.5},
            "slack_s": {"type": "float", "default": 0.1},
            "rounds": {"type": "int", "default": 5},
            "max_tokens": {"type": "int", "default": 32},
            "timeout_s": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    given = module.params
    if given["rounds"] < 1 or given["ratio"] < 1:
        module.fail_json(msg=f"rounds ({given['rounds']}) and ratio ({given['ratio']:g}) must be at least 1")
    urls = [given["candidate"], *given["peers"]]
    ends = [Endpoint(url, "", given["api_key"], {}, given["timeout_s"]) for url in urls]
    limits = Limits(given["ratio"], given["slack_s"], given["rounds"], given["max_tokens"])
    answers = given["compare_answers"]
    result = judge(ends[0], ends[1:], given["model"], given["golden"], limits, compare_answers=answers)
    if not result["ok"]:
        module.fail_json(msg=result["why"], **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
