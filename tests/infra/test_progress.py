"""A real copy to a lab host says how far it is, with rate and time left, and the run ends with what took how long."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import REPO, ansible

MIB = 1 << 20
NAME = "progress-test"
HOST = "node1"


@pytest.fixture
def site(tmp_path: Path, shell: Callable[[str, str], str]) -> Iterator[Path]:
    """A playbook that brings a model of one large file (of zeros, a hole on the controller) to one host."""
    files = tmp_path / "models" / NAME
    files.mkdir(parents=True)
    with (files / "weights.bin").open("wb") as weights:
        weights.truncate(600 * MIB)
    digest = hashlib.sha256()
    for _ in range(600):
        digest.update(bytes(MIB))
    entry = {"size": 600 * MIB, "sha256": digest.hexdigest()}
    (files / "manifest.json").write_text(json.dumps({"version": 1, "files": {"weights.bin": entry}}))
    model = {"name": NAME, "path": f"/srv/models/{NAME}", "source": {"kind": "controller", "path": str(files)}}
    variables = {"model_store_models": [model], "model_store_cache_dir": str(tmp_path / "models")}
    task = {
        "name": "Bring it",
        "ansible.builtin.import_role": {"name": "model_store"},
        "vars": {**variables, "model_store_progress_s": 0.5},
    }
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "roles").symlink_to(REPO / "roles")
    play = {"hosts": HOST, "gather_facts": False, "tasks": [task]}
    (tmp_path / "playbooks/bring.yml").write_text(yaml.safe_dump([play]))
    yield tmp_path
    shell(HOST, f"rm -rf /srv/models/{NAME}")


def test_a_copy_shows_rate_and_time_left(site: Path) -> None:
    def bring() -> subprocess.CompletedProcess[str]:
        environment = {"RACKSERVE_PROGRESS_EVERY": "0", "RACKSERVE_SUMMARY_AFTER": "0"}
        return ansible("ansible-playbook", str(site / "playbooks/bring.yml"), **environment)

    done = bring()
    assert done.returncode == 0, done.stdout + done.stderr
    copied = done.stdout.partition("Send from the controller what is missing")[2].partition("TASK [")[0]
    lines = re.findall(
        rf"^  {HOST}: sending (\d+) MiB of 600 MiB \((\d+) %\), [\d.]+ MiB/s, .+ left$", copied, re.MULTILINE
    )
    assert lines, done.stdout
    sent = [int(amount) for amount, _percent in lines]
    assert sent == sorted(sent) and 0 < sent[-1] < 600
    summary = done.stdout.partition("WHERE THE TIME WENT: ")[2]
    assert re.search(rf"model_store : Copy \| Send .* \[{HOST}\]\n +{HOST}: sending [\d.]+ s$", summary, re.MULTILINE)

    again = bring()
    assert again.returncode == 0 and "changed=0" in again.stdout, again.stdout
    assert "Send from the controller" not in again.stdout, "what is there is not copied again"
