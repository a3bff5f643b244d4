"""Warm an engine up before it gets work: all lengths and concurrencies once, so that no client waits for a compiler.

Prompts are token ids, each different from the first on: a prefix that is cached warms nothing.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, NamedTuple

from ..progress.report import Report
from .client import Ask, CompletionError, Endpoint, complete

SHORT = 16
# Ids that every tokenizer has, past its first special ones.
_FIRST_ID, _IDS = 10, 89
_GROWTH = 4
_KEY = "VLLM_API_KEY="

Answer = Callable[[Endpoint, Ask], Any]


class WarmError(Exception):
    """An engine does not take its warm-up; one line: which, at what, why, how to fix."""


class Round(NamedTuple):
    """``concurrency`` requests at once, with prompts of ``length`` tokens each."""

    length: int
    concurrency: int


@dataclasses.dataclass(frozen=True)
class Engine:
    """What is warmed up; ``key_file`` holds VLLM_API_KEY=..., and is empty for an engine without one."""

    name: str
    url: str
    model: str
    max_model_len: int
    max_num_seqs: int
    key_file: str = ""


def rounds_of(
    engine: Engine, tokens: int, lengths: Sequence[int] = (), concurrencies: Sequence[int] = (), most: int = 512
) -> list[Round]:
    """Lengths one at a time, shortest first, to the longest prompt there may be; then short ones, 2, 4, 8 … at once.

    Given ``lengths`` and ``concurrencies`` take the place of those. Raises WarmError for what the engine cannot take.
    """
    longest = engine.max_model_len - tokens
    if longest < 1:
        raise WarmError(
            f"{engine.name}: {tokens} tokens of answer leave no room in max_model_len {engine.max_model_len}"
        )
    wrong = [one for one in lengths if not 1 <= one <= longest]
    if wrong:
        raise WarmError(
            f"{engine.name}: a prompt of {wrong[0]} tokens is outside 1-{longest}: correct vllm_warm_lengths"
        )
    top = min(engine.max_num_seqs, most)
    wrong = [one for one in concurrencies if not 1 <= one <= engine.max_num_seqs]
    if wrong:
        raise WarmError(
            f"{engine.name}: {wrong[0]} requests at once are outside 1-{engine.max_num_seqs}: "
            "correct vllm_warm_concurrencies"
        )
    short = min(SHORT, longest)
    steps = sorted(set(lengths)) or [*_powers(short, longest, _GROWTH), longest]
    together = sorted(set(concurrencies)) or [*_powers(2, top, 2), *([top] if top > 1 else [])]
    found = [Round(length, 1) for length in steps] + [Round(short, count) for count in together]
    return list(dict.fromkeys(found))


def _powers(first: int, below: int, factor: int) -> list[int]:
    found, value = [], first
    while value < below:
        found.append(value)
        value *= factor
    return found


def prompt_of(length: int, number: int) -> list[int]:
    """``length`` token ids; another ``number`` gives others, from the first one on."""
    first = [number % _IDS, number // _IDS % _IDS]
    return [_FIRST_ID + (first[place] if place < len(first) else place * 7 % _IDS) for place in range(length)]


def read_key(path: str) -> str:
    """The key in a file of environment lines; "" for no file. Raises WarmError where it has none."""
    if not path:
        return ""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as problem:
        raise WarmError(f"{path} cannot be read ({problem.strerror}): run playbooks/site.yml") from problem
    keys = [line[len(_KEY) :] for line in lines if line.startswith(_KEY)]
    if not keys:
        raise WarmError(f"{path} has no line {_KEY}: run playbooks/site.yml")
    return keys[-1]


class Warming(NamedTuple):
    """How: seconds for all of it and for one answer, tokens of an answer, and what `rounds_of` takes."""

    limit_s: float
    timeout_s: float
    tokens: int
    lengths: tuple[int, ...] = ()
    concurrencies: tuple[int, ...] = ()
    most: int = 512


def warm_engine(
    engine: Engine,
    warming: Warming,
    done: Callable[[int], None],
    *,
    answer: Answer = complete,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Ask every round; {engine, rows: [{length, concurrency, slowest_s}], left: [[length, concurrency]], seconds}.

    ``left`` are rounds that the time did not reach. Raises WarmError with the first request that failed.
    """
    started, number = clock(), 0
    endpoint = Endpoint(engine.url, api_key=read_key(engine.key_file), timeout_s=warming.timeout_s)
    rounds = rounds_of(engine, warming.tokens, warming.lengths, warming.concurrencies, warming.most)
    rows: list[dict[str, Any]] = []
    extra = {"ignore_eos": True, "min_tokens": warming.tokens}
    for place, (length, concurrency) in enumerate(rounds):
        if clock() - started >= warming.limit_s:
            left = [list(one) for one in rounds[place:]]
            return {"engine": engine.name, "rows": rows, "left": left, "seconds": round(clock() - started, 2)}
        asks = [
            Ask(engine.model, prompt_of(length, number + one), max_tokens=warming.tokens, extra=extra)
            for one in range(concurrency)
        ]
        number += concurrency
        begun = clock()
        try:
            with ThreadPoolExecutor(max_workers=concurrency) as pool:
                list(pool.map(lambda ask: answer(endpoint, ask), asks))
        except CompletionError as problem:
            raise WarmError(
                f"{engine.name} does not take its warm-up: {concurrency} at once with {length} tokens each: {problem}"
            ) from problem
        rows.append({"length": length, "concurrency": concurrency, "slowest_s": round(clock() - begun, 3)})
        done(concurrency)
    return {"engine": engine.name, "rows": rows, "left": [], "seconds": round(clock() - started, 2)}


def warm_work(payload: dict[str, Any], report: Report) -> dict[str, Any]:
    """Warm all ``engines`` of a host at the same time; {engines: [what `warm_engine` says]}. Raises WarmError."""
    warming = Warming(
        **{name: payload[name] for name in ("limit_s", "timeout_s", "tokens", "most")},
        lengths=tuple(payload["lengths"]),
        concurrencies=tuple(payload["concurrencies"]),
    )
    engines = [Engine(**one) for one in payload["engines"]]
    planned = [rounds_of(one, warming.tokens, warming.lengths, warming.concurrencies, warming.most) for one in engines]
    report.phase("warming up", sum(step.concurrency for steps in planned for step in steps), "requests")
    with ThreadPoolExecutor(max_workers=max(1, len(engines))) as pool:
        said = list(pool.map(lambda engine: warm_engine(engine, warming, report.add), engines))
    return {"engines": said}


def words_of(said: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line an engine: how long, the slowest round, and what was left out."""
    lines = []
    for one in said:
        line = f"{one['engine']}: {len(one['rows'])} rounds in {one['seconds']:g} s"
        if one["rows"]:
            worst = max(one["rows"], key=lambda row: row["slowest_s"])
            line += f", slowest {worst['slowest_s']:g} s ({worst['concurrency']} x {worst['length']} tokens)"
        if one["left"]:
            left = ", ".join(f"{concurrency} x {length}" for length, concurrency in one["left"])
            line += f"; out of time, not warmed: {left} tokens (vllm_warm_limit_s)"
        lines.append(line)
    return lines


def engines_of(instances: Sequence[Mapping[str, Any]], config_dir: str, usual_seqs: int = 256) -> list[dict[str, Any]]:
    """Engines out of the plan's instances that answer; ``config_dir`` has their keys.

    ``usual_seqs``: where no option says it.
    """
    found = []
    for one in instances:
        argv = [str(word) for word in one["argv"]]
        seqs = argv[argv.index("--max-num-seqs") + 1] if "--max-num-seqs" in argv else usual_seqs
        host = f"[{one['address']}]" if ":" in str(one["address"]) else one["address"]
        found.append({
            "name": one["name"],
            "url": f"http://{host}:{one['port']}",
            "model": one["served_model_name"],
            "max_model_len": int(one["max_model_len"]),
            "max_num_seqs": int(seqs),
            "key_file": f"{config_dir}/{one['name']}.secret.env",
        })  # fmt: skip
    return found
