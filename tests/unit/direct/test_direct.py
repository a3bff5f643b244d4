"""Cores that a host's bare Python runs: what is sent, what comes back, and when Ansible brings the module instead."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.rackserve.converge import answer as converge_core
from ansible.module_utils.rackserve.converge.contents import redact
from ansible.module_utils.rackserve.direct import sources
from ansible.module_utils.rackserve.direct.ask import ROOT, Core, NoAnswer, ask_host
from ansible.module_utils.rackserve.direct.sources import sources_of
from ansible.module_utils.rackserve.direct.start import MARK

Ansible = Callable[..., "subprocess.CompletedProcess[str]"]
ENTRIES = ["rackserve.converge.answer", "rackserve.health.answer"]
DOCUMENTS = [{"role": "vllm", "items": [{"id": "a", "kind": "file", "path": "/etc/a", "content": "new\n"}]}]


def hide(text: str) -> str:
    """As the plugin of converge hides secrets."""
    return redact(text, {"a": "canary-10", "b": "canary-1", "c": ""})


def local(words: str, text: str) -> dict[str, Any]:
    """Run a command line here as a connection would there."""
    done = subprocess.run(
        ["/bin/sh", "-c", words], input=text, capture_output=True, text=True, check=False, cwd="/", timeout=60
    )
    return {"rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def converge_given(root: Path) -> dict[str, Any]:
    """All options of converge, for a tree."""
    return {"documents": DOCUMENTS, "secrets": {}, "root": str(root), "apply_gated": []}


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_quick_search_finds_what_parsing_all_of_it_finds(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = sources_of(entry, ROOT)
    monkeypatch.setattr(sources, "_IMPORTS", SimpleNamespace(findall=lambda text: [text]))
    assert sources_of(entry, ROOT) == quick
    assert all(ast.parse(text) for text in quick.values())


def test_packages_relative_and_late_imports_are_found(tmp_path: Path) -> None:
    texts = {
        "__init__.py": "",
        "a/__init__.py": "from ..c import X as Y\n",
        "a/one.py": "import json\nfrom . import two, VALUE\n\n\ndef f():\n    from ..b.three import (\n Z,\n)\n",
        "a/two.py": "import rackserve.d\n",
        "a/unused.py": "",
        "b/__init__.py": "from rackserve import e\n",
        "b/three.py": '"""Text:\nfrom the start import nothing.\n"""\nZ = 1\n',
        "c.py": "X = 1\n",
        "d.py": "",
        "e.py": "",
    }
    for path, text in texts.items():
        (tmp_path / "rackserve" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rackserve" / path).write_text(text)
    found = sources_of("rackserve.a.one", tmp_path)
    assert set(found) == {f"rackserve/{path}" for path in texts if path != "a/unused.py"}
    with pytest.raises(FileNotFoundError, match=r"no module rackserve\.nothing below"):
        sources_of("rackserve.nothing", tmp_path)


def test_a_bare_python_answers_as_the_module_does_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/a").write_text("old\n")
    core = Core(ENTRIES[0])
    for diff in (True, False):
        told = core.ask(local, sys.executable, converge_given(tmp_path), check=True, diff=diff)
        assert told == json.loads(json.dumps(converge_core.answer(converge_given(tmp_path), check=True, diff=diff)))
        assert (told["dirty_roles"], len(told["diff"])) == (["vllm"], int(diff))
    assert (tmp_path / "etc/a").read_text() == "old\n"
    wrong = {**converge_given(tmp_path), "documents": [{"role": "vllm", "items": [{"id": "a", "kind": "fil"}]}]}
    told = core.ask(local, sys.executable, wrong, check=True, diff=False)
    assert told["failed"] is True
    assert "fil" in told["msg"]


def test_health_answers_too(tmp_path: Path) -> None:
    given = {"expect": {}, "level": "fast", "only": ["gpu-lost"], "skip": [], "state": "/none", "root": str(tmp_path)}
    told = Core(ENTRIES[1]).ask(local, sys.executable, given, check=False, diff=False)
    assert (told["changed"], [check["id"] for check in told["checks"]]) == (False, ["gpu-lost"])
    told = Core(ENTRIES[1]).ask(local, sys.executable, {**given, "only": ["gpu-lst"]}, check=False, diff=False)
    assert (told["failed"], "did you mean gpu-lost?" in told["msg"]) == (True, True)


@pytest.mark.parametrize(
    ("done", "why"),
    [
        ({"rc": 127, "stdout": "", "stderr": "sh: no python3\n"}, "exit status 127: sh: no python3"),
        ({"rc": 0, "stdout": "", "stderr": ""}, "exit status 0: nothing printed"),
        ({"rc": 1, "stdout": f"{MARK}{{}}\n", "stderr": "Traceback"}, "exit status 1: Traceback"),
        ({"rc": 0, "stdout": f"{MARK}{{", "stderr": ""}, "not JSON"),
        ({"rc": 0, "stdout": f"{MARK}[]", "stderr": ""}, "not a mapping"),
    ],
)
def test_what_is_no_answer_is_said(done: dict[str, Any], why: str) -> None:
    with pytest.raises(NoAnswer, match=why.replace("[", r"\[")):
        Core(ENTRIES[0]).ask(lambda _words, _text: done, "/usr/bin/python3", {}, check=True, diff=False)


class Plugin:
    """As much of an action plugin as ask_host uses."""

    def __init__(self, execute: Callable[[str, str], Mapping[str, Any]], pipelining: bool = True, job: int = 0) -> None:
        self._task = SimpleNamespace(async_val=job, check_mode=True, diff=False)
        self._connection = SimpleNamespace(is_pipelining_enabled=lambda: pipelining)
        self._play_context = SimpleNamespace(remote_addr="192.0.2.1")
        self._display = SimpleNamespace(vv=lambda text, host: self.told.append(f"{host}: {text}"))
        self._execute = execute
        self.told: list[str] = []

    def _compute_environment_string(self) -> str:
        return "LC_ALL=C"

    def _low_level_execute_command(self, words: str, in_data: bytes) -> Mapping[str, Any]:
        assert words.startswith("LC_ALL=C /usr/bin/python3 -I -c ")
        return self._execute(words, in_data.decode())


def test_an_answer_brings_no_secret_and_nothing_that_is_ansibles() -> None:
    told = {
        "msg": ["is canary-1, was canary-10"],
        "a": {"n": 3},
        "_ansible_no_log": 0,
        "ansible_facts": {"a": 1},
    }
    plugin = Plugin(lambda _words, _text: {"rc": 0, "stdout": f"Welcome\n{MARK}{json.dumps(told)}\n", "stderr": ""})
    found = ask_host(plugin, Core(ENTRIES[0]), "/usr/bin/python3", {}, hide)
    assert found == {"msg": ["is [secret], was [secret]"], "a": {"n": 3}}
    assert plugin.told == []


def test_ansible_brings_the_module_where_a_bare_python_cannot_answer() -> None:
    core = Core(ENTRIES[0])

    def never(_words: str, _text: str) -> Mapping[str, Any]:
        raise AssertionError("asked")

    assert ask_host(Plugin(never, pipelining=False), core, "/usr/bin/python3", {}) is None
    assert ask_host(Plugin(never, job=60), core, "/usr/bin/python3", {}) is None
    assert ask_host(Plugin(never), core, "auto_silent", {}) is None
    plugin = Plugin(lambda _words, _text: {"rc": 127, "stdout": "", "stderr": "not found"})
    assert ask_host(plugin, core, "/usr/bin/python3", {}) is None
    assert ask_host(plugin, core, "/usr/bin/python3", {}, lambda text: text.replace("found", "[secret]")) is None
    said = "192.0.2.1: brings the module: exit status 127: not "
    assert plugin.told == [f"{said}found", f"{said}[secret]"]


def test_ansible_compares_directly_and_applies_as_the_module(tmp_path: Path, ansible_here: Ansible) -> None:

    def ansible(options: dict[str, Any], *words: str) -> str:
        done = ansible_here("converge", options, *words)
        return done.stdout + done.stderr

    (tmp_path / "etc").mkdir()
    options = {"documents": DOCUMENTS, "root": str(tmp_path)}
    said = ansible(options, "--check", "--diff")
    assert " -I -c " in said
    assert "AnsiballZ" not in said
    assert "+new" in said
    assert not (tmp_path / "etc/a").exists()
    missing = ansible(options, "--check", "-e", "ansible_python_interpreter=/none/python3")
    assert "brings the module: exit status 127" in missing
    wrong = ansible({**options, "documets": []}, "--check")
    assert "Unsupported parameters" in wrong
    ansible(options)
    assert (tmp_path / "etc/a").read_text() == "new\n"
