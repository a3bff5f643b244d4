#!/usr/bin/python
"""Write the files of desired-state documents to a folder for people to read."""

from __future__ import annotations

DOCUMENTATION = r"""
module: render_documents
short_description: Write the files of desired-state documents below a folder, as they would stand on a host
description:
  - Runs on the controller and contacts no host. Secrets are written as C(<secret:name>).
  - Items that are no files stand in C(desired-state.json) beside them.
  - Files that an earlier run wrote and the documents no longer name are removed; nothing else there is touched.
options:
  documents:
    description: Desired-state documents, each with C(role) and C(items), as M(converge) takes them.
    type: list
    elements: dict
    required: true
  folder:
    description: Where the host's files go, such as C(build/lab/node1).
    type: path
    required: true
attributes:
  check_mode: {support: full, description: "Writes nothing, and returns what it would write."}
  diff_mode: {support: full, description: Shows each file before and after.}
  idempotent: {support: full, description: A second run with the same documents changes nothing.}
author: [rackserve]
"""

EXAMPLES = r"""
- name: Render a host's files
  render_documents:
    documents: ["{{ vllm_document }}"]
    folder: build/lab/node1
  delegate_to: localhost
"""

RETURN = r"""
files:
  description: What was (in check mode, would be) written.
  returned: success
  type: list
  elements: dict
  sample: [{role: vllm, path: /etc/systemd/system/vllm-x.service, mode: "0644", bytes: 2310}]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve.converge.errors import DocumentError
from ansible.module_utils.rackserve.converge.render import render_documents

ARGUMENTS = {
    "documents": {"type": "list", "elements": "dict", "required": True},
    "folder": {"type": "path", "required": True},
}


def main() -> None:
    """Read the options, write, answer."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = render_documents(module.params["documents"], Path(module.params["folder"]), module.check_mode)
    except (DocumentError, OSError) as problem:
        module.fail_json(msg=str(problem))
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
