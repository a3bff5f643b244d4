"""Golden answers: what a model said when it was known to be right, and how far an answer may be from that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .client import Answer

DEFAULT_PROMPT = "The capital of France is"
DEFAULT_TOLERANCE = 0.05


class GoldenError(ValueError):
    """The golden data cannot be used."""


@dataclass(frozen=True)
class Case:
    """One prompt with the expected text and log probabilities; empty expectations only ask for some answer."""

    prompt: str
    max_tokens: int = 8
    text: str | None = None
    token_logprobs: tuple[float, ...] = ()
    tolerance: float = DEFAULT_TOLERANCE


def read_cases(golden: dict[str, Any] | None) -> list[Case]:
    """Cases of {cases: [{prompt, max_tokens, text, token_logprobs, tolerance}]}; one open case when there is none.

    Raises GoldenError when a case lacks its prompt or holds another type.
    """
    cases = []
    for number, row in enumerate((golden or {}).get("cases") or []):
        try:
            cases.append(
                Case(
                    prompt=str(row["prompt"]),
                    max_tokens=int(row.get("max_tokens") or 8),
                    text=None if row.get("text") is None else str(row["text"]),
                    token_logprobs=tuple(float(value) for value in row.get("token_logprobs") or ()),
                    tolerance=float(row.get("tolerance", DEFAULT_TOLERANCE)),
                )
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GoldenError(f"golden case {number}: {type(error).__name__} {error}") from error
    return cases or [Case(DEFAULT_PROMPT)]


def differs(answer: Answer, case: Case) -> str:
    """Why the answer is not the golden one; "" when it is.

    Text must be equal; each log probability may differ by `tolerance` (natural logarithm).
    """
    if case.text is not None and answer.text != case.text:
        return f"said {answer.text!r}, golden {case.text!r}"
    if not case.token_logprobs:
        return ""
    if len(answer.token_logprobs) != len(case.token_logprobs):
        return f"{len(answer.token_logprobs)} log probabilities, golden {len(case.token_logprobs)}"
    for position, (seen, golden) in enumerate(zip(answer.token_logprobs, case.token_logprobs)):
        if not abs(seen - golden) <= case.tolerance:
            return f"log probability of token {position} is {seen:.4f}, golden {golden:.4f} +- {case.tolerance:g}"
    return ""
