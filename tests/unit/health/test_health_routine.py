"""Daily, weekly, monthly: a page that says what was looked at, kept under its date, compared with the last one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from health_support import HealthHost
from rackserve.health.check import UNKNOWN
from rackserve.health.look import Look, Tools
from rackserve.health.program import main
from rackserve.health.routine import ROUTINES, Part, last_kept, page, parts, write_pages

DAY_S = 86400.0
REPO = Path(__file__).resolve().parents[3]


def call(host: HealthHost, tmp_path: Path, routine: str, tools: Tools | None = None) -> int:
    config = tmp_path / "expect.json"
    config.write_text(json.dumps(host.expect))
    words = ["--config", str(config), "--root", str(host.root), "--routine", routine, "--reports", str(tmp_path / "r")]
    return main(words, tools or host.tools())


@pytest.mark.parametrize("routine", sorted(ROUTINES))
def test_a_page_says_what_was_looked_at(host: HealthHost, tmp_path: Path, routine: str) -> None:
    host.inject("gpu-off-bus", gpu=3)
    assert call(host, tmp_path, routine) == 0, "a timer reports, whatever it finds"
    text = (tmp_path / f"r/{routine}.md").read_text()
    assert f"{routine} check of" in text.splitlines()[0] and text.splitlines()[0].endswith(": critical")
    assert "- critical `gpu-lost` on GPU 3:" in text and "Fix: drain the host" in text
    assert "| `gpu-count` |" in text and "| `disk-space` | pass |" in text
    assert "Looked at: " in text and "## Left to a person" in text
    assert all(line in text for line in ROUTINES[routine].by_hand)
    assert len(list((tmp_path / "r").glob(f"{routine}-20*.md"))) == 1


def test_a_healthy_host_has_a_page_too(host: HealthHost, tmp_path: Path) -> None:
    assert call(host, tmp_path, "daily") == 0
    text = (tmp_path / "r/daily.md").read_text()
    assert text.splitlines()[0].endswith(": pass")
    assert text.split("## Found")[1].split("##")[0].strip() == "Nothing."
    assert "GPU 7: " in text and "vllm-tiny-deepseek-0.service: active" in text


def test_errors_of_the_journal_are_counted_alike_but_for_numbers(host: HealthHost, tmp_path: Path) -> None:
    def journal(words: list[str]) -> tuple[int, str, str]:
        if "--since=7 days ago" in words:
            rows = [("vllm-m-0.service", f"ERROR 11-26 request {n} failed") for n in range(3)]
            rows += [("ssh.service", "fatal: x")]
            told = [json.dumps({"_SYSTEMD_UNIT": unit, "MESSAGE": said}) for unit, said in rows]
            return 0, "\n".join([*told, "not json", json.dumps({"MESSAGE": [1]})]), ""
        found: tuple[int, str, str] = tools.run(words) if tools.run else (1, "", "")
        return found

    tools = host.tools()
    assert call(host, tmp_path, "weekly", tools._replace(run=journal)) == 0
    text = (tmp_path / "r/weekly.md").read_text()
    assert "- 3 times vllm-m-0.service: ERROR #-# request # failed" in text
    assert "- 1 times ssh.service: fatal: x" in text


def test_a_look_that_cannot_be_taken_says_why(host: HealthHost) -> None:
    look = Look(host.root, host.expect, host.tools()._replace(run=None))
    found = {part.title: part for part in parts(look, ROUTINES["weekly"], {})}
    assert found["journal"].source == "could not be read"
    assert found["journal"].lines == ["the journal is not part of a copied tree"]


def test_what_grew_since_the_last_page_is_told(host: HealthHost, tmp_path: Path) -> None:
    look = Look(host.root, host.expect, host.tools())
    first = parts(look, ROUTINES["monthly"], {})
    kept = next(part.kept for part in first if part.title == "disks")
    assert kept
    place = next(iter(kept))
    write_pages(tmp_path, "monthly", "x", [Part("disks", "", [], {place: kept[place] - 2 * 2**30})], 0.0)
    again = parts(look, ROUTINES["monthly"], last_kept(tmp_path, "monthly"))
    assert any("+2.0 GiB since the last time" in line for part in again for line in part.lines)
    (tmp_path / "monthly.json").write_text("{")
    assert last_kept(tmp_path, "monthly") == {}


def test_the_oldest_pages_go(tmp_path: Path) -> None:
    for day in range(40):
        write_pages(tmp_path, "daily", f"{day}\n", [], day * DAY_S)
    kept = sorted(path.name for path in tmp_path.glob("daily-*.md"))
    assert len(kept) == 31 and kept[-1] == "daily-1970-02-09.md"
    assert (tmp_path / "daily.md").read_text() == "39\n"


def test_what_could_not_be_read_stands_on_the_page() -> None:
    unknown = [{"id": "gpu-xid", "why": "journalctl: no", "caused_by": ""}]
    result = {"status": UNKNOWN, "findings": [], "unknown": unknown, "checks": []}
    assert "- could not read `gpu-xid`: journalctl: no" in page("daily", result, [], "n", 0.0)


def test_a_folder_that_cannot_be_written_is_told(
    host: HealthHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r").write_text("a file")
    assert call(host, tmp_path, "daily") == 4
    assert "cannot write" in capsys.readouterr().err


def test_the_documentation_has_every_routine_and_look() -> None:
    text = (REPO / "docs/routines.md").read_text("utf-8")
    for name, routine in ROUTINES.items():
        assert f"`{name}`" in text
        for take in routine.looks:
            assert take.__name__.strip("_").replace("_", " ") in text, take.__name__
