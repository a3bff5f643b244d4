"""Which engines of a plan need a golden recording."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def golden_instances(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """[{card, instance}]: the first engine of each deployment, with the card of its model.

    The card is looked up among its host's models by path. Raises ValueError when the plan names no such model.
    """
    chosen: list[dict[str, Any]] = []
    seen: set[str] = set()
    for instance in plan.get("instances", []):
        if instance["deployment"] in seen:
            continue
        seen.add(instance["deployment"])
        models = plan["slices"][instance["host"]]["models"]
        cards = [model["name"] for model in models if model["path"] == instance["model_path"]]
        if not cards:
            served = f"{instance['name']} serves {instance['model_path']}"
            raise ValueError(f"{served}, which is no model of {instance['host']}")
        chosen.append({"card": cards[0], "instance": instance})
    return chosen


def golden_answers(plan: dict[str, Any], folder: Path, release: str = "") -> dict[str, Any]:
    """{deployment: recorded answers} from `folder`; a deployment nothing was recorded for is left out.

    Of the plan's release, or of another one, such as that which is left.
    """
    answers = {}
    for chosen in golden_instances(plan):
        name = f"{release or plan['release']['id']}--{chosen['card']}--{plan['hardware']['golden_class']}.json"
        path = folder / name
        if path.is_file():
            answers[chosen["instance"]["deployment"]] = json.loads(path.read_text())
    return answers
