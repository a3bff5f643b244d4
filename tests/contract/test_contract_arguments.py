"""Every argv of every sample is one that its release's vLLM takes, by the option lists that its own parser wrote.

The parser itself is asked by `make check-arguments`, where a vLLM is at hand.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from contract_support import REPO, SAMPLES, read_yaml

PLANS = {path.parent.name: json.loads(path.read_text("utf-8")) for path in REPO.glob("tests/golden/*/plan.json")}


def options_of(plan: dict[str, Any]) -> dict[str, list[str] | None]:
    release = read_yaml(REPO / f"files/releases/{plan['release']['id']}.yml")
    version = plan["release"]["vllm"].split()[-1]
    assert release["options"] == f"vllm-{version.rpartition('.')[0]}", "the list is another version's"
    found: dict[str, list[str] | None] = read_yaml(REPO / f"files/options/{release['options']}.yml")
    return found


def wrong(words: list[str], options: dict[str, list[str] | None]) -> list[str]:
    """Options that are not spelt out in full, and values that are none of their choices."""
    found, choices = [], None
    for word in words:
        if word.startswith("--"):
            name = word[2:].replace("-", "_")
            choices = options.get(name)
            found += [word] if name not in options else []
        elif choices and word not in choices:
            found.append(f"{word}: one of {choices}")
    return found


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_word_is_known_to_the_release(sample: str) -> None:
    plan = PLANS[sample]
    options = options_of(plan)
    assert plan["instances"]
    for one in plan["instances"]:
        words = one["argv"][one["argv"].index("serve") + 1 :]
        assert wrong(words, options) == [], one["name"]


def test_what_is_wrong_is_found() -> None:
    options: dict[str, list[str] | None] = {"dtype": ["auto"], "max_model_len": None}
    assert wrong(["m", "--dtype", "auto", "--max-model-len", "5"], options) == []
    assert wrong(["m", "--max-model", "5", "--dtype", "fp8"], options) == ["--max-model", "fp8: one of ['auto']"]


def test_the_check_says_when_there_is_no_vllm() -> None:
    command = [sys.executable, str(REPO / "tests/check_arguments.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "make check-arguments VLLM_PYTHON=" in done.stdout
