"""Roles: their interface is written down, their files stay small, they read nothing but their slice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from contract_support import (
    REPO,
    ROLES,
    all_tasks,
    here,
    names_in,
    names_in_yaml,
    read_yaml,
    role_task_files,
    walk_tasks,
)

IDS = [role.name for role in ROLES]
SITE_WIDE = {"cluster", "hostvars", "groups", "group_names", "rackserve_plan"}
# Names under which Ansible injects facts; connection variables such as ansible_host are no facts.
INJECTED = re.compile(
    r"\bansible_(distribution\w*|hostname|nodename|fqdn|domain|os_family|architecture|kernel\w*|processor\w*|"
    r"memtotal_mb|memory_mb|default_ipv[46]|all_ipv[46]_addresses|interfaces|mounts|devices|date_time|env|"
    r"service_mgr|pkg_mgr|selinux|system|machine|virtualization_\w+|lsb|cmdline|user_id|uptime_seconds|product_\w+)\b"
)


@pytest.fixture(params=ROLES, ids=IDS)
def role(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def defaults_of(role: Path) -> dict[str, Any]:
    return read_yaml(role / "defaults/main.yml") or {}


def test_a_role_has_a_readme_of_one_page(role: Path) -> None:
    lines = (role / "README.md").read_text("utf-8").splitlines()
    assert 5 <= len(lines) <= 80


def test_defaults_and_argument_specs_name_the_same_variables(role: Path) -> None:
    main = read_yaml(role / "meta/argument_specs.yml")["argument_specs"]["main"]
    assert set(main["options"]) == set(defaults_of(role))
    assert main["short_description"]


def test_every_option_has_type_and_description(role: Path) -> None:
    def lacking(options: dict[str, Any], path: str) -> list[str]:
        found = []
        for name, option in options.items():
            found += [f"{path}{name}: no {word}" for word in ("type", "description") if not option.get(word)]
            if option.get("type") == "list" and "elements" not in option:
                found.append(f"{path}{name}: no elements")
            found += lacking(option.get("options", {}), f"{path}{name}.")
        return found

    for name, entry in read_yaml(role / "meta/argument_specs.yml")["argument_specs"].items():
        assert lacking(entry.get("options", {}), f"{name}: ") == []


def test_documented_defaults_are_the_defaults(role: Path) -> None:
    """A default that is computed stands in defaults/main.yml alone."""
    options = read_yaml(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = defaults_of(role)
    stated = {name: option["default"] for name, option in options.items() if "default" in option}
    assert stated == {name: defaults.get(name) for name in stated}


def test_no_option_with_a_default_is_required(role: Path) -> None:
    options = read_yaml(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert [name for name, option in options.items() if option.get("required") and "default" in option] == []


def test_variables_carry_the_name_of_their_role(role: Path) -> None:
    names = set(defaults_of(role))
    assert {name for name in names if not name.startswith(f"{role.name}_")} == set()
    constants = [read_yaml(path) or {} for path in sorted(role.glob("vars/*.yml"))]
    for name in {name for values in constants for name in values}:
        assert name.startswith((f"{role.name}_", f"__{role.name}_")), name


def test_registered_and_set_variables_carry_the_name_of_their_role() -> None:
    found = []
    for task in all_tasks():
        if not task.file.startswith("roles/"):
            continue
        role = task.file.split("/")[1]
        facts = task.data.get("ansible.builtin.set_fact", {})
        names = [*([task.data["register"]] if "register" in task.data else []), *(set(facts) - {"cacheable"})]
        found += [f"{task.where}: {name}" for name in names if not name.startswith((f"{role}_", f"__{role}_"))]
    assert not found, "\n".join(found)


def test_task_files_are_short() -> None:
    long = {here(path): len(path.read_text("utf-8").splitlines()) for path in role_task_files()}
    allowed = {name: 25 if name.endswith("tasks/main.yml") else 60 for name in long}
    found = [f"{name}: {count} lines, {allowed[name]} at most" for name, count in long.items() if count > allowed[name]]
    assert not found, "\n".join(found)


def test_roles_depend_on_no_role() -> None:
    for path in sorted((REPO / "roles").glob("*/meta/main.yml")):
        assert not read_yaml(path).get("dependencies"), here(path)


def test_roles_read_nothing_of_the_site_but_their_slice(role: Path) -> None:
    found = []
    for path in sorted(path for path in role.rglob("*") if path.suffix in {".yml", ".j2"}):
        if path.is_relative_to(role / "files") or path.is_relative_to(role / "meta"):
            continue
        names = names_in(path.read_text("utf-8")) if path.suffix == ".j2" else names_in_yaml(read_yaml(path))
        forbidden = SITE_WIDE if path == role / "defaults/main.yml" else SITE_WIDE | {"rackserve"}
        found += [f"{here(path)}: {name}" for name in sorted(names & forbidden)]
    assert not found, "\n".join(found)


def test_names_are_found_in_expressions_only() -> None:
    assert names_in("# cluster.x {{ a.b | default(hostvars['x']) }}{% for c in d %}{{ c }}{% endfor %}") == {
        "a",
        "hostvars",
        "d",
    }
    assert names_in_yaml({"when": ["groups['x'] | length > 0"], "msg": "set cluster.name"}) == {"groups"}
    assert names_in_yaml([{"a": {"b": "{{ 'rackserve.x' ~ rackserve.y }}"}}]) == {"rackserve"}


def test_no_injected_fact_is_read() -> None:
    found = []
    for folder in ("roles", "playbooks", "inventories", "filter_plugins"):
        for path in sorted((REPO / folder).rglob("*")):
            if path.suffix in {".yml", ".j2", ".py"}:
                found += [f"{here(path)}: {match.group()}" for match in INJECTED.finditer(path.read_text("utf-8"))]
    assert not found, "\n".join(found)
    assert INJECTED.search("{{ ansible_distribution_version }}")
    assert not INJECTED.search("ansible_facts['distribution'] ansible_host ansible_python_interpreter")


def test_no_error_is_ignored() -> None:
    tasks = all_tasks()
    assert len(tasks) > 20
    assert [task.where for task in tasks if task.data.get("ignore_errors")] == []
    # A source of weights that is dead is passed by; the task behind it names it, and none left is an error.
    passed_by = "roles/model_store/tasks/relay-sources.yml"
    assert {task.file for task in tasks if task.data.get("ignore_unreachable")} == {passed_by}
    assert [task.where for task in tasks if task.data.get("failed_when") in (False, "false")] == []


def ring(named: dict[str, Any], start: str) -> list[str]:
    """The way from a variable back to itself by what its value names; empty where there is none."""
    ways = [[start]]
    seen = set()
    while ways:
        way = ways.pop()
        for name in names_in_yaml(named[way[-1]]) & set(named):
            if name == start:
                return [*way, name]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []


def test_what_a_role_hands_to_another_does_not_come_back_to_itself() -> None:
    """A variable of the task hides the one of the same name that a default of the caller would have read."""
    found = []
    for path in role_task_files():
        for task in walk_tasks(read_yaml(path), here(path)):
            called = task.data.get("ansible.builtin.include_role") or task.data.get("ansible.builtin.import_role")
            if not called:
                continue
            named = {}
            for folder in (path.parents[1], REPO / "roles" / called["name"]):
                for file in ("defaults/main.yml", "vars/main.yml"):
                    named.update((read_yaml(folder / file) if (folder / file).exists() else None) or {})
            named.update(task.data.get("vars", {}))
            found += [(task.where, way) for name in task.data.get("vars", {}) if (way := ring(named, name))]
    assert found == []


def test_sources_of_weights_are_ended_whatever_becomes_of_a_copy() -> None:
    [chain] = read_yaml(REPO / "roles/model_store/tasks/relay-chain.yml")
    includes = [
        (part, task["ansible.builtin.include_tasks"], task.get("vars", {}).get("__model_store_step"))
        for part in ("block", "always")
        for task in chain[part]
        if "ansible.builtin.include_tasks" in task
    ]
    names = [task["name"].partition(" | ")[2] for task in chain["block"]]
    assert names[:2] == ["Leave a mark", "Leave it over others where the controller is going to feed this host"]
    assert "when" not in chain["block"][0], "hosts that share one file system are found where a source feeds, too"
    assert includes == [
        ("block", "relay-sources.yml", "started"),
        ("block", "relay-receive.yml", None),
        ("always", "relay-sources.yml", "finished"),
    ]
    speaker, asked, _, said = read_yaml(REPO / "roles/model_store/tasks/relay-sources.yml")
    assert speaker["run_once"]
    assert "run_once" not in asked, "with it, one source that is dead fails every host, ignored or not"
    assert "__model_store_refused" in said["loop"]
