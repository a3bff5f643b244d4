"""The lookup rackserve_template gives what ansible.builtin.template gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from rendered_lab import load_plugins

TEXT = """# {{ name }}: a\\nb
{% for unit in units %}
{{ unit }}
{% endfor %}
{% include 'part.j2' %}
last {{ later }}
"""


def rendered(lookup: str, path: str) -> str:
    load_plugins()
    variables = {
        "name": trust_as_template("{{ later | upper }}"),
        "later": "n",
        "units": ["x", "y"],
        "playbook_dir": "/",
        "path": path,
    }
    template = trust_as_template(f"{{{{ lookup('{lookup}', path) }}}}")
    return str(Templar(DataLoader(), variables=variables).template(template))


def test_it_renders_as_ansible_does(tmp_path: Path) -> None:
    (tmp_path / "part.j2").write_text("part of {{ later }}\n")
    (tmp_path / "whole.j2").write_text(TEXT)
    whole = str(tmp_path / "whole.j2")
    ours = rendered("rackserve_template", whole)
    assert ours == rendered("ansible.builtin.template", whole)
    assert ours == "# N: a\\nb\nx\ny\npart of nlast n\n"


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(AnsibleError, match=r"rackserve_template: whole\.j2 is no absolute path"):
        rendered("rackserve_template", "whole.j2")


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnsibleError, match=r"none\.j2"):
        rendered("rackserve_template", str(tmp_path / "none.j2"))
