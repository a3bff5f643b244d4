"""Each check of a host, on a tree that looks like one: what passes, what is found and how it is told."""

from __future__ import annotations

import json
import os
import socket
import time
from hashlib import sha256
from pathlib import Path

import host_preflight
import pytest
from ansible.module_utils.testing import patch_module_args
from rackserve.preflight import checks, host, net
from rackserve.preflight.findings import as_block, error_lines, finding

OS = {"debian": ["12"], "ubuntu": ["22.04", "24.04"]}


def put(root, path, text, mode=0o644):
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)
    return target


@pytest.fixture
def root(tmp_path):
    put(tmp_path, "etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
    put(tmp_path, "proc/1/comm", "systemd\n")
    put(tmp_path, "proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
    put(tmp_path, "proc/meminfo", "MemTotal:  2097152 kB\n")
    put(tmp_path, "proc/swaps", "Filename Type\n")
    put(tmp_path, "etc/passwd", "root:x:0:0::/root:/bin/sh\nvllm:x:64100:64100::/:/bin/false\n+nis\n")
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    return tmp_path


def codes(found):
    return [f["code"] for f in found]


def quiet(argv):
    return 0, "[]" if argv[0] == "ip" else "", ""


def test_a_good_host_has_nothing_to_say(root):
    assert host.check_platform(root, OS, 0) == []
    assert host.check_memory(root, 2048, "report") == []
    assert host.check_user(root, "vllm", 64100) == []


def test_another_distribution_than_the_planned_one_is_one_line(root):
    assert host.check_distribution(root, []) == host.check_distribution(root, ["ubuntu-22.04", "debian-12"]) == []
    assert error_lines(host.check_distribution(root, ["ubuntu-22.04"])) == [
        "distribution-differs: /etc/os-release: this is debian-12, the plan has packages for ubuntu-22.04; "
        "correct cluster.distribution, or install that system on the host"
    ]
    put(root, "etc/os-release", "ID=arch\n")
    assert "this is arch-unknown" in host.check_distribution(root, ["debian-12"])[0]["why"]


def test_platform_faults_are_all_told(root):
    put(root, "etc/os-release", "ID=ubuntu\nVERSION_ID='20.04'\n")
    put(root, "proc/1/comm", "tini\n")
    put(root, "proc/self/mounts", "none\n")
    found = host.check_platform(root, OS, 1000)
    assert codes(found) == ["os-unsupported", "no-systemd", "not-root", "no-cgroup"]
    assert "ubuntu 20.04" in found[0]["why"]
    assert "ubuntu 22.04, 24.04" in found[0]["fix"]


def test_old_python_and_cgroup_v1(root, monkeypatch):
    put(root, "proc/self/mounts", "c /sys/fs/cgroup/cpu cgroup rw 0 0\nc /sys/fs/cgroup/u cgroup2 rw 0 0\n")
    monkeypatch.setattr(host, "OLDEST_PYTHON", (99, 0))
    assert codes(host.check_platform(root, OS, 0)) == ["python-too-old", "cgroup-v1"]


def test_a_system_that_no_plan_can_have_is_told_once(tmp_path):
    given = {"supported_os": OS, "distributions": ["debian-12"]}
    put(tmp_path, "etc/os-release", "ID=debian\nVERSION_ID=11\n")
    found = codes(checks.check_host(tmp_path, quiet, given)["findings"])
    assert "os-unsupported" in found and "distribution-differs" not in found
    put(tmp_path, "etc/os-release", "ID=ubuntu\nVERSION_ID=22.04\n")
    found = codes(checks.check_host(tmp_path, quiet, given)["findings"])
    assert "distribution-differs" in found and "os-unsupported" not in found


def test_an_empty_tree_is_no_crash(tmp_path):
    found = checks.check_host(tmp_path, quiet, {"supported_os": OS, "memory_floor_mib": 1})
    assert {"os-unsupported", "no-systemd", "no-cgroup", "memory-small"} <= set(codes(found["findings"]))


def test_disk_needs_add_up_on_one_filesystem(root):
    free_mib = os.statvfs(str(root)).f_bavail * os.statvfs(str(root)).f_frsize >> 20
    half = {"path": "/opt/a/b", "needed_mib": free_mib // 2 + 64}
    assert host.check_disk(root, [half]) == []
    (found,) = host.check_disk(root, [half, {**half, "path": "/srv/m"}])
    assert found["where"] == "/opt/a/b, /srv/m"
    assert host.check_disk(root, [half, {**half, "unless": "/etc/passwd"}]) == []


def test_memory_and_swap(root):
    put(root, "proc/swaps", "Filename Type\n/dev/sdb2 partition\n")
    assert codes(host.check_memory(root, 4096, "report")) == ["memory-small", "swap-on"]
    assert codes(host.check_memory(root, 0, "ignore")) == []


@pytest.mark.parametrize(("now_s", "found"), [(1000, []), (1004.9, []), (994, ["clock-off"]), (1006, ["clock-off"])])
def test_clock(now_s, found):
    assert codes(host.check_clock(now_s, 1000, 5)) == found


@pytest.mark.parametrize(
    ("host_s", "received_s", "found"),
    [
        (1006, 1007, ["other"]),
        (1006, 1002, ["other"]),
        (1006, 1000.5, ["clock-off", "other"]),
        (994, 1007, ["clock-off", "other"]),
    ],
    ids=["slow answer", "within the tolerance", "ahead", "behind, however slow the answer"],
)
def test_a_slow_answer_is_no_wrong_clock(host_s, received_s, found):
    told = [*host.check_clock(host_s, 1000, 5), {"code": "other"}]
    report = {"findings": told, "clock": {"epoch_s": host_s, "offset_s": host_s - 1000}}
    assert codes(host.settled(report, received_s, 5)) == found
    assert host.settled({"findings": told}, received_s, 5) == told


@pytest.mark.parametrize(
    ("user", "uid", "found"),
    [("vllm", 64100, []), ("vllm", 64101, ["uid-taken"]), ("other", 64100, ["uid-taken"]), ("new", 64200, [])],
)
def test_user(root, user, uid, found):
    assert codes(host.check_user(root, user, uid)) == found


def test_weights_must_be_there_and_readable_all_the_way(root):
    model = {"name": "m", "path": "/srv/models/m"}
    assert codes(host.check_models(root, [model], 64100, 64100)) == ["model-missing"]
    (root / "srv/models/m").mkdir(parents=True, mode=0o755)
    root.chmod(0o755)
    assert host.check_models(root, [model], 64100, 64100) == []
    (root / "srv/models").chmod(0o750)
    (found,) = host.check_models(root, [model], 64100, 64100)
    assert "may not pass /srv/models" in found["why"]
    (root / "srv/models").chmod(0o755)
    (root / "srv/models/m").chmod(0o711)
    (found,) = host.check_models(root, [model], 64100, 64100)
    assert found["fix"] == "chmod o+rx that directory"
    assert host.check_models(root, [model], os.getuid(), 0) == []


def test_secret_files(root):
    files = [{"path": "/etc/k*", "mode": "0640"}]
    assert host.check_secret_files(root, files) == []
    put(root, "etc/key", "x", 0o600)
    assert host.check_secret_files(root, files) == []
    (root / "etc/key").chmod(0o644)
    (found,) = host.check_secret_files(root, files)
    assert found["where"] == "/etc/key"
    assert "0644, more open than 0640" in found["why"]


def test_a_host_on_another_release_points_to_the_upgrade(root):
    release = {"id": "new", "path": "/opt/rackserve/releases/new"}
    running = {"out": "vllm-a.service loaded active running x\n"}

    def run(argv):
        assert argv[:2] == ["systemctl", "list-units"]
        return 0, running["out"], ""

    assert host.check_release(root, run, release, ["vllm-a.service"]) == []
    (root / "opt/rackserve").mkdir(parents=True)
    (root / "opt/rackserve/current").symlink_to("/opt/rackserve/releases/old")
    (found,) = host.check_release(root, run, release, ["vllm-a.service"])
    assert "on release old, the description says new" in found["why"]
    assert "playbooks/upgrade-release.yml" in found["fix"] and "set cluster.release to old" in found["fix"]
    running["out"] = ""
    assert host.check_release(root, run, release, ["vllm-a.service"]) == []
    assert host.check_release(root, run, {**release, "id": "old"}, ["vllm-a.service"]) == []


ADDRESSES = json.dumps(
    [
        {"ifname": "lo", "addr_info": [{"local": "127.0.0.1"}, {}]},
        {"ifname": "bond0", "addr_info": [{"local": "10.0.0.1"}]},
    ]
)


@pytest.mark.parametrize(
    ("interface", "address", "code", "told"),
    [
        ("bond0", "10.0.0.1", None, ""),
        ("bond0", "127.0.0.1", "address-elsewhere", "stands on lo"),
        ("eth9", "10.0.0.1", "address-elsewhere", "no such interface"),
        ("bond0", "10.0.0.7", "address-missing", "carries 10.0.0.1, not 10.0.0.7"),
    ],
)
def test_the_address_stands_on_the_interface(interface, address, code, told):
    found = net.check_address(lambda _argv: (0, ADDRESSES, ""), interface, address)
    assert codes(found) == ([code] if code else [])
    assert told in "".join(f["why"] for f in found)


def test_without_ip_the_address_is_unknown():
    assert codes(net.check_address(lambda _argv: (127, "", "gone"), "bond0", "10.0.0.1")) == ["no-ip-tool"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_real_foreign_listener_is_named(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen(1)
        port = server.getsockname()[1]
        (found,) = net.check_ports(Path("/"), [{"port": port, "unit": "vllm-a.service"}])
        assert f"process {os.getpid()} (" in found["why"]
        assert "vllm-a.service needs it" in found["why"]
    assert net.check_ports(Path("/"), [{"port": port, "unit": "vllm-a.service"}]) == []


def test_a_listener_that_closes_while_it_is_looked_for_takes_no_port(root, monkeypatch):
    line = "   0: 0100000A:1F40 00000000:0000 0A 0:0 00:0 0 0 0 4711 1\n"
    table = put(root, "proc/net/tcp", "header\n" + line)
    walk = net.owners

    def closed_meanwhile(*arguments):
        table.write_text("header\n")
        return walk(*arguments)

    monkeypatch.setattr(net, "owners", closed_meanwhile)
    assert net.check_ports(root, [{"port": 8000, "unit": "vllm-a.service"}]) == []


def test_our_own_unit_may_listen_and_one_out_of_sight_is_said(root):
    line = "   0: 0100000A:1F40 00000000:0000 0A 0:0 00:0 0 0 0 4711 1\n"
    put(root, "proc/net/tcp", "header\n" + line + line.replace("0A 0:0", "01 0:0") + "short\n")
    ports = [{"port": 8000, "unit": "vllm-a.service"}]
    assert "out of sight" in net.check_ports(root, ports)[0]["why"]
    put(root, "proc/77/comm", "python3\n")
    put(root, "proc/77/cgroup", "0::/system.slice/vllm-a.service\n")
    (root / "proc/77/fd").mkdir()
    (root / "proc/77/fd/3").symlink_to("socket:[4711]")
    assert net.check_ports(root, ports) == []
    put(root, "proc/77/cgroup", "0::/system.slice/nginx.service\n")
    assert "process 77 (python3) of nginx.service" in net.check_ports(root, ports)[0]["why"]


def test_a_flushed_firewall_is_seen_and_an_unconfirmed_one_is_none_of_it(root):
    text = 'table inet rackserve {\n\tcomment "rackserve sha256:' + "a" * 64 + '"\n}\n'
    loaded = {"out": (0, text, "")}

    def run(argv):
        return loaded["out"] if argv[0] == "nft" else (0, "[]", "")

    given = {"supported_os": OS}
    put(root, "etc/rackserve/firewall/rackserve.nft", text)
    loaded["out"] = (1, "", "")
    assert checks.check_host(root, run, given)["drift_roles"] == []
    put(root, "run/rackserve/firewall.sha256", sha256(text.encode()).hexdigest() + "\n")
    lost = checks.check_host(root, run, given)
    assert lost["drift_roles"] == ["firewall"]
    assert "firewall-lost" in codes(lost["findings"])
    loaded["out"] = (0, text, "")
    assert checks.check_host(root, run, given)["drift_roles"] == []
    loaded["out"] = (0, text.replace("aaa", "bbb"), "")
    assert checks.check_host(root, run, given)["drift_roles"] == ["firewall"]


def test_everything_together_and_as_a_module(root, capsys):
    put(root, "etc/sysctl.d/9.conf", "vm.swappiness = 60\n")
    put(root, "etc/security/limits.conf", "* soft nofile 1\n")
    given = {
        "supported_os": OS,
        "root": str(root),
        "controller_epoch_s": time.time() - 100,
        "interface": "none0",
        "address": "192.0.2.1",
        "user": "vllm",
        "uid": 64100,
        "gid": 64100,
        "knobs": {"vm.swappiness": "10"},
        "limits": [{"domain": "*", "type": "soft", "item": "nofile", "value": "9"}],
        "memory_floor_mib": 1,
    }
    with patch_module_args(given), pytest.raises(SystemExit):
        host_preflight.main()
    told = json.loads(capsys.readouterr().out)
    assert not told["changed"]
    assert {"clock-off", "address-missing", "sysctl-conflict", "limits-conflict"} <= set(codes(told["findings"]))


def test_findings_have_one_shape():
    with pytest.raises(ValueError, match="fatal"):
        finding("fatal", "c", "w", "y", "f")
    lines = error_lines([finding("error", "c", "w", "y", "f"), finding("note", "c", "w", "y", "f")])
    assert lines == ["c: w: y; f"]
    assert as_block(lines) == as_block(lines[0]) == "c: w: y; f\n"
    assert [as_block(other) for other in (["a", 1], [], "", {"a": 1}, None)] == [["a", 1], [], "", {"a": 1}, None]


def test_the_converged_case_is_cheap(root):
    given = {
        "supported_os": OS,
        "ports": [{"port": 65001, "unit": "x"}],
        "knobs": {"vm.swappiness": "10"},
        "user": "vllm",
        "uid": 64100,
        "disk": [{"path": "/opt", "needed_mib": 1}],
    }
    started_s = time.process_time()
    for _ in range(10):
        checks.check_host(root, quiet, given)
    assert (time.process_time() - started_s) / 10 < 0.1
