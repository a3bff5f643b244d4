#!/usr/bin/python
"""Prove engines by a real answer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: completion_check
short_description: Prove engines by real answers, directly or one by one through the gateway
description:
  - Asks for completions, plain or streamed, text or chat, and compares them with golden ones where there are any.
  - Named servers are asked through the gateway, all at the same time; that takes the operator's key.
  - On the controller it runs inside Ansible's own process, which saves most of what a module call costs.
  - With O(wait_s) it repeats until the answers are correct, and gives up early when one of O(units) has failed, or has
    answered with errors for 30 s that are none of a start, such as HTTP 500.
author: rackserve
options:
  base_url:
    description: Where the API is, such as C(https://10.0.0.1:8443); not needed when each server has its own C(url).
    type: str
    default: ""
  ca_file: {description: CA bundle for https; the system's without one., type: path}
  api_key: {description: Bearer key., type: str, default: ""}
  headers: {description: Further request headers., type: dict, default: {}}
  model: {description: The served model name., type: str, default: ""}
  golden:
    description: Golden answers, C({cases; [{prompt, max_tokens, text, token_logprobs, tolerance}]}).
    type: dict
    default: {}
  kinds:
    description: Ways to ask.
    type: list
    elements: str
    choices: [plain, stream, chat, chat_stream]
    default: [plain]
  servers:
    description:
      - Servers to prove through the gateway, C(backend/slot), or dictionaries C({server, model, golden, kinds}).
      - A dictionary with C(url) in place of C(server) is an engine that is asked directly.
      - Without one, whoever answers at O(base_url) is checked.
    type: list
    elements: raw
    default: []
  timeout_s: {description: Seconds for one answer., type: float, default: 30}
  attempts:
    description: How often a refused or broken request is asked; a wrong answer is not asked for again.
    type: int
    default: 1
  parallel: {description: Servers that are asked at the same time., type: int, default: 16}
  wait_s: {description: Repeat for this long until everything is correct; 0 checks once., type: float, default: 0}
  progress_s:
    description: >-
      Return after so many seconds of waiting, correct or not, and say how far the start of O(units) is; the task
      repeats until C(progress.finished), at most C(wait_s / progress_s) times. 0 waits in this call.
    type: float
    default: 0
  poll_s: {description: Seconds between two tries while waiting., type: float, default: 1}
  units:
    description: >-
      Systemd units of this host; waiting ends when one is failed or inactive, or O(servers) answer with lasting errors.
    type: list
    elements: str
    default: []
  crashes:
    description: Waiting ends, too, when one of O(units) ended by itself so often since it was started; 0 does not look.
    type: int
    default: 0
  report:
    description: A JSON file to write the rows to, with O(report_head) above them; folders are made.
    type: path
  report_head: {description: What the report says beside the rows., type: dict, default: {}}
  report_only: {description: Return failures in the result and do not fail., type: bool, default: false}
attributes:
  check_mode: {support: full, description: Only asks and writes its report; it does the same in check mode.}
  diff_mode: {support: none, description: It changes nothing but its report.}
  idempotent: {support: full, description: It changes nothing but its report.}
"""

EXAMPLES = r"""
- name: Prove two engines through the gateway
  completion_check:
    base_url: https://10.77.0.10:8443
    ca_file: files/ca.pem
    api_key: "{{ operator_key }}"
    model: tiny
    golden: "{{ rackserve.golden }}"
    servers: [be_tiny/r0, be_tiny/r1]
    kinds: [plain, stream, chat]
"""

RETURN = r"""
rows:
  description: One row a server and kind.
  returned: always
  type: list
  elements: dict
  sample:
    - {server: be_tiny/r0, kind: stream, ok: true, text: " the", ttft_s: 0.041, itl_s: 0.012, total_s: 0.13, tokens: 8,
       match: true, why: "", status: null}
  contains:
    server: {description: The server that was asked for., type: str, returned: always}
    kind: {description: The way of asking., type: str, returned: always}
    ok: {description: Whether the server is proven., type: bool, returned: always}
    text: {description: What it said to the first case., type: str, returned: always}
    ttft_s: {description: Seconds to the first token of a stream., type: float, returned: always}
    itl_s: {description: Median seconds between two chunks of a stream., type: float, returned: always}
    total_s: {description: Seconds to the end of the first answer., type: float, returned: always}
    tokens: {description: Tokens of the first answer., type: int, returned: always}
    match: {description: Whether golden answers were met; null where none was compared., type: bool, returned: always}
    why: {description: Why the server is not proven., type: str, returned: always}
    status: {description: Status of an HTTP refusal; null for everything else., type: int, returned: always}
failed_line:
  description: One line naming what failed; empty when nothing did.
  returned: always
  type: str
  sample: "1 of 4 checks failed: be_tiny/r1 (plain): HTTP 503"
waited_s: {description: Seconds this call waited., returned: always, type: float}
progress: {description: How far the start is; only C(finished) when the wait is over., returned: always, type: dict}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.completion.prove import ARGUMENTS, command_output, prove


def main() -> None:
    """Hand the options to the core."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    result = prove(module.params, command_output)
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
