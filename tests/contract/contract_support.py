"""What contract tests read: the repository's files, tasks, modules and the names Jinja expressions use."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import yaml

REPO = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (REPO / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted((REPO / "playbooks").glob("*.yml"))
MODULES = sorted(path.stem for path in (REPO / "library").glob("*.py"))
SAMPLES = sorted(path.parent.name for path in (REPO / "inventories").glob("*/hosts.yml"))

NOT_OURS = {".git", ".venv", ".venv-bench", ".cache", ".ansible", "build", ".state", "__pycache__", ".hypothesis"}
BLOCKS = ("block", "rescue", "always")
TASK_LISTS = ("tasks", "pre_tasks", "post_tasks", "handlers")
CONDITIONS = {"when", "that", "until", "failed_when", "changed_when", "var"}


class AnyName(dict[str, Any]):
    """Knows every filter and test: only the variables of an expression are looked for."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name, default or str)


JINJA = jinja2.Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"], autoescape=True)
JINJA.filters, JINJA.tests = AnyName(JINJA.filters), AnyName(JINJA.tests)


class VaultLoader(yaml.SafeLoader):
    """Reads Ansible's own tags as plain text."""


VaultLoader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def read_yaml(path: Path) -> Any:
    return yaml.load(path.read_text("utf-8"), VaultLoader)  # noqa: S506 - a SafeLoader with one more tag


def here(path: Path) -> str:
    return str(path.relative_to(REPO))


def text_files() -> Iterator[tuple[Path, str]]:
    """Every text file that belongs to the repository, made by hand or generated into it."""
    for folder, names, files in os.walk(REPO):
        names[:] = [
            name for name in names if name not in NOT_OURS and not (name.startswith(".") and name.endswith("_cache"))
        ]
        for name in files:
            path = Path(folder) / name
            if name in {"secrets.yml", ".coverage"} or path.is_symlink():
                continue
            with contextlib.suppress(UnicodeDecodeError, FileNotFoundError):
                yield path, path.read_text("utf-8")


@dataclass(frozen=True)
class Task:
    """A task and the file it stands in."""

    file: str
    data: dict[str, Any]

    @property
    def where(self) -> str:
        return f"{self.file}: {self.data.get('name', '?')}"


def walk_tasks(items: Any, file: str) -> Iterator[Task]:
    """Tasks of a task list or a playbook, those inside of blocks too."""
    for item in items or []:
        lists = [item[key] for key in (*BLOCKS, *TASK_LISTS) if key in item]
        if "hosts" not in item:
            yield Task(file, item)
        for tasks in lists:
            yield from walk_tasks(tasks, file)


def role_task_files() -> list[Path]:
    return sorted([*(REPO / "roles").glob("*/tasks/*.yml"), *(REPO / "roles").glob("*/handlers/*.yml")])


def all_tasks() -> list[Task]:
    """Every task of roles and playbooks."""
    files = [*role_task_files(), *PLAYBOOKS, *sorted((REPO / "playbooks/tasks").glob("*.yml"))]
    return [task for file in files for task in walk_tasks(read_yaml(file), here(file))]


class Specified(Exception):
    """Carries what a module gave to AnsibleModule."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__("specified")
        self.given = given


def module_call(name: str) -> dict[str, Any]:
    """The keyword arguments a module's main() calls AnsibleModule with."""

    def record(**given: Any) -> None:
        raise Specified(given)

    module = importlib.import_module(name)
    real, module.AnsibleModule = module.AnsibleModule, record
    try:
        module.main()
    except Specified as specified:
        return specified.given
    finally:
        module.AnsibleModule = real
    raise AssertionError(f"{name}.main() made no AnsibleModule")


def module_docs(name: str) -> Any:
    return yaml.safe_load(importlib.import_module(name).DOCUMENTATION)


def names_in(template: str) -> set[str]:
    """Variables a Jinja text reads that it does not set itself."""
    return set(jinja2.meta.find_undeclared_variables(JINJA.parse(template)))


def names_in_yaml(data: Any, condition: bool = False) -> set[str]:
    """Variables that the expressions in a YAML document read, those of bare conditions too."""
    if isinstance(data, dict):
        return {name for key, value in data.items() for name in names_in_yaml(value, condition or key in CONDITIONS)}
    if isinstance(data, list):
        return {name for value in data for name in names_in_yaml(value, condition)}
    if not isinstance(data, str):
        return set()
    return names_in(f"{{{{ {data} }}}}" if condition and "{{" not in data else data)
