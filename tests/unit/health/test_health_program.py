"""The program: by hand, as the timer runs it, and as the role brings it to a host."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import host_health
import pytest
import rackserve_health
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from health_support import HealthHost
from rackserve.health import host_tools
from rackserve.health.gpus import Gpu
from rackserve.health.host_tools import apart, kernel_clock, run_command, volume_of
from rackserve.health.look import Driver
from rackserve.health.program import main

REPO = Path(__file__).resolve().parents[3]
ROLE = REPO / "roles/host_health"


def call(host: HealthHost, tmp_path: Path, *words: str) -> int:
    config = tmp_path / "expect.json"
    config.write_text(json.dumps(host.expect))
    return main(["--config", str(config), "--root", str(host.root), *words], host.tools())


def test_by_hand_a_healthy_host_is_one_line(
    host: HealthHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(host, tmp_path) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1 and ": pass (" in told[0]
    assert call(host, tmp_path, "--costs", "--only", "gpu-lost") == 0
    assert "wall ms" in capsys.readouterr().out


def test_by_hand_a_fault_has_its_fix_and_an_exit_status(
    host: HealthHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.inject("gpu-off-bus", gpu=3)
    assert call(host, tmp_path) == 2
    told = capsys.readouterr().out.splitlines()
    assert re.search(r"critical\s+gpu-lost\s+GPU 3", told[1])
    assert "Fix: drain the host, power it off and on" in told[2]
    assert "(because of gpu-lost)" in told[3]
    host.mend()
    host.inject("power-limit-low")
    assert call(host, tmp_path, "--json") == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["id"] == "gpu-power-limit"


def test_the_timer_writes_metrics_and_state_and_ends_with_0(
    host: HealthHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, metrics = tmp_path / "state.json", tmp_path / "health.prom"
    words = ["--timer", "--state", str(state), "--keep", str(state), "--textfile", str(metrics)]
    host.inject("gpu-off-bus", gpu=3)
    assert call(host, tmp_path, *words) == 0
    text = metrics.read_text()
    assert 'rackserve_health_check{check="gpu-lost",status="fail"} 1\n' in text
    assert 'rackserve_health_finding{check="gpu-lost",severity="critical",subject="GPU 3",caused_by=""} 1\n' in text
    assert "rackserve_health_exit_code 2\n" in text
    line = re.compile(r'# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{([a-z_]+="[^"]*",?)+\})? [\d.]+')
    assert [row for row in text.splitlines() if not line.fullmatch(row)] == []
    assert json.loads(state.read_text())["counters"]
    assert metrics.stat().st_mode & 0o777 == 0o644
    capsys.readouterr()
    assert call(host, tmp_path, "--textfile", str(tmp_path / "none/x")) == 4
    assert "cannot write" in capsys.readouterr().err


def test_a_wrong_call_is_one_line(host: HealthHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(host, tmp_path, "--only", "gpu-lots") == 4
    assert "did you mean gpu-lost?" in capsys.readouterr().err
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert main(["--config", str(broken), "--root", str(host.root)], host.tools()) == 4


def test_health_writes_nothing(host: HealthHost) -> None:
    before = host.tree()
    host.check()
    assert host.tree() == before


def shipped(folder: Path) -> Path:
    """The program as the role's document puts it on a host."""
    constants = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    files = [f"health/{name}.py" for name in constants["__host_health_own"]] + constants["__host_health_shared"]
    for place in constants["__host_health_packages"]:
        (folder / f"rackserve{place}").mkdir(parents=True, exist_ok=True)
        (folder / f"rackserve{place}/__init__.py").write_text("# Part of rackserve's host-health.\n")
    for name in files:
        (folder / "rackserve" / name).write_text((REPO / "module_utils/rackserve" / name).read_text("utf-8"))
    (folder / "__main__.py").write_text("import sys\n\nfrom rackserve.health.program import main\n\nsys.exit(main())\n")
    return folder


def test_what_the_role_brings_runs_without_the_rest(host: HealthHost, tmp_path: Path) -> None:
    config = tmp_path / "expect.json"
    config.write_text(json.dumps(host.expect))
    words = [sys.executable, "-I", str(shipped(tmp_path / "program")), "--json", "--config", str(config)]
    environment = {
        **os.environ, "RACKSERVE_SIMULATED_ROOT": str(host.root), "LD_LIBRARY_PATH": str(host.driver_folder),
    }  # fmt: skip
    done = subprocess.run(
        [*words, "--root", str(host.root)], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    result = json.loads(done.stdout)
    assert done.stderr == ""
    states = {check["id"]: check["status"] for check in result["checks"]}
    assert states["gpu-lost"] == states["nvlink-inactive"] == states["rdma-rate"] == "pass"
    assert states["services"] == "unknown"


def test_the_module_judges_a_tree_and_names_a_wrong_check(
    host: HealthHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = str(host.driver_folder / "libnvidia-ml.so.1")
    monkeypatch.setattr(host_tools, "ask_driver", lambda _library: host_tools_asked(library))

    def run(**options: Any) -> dict[str, Any]:
        with patch_module_args({"root": str(host.root), "expect": host.expect, **options}), pytest.raises(SystemExit):
            host_health.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    host.inject("hca-slow")
    found = run(only=["rdma-rate", "gpu-lost"])
    assert (found["changed"], found["exit_code"], found["findings"][0]["id"]) == (False, 2, "rdma-rate")
    assert "kept" not in found
    told = rackserve_health.health_results({"n1": {"rackserve_health": found}, "n2": {}})
    assert list(told) == ["n1"]
    assert "rdma-rate" in "\n".join(rackserve_health.health_lines(told))
    assert rackserve_health.health_refusal(told, "critical").startswith("not healthy: n1: critical")
    assert "did you mean rdma-rate?" in run(only=["rdma-rat"])["msg"]
    assert issubclass(AnsibleModule, object)


host_tools_asked = host_tools.ask_driver


def test_a_driver_that_hangs_or_dies_is_given_up() -> None:
    def hang() -> Driver:
        run_command(["sleep", "30"])
        raise AssertionError

    assert "did not answer within 0.2 s" in apart(hang, 0.2).problem
    assert "ended the process" in apart(lambda: os._exit(1)).problem  # type: ignore[arg-type, func-returns-value]
    gpu = Gpu(0, {"name": "x"}, {"ecc": "y"})
    assert apart(lambda: Driver("1.0", [gpu])).gpus[0].plain() == gpu.plain()


def test_ways_to_the_host(tmp_path: Path) -> None:
    assert run_command(["sh", "-c", "echo out; echo err >&2; exit 3"]) == (3, "out\n", "err\n")
    assert run_command([str(tmp_path / "none")])[0] == 127
    assert run_command(["sleep", "5"], 0.1)[0] == 124
    assert volume_of(tmp_path).size > 0
    assert kernel_clock().offset_s >= 0


def test_the_timers_unit_has_hardly_a_privilege() -> None:
    for name in ("lab/node1", "lab/gw"):
        unit = REPO / f"tests/golden/{name}/etc/systemd/system/rackserve-host-health.service"
        code, out, err = run_command(["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)])
        verdict = re.search(r"Overall exposure level for .*: ([\d.]+) ", out)
        assert code == 0 and verdict, err
        assert float(verdict[1]) <= 2.0, out
