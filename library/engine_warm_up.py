#!/usr/bin/python
"""Warm engines up before they get work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_warm_up
short_description: Ask engines once for every length and concurrency, before clients do
description:
  - Asks each engine directly for completions of prompts from short to the longest it takes, then for 2, 4, 8 and more
    at once up to its C(max_num_seqs), so that what is compiled at first use is compiled before a client waits for it.
  - A request that fails fails the module. Rounds that O(limit_s) did not reach are returned and warned of.
options:
  engines:
    description: "Engines, C({name, url, model, max_model_len, max_num_seqs, key_file}), as C(warm_engines) gives them."
    type: list
    elements: dict
    required: true
  limit_s: {description: Seconds for each engine; a round that has begun is finished., type: float, default: 120}
  timeout_s: {description: Seconds for one answer., type: float, default: 60}
  tokens: {description: Tokens of each answer., type: int, default: 8}
  lengths:
    description: Lengths of prompts in tokens; without any, 16, 64, 256 and so on to the longest.
    type: list
    elements: int
    default: []
  concurrencies:
    description: Requests at once; without any, 2, 4, 8 and so on to C(max_num_seqs).
    type: list
    elements: int
    default: []
  most: {description: Requests at once at most where O(concurrencies) is empty., type: int, default: 512}
  state_dir: {description: Folder of the background work's state., type: path, default: /run/rackserve/jobs}
  progress_s: {description: Return after so many seconds and say how far it is., type: float, default: 5}
  ticket:
    description: Anything that is the same for all calls of one task and new in each run.
    type: str
    default: ""
attributes:
  check_mode: {support: full, description: Asks nothing.}
  diff_mode: {support: none, description: It changes nothing but an engine's caches.}
  idempotent: {support: full, description: It changes nothing but an engine's caches.}
author: [rackserve]
"""

EXAMPLES = r"""
- name: Warm up
  engine_warm_up:
    engines: "{{ vllm_instances | warm_engines('/etc/rackserve/vllm') }}"
    limit_s: 120
    ticket: "{{ now().timestamp() }}"
  register: warmed
  until: warmed is failed or warmed.progress.finished
  retries: 100
  delay: 0
"""

RETURN = r"""
engines:
  description: What each engine took, round by round, and the rounds that time did not reach.
  type: list
  elements: dict
  returned: when finished
  sample:
    - engine: tiny-0
      rows: [{length: 16, concurrency: 1, slowest_s: 2.1}]
      left: []
      seconds: 2.1
lines: {description: One line an engine., type: list, elements: str, returned: when finished}
step_s: {description: Seconds by phase of what was done., type: dict, returned: when finished}
progress: {description: How far it is; only C(finished) when it is., type: dict, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.completion.warm import WarmError, warm_work, words_of
from ansible.module_utils.rackserve.progress.job import Asked, JobError, advance, job_folder
from ansible.module_utils.rackserve.progress.report import FINISHED

ARGUMENTS = {
    "engines": {"type": "list", "elements": "dict", "required": True},
    "limit_s": {"type": "float", "default": 120},
    "timeout_s": {"type": "float", "default": 60},
    "tokens": {"type": "int", "default": 8},
    "lengths": {"type": "list", "elements": "int", "default": []},
    "concurrencies": {"type": "list", "elements": "int", "default": []},
    "most": {"type": "int", "default": 512},
    "state_dir": {"type": "path", "default": "/run/rackserve/jobs"},
    "progress_s": {"type": "float", "default": 5},
    "ticket": {"type": "str", "default": ""},
}
FIELDS = ("engines", "limit_s", "timeout_s", "tokens", "lengths", "concurrencies", "most")


def main() -> None:
    """Read the options, warm a while, answer."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    if module.check_mode or not given["engines"]:
        module.exit_json(changed=False, engines=[], lines=[], progress=FINISHED)
    name = "warm-up-" + "-".join(sorted(str(one.get("name")) for one in given["engines"]))[:150]
    asked = Asked(job_folder(given["state_dir"], name), given["ticket"], given["progress_s"])
    try:
        step = advance(asked, warm_work, {field: given[field] for field in FIELDS})
    except (WarmError, JobError, OSError) as problem:
        module.fail_json(msg=str(problem))
    if not step.finished:
        module.exit_json(changed=False, progress=step.progress)
    for one, line in zip(step.result["engines"], words_of(step.result["engines"])):
        if one["left"]:
            module.warn(line)
    result = {**step.result, "lines": words_of(step.result["engines"]), "step_s": step.step_s}
    module.exit_json(changed=False, progress=step.progress, **result)


if __name__ == "__main__":
    main()
