"""What an operator gives with -e name=value is text: it has to work as the number or the switch it stands for."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from contract_support import REPO, read_yaml, walk_tasks

WARM = [task.data for task in walk_tasks(read_yaml(REPO / "roles/vllm/tasks/warm.yml"), "warm.yml")]


def value(text: str, **known: Any) -> Any:
    return Templar(loader=DataLoader(), variables=known).template(trust_as_template(text))


def test_the_limit_of_the_warm_up_may_be_text() -> None:
    limits = {"vllm_warm_limit_s": "600", "vllm_warm_answer_s": "120.5", "__vllm_warm_progress_s": 5}
    assert value(WARM[0]["retries"], **limits) == 169


@pytest.mark.parametrize(("given", "asked"), [("false", False), ("true", True), (False, False)])
def test_the_warm_up_may_be_switched_off_by_text(given: Any, asked: bool) -> None:
    for task in WARM:
        assert value(f"{{{{ {task['when']} }}}}", vllm_warm=given, __vllm_awaited=[{}]) is asked
