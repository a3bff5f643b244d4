"""Units: whatever runs as root is listed with its reason, and whatever stays running gives up what it can."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from contract_support import REPO, SAMPLES, here, read_yaml
from rendered_lab import RenderedLab

LISTED: dict[str, list[dict[str, str]]] = read_yaml(REPO / "files/privileged.yml")
LAB_UNITS = REPO / "roles/lab_host/files/image/etc/systemd/system"
MOST_EXPOSED = 2.0
# Simulated processes and the lab itself: nothing of it is on a real host.
NOT_ON_HOSTS = ("module_utils/rackserve/lab/", "module_utils/rackserve/simulated/")


@cache
def units() -> dict[str, str]:
    """`<sample>/<unit>` to its text: what roles write for every sample, one host of each kind, and the lab's image."""
    found = {f"image/{path.name}": path.read_text("utf-8") for path in LAB_UNITS.glob("*.service")}
    for sample in SAMPLES:
        site = RenderedLab(REPO / "build/contract-units" / sample, sample)
        for host in site.hosts:
            for role in {*site.plan["slices"][host]["roles"]} - {"preflight", "acceptance"}:
                for item in site.document(role, host)["items"]:
                    path = Path(item.get("path", ""))
                    is_unit = path.parent == Path("/etc/systemd/system") and path.suffix == ".service"
                    if is_unit and item["kind"] == "file":
                        found[f"{sample}/{path.name}"] = item["content"]
    return found


def runs_as_root(text: str) -> bool:
    return not re.search(r"^(User=(?!root$|0$)\S+|DynamicUser=yes)$", text, re.MULTILINE)


def privileged_commands(text: str) -> list[str]:
    """Commands that systemd runs with all privileges although the unit has a user; a continued line is one command."""
    return re.findall(r"^Exec\w+=[@:-]*[+!]+(.*)$", text.replace("\\\n", " "), re.MULTILINE)


def test_samples_have_the_units_that_this_file_is_about() -> None:
    names = {name.split("/")[1] for name in units()}
    assert {"rackserve-gateway.service", "rackserve-firewall.service", "rackserve-gpu-devices.service"} <= names
    assert any(name.startswith("vllm-") for name in names)


def test_every_unit_that_runs_as_root_is_listed_with_its_reason() -> None:
    root = {name.split("/")[1] for name, text in units().items() if runs_as_root(text)}
    patterns = [entry["unit"] for entry in LISTED["units"]]
    assert [name for name in sorted(root) if not any(fnmatch(name, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in root)] == []
    assert all(len(entry["why"]) > 20 for part in LISTED.values() for entry in part)


def test_no_unit_that_stays_running_is_root() -> None:
    for name, text in units().items():
        assert not runs_as_root(text) or re.search(r"^Type=oneshot$", text, re.MULTILINE), name


def test_every_privileged_command_of_a_unit_is_listed() -> None:
    found = {(name.split("/")[1], line) for name, text in units().items() for line in privileged_commands(text)}

    def listed(entry: dict[str, str], unit: str, line: str) -> bool:
        return fnmatch(unit, entry["unit"]) and any(fnmatch(word.strip("'"), entry["program"]) for word in line.split())

    unlisted = [(u, line) for u, line in sorted(found) if not any(listed(e, u, line) for e in LISTED["commands"])]
    assert unlisted == []
    assert [e["program"] for e in LISTED["commands"] if not any(listed(e, u, line) for u, line in found)] == []


def test_every_file_that_makes_transient_units_is_listed() -> None:
    sources = [path for folder in ("module_utils", "library") for path in (REPO / folder).rglob("*.py")]
    makers = {here(path) for path in sources if '"systemd-run"' in path.read_text("utf-8")}
    ours = {name for name in makers if not name.startswith(NOT_ON_HOSTS)}
    assert ours == {entry["made_by"] for entry in LISTED["transient"]}


def exposure(name: str, text: str, folder: Path) -> float:
    path = folder / name
    path.write_text(text, "utf-8")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    verdict = re.search(r"Overall exposure level for .*: ([\d.]+) ", shown.stdout)
    assert verdict, shown.stdout + shown.stderr
    return float(verdict[1])


def test_what_stays_running_gives_up_what_it_does_not_need(tmp_path: Path) -> None:
    """With the device rules of real GPUs too, which no lab host has."""
    scores: dict[str, Any] = {}
    for name, text in units().items():
        if not re.search(r"^Type=oneshot$", text, re.MULTILINE):
            scores[name] = exposure(name.split("/")[1], text, tmp_path)
    assert scores
    assert {name: score for name, score in scores.items() if score > MOST_EXPOSED} == {}


@pytest.mark.parametrize(
    ("text", "root", "commands"),
    [
        ("[Service]\nExecStart=/bin/a\n", True, []),
        ("[Service]\nUser=root\nExecStart=/bin/a\n", True, []),
        ("[Service]\nUser=vllm\nExecStartPre=-+/bin/b \\\n  --c\nExecStart=/bin/a\n", False, ["/bin/b    --c"]),
        ("[Service]\nDynamicUser=yes\nExecStartPre=!!/bin/b\n", False, ["/bin/b"]),
    ],
)
def test_the_reader_of_units(text: str, root: bool, commands: list[str]) -> None:
    assert runs_as_root(text) is root
    assert privileged_commands(text) == commands
