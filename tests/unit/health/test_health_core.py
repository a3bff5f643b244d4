"""Unknown and never pass, causes and ranks, counters by growth, the kernel log, the fleet's median."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from health_support import HealthHost, lab_expectations, plan
from rackserve.health import counters, document, fleet, report
from rackserve.health.catalogue import BY_ID, CHECKS, SelectionError, chosen
from rackserve.health.check import DEEP, SEVERITIES, Check, NotHere, Problem, Unreadable
from rackserve.health.counters import Counters
from rackserve.health.expect import expectations
from rackserve.health.host_tools import tools_for
from rackserve.health.judge import check_host
from rackserve.health.kernel import read_lines
from rackserve.health.look import Driver, Look, Tools
from rackserve.health.xids import OTHER, XIDS
from rackserve.simulated.state import State

REPO = Path(__file__).resolve().parents[3]
DOCUMENT = REPO / "docs/health.md"


def test_the_documents_table_is_the_catalogue(request: pytest.FixtureRequest) -> None:
    """After a change that is meant: pytest --update-golden."""
    text = DOCUMENT.read_text("utf-8")
    wanted = document.document(text)
    if request.config.getoption("--update-golden"):
        DOCUMENT.write_text(wanted, "utf-8")
    assert DOCUMENT.read_text("utf-8") == wanted
    with pytest.raises(ValueError, match="lacks one of the lines"):
        document.document("nothing")


def test_every_check_says_what_it_has_to() -> None:
    assert len(BY_ID) == len(CHECKS)
    for check in CHECKS:
        assert check.severity in SEVERITIES, check.id
        assert all((check.threshold, check.source, check.why, check.fix)), check.id
        assert check.why.endswith("."), check.id
        assert set(check.caused_by) <= set(BY_ID), check.id
    for number, xid in {**XIDS, 0: OTHER}.items():
        assert xid.severity in SEVERITIES, number
        assert set(xid.caused_by) <= set(BY_ID), number


def test_checks_are_chosen_by_level_and_name() -> None:
    assert {check.level for check in chosen()} == {"fast"}
    assert {check.id for check in chosen(DEEP)} - {check.id for check in chosen()} == {
        "deep-dcgm", "deep-all-reduce", "deep-ib-write",
    }  # fmt: skip
    assert [check.id for check in chosen(only=["gpu-xid", "gpu-lost"], skip=["gpu-xid"])] == ["gpu-lost"]
    with pytest.raises(SelectionError, match=r"no check 'gpu-xd'; did you mean gpu-xid\?"):
        chosen(only=["gpu-xd"])


def test_an_empty_tree_passes_nothing_that_it_cannot_read(tmp_path: Path) -> None:
    """Whatever the plan expects of a host, a tree without sources has no opinion of it."""
    look = Look(tmp_path, lab_expectations(), tools_for(tmp_path))
    result = check_host(look, chosen())
    passed = [check["id"] for check in result["checks"] if check["status"] == "pass"]
    assert (passed, result["findings"], result["exit_code"]) == ([], [], 3)


PORT = "sys/class/infiniband/mlx5_0/ports/1"
MISSING = [
    ("rdma-port-down", f"{PORT}/state"), ("rdma-subnet-manager", f"{PORT}/lid"), ("rdma-rate", f"{PORT}/rate"),
    ("rdma-link-layer", f"{PORT}/link_layer"), ("rdma-gid", f"{PORT}/gids"), ("rdma-link-flap", f"{PORT}/counters"),
    ("rdma-errors", f"{PORT}/counters"), ("rdma-transport", f"{PORT}/hw_counters"),
    ("rdma-discards", f"{PORT}/counters"),
    ("rdma-firmware", "sys/class/infiniband/mlx5_0/fw_ver"), ("rdma-mtu", "sys/class/net/ib0/mtu"),
    ("rdma-pcie-width", "sys/class/infiniband/mlx5_0/device/current_link_width"),
    ("rdma-lost", "sys/class/infiniband/mlx5_0/device/config"), ("rdma-peer-memory", "proc/sys/kernel/osrelease"),
    ("memory-available", "proc/meminfo"), ("memory-installed", "sys/devices/system/node/node0/meminfo"),
    ("disk-space", "proc/1/mounts"), ("disk-read-only", "proc/1/mounts"), ("disk-nvme", "sys/class/nvme/nvme0/state"),
    ("engine-limits", "proc/4100/limits"), ("driver-versions", "proc/driver/nvidia/version"),
    ("cpu-governor", "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"), ("gpu-xid", "dev/kmsg"),
    ("kernel-other", "dev/kmsg"), ("fabric-manager-version", "proc/driver/nvidia/version"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "path"), MISSING)
def test_a_check_without_its_source_does_not_pass(host: HealthHost, check: str, path: str) -> None:
    place = Path(os.path.realpath(host.root / path))
    aside = place.with_name(f"{place.name}.aside")
    place.rename(aside)
    try:
        result = host.check(only=[check], run=lambda _words: (1, "", "no answer"))
    finally:
        aside.rename(place)
    assert result["checks"][0]["status"] in ("unknown", "fail"), result["checks"]
    assert result["exit_code"] in (2, 3)


def lost_sources(host: HealthHost) -> list[str]:
    """Checks that still pass although neither commands nor the driver answer, nor a file can be read."""

    def silent(_words: list[str]) -> tuple[int, str, str]:
        return 1, "", "no answer"

    driver = Driver("", [], "nvmlInit_v2: no answer")
    result = host.check(run=silent, driver=lambda: driver)
    return [check["id"] for check in result["checks"] if check["status"] == "pass"]


def test_without_driver_and_commands_nothing_of_them_passes(host: HealthHost) -> None:
    of_them = {check.id for check in CHECKS if check.id.startswith(("gpu-", "nvlink-", "fabric-state", "services"))}
    of_them -= {"gpu-xid"}  # it has the kernel log
    assert of_them & set(lost_sources(host)) == set()


def test_what_a_host_was_set_to_by_hand(host: HealthHost) -> None:
    policy = "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    State(host.root).set_volatile({"gpu.3.persistence_mode": "0"})
    host.write(policy, "powersave\n")
    try:
        result = host.check()
    finally:
        State(host.root).set_volatile({"gpu.3.persistence_mode": "1"})
        host.write(policy, "performance\n")
    told = [(finding["id"], finding["subject"]) for finding in result["findings"]]
    assert told == [("gpu-persistence", "GPU 3"), ("cpu-governor", "host")]


def test_one_value_that_cannot_be_read_is_unknown_for_its_check_alone(host: HealthHost) -> None:
    State(host.root).set_volatile({"gpu.2.remap.pending": "!UNKNOWN"})
    try:
        result = host.check()
    finally:
        State(host.root).set_volatile({"gpu.2.remap.pending": None})
    assert result["findings"] == []
    assert {entry["id"] for entry in result["unknown"]} == {
        "gpu-remap-failed", "gpu-remap-pending", "gpu-remap-exhausted",
    }  # fmt: skip
    assert all("GPU 2" in entry["why"] for entry in result["unknown"])
    assert (result["status"], result["exit_code"]) == ("unknown", 3)


def made(id_: str, problems: list[Problem], severity: str = "critical", caused_by: tuple[str, ...] = ()) -> Check:
    return Check(id_, severity, "t", "s", "w", "f {subject} {gpu} {hca}", lambda _look: problems, caused_by)


def raising(id_: str, error: Exception, caused_by: tuple[str, ...] = ()) -> Check:
    def judge(_look: Look) -> list[Problem]:
        raise error

    return Check(id_, "critical", "t", "s", "w", "f", judge, caused_by)


def bare(tmp_path: Path) -> Look:
    return Look(tmp_path, {}, tools_for(tmp_path))


def test_causes_come_first_and_name_the_beginning_of_a_chain(tmp_path: Path) -> None:
    checks = [
        made("late", [Problem("GPU 1", "c")], caused_by=("middle",)),
        made("note", [Problem("host", "n")], "info"),
        made("middle", [Problem("GPU 1", "b")], caused_by=("first",)),
        made("first", [Problem("GPU 1", "a")], "warning"),
        made("other", [Problem("GPU 2", "d")], "warning", ("first",)),
        raising("blind", Unreadable("nothing there"), ("middle",)),
        raising("absent", NotHere("no such thing")),
        raising("odd", KeyError("x")),
    ]
    result = check_host(bare(tmp_path), checks)
    told = [(finding["id"], finding["caused_by"]) for finding in result["findings"]]
    assert told == [("first", ""), ("other", ""), ("note", ""), ("late", "first"), ("middle", "first")]
    assert result["findings"][0]["fix"] == "f GPU 1 1 GPU 1"
    assert [(entry["id"], entry["caused_by"]) for entry in result["unknown"]] == [("blind", "first"), ("odd", "")]
    assert "unexpected form: KeyError" in result["unknown"][1]["why"]
    assert (result["status"], result["exit_code"]) == ("critical", 2)
    assert {check["id"]: check["status"] for check in result["checks"]}["absent"] == "skipped"


@pytest.mark.parametrize(
    ("severity", "unknown", "status", "code"),
    [
        ("", False, "pass", 0), ("info", False, "info", 0), ("warning", False, "warning", 1),
        ("critical", True, "critical", 2), ("", True, "unknown", 3), ("info", True, "unknown", 3),
        ("warning", True, "warning", 1),
    ],
)  # fmt: skip
def test_exit_codes(tmp_path: Path, severity: str, unknown: bool, status: str, code: int) -> None:
    checks = [made("a", [Problem("host", "x")], severity)] if severity else [made("a", [])]
    checks += [raising("b", Unreadable("x"))] if unknown else []
    result = check_host(bare(tmp_path), checks)
    assert (result["status"], result["exit_code"]) == (status, code)


def test_counters_are_compared_with_a_mark_of_the_last_hour() -> None:
    kept: dict[str, Any] | None = None
    grown = []
    for minute in range(0, 180, 10):
        now = Counters(kept, "boot", minute * 60.0)
        grown.append(now.grew("x", minute))
        kept = json.loads(json.dumps(now.kept()))
    assert grown[0].grown is None and grown[0].total == 0
    assert grown[1].grown == 10 and grown[1].seconds == 600 and grown[1].per_hour == 60
    assert all(1800 <= one.seconds <= 4800 for one in grown[4:]), [one.seconds for one in grown]
    assert all(one.per_hour == 60 for one in grown[1:])


def test_counters_of_another_boot_or_a_driver_that_was_loaded_again_start_anew() -> None:
    first = Counters(None, "boot", 0)
    first.grew("x", 100)
    assert Counters(first.kept(), "next", 60).grew("x", 130).grown is None
    again = Counters(first.kept(), "boot", 60).grew("x", 5)
    assert (again.grown, again.total) == (5, 5)
    for broken in ([], {"boot_id": "boot", "counters": []}, {"boot_id": "boot", "counters": {"x": [1]}}):
        assert Counters(broken, "boot", 60).grew("x", 1).grown is None  # type: ignore[arg-type]


def test_a_state_file_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    assert counters.read(None) is None
    assert counters.read(tmp_path / "none") is None
    (tmp_path / "half").write_text('{"boot')
    assert counters.read(tmp_path / "half") is None
    counters.write(tmp_path / "whole", '{"a": 1}')
    assert counters.read(tmp_path / "whole") == {"a": 1}
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["half", "whole"]


def journal(*entries: dict[str, Any]) -> Any:
    return lambda _words: (0, "".join(json.dumps(entry) + "\n" for entry in entries) + "no json\n", "")


def test_the_journal_is_read_with_ages_and_priorities(tmp_path: Path) -> None:
    run = journal(
        {"MESSAGE": "one", "PRIORITY": "4", "__REALTIME_TIMESTAMP": "990000000"},
        {"MESSAGE": [116, 119, 111, 255], "__REALTIME_TIMESTAMP": "1000000000"},
    )
    lines = read_lines(tmp_path, run, 1000.0, 5.0, False)
    assert [(line.age_s, line.priority, line.text) for line in lines] == [(10.0, 4, "one"), (0.0, 6, "two\ufffd")]


@pytest.mark.parametrize(
    ("answer", "fine"), [((0, "", ""), False), ((0, "", "Hint: not a member"), True), ((1, "", "no"), True)]
)
def test_a_journal_that_may_not_be_read_is_unreadable(tmp_path: Path, answer: Any, fine: bool) -> None:
    with pytest.raises(Unreadable, match="systemd-journal"):
        read_lines(tmp_path, lambda _words: answer, 0, 0, fine)
    with pytest.raises(Unreadable, match="copied tree"):
        read_lines(tmp_path, None, 0, 0, True)


def test_a_container_may_have_an_empty_kernel_log(tmp_path: Path) -> None:
    assert read_lines(tmp_path, lambda _words: (0, "", ""), 0, 0, True) == []


def test_old_xids_of_programs_are_no_finding_and_old_fatal_ones_are(host: HealthHost) -> None:
    host.inject("xid", gpu=1, xid=31)
    host.inject("xid", gpu=1, xid=119)
    later = host.check(only=["gpu-xid"], monotonic_s=lambda: 10.0**9)
    assert [finding["seen"][:7] for finding in later["findings"]] == ["Xid 119"]
    assert "reboot" in later["findings"][0]["fix"]


def test_expectations_of_the_labs_hosts() -> None:
    expected = lab_expectations()
    assert expected["gpus"]["count"] == 8 and expected["gpus"]["nvlinks"] == 18
    assert expected["fabric"]["rate_gbps"] == 200
    assert "vllm-tiny-deepseek-0.service" in expected["units"]
    assert "api_key" not in json.dumps(expected)
    gateway = lab_expectations("gw")
    assert gateway["gpus"] == {"count": 0}
    assert gateway["units"] == ["rackserve-gateway.service"]
    own = expectations({"distributions": ["debian-12"]}, plan()["hardware"])
    assert (own["gpus"]["count"], own["gpus"]["model"]) == (8, "NVIDIA H20")


def test_a_gateway_without_gpus_and_adapters_skips_their_checks(tmp_path: Path) -> None:
    (tmp_path / "sys/class").mkdir(parents=True)
    tools = Tools(lambda _words: (1, "", "x"), lambda: Driver("", [], "x"), tools_for(tmp_path).volume, lambda: None)  # type: ignore[arg-type, return-value]
    result = check_host(Look(tmp_path, lab_expectations("gw"), tools), chosen())
    states = {check["id"]: check["status"] for check in result["checks"]}
    assert {states[name] for name in states if name.startswith(("gpu-", "rdma-", "nvlink"))} <= {"skipped", "unknown"}
    assert states["gpu-lost"] == states["rdma-rate"] == "skipped"


def results(**values: float) -> dict[str, dict[str, Any]]:
    return {
        host: {"findings": [], "unknown": [], "checks": [], "wall_s": 1, "measured": {"all_reduce_gbytes_s": value}}
        for host, value in values.items()
    }


def test_a_host_below_the_fleets_median_is_told() -> None:
    found = fleet.with_fleet(results(a=470, b=475, c=400, d=472))
    assert [host for host, result in found.items() if result["findings"]] == ["c"]
    assert "the median of 4 hosts is 471" in found["c"]["findings"][0]["seen"]
    assert (found["c"]["status"], found["c"]["exit_code"], found["a"]["status"]) == ("warning", 1, "pass")
    assert not any(result["findings"] for result in fleet.with_fleet(results(a=470, b=100)).values())


def test_a_run_fails_by_severity() -> None:
    found = fleet.with_fleet(results(a=470, b=475, c=400, d=472))
    assert fleet.refusal(found, "critical") == ""
    assert fleet.refusal(found, "warning").startswith("not healthy: c: warning;")
    assert fleet.refusal(found, "never") == ""
    found["a"]["status"] = "unknown"
    assert "a: unknown" in fleet.refusal(found, "critical")
    assert report.order_hosts(found)[0] == "c"
    with pytest.raises(ValueError, match="health_fail_on is 'x'"):
        fleet.refusal(found, "x")
