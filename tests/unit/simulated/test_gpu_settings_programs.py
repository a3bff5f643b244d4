"""What runs the settings of GPUs: the program of hosts, the module, and the comparison with nvidia-smi."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gpu_settings as module
import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from driver_support import FIXTURE, REPO
from gpu_settings_support import SETTINGS, UNITS, Bench
from rackserve.gpu.settings.nvml import LIBRARY_NOT_FOUND
from rackserve.gpu.settings.program import main, running_units
from rackserve.gpu.settings.reading import Gpu
from rackserve.gpu.settings.session import SettingError


class TestProgram:
    """What runs at boot."""

    @pytest.fixture
    def config(self, tmp_path: Path) -> Path:
        path = tmp_path / "gpu-settings.json"
        gpus = [{"index": 0, "units": UNITS}]
        path.write_text(json.dumps({"settings": {"power_limit_w": 450}, "gpus": gpus, "simulated": True}))
        return path

    def go(self, bench: Bench, *words: str) -> int:
        running = lambda units: [unit for unit in units if unit in bench.running]  # noqa: E731 - one expression
        return main(words, lambda: bench.nvml, bench.root, running)

    def test_check_apply_and_restore(self, bench: Bench, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = "simulated GPU 0: power_limit_w 700 W, wanted 450 W\n"
        assert self.go(bench, "check", "--config", str(config)) == 1
        assert capsys.readouterr().out == f"would set: {line}"
        assert self.go(bench, "apply", "--config", str(config)) == 0
        assert capsys.readouterr().out == f"set: {line}"
        assert self.go(bench, "check", "--config", str(config)) == 0
        assert capsys.readouterr().out == "every simulated GPU is as wanted\n"
        assert self.go(bench, "restore", "--config", str(config)) == 0
        assert bench.gpu().power_limit_mw == 700000

    def test_what_serves_waits(self, bench: Bench, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        bench.running = UNITS
        for command, code in (("apply", 0), ("check", 1)):
            assert self.go(bench, command, "--config", str(config)) == code
            assert capsys.readouterr().out.startswith(
                "waits for vllm-x-0.service: simulated GPU 0: power_limit_w 700 W"
            )
        assert bench.gpu().power_limit_mw == 700000

    def test_what_is_not_supported_fails_the_unit(
        self, bench: Bench, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config.write_text(config.read_text().replace("450", "900"))
        assert self.go(bench, "apply", "--config", str(config)) == 1
        assert capsys.readouterr().out.startswith(
            "refused: simulated GPU 0 (NVIDIA H100 80GB HBM3): power_limit_w 900 W"
        )

    def test_units_that_run_are_asked_of_systemd(self) -> None:
        def run(words: Sequence[str]) -> tuple[int, str, str]:
            states = {
                "a.service": "active",
                "b.service": "inactive",
                "c.service": "deactivating",
                "d.service": "failed",
            }
            return 0, "\n\n".join(f"ActiveState={states[name]}" for name in words[4:]), ""

        names = ["a.service", "b.service", "c.service", "d.service"]
        assert running_units(names, run) == ["a.service", "c.service"]
        assert running_units([], run) == []
        with pytest.raises(SettingError, match=r"systemctl show a\.service failed \(1\): no bus, sorry"):
            running_units(["a.service"], lambda _words: (1, "", "no bus,\nsorry\n"))

    def test_errors_are_one_line(self, bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for text in ("", "{}", "[]", '{"settings": [], "gpus": []}', '{"settings": {}, "gpus": [{}]}'):
            path = tmp_path / "bad.json"
            path.write_text(text)
            assert self.go(bench, "check", "--config", str(path)) == 2
            assert capsys.readouterr().err.count("\n") == 1

    def test_the_copy_on_the_host_runs_alone(self, bench: Bench, config: Path, tmp_path: Path) -> None:
        """With just the files that the role copies, and no path of the repository."""
        variables = yaml.safe_load((REPO / "roles/gpu_settings/vars/main.yml").read_text())
        copy = tmp_path / "program"
        (copy / "settings").mkdir(parents=True)
        for name in variables["__gpu_settings_sources"]:
            shutil.copy(REPO / f"module_utils/rackserve/gpu/settings/{name}.py", copy / "settings")
        (copy / "__main__.py").write_text("import sys\n\nfrom settings.program import main\n\nsys.exit(main())\n")
        config.write_text(config.read_text().replace(json.dumps(UNITS), "[]"))
        done = bench.host.run(sys.executable, "-I", copy, "check", "--config", config)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout == "would set: simulated GPU 0: power_limit_w 700 W, wanted 450 W\n"


class TestModule:
    """library/gpu_settings.py."""

    @pytest.fixture
    def call(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> Callable[..., dict[str, Any]]:
        nvml = module.Nvml
        monkeypatch.setattr(module, "Nvml", lambda: nvml(str(bench.host.driver / "libnvidia-ml.so.1")))
        monkeypatch.setattr(module, "Path", lambda _root: bench.root)
        monkeypatch.setattr(module, "running_units", lambda units: [unit for unit in units if unit in bench.running])

        def run(code: int, **options: Any) -> dict[str, Any]:
            given = {"settings": SETTINGS, "gpus": [{"index": 0, "units": UNITS}], "simulated": True, **options}
            with patch_module_args(given), pytest.raises(SystemExit) as caught:
                module.main()
            output = capsys.readouterr().out
            assert caught.value.code == code, output
            answer: dict[str, Any] = json.loads(output)
            return answer

        return run

    def test_check_then_apply_then_nothing(self, bench: Bench, call: Callable[..., dict[str, Any]]) -> None:
        predicted = call(0, _ansible_check_mode=True, _ansible_diff=True)
        assert bench.record() == {}
        applied = call(0, _ansible_diff=True)
        assert (predicted["changed"], predicted["changes"]) == (applied["changed"], applied["changes"])
        assert applied["changes"][1] == "simulated GPU 0: power_limit_w 700 W, wanted 450 W"
        assert applied["diff"][1] == {
            "before_header": "simulated GPU 0, power_limit_w",
            "after_header": "simulated GPU 0, power_limit_w",
            "before": "700 W\n",
            "after": "450 W\n",
        }
        assert list(applied["supported"]) == ["0"]
        assert call(0)["changed"] is False

    def test_what_serves_waits_and_nothing_is_changed(self, bench: Bench, call: Callable[..., dict[str, Any]]) -> None:
        bench.running = UNITS
        answer = call(0)
        assert answer["changed"] is False
        assert answer["waiting"][1] == {
            "units": UNITS,
            "what": "simulated GPU 0: power_limit_w 700 W, wanted 450 W",
        }

    def test_refusals_fail_it(self, call: Callable[..., dict[str, Any]]) -> None:
        settings = {"power_limit_w": 900, "application_clocks": {"memory_mhz": 1215, "graphics_mhz": 1410}}
        msg = call(1, settings=settings)["msg"]
        assert msg.count("\n") == 0 and "power_limit_w 900 W is outside" in msg and "memory 1215 MHz is not" in msg
        assert "gpus must be a list" in call(1, gpus=[{"index": 0}])["msg"]

    def test_before_the_driver_is_there(
        self, call: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing() -> None:
            raise module.NvmlError(LIBRARY_NOT_FOUND, "libnvidia-ml.so.1 is not there")

        monkeypatch.setattr(module, "Nvml", missing)
        assert call(0, _ansible_check_mode=True)["changed"] is True
        assert call(1)["msg"] == "gpu_settings: libnvidia-ml.so.1 is not there"


class TestOnDevice:
    """The program that is run on real GPUs, on simulated ones."""

    SCRIPT = REPO / "tests/device/gpu_settings_on_device.py"

    def test_every_field_is_printed_and_the_wrong_pair_is_refused(self, bench: Bench) -> None:
        done = bench.host.run(sys.executable, self.SCRIPT, "--xml", FIXTURE / "nvidia-smi.xml")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{4 * len(Gpu.__dataclass_fields__)} fields of 4 GPUs, 0 differ\n" in done.stdout
        assert "refused: GPU 0,1,2,3 (NVIDIA H100 80GB HBM3): application_clocks memory 1215 MHz is not" in done.stdout
        assert "would set: GPU 3: locked_graphics_clocks not locked, wanted 345 to 1980 MHz" in done.stdout

    def test_a_field_that_differs_fails_it(self, bench: Bench) -> None:
        bench.host.set({"gpu.2.power.limit_mw": "650000"})
        done = bench.host.run(sys.executable, self.SCRIPT, "--xml", FIXTURE / "nvidia-smi.xml")
        assert done.returncode == 1
        assert "GPU 2 power_limit_mw: NVML 650000, nvidia-smi 700000 [differs]\n" in done.stdout
        assert bench.gpu(2).power_limit_mw == 650000
