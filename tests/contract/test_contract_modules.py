"""Modules: what they document is what they take, and they are thin."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from typing import Any

import pytest
import yaml
from contract_support import MODULES, REPO, all_tasks, module_call, module_docs
from rackserve_converge import probe_arguments

TASK_WORDS = {
    "name", "register", "when", "loop", "loop_control", "check_mode", "changed_when", "failed_when", "delegate_to",
    "run_once", "become", "become_user", "no_log", "vars", "until", "retries", "delay", "notify", "tags", "diff",
    "timeout", "async", "poll", "environment",
}  # fmt: skip
OPTION_WORDS = {"description", "type", "required", "default", "choices", "elements", "aliases", "suboptions"}
# The one filter that gives all arguments of a call, so that documents are rendered once for two of them.
WHOLE_ARGUMENTS = re.compile(r"\{\{ [^{}]* \| probe_arguments\([^{}]*\{\}[^{}]*\) \}\}")
RETURN_WORDS = {"description", "returned", "type", "sample", "contains", "elements"}


def documented(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Documented options in the words of an argument_spec; what a spec leaves out has its default value."""
    return {
        name: {
            "type": option.get("type", "str"),
            "required": option.get("required", False),
            "default": option.get("default"),
            "choices": option.get("choices"),
            "elements": option.get("elements"),
            "aliases": sorted(option.get("aliases", [])),
            "options": documented(option["suboptions"]) if "suboptions" in option else None,
        }
        for name, option in options.items()
    }


def specified(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "type": option.get("type", "str"),
            "required": option.get("required", False),
            "default": option.get("default"),
            "choices": list(option["choices"]) if "choices" in option else None,
            "elements": option.get("elements"),
            "aliases": sorted(option.get("aliases", [])),
            "options": specified(option["options"]) if "options" in option else None,
        }
        for name, option in spec.items()
    }


def wrong_arguments(name: str, given: Any, templated: bool) -> list[str]:
    """What a task gives to one of our modules that it does not take, or leaves out."""
    if not isinstance(given, dict):
        # `args:` or a free-form call: neither is our style.
        return [f"{name}: arguments must be a mapping, not {given!r}"]
    return check_options(name, module_call(name)["argument_spec"], given, templated)


def check_options(path: str, spec: dict[str, Any], given: dict[str, Any], templated: bool) -> list[str]:
    known = set(spec) | {alias for option in spec.values() for alias in option.get("aliases", [])}
    found = [f"{path}: no option {name}" for name in sorted(set(given) - known)]
    found += [f"{path}: {name} is required" for name, o in spec.items() if o.get("required") and name not in given]
    for name, option in spec.items():
        value = given.get(name)
        literal = not (templated and isinstance(value, str) and "{{" in value)
        if value is None or not literal:
            continue
        allowed = option.get("choices")
        words = value if isinstance(value, list) else [value]
        if allowed and not all(word in allowed or "{{" in str(word) for word in words):
            found.append(f"{path}: {name} is {value!r}, not one of {', '.join(map(str, allowed))}")
        if "options" in option:
            for part in words:
                found += check_options(f"{path}.{name}", option["options"], part, templated)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_documentation_says_what_the_module_takes(name: str) -> None:
    docs = module_docs(name)
    assert docs["module"] == name
    assert documented(docs.get("options", {})) == specified(module_call(name)["argument_spec"])


@pytest.mark.parametrize("name", MODULES)
def test_every_option_is_described(name: str) -> None:
    def described(options: dict[str, Any]) -> list[str]:
        lacking = [name for name, doc in options.items() if not doc.get("description") or set(doc) - OPTION_WORDS]
        return lacking + [lack for doc in options.values() for lack in described(doc.get("suboptions", {}))]

    docs = module_docs(name)
    assert described(docs.get("options", {})) == []
    assert docs["short_description"]
    assert docs["description"]


@pytest.mark.parametrize("name", MODULES)
def test_attributes_are_stated_and_check_mode_is_true(name: str) -> None:
    attributes = module_docs(name)["attributes"]
    assert {"check_mode", "diff_mode", "idempotent"} <= set(attributes)
    for attribute, said in attributes.items():
        assert said["support"] in {"full", "partial", "none"}, attribute
        assert said["description"], attribute
    supported = module_call(name).get("supports_check_mode", False)
    assert supported is (attributes["check_mode"]["support"] != "none")


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_tasks_with_known_options(name: str) -> None:
    tasks = yaml.safe_load(importlib.import_module(name).EXAMPLES)
    used = []
    for task in tasks:
        actions = sorted(set(task) - TASK_WORDS)
        assert len(actions) == 1, f"one action a task: {actions}"
        assert task["name"][0].isupper()
        if actions[0] in MODULES:
            used.append(actions[0])
            assert wrong_arguments(actions[0], task[actions[0]], True) == []
        else:
            assert actions[0].startswith("ansible.builtin."), actions[0]
    assert name in used


@pytest.mark.parametrize("name", MODULES)
def test_returned_values_are_documented_with_samples(name: str) -> None:
    def checked(values: dict[str, Any]) -> int:
        samples = 0
        for key, said in values.items():
            assert {"description", "returned", "type"} <= set(said) <= RETURN_WORDS, key
            samples += "sample" in said
            samples += checked(said.get("contains", {}))
        return samples

    assert checked(yaml.safe_load(importlib.import_module(name).RETURN)) > 0, "no sample at all"


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_thin(name: str) -> None:
    source = (REPO / "library" / f"{name}.py").read_text("utf-8")
    assert len(source.splitlines()) <= 220
    functions = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    main = functions["main"]
    assert (main.end_lineno or 0) - main.lineno + 1 <= 40


def test_tasks_call_our_modules_with_what_they_take() -> None:
    found, called = [], set()
    for task in all_tasks():
        for name in set(MODULES) & set(task.data):
            called.add(name)
            arguments = task.data[name]
            if isinstance(arguments, str) and WHOLE_ARGUMENTS.fullmatch(arguments):
                arguments = probe_arguments("[]", {}) | {"documents": []}
            found += [f"{task.where}: {wrong}" for wrong in wrong_arguments(name, arguments, True)]
    assert not found, "\n".join(found)
    assert {"converge", "lab_hosts"} <= called


def test_wrong_arguments_are_seen() -> None:
    assert wrong_arguments("lab_hosts", {"prefix": "x", "nodes": []}, True)[0] == "lab_hosts: no option nodes"
    assert "converge: documents is required" in wrong_arguments("converge", {}, True)
    assert "is 'gone', not one of present, absent" in str(wrong_arguments("lab_hosts", {"state": "gone"}, True))
    nested = {"servers": [{"slott": "x"}]}
    assert "gateway_servers.servers: no option slott" in wrong_arguments("gateway_servers", nested, True)
    assert wrong_arguments("converge", "documents=x", True) != []


def test_a_filter_has_one_name_and_a_name_one_filter() -> None:
    """Ansible takes the one it reads last, without a word."""
    found: dict[str, list[str]] = {}
    for path in sorted((REPO / "filter_plugins").glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"filters_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name in module.FilterModule().filters():
            found.setdefault(name, []).append(path.name)
    assert {name: files for name, files in found.items() if len(files) > 1} == {}
