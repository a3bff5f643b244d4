"""Pages of the routines, as the host's own units write them under their restrictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run

Shell = Callable[[str, str], str]
NODE = "node2"


@pytest.mark.parametrize("routine", ["daily", "weekly", "monthly"])
def test_every_page_is_written_and_everything_could_be_read(shell: Shell, routine: str) -> None:
    shell(NODE, f"systemctl start rackserve-host-{routine}.service")
    text = shell(NODE, f"cat /var/lib/rackserve-health/reports/{routine}.md")
    assert f"{routine} check of" in text.splitlines()[0]
    assert "could not be read" not in text, text
    assert "| `gpu-count` | pass |" in text
    assert shell(NODE, f"systemctl is-active rackserve-host-{routine}.timer").strip() == "active"


def test_pages_of_all_hosts_come_to_the_controller(playbook: Run, tmp_path: Path) -> None:
    done = playbook(
        "show-routines", "-e", "routine=daily", "-e", "routine_now=true", "-e", f"routine_output={tmp_path}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}-daily.md" for name in ("gw", "node1", "node2", "node3", "node4")
    }
    refused = playbook("show-routines", "-e", "routine=yearly")
    assert refused.returncode == 2 and "give daily, weekly or monthly" in refused.stdout
