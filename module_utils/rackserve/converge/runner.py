"""Running commands on the host converge was started on."""

from __future__ import annotations

import os
from pathlib import Path

from .host import Run


def run_command(words: list[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command in the C locale; 127 where the program is missing."""
    import subprocess  # noqa: PLC0415 - slow to import and not needed where no unit is looked at

    environment = {**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    try:
        done = subprocess.run(words, capture_output=True, check=False, env=environment, stdin=subprocess.DEVNULL)
    except OSError as problem:
        return 127, "", f"{words[0]}: {problem.strerror}"
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def host_runner(root: Path) -> Run | None:
    """The runner for `root`: None for a copied tree, since this host's systemd knows nothing of that tree."""
    return run_command if root == Path("/") else None
