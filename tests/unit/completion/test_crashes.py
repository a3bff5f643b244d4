"""Waiting for a start ends early where the engine ended by itself, if the caller asks for that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from rackserve.completion import prove as module
from rackserve.completion.prove import ARGUMENTS, prove

UNIT = "vllm-tiny-0.service"


def given(**options: Any) -> dict[str, Any]:
    defaults = {name: option.get("default") for name, option in ARGUMENTS.items()}
    return {**defaults, "base_url": "http://127.0.0.1:9", "units": [UNIT], "poll_s": 0.01, **options}


def systemd(restarts: str) -> Any:
    def output(command: Sequence[str]) -> str:
        return "activating\n" if command[1] == "is-active" else restarts

    return output


def test_one_that_ended_by_itself_is_not_waited_for() -> None:
    result = prove(given(wait_s=60, crashes=1), systemd("1\n"))
    assert result["failed"]
    assert f"({UNIT}: ended by itself 1 times since it was started)" in result["msg"]


def test_without_asking_or_below_the_limit_it_is() -> None:
    for options, restarts in (({"crashes": 0}, "7\n"), ({"crashes": 2}, "1\n"), ({"crashes": 1}, "")):
        assert "not correct within 0.05 s" in prove(given(wait_s=0.05, **options), systemd(restarts))["msg"]


def test_one_that_answers_with_errors_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {"server": "e0", "kind": "plain", "ok": False, "match": None, "why": "HTTP 500: x", "status": 500}
    monkeypatch.setattr(module, "check", lambda *_: [refused])
    monkeypatch.setattr(module, "refuses", lambda rows, _now: f"{rows[0]['server']} has answered with errors")
    assert prove(given(wait_s=60), systemd(""))["msg"].endswith("HTTP 500: x (e0 has answered with errors)")
    assert "not correct within" in prove(given(wait_s=0.02, units=[]), systemd(""))["msg"]
