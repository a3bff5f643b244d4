"""The modules through Ansible's own argument handling, against the real gateway."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from gateway_lab import ENGINE_KEY, KEYS, REPO, Engine, Gateway
from rackserve_gateway import FilterModule


def call(name: str, capsys: pytest.CaptureFixture[str], check: bool = False, **options: Any) -> dict[str, Any]:
    module = importlib.import_module(name)
    # The filters import ansible.errors, after which warnings would go to the controller's display.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ansible.module_utils._internal.is_controller", False)
        return answer_of(module, capsys, {**options, "_ansible_check_mode": check})


def answer_of(module: Any, capsys: pytest.CaptureFixture[str], arguments: dict[str, Any]) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


@pytest.mark.parametrize("name", ["gateway_servers", "completion_check", "lease"])
def test_documented_options_are_the_accepted_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name)
    seen: dict[str, Any] = {}

    class Caught(Exception):
        pass

    def catch(**arguments: Any) -> None:
        seen.update(arguments)
        raise Caught

    monkeypatch.setattr(module, "AnsibleModule", catch)
    with pytest.raises(Caught):
        module.main()
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert set(documented) == set(seen["argument_spec"]) and seen["supports_check_mode"] is True
    for option, spec in seen["argument_spec"].items():
        for field in ("type", "default", "required", "choices"):
            assert documented[option].get(field) == spec.get(field), (option, field)
    yaml.safe_load(module.RETURN)
    yaml.safe_load(module.EXAMPLES)


def test_gateway_servers_drains_in_check_mode_first(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    options = {
        "socket": str(gateway.socket),
        "state_file": str(gateway.state_file),
        "servers": FilterModule().filters()["gateway_slots"](gateway.slice),
        "targets": ["be_m/r0"],
        "state": "drain",
        "wait_idle_s": 2,
    }
    dry = call("gateway_servers", capsys, check=True, **options)
    wet = call("gateway_servers", capsys, **options)
    assert dry["changed"] and dry["diff"] == wet["diff"]
    assert [row["admin"] for row in wet["servers"]] == ["drain", "ready", "maint"]
    assert call("gateway_servers", capsys, **options)["changed"] is False
    options["targets"] = ["be_m/r7"]
    assert "no server be_m/r7" in call("gateway_servers", capsys, **options)["msg"]


def test_completion_check_proves_each_engine_in_one_call(
    gateway: Gateway, engines: list[Engine], capsys: pytest.CaptureFixture[str]
) -> None:
    filters = FilterModule().filters()
    options = {
        "base_url": gateway.url,
        "api_key": KEYS["operator"],
        "servers": filters["acceptance_targets"](gateway.slice, {"m": {"cases": [{"prompt": "p"}]}}, False),
    }
    result = call("completion_check", capsys, **options)
    assert result["failed_line"] == "" and [row["ok"] for row in result["rows"]] == [True] * 4
    table = filters["acceptance_table"](result["rows"], gateway.slice)
    assert "streamed by be_m/r0: 't0 t1 t2 '" in table[-1]
    engines[1].fail_status = 500
    failed = call("completion_check", capsys, **options, report_only=True)
    assert failed["failed_line"].startswith("2 of 4 checks failed: be_m/r1 (plain): HTTP 500: told to fail")
    assert failed["failed_line"] == call("completion_check", capsys, **options)["msg"]
    assert KEYS["operator"] not in json.dumps(failed["rows"])


def test_completion_check_stops_waiting_for_a_failed_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "systemctl"
    tool.write_text('#!/bin/sh\ncase "$1 $2" in "is-active b.service") echo failed;; *) echo active;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    units = ["a.service", "b.service"]
    result = call("completion_check", capsys, base_url="http://127.0.0.1:9", wait_s=30, units=units)
    assert "Connection refused" in result["msg"] and result["msg"].endswith("(b.service: failed)")
    assert result["waited_s"] < 5
    bad = call("completion_check", capsys, base_url="http://127.0.0.1:9", golden={"cases": [{}]})
    assert "golden case 0" in bad["msg"]


def test_engines_are_proven_without_the_gateway(engines: list[Engine], capsys: pytest.CaptureFixture[str]) -> None:
    instances = [
        {"address": "127.0.0.1", "port": engine.port, "served_model_name": "m", "deployment": "m"} for engine in engines
    ]
    golden = {"m": {"cases": [{"prompt": "p", "text": "Paris"}]}}
    targets = FilterModule().filters()["engine_targets"](instances, golden)
    assert [set(target) for target in targets] == [{"url", "model", "golden"}] * len(engines)
    rows = call("completion_check", capsys, servers=targets, api_key=ENGINE_KEY)["rows"]
    assert [(row["server"], row["ok"], row["match"]) for row in rows] == [
        (f"http://127.0.0.1:{engine.port}", True, True) for engine in engines
    ]
    other = FilterModule().filters()["engine_targets"](instances, {"other": golden["m"]})
    assert [target["golden"] for target in other] == [{}] * len(engines)


def test_lease_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "lease.json")
    assert call("lease", capsys, path=path, owner="alice", operation="site")["holder"]["owner"] == "alice"
    assert "-e break_lock=alice" in call("lease", capsys, path=path, owner="bob")["msg"]
    broken = call("lease", capsys, path=path, owner="bob", break_lock="alice")
    assert broken["note"].startswith("broke the lease of alice") and broken["warnings"]
    assert call("lease", capsys, path=path, owner="bob", state="absent")["holder"] is None


def test_role_defaults_are_specified() -> None:
    for role in ("load_balancer", "acceptance"):
        folder = REPO / "roles" / role
        defaults = yaml.safe_load((folder / "defaults/main.yml").read_text())
        specified = yaml.safe_load((folder / "meta/argument_specs.yml").read_text())["argument_specs"]["main"][
            "options"
        ]
        assert set(defaults) == set(specified)
        for name, value in defaults.items():
            if "{{" not in str(value):
                assert specified[name].get("default") == value, name
