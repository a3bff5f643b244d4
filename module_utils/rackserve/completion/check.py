"""Prove engines by answers: several servers at once, several kinds, golden comparison, waiting until correct."""

from __future__ import annotations

import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

from .client import Answer, Ask, CompletionError, Endpoint, complete
from .golden import Case, differs, read_cases

SERVER_HEADER = "X-Rackserve-Server"
STOPPED = ("failed", "inactive")


@dataclasses.dataclass(frozen=True)
class Target:
    """One server to prove: "backend/slot" behind the gateway, or the `url` of an engine, or "" for whoever answers."""

    server: str
    model: str
    cases: tuple[Case, ...]
    kinds: tuple[str, ...]
    url: str = ""


def read_targets(servers: list[Any], model: str, golden: dict[str, Any] | None, kinds: list[str]) -> list[Target]:
    """Targets out of server names or {server, url, model, golden, kinds} rows; one unnamed target when there is none.

    Raises GoldenError.
    """
    targets = []
    for entry in servers or [""]:
        row: dict[str, Any] = {"server": entry} if isinstance(entry, str) else entry
        cases = read_cases(row["golden"] if row.get("golden") is not None else golden)
        targets.append(
            Target(
                str(row.get("server") or ""),
                str(row.get("model") or model),
                tuple(cases),
                tuple(row.get("kinds") or kinds),
                str(row.get("url") or ""),
            )
        )
    return targets


def _unproven(answer: Answer, target: Target) -> str:
    """Why an answer proves nothing about the server that was asked for; "" when it does."""
    if not answer.text and not answer.tokens:
        return "an empty answer"
    if not target.server:
        return ""
    if not answer.served_by:
        return "the gateway does not say who answered: the key is not the operator's"
    if target.server not in (answer.served_by, answer.served_by.partition("/")[2]):
        return f"answered by {answer.served_by}: the gateway has {target.server} out"
    return ""


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def check_kind(endpoint: Endpoint, target: Target, kind: str, attempts: int) -> dict[str, Any]:
    """Ask every case of a target in one way; return its row.

    The row: {server, kind, ok, text, ttft_s, itl_s, total_s, tokens, match, why, status}.

    `attempts` covers failed transport and refusals; a wrong answer is not asked for again. `match` is None where
    nothing golden was compared (chat, or no golden data); `status` is that of an HTTP refusal.
    """
    if target.server:
        slot = target.server.rpartition("/")[2]
        endpoint = dataclasses.replace(endpoint, headers={**endpoint.headers, SERVER_HEADER: slot})
    if target.url:
        endpoint = dataclasses.replace(endpoint, base_url=target.url)
    row: dict[str, Any] = {"server": target.server or target.url, "kind": kind, "ok": False, "text": "", "ttft_s": None}
    row.update({"itl_s": None, "total_s": None, "tokens": 0, "match": None, "why": "", "status": None})
    comparable = not kind.startswith("chat")
    for number, case in enumerate(target.cases):
        ask = Ask(target.model, case.prompt, kind, case.max_tokens, comparable and bool(case.token_logprobs))
        for attempt in range(1, attempts + 1):
            try:
                answer = complete(endpoint, ask)
                break
            except CompletionError as error:
                row["why"] = str(error)
                if attempt == attempts:
                    row["status"] = error.status
                    return row
        if number == 0:
            row.update(text=answer.text, ttft_s=answer.ttft_s, itl_s=_median(answer.gaps_s))
            row.update(total_s=answer.total_s, tokens=answer.tokens)
        row["why"] = _unproven(answer, target)
        if not row["why"] and comparable and (case.text is not None or case.token_logprobs):
            row["why"] = differs(answer, case)
            row["match"] = not row["why"]
        if row["why"]:
            return row
    row["ok"] = True
    return row


def check(endpoint: Endpoint, targets: list[Target], attempts: int = 1, parallel: int = 16) -> list[dict[str, Any]]:
    """Check all targets, servers at the same time, the kinds of one server one after the other; rows in their order."""

    def one(target: Target) -> list[dict[str, Any]]:
        return [check_kind(endpoint, target, kind, attempts) for kind in target.kinds]

    with ThreadPoolExecutor(max_workers=max(1, min(parallel, len(targets)))) as pool:
        return [row for rows in pool.map(one, targets) for row in rows]


def failure_line(rows: list[dict[str, Any]], where: str) -> str:
    """One line that names every server that is not proven; "" when all are."""
    bad = [f"{row['server'] or where} ({row['kind']}): {row['why']}" for row in rows if not row["ok"]]
    return f"{len(bad)} of {len(rows)} checks failed: " + "; ".join(bad) if bad else ""


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(path)


def too_late(limit_s: float) -> str:
    """What `wait_until` says when the time was over."""
    return f"not correct within {limit_s:g} s"


def wait_until(
    probe: Callable[[], list[dict[str, Any]]],
    limit_s: float,
    poll_s: float,
    hopeless: Callable[[list[dict[str, Any]]], str] = lambda _rows: "",
) -> tuple[list[dict[str, Any]], float, str]:
    """Repeat `probe` until every row is ok; return (rows, seconds waited, why it gave up or "").

    Gives up early when `hopeless` says of the rows why, or when an answer is wrong: neither heals by waiting.
    """
    started = time.monotonic()
    while True:
        rows = probe()
        waited_s = time.monotonic() - started
        if all(row["ok"] for row in rows):
            return rows, waited_s, ""
        if any(row["match"] is False for row in rows):
            return rows, waited_s, "a wrong answer"
        why = hopeless(rows)
        if why:
            return rows, waited_s, why
        if waited_s + poll_s > limit_s:
            return rows, waited_s, too_late(limit_s)
        time.sleep(poll_s)
