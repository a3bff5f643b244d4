"""A backup of the lab: whole, without a secret, and its plan is the cluster's."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from conftest import Run


def test_a_backup_is_made_proven_and_holds_no_secret(
    playbook: Run, plan: dict[str, Any], secrets: dict[str, str], tmp_path: Path
) -> None:
    target = tmp_path / "lab.tar.gz"
    done = playbook("backup-configuration", "-e", f"backup_output={target}")
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(target) as archive:
        read = {one.name: archive.extractfile(one) for one in archive.getmembers()}
        texts = {name: stream.read() for name, stream in read.items() if stream}
    assert json.loads(texts["plan.json"])["hash"] == plan["hash"]
    assert {"site/hosts.yml", "site/group_vars/all/cluster.yml", "index.json"} <= set(texts)
    assert "hosts/gw/etc/rackserve/gateway/haproxy.cfg" in texts
    assert any(name.startswith("cache/golden/") for name in texts)
    assert [name for name, text in texts.items() if any(value.encode() in text for value in secrets.values())] == []
    proven = playbook("verify-backup", "-e", f"backup_input={target}")
    assert proven.returncode == 0 and plan["hash"] in proven.stdout, proven.stdout
    target.write_bytes(target.read_bytes()[:-200])
    assert playbook("verify-backup", "-e", f"backup_input={target}").returncode == 2
