"""The table of bad input: its entries, what a description-level one says, and the document that is made of it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rackserve.plan import Library, compile_plan, load_library, plan_errors

REPO = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_suffix(".yml")
BEGIN = "<!-- made from tests/infra/bad_input.yml: pytest tests/unit/preflight/test_bad_input.py --update-golden -->"
END = "<!-- end of the made part -->"
_GAP = re.compile(r"<[^<>]+>")


@dataclass(frozen=True)
class Case:
    """One entry of the table; the fields are explained at its head."""

    id: str
    what: str
    says: str
    sample: str = "lab"
    overrides: Any = None
    groups: dict[str, list[str]] = field(default_factory=dict)
    addresses: dict[str, str | None] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    batch: str = ""
    host: str = ""
    prepare: str = ""
    undo: str = ""
    variables: dict[str, Any] = field(default_factory=dict)

    @property
    def compiled(self) -> bool:
        """Whether the compiler alone finds it."""
        return bool(not self.batch and (self.overrides or self.groups or self.addresses))

    def pattern(self) -> re.Pattern[str]:
        """The line, anywhere in a run's output: as it is, behind a list's dash, or as a value of ``msg``."""
        return re.compile(rf"^\s*(?:- |msg: )?(?:['\"])?{_as_pattern(self.says)}(?:['\"])?$", re.MULTILINE)


def _as_pattern(line: str) -> str:
    parts = _GAP.split(line)
    # A callback that shows YAML doubles the single quotes of a quoted line.
    return ".+?".join(re.escape(part).replace("'", "'{1,2}") for part in parts)


@dataclass(frozen=True)
class Batch:
    """Cases of one run: the playbook's arguments, a merge patch of the description, the hosts that take part.

    ``limit`` None: the hosts of its cases; empty: all.
    """

    what: str
    arguments: list[str] = field(default_factory=list)
    overrides: Any = None
    limit: list[str] | None = None


@dataclass(frozen=True)
class Table:
    """The whole file; ``inventories`` as ``write_inventory`` takes them."""

    described: list[Case]
    on_hosts: list[Case]
    batches: dict[str, Batch]
    inventories: dict[str, dict[str, Any]]


def load(path: Path = TABLE) -> Table:
    """Read the table. TypeError for a key that no entry has."""
    data = yaml.safe_load(path.read_text("utf-8"))
    return Table(
        [Case(**entry) for entry in data["description"]],
        [Case(**entry) for entry in data["hosts"]],
        {name: Batch(**entry) for name, entry in data["batches"].items()},
        data["inventories"],
    )


def write_inventory(
    folder: Path,
    lab: bool = False,
    hosts: dict[str, dict[str, Any]] | None = None,
    files: dict[str, str] | None = None,
    modes: dict[str, str] | None = None,
) -> Path:
    """Write an inventory of the lab's hosts, with the lab's variables where ``lab``; returns its hosts file."""
    source = REPO / "inventories/lab"
    inventory = yaml.safe_load((source / "hosts.yml").read_text("utf-8"))
    for group in inventory["all"]["children"].values():
        for host in group["hosts"].keys() & (hosts or {}).keys():
            group["hosts"][host] = {**(group["hosts"][host] or {}), **(hosts or {})[host]}
    folder.mkdir(parents=True)
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory), "utf-8")
    if lab:
        shutil.copytree(source / "group_vars", folder / "group_vars")
        (folder / ".state").symlink_to(source / ".state")
    for name, text in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    for name, mode in (modes or {}).items():
        (folder / name).chmod(int(mode, 8))
    return folder / "hosts.yml"


def site(name: str) -> tuple[dict[str, Any], dict[str, list[str]], dict[str, str]]:
    """(description, groups, addresses) of a sample inventory, read without Ansible."""
    folder = REPO / "inventories" / name
    groups: dict[str, list[str]] = {}
    addresses: dict[str, str] = {}
    for group, part in yaml.safe_load((folder / "hosts.yml").read_text())["all"]["children"].items():
        groups[group] = list(part["hosts"])
        addresses |= {host: own["ansible_host"] for host, own in part["hosts"].items() if "ansible_host" in (own or {})}
    cluster = yaml.safe_load((folder / "group_vars/all/cluster.yml").read_text())["cluster"]
    return cluster, groups, addresses


def read_books() -> Library:
    """What files/ knows."""
    return load_library(REPO, yaml.safe_load)


def compiled_lines(case: Case, books: Library) -> list[str]:
    """The lines that a person reads when this description is compiled."""
    cluster, groups, addresses = site(case.sample)
    plan = compile_plan(cluster, {**groups, **case.groups}, {**addresses, **case.addresses}, books, case.overrides)
    return plan_errors(plan)


def _row(case: Case) -> str:
    line = case.says.replace("|", "\\|")
    return f"| {case.what} | `{line}` |"


def document(text: str, table: Table) -> str:
    """``text`` with the tables of all cases between its marks. ValueError where a mark is missing."""
    if BEGIN not in text or END not in text:
        raise ValueError(f"the document lacks one of the lines {BEGIN} and {END}")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    title = "| what is wrong | what the run says |\n|---|---|\n"
    parts = [
        f"## Found on the controller ({len(table.described)})\n\nNo host is contacted.\n",
        title + "\n".join(map(_row, table.described)) + "\n",
        f"## Found on hosts, or for one of them ({len(table.on_hosts)})\n\nThe hosts without a fault go on.\n",
        title + "\n".join(map(_row, table.on_hosts)) + "\n",
    ]
    return f"{head}{BEGIN}\n\n" + "\n".join(parts) + f"\n{END}{tail}"
