"""`fab gpus`: every GPU of every host, who uses it, and what the driver complained about."""

from __future__ import annotations

from collections.abc import Mapping

from .script import sections
from .sweep import Answer

_HEAD = ["host", "GPU", "name", "busy %", "MiB used", "MiB", "C", "W", "MHz", "ECC"]


def table(answers: Mapping[str, Answer]) -> tuple[list[str], bool]:
    """The lines, and whether every host could be asked."""
    rows, below, fine = [_HEAD], [], True
    for name, answer in answers.items():
        parts = sections(answer.text)
        if answer.problem or "end" not in parts:
            below.append(f"{name}: {answer.problem or 'the answer breaks off'}")
            fine = False
            continue
        *cards, code = parts.get("cards") or ["exit 127"]
        if code != "exit 0":
            said = " ".join(cards).strip() or "nvidia-smi is not there"
            below.append(f"{name}: {said} ({code})" if code != "exit 124" else f"{name}: nvidia-smi hangs: drain it")
            fine = fine and code == "exit 127"
        rows += [[name, *cells] for cells in map(_cells, cards) if len(cells) == len(_HEAD) - 1]
        below += [
            f"{name}: {' '.join(_cells(line)[1:3])} uses {_cells(line)[-1]} MiB" for line in parts.get("users", [])
        ]
        below += [f"{name}: {line}" for line in parts.get("xids", [])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return lines + (["", *below] if below else []), fine


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")]
