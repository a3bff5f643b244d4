"""The acceptance result as aligned lines."""

from __future__ import annotations

from typing import Any

HEADER = ("server", "instance", "kind", "result", "golden", "first token", "total", "tokens")


def _ms(seconds: Any) -> str:
    return "-" if seconds is None else f"{float(seconds) * 1000:.0f} ms"


def acceptance_table(rows: list[dict[str, Any]], instances: dict[str, str] | None = None) -> list[str]:
    """Rows of `completion_check` as aligned lines, then what failed, then the text of one streamed completion.

    `instances` is {"backend/slot": name}. Times are shown in milliseconds.
    """
    golden = {True: "match", False: "DIFFERS", None: "-"}
    cells = [HEADER]
    for row in rows:
        cells.append(
            (
                row["server"] or "(any)",
                (instances or {}).get(row["server"], "-"),
                row["kind"],
                "ok" if row["ok"] else "FAILED",
                golden[row["match"]],
                _ms(row["ttft_s"]),
                _ms(row["total_s"]),
                str(row["tokens"]),
            )
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
    lines += [f"{row['server'] or '(any)'} {row['kind']}: {row['why']}" for row in rows if not row["ok"]]
    streamed = next((row for row in rows if row["ok"] and row["kind"] == "stream"), None)
    if streamed:
        lines.append(f"streamed by {streamed['server'] or 'the gateway'}: {streamed['text']!r}")
    return lines
