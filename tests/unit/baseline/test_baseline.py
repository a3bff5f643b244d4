"""Kernel settings: merging, the drop-in, and files of others that say something else."""

from __future__ import annotations

import pytest
from rackserve.baseline import (
    BaselineError,
    knob_items,
    limits_conflicts,
    merge_knobs,
    sysctl_conflicts,
    sysctl_text,
    tuner_findings,
)

KNOBS = {"net.core.somaxconn": "4096", "vm.swappiness": "10"}


def put(root, path, text):
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def severities(found):
    return [(f["severity"], f["where"]) for f in found]


def test_layers_merge_and_null_removes():
    merged = merge_knobs({"vm.swappiness": 10, "net.ipv4.tcp_rmem": "4096\t1  2"}, {"vm.swappiness": None, "vm.x": 0})
    assert merged == {"net.ipv4.tcp_rmem": "4096 1 2", "vm.x": "0"}
    assert merge_knobs({}, {"vm.absent": None}) == {}


@pytest.mark.parametrize("bad", [{"swappiness": 1}, {"vm.x": True}, {"vm.x": []}, {"vm.x": " "}, {"vm/../etc": 1}])
def test_what_is_no_setting_is_refused(bad):
    with pytest.raises(BaselineError, match="host_baseline_knobs"):
        merge_knobs(bad)


def test_text_and_items_say_the_same():
    assert sysctl_text(KNOBS).splitlines()[1:] == ["net.core.somaxconn = 4096", "vm.swappiness = 10"]
    assert sysctl_text(KNOBS, ["vm.swappiness", "vm.other"]).splitlines()[1:] == ["vm.swappiness = 10"]
    assert [(i["path"], i["value"]) for i in knob_items({**KNOBS, "net/ipv4/conf/bond0.7/rp_filter": "2"})] == [
        ("/proc/sys/net/core/somaxconn", "4096"),
        ("/proc/sys/vm/swappiness", "10"),
        ("/proc/sys/net/ipv4/conf/bond0.7/rp_filter", "2"),
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("etc/sysctl.d/10-site.conf", "error"),
        ("etc/sysctl.d/99-site.conf", "error"),
        ("run/sysctl.d/10-site.conf", "error"),
        ("usr/lib/sysctl.d/99-vendor.conf", "error"),
        ("usr/lib/sysctl.d/10-vendor.conf", None),
        ("etc/sysctl.d/60-rackserve.conf", None),
        ("etc/sysctl.d/99-zz-rackserve.conf", None),
        ("etc/sysctl.d/README", None),
    ],
)
def test_who_may_say_something_else(tmp_path, path, expected):
    put(tmp_path, path, "# note\n; note\nnonsense\n-vm/swappiness=60\nnet.core.somaxconn = 4096\n")
    found = sysctl_conflicts(tmp_path, KNOBS)
    assert severities(found) == ([(expected, f"/{path}")] if expected else [])
    taken = sysctl_conflicts(tmp_path, KNOBS, ["sysctl:vm.swappiness"])
    assert severities(taken) == ([("note", f"/{path}")] if expected else [])


def test_globs_count_and_names_in_etc_mask_those_of_packages(tmp_path):
    put(tmp_path, "usr/lib/sysctl.d/99-x.conf", "vm.swappiness = 60\n")
    put(tmp_path, "etc/sysctl.d/99-x.conf", "net.core.* = 7\n")
    (found,) = sysctl_conflicts(tmp_path, KNOBS)
    assert "net.core.somaxconn = 7, rackserve wants 4096" in found["why"]
    assert "cluster.take_over" in found["fix"]
    (tmp_path / "etc/sysctl.d/99-y.conf").symlink_to("nowhere")
    assert len(sysctl_conflicts(tmp_path, KNOBS)) == 1


def test_keys_with_slashes_are_the_same_keys(tmp_path):
    put(tmp_path, "etc/sysctl.d/1.conf", "net/ipv4/conf/bond0.7/rp_filter = 1\n")
    (found,) = sysctl_conflicts(tmp_path, {"net/ipv4/conf/bond0.7/rp_filter": "2"})
    assert "net.ipv4.conf.bond0/7.rp_filter = 1" in found["why"]


def test_limits_of_others(tmp_path):
    wanted = [{"domain": "*", "type": "soft", "item": "nofile", "value": "65536"}]
    assert limits_conflicts(tmp_path, wanted) == []
    put(tmp_path, "etc/security/limits.conf", "#* soft nofile 1\n* soft nofile 1024 # low\n* hard nofile 1\n")
    put(tmp_path, "etc/security/limits.d/60-rackserve.conf", "* soft nofile 1\n")
    put(tmp_path, "etc/security/limits.d/a.conf", "* soft nofile 65536\n")
    assert severities(limits_conflicts(tmp_path, wanted)) == [("error", "/etc/security/limits.conf")]
    assert severities(limits_conflicts(tmp_path, wanted, ["limits:*:nofile"])) == [
        ("note", "/etc/security/limits.conf")
    ]
    assert limits_conflicts(tmp_path, []) == []


def test_a_setting_that_a_kernel_may_lack_says_so():
    found = {item["id"]: item.get("optional") for item in knob_items({**KNOBS, "vm.x": "1"}, ["vm.x", "vm.gone"])}
    assert found == {"sysctl-net.core.somaxconn": None, "sysctl-vm.swappiness": None, "sysctl-vm.x": True}


@pytest.mark.parametrize(
    "path", ["etc/systemd/system/multi-user.target.wants/tuned.service", "etc/rc2.d/S01cpufrequtils"]
)
def test_a_service_that_sets_the_governor_too_is_reported(tmp_path, path):
    assert tuner_findings(tmp_path) == []
    put(tmp_path, path, "")
    (found,) = tuner_findings(tmp_path)
    assert (found["severity"], found["code"]) == ("warning", "tuner-foreign")
    name = found["where"]
    assert severities(tuner_findings(tmp_path, [f"unit:{name}"])) == [("note", name)]
