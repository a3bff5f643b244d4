"""Judge one engine on a new release against engines that still run the old one: what it says, and how fast."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from ..completion.client import Answer, Ask, CompletionError, Endpoint, complete
from ..completion.golden import Case, GoldenError, read_cases

Asker = Callable[[Endpoint, Ask], Answer]
SETS = 3


class Limits(NamedTuple):
    """`ratio`: how much slower it may be; differences of `slack_s` are noise. `rounds` of `max_tokens` each.

    Whoever looks too slow is asked as often again, `SETS` times in all: what else runs on a host can slow one set down.
    """

    ratio: float
    slack_s: float
    rounds: int
    max_tokens: int


class Speed(NamedTuple):
    """Medians: seconds for an answer, tokens a second."""

    latency_s: float
    tokens_per_s: float


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def speed(answers: Sequence[Answer]) -> Speed:
    """Medians over answers."""
    return Speed(
        median([answer.total_s for answer in answers]),
        median([answer.tokens / answer.total_s if answer.total_s > 0 else 0.0 for answer in answers]),
    )


def too_slow(candidate: Speed, peers: Speed, limits: Limits) -> str:
    """Why the candidate is too slow; "" when it is not."""
    if candidate.latency_s - peers.latency_s <= limits.slack_s:
        return ""
    if candidate.latency_s > limits.ratio * peers.latency_s:
        times = candidate.latency_s / peers.latency_s if peers.latency_s else float("inf")
        what = f"{candidate.latency_s:.2f} s an answer, the engines on the old release {peers.latency_s:.2f} s"
    elif peers.tokens_per_s > limits.ratio * candidate.tokens_per_s:
        times = peers.tokens_per_s / candidate.tokens_per_s if candidate.tokens_per_s else float("inf")
        what = f"{candidate.tokens_per_s:.1f} tokens/s, the engines on the old release {peers.tokens_per_s:.1f}"
    else:
        return ""
    return f"answers too slowly: {what} ({times:.1f} times, allowed {limits.ratio:g})"


def says_otherwise(case: Case, candidate: str, peers: Sequence[str]) -> str:
    """Why an answer is not what the old release says; "" where it is, or where its engines do not agree themselves."""
    if len(set(peers)) != 1 or candidate == peers[0]:
        return ""
    return f"answers wrongly: to {case.prompt!r} it says {candidate!r}, the engines on the old release {peers[0]!r}"


def judge(
    candidate: Endpoint,
    peers: Sequence[Endpoint],
    model: str,
    golden: dict[str, Any],
    limits: Limits,
    *,
    compare_answers: bool = True,
    ask: Asker = complete,
) -> dict[str, Any]:
    """Ask all of them in turn; {ok, why, candidate, peers, compared, rounds, silent}.

    Texts are compared for golden cases only: those were recorded where the choice between tokens was clear, so another
    release has to choose the same. A peer that does not answer is left out (`silent`); without one nothing is proven.
    """
    try:
        cases = [case for case in read_cases(golden) if case.text is not None] if compare_answers else []
    except GoldenError as error:
        return _verdict(str(error))
    known = {number: endpoint for number, endpoint in enumerate(peers)}
    silent: list[str] = []
    warm = Ask(model, "Count from one to ten:", "plain", limits.max_tokens)
    for number, endpoint in list(known.items()):
        try:
            ask(endpoint, warm)
        except CompletionError as error:
            del known[number]
            silent.append(f"{endpoint.base_url}: {error}")
    if not known:
        return _verdict(f"no engine on the old release answers to compare with: {'; '.join(silent)}", silent=silent)
    try:
        ask(candidate, warm)
        for case in cases:
            question = Ask(model, case.prompt, "plain", case.max_tokens)
            said = ask(candidate, question).text
            why = says_otherwise(case, said, [ask(endpoint, question).text for endpoint in known.values()])
            if why:
                return _verdict(why, silent=silent)
        for asked in range(1, SETS + 1):
            # Another prompt each time: none is answered from the cache of prefixes.
            prompts = [f"{asked}.{number}. {warm.prompt}" for number in range(limits.rounds)]
            questions = [dataclasses.replace(warm, prompt=prompt) for prompt in prompts]
            own, others = _measure(candidate, list(known.values()), questions, ask)
            why = too_slow(own, others, limits)
            if not why:
                break
    except CompletionError as error:
        return _verdict(f"stopped answering while it was compared: {error}", silent=silent)
    if why:
        why = f"{why}, in each of {SETS} sets of {limits.rounds}"
    return {**_verdict(why, own, others, silent), "compared": len(cases), "rounds": asked * limits.rounds}


def _measure(
    candidate: Endpoint, peers: Sequence[Endpoint], questions: Sequence[Ask], ask: Asker
) -> tuple[Speed, Speed]:
    """The candidate's speed, and the peers', over one set. Who is asked first changes from question to question."""
    mine: list[Answer] = []
    theirs: list[Answer] = []
    for number, question in enumerate(questions):
        if number % 2 == 0:
            mine.append(ask(candidate, question))
        theirs += [ask(endpoint, question) for endpoint in peers]
        if number % 2 == 1:
            mine.append(ask(candidate, question))
    return speed(mine), speed(theirs)


def _verdict(
    why: str, own: Speed | None = None, others: Speed | None = None, silent: Sequence[str] = ()
) -> dict[str, Any]:
    shown = [
        {name: round(value, 4) for name, value in found._asdict().items()} if found else {} for found in (own, others)
    ]
    return {
        "ok": not why,
        "why": why,
        "candidate": shown[0],
        "peers": shown[1],
        "compared": 0,
        "rounds": 0,
        "silent": list(silent),
    }
