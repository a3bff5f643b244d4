"""Lookup: a template of ours, rendered with the variables as they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.template import trust_as_template

DOCUMENTATION = r"""
name: rackserve_template
short_description: Render a template named by its absolute path
description:
  - Like P(ansible.builtin.template#lookup), which copies all variables of the host for each template it renders. With
    the dozen templates of a host's desired state these copies were two thirds of the drift probe's CPU time.
  - A template may include others of its own folder.
options:
  _terms:
    description: Absolute paths of templates.
    required: true
    type: list
    elements: path
author: rackserve
"""

EXAMPLES = r"""
- name: Show a unit
  ansible.builtin.debug:
    msg: "{{ lookup('rackserve_template', playbook_dir ~ '/../roles/vllm/templates/vllm.service.j2') }}"
"""

RETURN = r"""
_raw:
  description: The rendered texts.
  type: list
  elements: str
"""


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[str]:  # noqa: ARG002 - Ansible's own
        """Render each template; AnsibleLookupError where a path is relative."""
        texts = []
        for term in terms:
            path = Path(term)
            if not path.is_absolute():
                raise AnsibleLookupError(f"rackserve_template: {term} is no absolute path")
            templar = self._templar.copy_with_new_env(searchpath=[str(path.parent)])
            source = trust_as_template(self._loader.get_text_file_contents(str(path)))
            texts.append(templar.template(source, escape_backslashes=False, overrides={"trim_blocks": True}))
        return texts
