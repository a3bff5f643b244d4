"""Ansible's default output, with the progress of long work, and at the end what took how long and who was left out."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.callback.default import CallbackModule as DefaultCallback
from ansible.template import Templar

MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if MODULE_UTILS not in sys.path:
    # Ansible makes module_utils importable for modules only, not for plugins on the controller.
    sys.path.insert(0, MODULE_UTILS)

from rackserve.preflight.findings import as_block, error_lines  # noqa: E402 - needs the path above
from rackserve.preflight.reach import LeftOut, codes, explain, transport_text  # noqa: E402 - needs the path above
from rackserve.progress.board import Board  # noqa: E402 - needs the path above
from rackserve.progress.reading import duration, read_progress  # noqa: E402 - needs the path above
from rackserve.progress.summary import Timeline  # noqa: E402 - needs the path above

DOCUMENTATION = r"""
name: rackserve
type: stdout
short_description: Ansible's default output with the progress of long work
description:
  - The default callback, but for four things. A task that repeats until C(progress.finished) of its result is true
    shows how far it is, its rate and the time left, in place of C(FAILED - RETRYING).
  - A host that could not be reached, or not be worked on, gets one more line with what is wrong and how to mend it.
  - A message of C(fail), C(assert) or one of our modules stands there once, without the place in our playbooks that it
    comes from; C(-v) shows that as well.
  - A run that went on without some hosts ends with their names.
  - A run that took longer than O(summary_after) ends with what took how long.
extends_documentation_fragment: [default_callback, result_format_callback]
options:
  summary_after:
    description: Seconds that a run must have taken for the summary; 0 always prints it, a negative number never.
    type: float
    default: 10
    ini: [{section: callback_rackserve, key: summary_after}]
    env: [{name: RACKSERVE_SUMMARY_AFTER}]
  progress_every:
    description: Seconds between two lines of one host.
    type: float
    default: 5
    ini: [{section: callback_rackserve, key: progress_every}]
    env: [{name: RACKSERVE_PROGRESS_EVERY}]
author: [rackserve]
"""


LIBRARY = Path(__file__).resolve().parents[1] / "library"
SAYS_ALL_IN_ITS_MESSAGE = {"ansible.builtin.fail", "ansible.builtin.assert"} | {
    path.stem for path in LIBRARY.glob("*.py")
}
CONNECTION = (
    "ansible_host",
    "ansible_port",
    "ansible_user",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
    "ansible_ssh_private_key_file",
    "ansible_python_interpreter",
)


class CallbackModule(DefaultCallback):
    """Everything that is not progress goes to the default callback as it comes."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "rackserve"

    def __init__(self) -> None:
        """Start the clock."""
        super().__init__()
        self._timeline = Timeline()
        self._boards: dict[str, Board] = {}
        self._left_out = LeftOut()
        self._variables: Any = None
        self._went_wrong = False

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Note the play."""
        super().v2_playbook_on_play_start(play)
        self._variables = play.get_variable_manager()
        self._timeline.play_started(play.get_name(), time.monotonic())

    def _note_task(self, task: Any) -> None:
        self._timeline.task_started(task._uuid, task.get_name(), time.monotonic())

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Note the task."""
        super().v2_playbook_on_task_start(task, is_conditional)
        self._note_task(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Note the handler."""
        super().v2_playbook_on_handler_task_start(task)
        self._note_task(task)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Note when the task begins on a host."""
        super().v2_runner_on_start(host, task)
        self._timeline.host_started(task._uuid, host.get_name(), time.monotonic())

    def v2_runner_retry(self, result: Any) -> None:
        """Show how far the work is, if it says so."""
        reading = read_progress(result.result)
        if reading is None:
            super().v2_runner_retry(result)
            return
        board = self._boards.setdefault(result.task._uuid, Board(self.get_option("progress_every")))
        line = board.update(result.host.get_name(), reading, time.monotonic())
        if line:
            # The default callback holds the task's banner back until a host has a result to show.
            if self._last_task_banner != result.task._uuid:
                self._print_task_banner(result.task)
            self._display.display(f"  {line}", color=constants.COLOR_DEBUG)

    def _host_ended(self, result: Any) -> None:
        steps_s = result.result.get("step_s")
        uuid, now = result.task._uuid, time.monotonic()
        self._timeline.host_ended(uuid, result.host.get_name(), now, steps_s if isinstance(steps_s, dict) else None)
        if uuid in self._boards:
            self._boards[uuid].finished(result.host.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        """Note the end."""
        super().v2_runner_on_ok(result)
        self._host_ended(result)

    def _handle_exception(self, result: Any, use_stderr: bool = False) -> None:
        task = self._current_task_result.task if self._current_task_result else None
        if task is not None and task.action in SAYS_ALL_IN_ITS_MESSAGE and result.get("msg") and not self._verbose():
            result.pop("exception", None)
        super()._handle_exception(result, use_stderr)

    def _dump_results(self, result: Any, *arguments: Any, **options: Any) -> str:
        """What went wrong stands there line by line as it was written: YAML would break long lines."""
        if self._went_wrong and "msg" in result and self.get_option("result_format") == "yaml":
            result = {**result, "msg": as_block(result["msg"])}
        return str(super()._dump_results(result, *arguments, **options))

    def _verbose(self) -> bool:
        return bool(self._display.verbosity)

    def _connection(self, host: Any) -> dict[str, Any]:
        """How the run reaches a host, as the inventory says it, filled in."""
        values = self._variables.get_vars(host=host) if self._variables else {}
        templar = Templar(loader=None, variables=values)
        return {name: templar.template(values[name]) for name in CONNECTION if name in values}

    def _explain(self, result: Any, reached: bool) -> None:
        """One more line for a host that could not be worked on; remember that the run goes on without it."""
        host, message = result.host, result.result.get("msg") or ""
        found = explain(transport_text(result.result, reached), host.get_name(), self._connection(host), reached)
        if found:
            self._display.display(error_lines([found])[0], color=constants.COLOR_ERROR)
        if not result.task.run_once and not result.task.any_errors_fatal:
            reason = found["code"] if found else codes(message) or result.task.get_name()
            self._left_out.note(host.get_name(), reason)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Note the end; say what keeps our modules from running there."""
        self._went_wrong = True
        super().v2_runner_on_failed(result, ignore_errors)
        self._went_wrong = False
        self._host_ended(result)
        if not ignore_errors:
            self._explain(result, reached=True)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """As for a task."""
        self._went_wrong = True
        super().v2_runner_item_on_failed(result)
        self._went_wrong = False

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Note the end; say what keeps us from it."""
        self._went_wrong = True
        super().v2_runner_on_unreachable(result)
        self._went_wrong = False
        self._host_ended(result)
        if not result.task.ignore_unreachable:
            self._explain(result, reached=False)

    @staticmethod
    def _stopped(stats: Any, host: str) -> bool:
        return bool(stats.failures.get(host) or stats.dark.get(host))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The recap, and after it who was left out, and where the time went."""
        super().v2_playbook_on_stats(stats)
        went_on = [host for host in stats.processed if host != "localhost" and not self._stopped(stats, host)]
        line = self._left_out.line(len(went_on))
        if line:
            self._display.display(f"{line}\n", color=constants.COLOR_ERROR)
        self._timeline.finish(time.monotonic())
        total_s, after_s = self._timeline.total_s(), self.get_option("summary_after")
        lines = self._timeline.lines()
        if after_s < 0 or total_s < after_s or not lines:
            return
        self._display.banner(f"WHERE THE TIME WENT: {duration(total_s)}")
        for line in lines:
            self._display.display(line)
        self._display.display("")
