"""The lookup rackserve_document: roles' templates and variables give what they give when Ansible evaluates them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from rendered_lab import document_lookup

DEFAULTS = r"""
demo_units: "{{ rackserve.units | default([]) }}"
demo_names: "{{ demo_units | map('regex_replace', '^(.*)\\.service$', '\\1') | list }}"
demo_folder: "/run/{{ demo_names | first }}"
demo_deep: "{{ rackserve.none.such | default('deep') }}"
demo_table: {first: "{{ demo_names | first }}", plain: 1, list: ["{{ demo_units | length }}"]}
demo_file: "{{ lookup('ansible.builtin.file', demo_path) }}"
demo_selected: "{{ 'some' if demo_units | select('match', 'z') else 'none' }}"
demo_braces: "{{ {'a': {'b': demo_names | length}} }}"
demo_items_extra: []
demo_items_override: {}
"""
VARS = """
__demo_second: "{{ demo_units[1] | default(none) }}"
__demo_own: "{{ lookup('rackserve_document', 'demo', template='own.j2') }}"
"""
TEXT = """# {{ name }}: a\\nb
{% for unit in demo_units %}
{{ unit }}
{% endfor %}
{% include 'part.j2' %}
{{ demo_folder }} {{ demo_deep }} {{ demo_table.list[0] + 1 }} {{ demo_file }} {{ demo_selected }}
{{ __demo_second }}{{ none }}{{ demo_names | to_json }}
last {{ later }} {{ demo_braces.a.b }} {{ __demo_own | trim }}
"""
DOCUMENT = """items:
{% for name in demo_names %}
  - {id: "{{ name }}", kind: absent, path: {{ demo_folder }}/{{ name }}}
{% endfor %}
"""


@pytest.fixture
def roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A role `demo` where the lookup looks for roles."""
    lookup = document_lookup()
    for kind, text in (("defaults", DEFAULTS), ("vars", VARS)):
        (tmp_path / "demo" / kind).mkdir(parents=True)
        (tmp_path / "demo" / kind / "main.yml").write_text(text)
    folder = tmp_path / "demo/templates"
    folder.mkdir()
    (folder / "part.j2").write_text("part of {{ later }}\n")
    (folder / "own.j2").write_text("own {{ demo_names[0] }}\n")
    (folder / "whole.j2").write_text(TEXT)
    (folder / "desired.yml.j2").write_text(DOCUMENT)
    (tmp_path / "file").write_text("content")
    monkeypatch.setattr(lookup, "ROLES", tmp_path)
    monkeypatch.setattr(lookup, "_COMPILED", tmp_path / "compiled")
    lookup._environment.cache_clear()
    lookup._written.cache_clear()
    lookup._evaluator.cache_clear()
    yield tmp_path
    lookup._environment.cache_clear()
    lookup._written.cache_clear()
    lookup._evaluator.cache_clear()


def evaluated(roles: Path, text: str, with_role: bool = False, **extra: Any) -> Any:
    """A template's value on a host; `with_role`: as in a play that imports the role."""
    variables = {
        "name": trust_as_template("{{ later | upper }}"),
        "later": "n",
        "rackserve": {"units": ["x.service", "y.service"]},
        "demo_path": str(roles / "file"),
        "playbook_dir": "/",
        "path": str(roles / "demo/templates/whole.j2"),
    }
    if with_role:
        for kind in ("defaults", "vars"):
            path = roles / "demo" / kind / "main.yml"
            variables |= DataLoader().load_from_file(str(path), trusted_as_template=True)
    return Templar(DataLoader(), variables=variables | extra).template(trust_as_template(text))


WHOLE = "{{ lookup('rackserve_document', 'demo', template='whole.j2') }}"


def test_it_renders_as_ansible_does(roles: Path) -> None:
    ours = str(evaluated(roles, WHOLE))
    assert ours == str(evaluated(roles, "{{ lookup('ansible.builtin.template', path) }}", with_role=True))
    assert ours == str(evaluated(roles, WHOLE, with_role=True))
    assert ours == (
        '# N: a\\nb\nx.service\ny.service\npart of n/run/x deep 3 content none\ny.service["x", "y"]\nlast n 2 own x\n'
    )


def test_what_a_site_sets_counts_more_than_a_default_and_less_than_a_constant(roles: Path) -> None:
    given = {
        "demo_units": trust_as_template("{{ ['z.service'] + demo_items_extra }}"),
        "__demo_second": "not this",
    }
    text = str(evaluated(roles, WHOLE, **given))
    assert "z.service\npart" in text and '/run/z deep 2 content some\n["z"]' in text


def test_documents_of_roles(roles: Path) -> None:
    extra = [{"id": "more", "kind": "absent", "path": "/more"}]
    (document,) = evaluated(roles, "{{ query('rackserve_document', 'demo') }}", demo_items_extra=extra)
    assert [item["id"] for item in document["items"]] == ["x", "y", "more"]
    assert document["role"] == "demo" and document["extras"] == ["more"]
    text = evaluated(roles, "{{ lookup('rackserve_document', 'demo', json=true) }}", demo_items_extra=extra)
    assert json.loads(text) == [document]


def test_no_role_compiles_all_and_returns_nothing(roles: Path) -> None:
    assert evaluated(roles, "{{ query('rackserve_document') }}") == []
    names = {name for _, name in document_lookup()._environment().cache}
    files = {f"demo/templates/{name}" for name in ("desired.yml.j2", "own.j2", "part.j2", "whole.j2")}
    assert {name for name in names if name.startswith("demo/")} == files
    assert len(names - files) == 7
    assert document_lookup()._evaluator.cache_info().currsize == 9


def test_a_changed_template_is_not_taken_from_the_cache(roles: Path) -> None:
    before = evaluated(roles, WHOLE)
    assert list((roles / "compiled").glob("*/__jinja2_*.cache"))
    (roles / "demo/templates/part.j2").write_text("another part\n")
    document_lookup()._environment.cache_clear()
    assert str(evaluated(roles, WHOLE)) == str(before).replace("part of n", "another part")


def test_a_checkout_of_somebody_else_is_rendered_without_a_cache(roles: Path) -> None:
    (roles / "compiled").write_text("in the way\n")
    assert "part of n" in str(evaluated(roles, WHOLE))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none", r"roles/demo/templates/none\.j2 is not there"),
        ("broken", r"broken\.j2:2: .*expected token"),
        ("undefined", r"undefined\.j2:3: 'nobody' is undefined"),
        ("wrong", r"wrong\.j2:1: demo_folder: .*no_such"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(roles: Path, name: str, says: str) -> None:
    folder = roles / "demo/templates"
    (folder / "broken.j2").write_text("a\n{{ b c }}\n")
    (folder / "undefined.j2").write_text("a\n\n{{ nobody }}\n")
    (folder / "wrong.j2").write_text("{{ demo_folder }}\n")
    with pytest.raises(AnsibleError, match=says):
        evaluated(roles, WHOLE.replace("whole", name), demo_names=trust_as_template("{{ no_such }}"))


def test_a_role_without_a_document_is_named(roles: Path) -> None:
    with pytest.raises(AnsibleError, match=r"none/vars/main\.yml is not there, so none is no role with a document"):
        evaluated(roles, "{{ lookup('rackserve_document', 'none') }}")
