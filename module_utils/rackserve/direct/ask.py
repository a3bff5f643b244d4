"""The controller's side: a core's order for a host, sent to a bare Python there, and its answer."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from .sources import sources_of
from .start import MARK

ROOT = Path(__file__).resolve().parents[2]
_START = Path(__file__).with_name("start.py")
# Isolated: no site of the user's and no variable of the environment changes what is imported.
_PROGRAM = "import json,sys;o=json.load(sys.stdin);exec(compile(o.pop('start'),'start.py','exec'));main(o)"
# What a result may not bring from a host, whoever answers there.
_NOT_A_HOSTS = ("_ansible", "ansible_facts")
# Takes a command line and what it reads from standard input; returns {rc, stdout, stderr}.
Execute = Callable[[str, str], Mapping[str, Any]]


class NoAnswer(Exception):
    """The host's Python gave none; the text says what it gave."""


class Core:
    """A core that a host can answer with; entry: a module with `answer(given, *, check, diff) -> dict`.

    Its sources are read once, where this is made: in Ansible's main process, before workers are forked.
    """

    def __init__(self, entry: str, root: Path = ROOT) -> None:
        sources = sources_of(entry, root)
        self._fixed = {"start": _START.read_text(encoding="utf-8"), "entry": entry, "sources": sources}

    def ask(
        self, execute: Execute, python: str, given: Mapping[str, Any], *, check: bool, diff: bool
    ) -> dict[str, Any]:
        """The core's answer on the host that `execute` reaches. Raises NoAnswer."""
        order = json.dumps({**self._fixed, "given": given, "check": check, "diff": diff})
        done = execute(f"{shlex.quote(python)} -I -c {shlex.quote(_PROGRAM)}", order)
        lines = [line for line in str(done["stdout"]).splitlines() if line.startswith(MARK)]
        if done["rc"] != 0 or not lines:
            raise NoAnswer(f"exit status {done['rc']}: {str(done['stderr']).strip() or 'nothing printed'}")
        try:
            answer = json.loads(lines[-1][len(MARK) :])
        except ValueError as problem:
            raise NoAnswer(f"not JSON: {problem}") from None
        if not isinstance(answer, dict):
            raise NoAnswer("not a mapping")
        return answer


def ask_host(
    plugin: Any, core: Core, python: Any, given: Mapping[str, Any], hide: Callable[[str], str] = str
) -> dict[str, Any] | None:
    """The core's answer on the host of an action plugin's task, or None where Ansible has to bring the module.

    That is so where the connection does not take standard input, where the path of Python is to be found first, and
    where Python there gave no answer: the module then says why, in Ansible's words. Only for what may run twice.
    hide: takes a text and returns it without secrets; every text of the answer goes through it. Errors of the
    connection are Ansible's, and raised.
    """
    task, connection = plugin._task, plugin._connection
    if task.async_val or not connection.is_pipelining_enabled() or not str(python).startswith("/"):
        return None
    environment = plugin._compute_environment_string()

    def execute(words: str, text: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = plugin._low_level_execute_command(
            f"{environment} {words}".strip(), in_data=text.encode()
        )
        return found

    try:
        answer = core.ask(execute, str(python), given, check=bool(task.check_mode), diff=bool(task.diff))
    except NoAnswer as problem:
        plugin._display.vv(hide(f"brings the module: {problem}"), host=plugin._play_context.remote_addr)
        return None
    return {key: _hidden(value, hide) for key, value in answer.items() if not key.startswith(_NOT_A_HOSTS)}


def _hidden(value: Any, hide: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _hidden(each, hide) for key, each in value.items()}
    if isinstance(value, list):
        return [_hidden(each, hide) for each in value]
    return hide(value) if isinstance(value, str) else value
