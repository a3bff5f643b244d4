"""Everything the roles write on the lab's hosts, reviewed as files.

After a change that is meant: pytest --update-golden
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from contract_support import REPO, ROLES, SAMPLES, here, names_in, read_yaml
from rackserve.converge.render import render_documents
from rackserve_converge import secrets_of
from rendered_lab import RenderedLab, document_lookup

GOLDEN = REPO / "tests/golden/lab"
# Files of the repository that hosts get as they are: reviewed where they stand.
WATCH = [f"module_utils/rackserve/watch/{name}.py" for name in ("__init__", "judge", "processes", "client", "program")]
HEALTH = [here(path) for path in sorted((REPO / "module_utils/rackserve/health").glob("[!_]*.py"))]
HEALTH += [f"module_utils/rackserve/{name}.py" for name in ("converge/dpkg", "converge/errors", "converge/host")]
HEALTH += [f"module_utils/rackserve/{name}.py" for name in ("driver/hardware", "driver/host", "driver/parts")]
HEALTH += [f"module_utils/rackserve/{name}.py" for name in ("preflight/findings", "health/__main__")]
HEALTH += [f"module_utils/rackserve/rdma/{name}.py" for name in ("gdr", "look", "netdevs", "sysfs", "usable")]
HEALTH += [f"module_utils/rackserve/gpu/{name}/nvml.py" for name in ("info", "settings")]
COPIED = ["module_utils/rackserve/gpu/guard.py", "module_utils/rackserve/model/start_check.py", *WATCH, *HEALTH]
COPIES = {(REPO / name).read_text("utf-8"): name for name in COPIED}
DOCUMENT_ROLES = [
    role.name
    for role in ROLES
    if (role / "vars/main.yml").is_file() and f"{role.name}_document" in (read_yaml(role / "vars/main.yml") or {})
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> RenderedLab:
    return RenderedLab(tmp_path_factory.mktemp("cache"))


def written(lab: RenderedLab, host: str) -> dict[str, str]:
    """Path below the host's golden folder to content: every file of every role, and the items around them."""
    files, items = {}, []
    for role in DOCUMENT_ROLES:
        for item in lab.document(role, host)["items"]:
            content = item.pop("content", None)
            copied = {"copy_of": COPIES[content]} if content in COPIES else {}
            items.append({"role": role, **item, **copied})
            if content is not None and not copied:
                path = item["path"].lstrip("/")
                assert path not in files, f"two items write {item['path']} on {host}"
                files[path] = content
    lines = ",\n".join(json.dumps(item) for item in items)
    return files | {"desired-state.json": f"[\n{lines}\n]\n"}


def test_the_lab_has_hosts_and_roles_that_write_files(lab: RenderedLab) -> None:
    assert lab.hosts == ["gw", "node1", "node2", "node3", "node4"]
    assert {"firewall", "host_baseline", "load_balancer", "vllm"} <= set(DOCUMENT_ROLES)
    assert [finding for finding in lab.plan["findings"] if finding["severity"] == "error"] == []


@pytest.mark.parametrize("host", ["gw", "node1", "node2", "node3", "node4"])
def test_files_on_the_host_are_the_golden_ones(lab: RenderedLab, host: str, request: pytest.FixtureRequest) -> None:
    files, folder = written(lab, host), GOLDEN / host
    if request.config.getoption("--update-golden"):
        shutil.rmtree(folder, ignore_errors=True)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, "utf-8")
    golden = {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*") if path.is_file()}
    assert sorted(files) == sorted(golden)
    for name, text in files.items():
        assert text == golden[name], f"{host}: {name}: see the head of this file"


@pytest.mark.parametrize("host", ["gw", "node1"])
def test_what_is_written_names_no_path_of_the_controller(lab: RenderedLab, host: str) -> None:
    for name, text in written(lab, host).items():
        assert str(REPO) not in text, name
        assert str(lab.cache) not in text, name
        assert "{{" not in text, name
        assert "{%" not in text, name


def test_every_host_has_its_share(lab: RenderedLab) -> None:
    units = {
        host: {item["name"] for role in DOCUMENT_ROLES for item in lab.document(role, host)["items"] if "name" in item}
        for host in lab.hosts
    }
    assert "rackserve-gateway.service" in units["gw"]
    assert "rackserve-gateway.service" not in units["node1"]
    planned = {instance["unit"] for instance in lab.plan["instances"]}
    assert planned
    assert {unit for names in units.values() for unit in names} >= planned


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_sample_renders(sample: str, tmp_path: Path) -> None:
    site = RenderedLab(tmp_path / "cache", sample)
    assert site.hosts
    for host in site.hosts:
        given = [site.document(role, host) for role in DOCUMENT_ROLES]
        render_documents(given, tmp_path / host)
        assert (tmp_path / host / "etc/rackserve/firewall/rackserve.nft").is_file()
    units = {path.name for path in tmp_path.glob("*/etc/systemd/system/vllm-*.service")}
    assert units == {instance["unit"] for instance in site.plan["instances"]}


def test_roles_agree_on_what_they_share(lab: RenderedLab) -> None:
    """Two roles may both want a folder; they must not want it differently, or each would undo the other."""
    for host in lab.hosts:
        seen: dict[str, dict[str, object]] = {}
        for role in DOCUMENT_ROLES:
            for item in lab.document(role, host)["items"]:
                wanted = {key: value for key, value in item.items() if key not in {"id", "content"}}
                name = item.get("path") or f"{item['kind']} {item.get('name', item.get('index'))}"
                other = seen.setdefault(name, wanted)
                differing = {key for key in set(other) & set(wanted) if other[key] != wanted[key]}
                assert differing == set(), f"{host}: {role}: {item['id']}"


def test_settings_that_the_lab_leaves_empty_render_too(lab: RenderedLab) -> None:
    limits = [{"domain": "*", "type": "hard", "item": "memlock", "value": "unlimited"}]
    document = lab.document(
        "host_baseline", "node1", host_baseline_limits=limits, host_baseline_ntp_servers=["10.0.0.1", "10.0.0.2"]
    )
    content = {item["path"]: item["content"] for item in document["items"] if "content" in item}
    assert content["/etc/security/limits.d/60-rackserve.conf"].endswith("* hard memlock unlimited\n")
    assert content["/etc/chrony/sources.d/rackserve.sources"].endswith(
        "server 10.0.0.1 iburst\nserver 10.0.0.2 iburst\n"
    )


def test_kernel_settings_that_a_site_may_want(lab: RenderedLab) -> None:
    logs = [{"path": "/var/log/site/*.log", "size": "100M", "keep": 10}]
    document = lab.document("host_baseline", "node1", host_baseline_hugepages=1024, host_baseline_logrotate=logs)
    items = {item["id"]: item for item in document["items"]}
    assert items["sysctl-vm.nr_hugepages"]["value"] == "1024"
    assert "/var/log/site/*.log {\n    size 100M\n    rotate 10\n" in items["logrotate-file"]["content"]
    assert items["governor"]["optional"] and items["sysctl-kernel.numa_balancing"]["optional"]
    left = {item["id"]: item for item in lab.document("host_baseline", "node1", host_baseline_governor="")["items"]}
    assert "governor" not in left and left["governor-file"]["kind"] == "absent"
    assert "governor" not in {item["id"] for item in lab.document("host_baseline", "gw")["items"]}


def test_interrupts_of_the_adapters_that_a_site_names(lab: RenderedLab) -> None:
    affinity = {"mlx5_0": "local", "mlx5_1": "56-63"}
    document = lab.document("rdma_fabric", "node1", rdma_fabric_irq_affinity=affinity)
    items = {item["id"]: item for item in document["items"]}
    assert items["dir-udev-rules"]["path"] == "/etc/udev/rules.d"
    assert (items["irq-mlx5_0"]["cpus"], items["irq-mlx5_1"]["cpus"]) == ("local", "56-63")
    first, second = items["irq-rules"]["content"].split("ACTION==")[1:]
    assert 'KERNEL=="mlx5_0"' in first and "cat /sys/class/infiniband/%k/device/local_cpulist >/proc/irq/" in first
    assert 'KERNEL=="mlx5_1"' in second and "echo 56-63 >/proc/irq/$${irq##*/}/smp_affinity_list" in second


def test_a_host_without_a_fabric_loses_what_was_written_for_one(lab: RenderedLab) -> None:
    document = lab.document("rdma_fabric", "node1", rdma_fabric_wanted={})
    assert {item["kind"] for item in document["items"]} == {"absent"}
    peer = lab.document("rdma_fabric", "node1", rdma_fabric_peer_memory="nvidia_peermem")
    assert "\nnvidia_peermem\n" in {item["id"]: item for item in peer["items"]}["modules-file"]["content"]


def test_the_toolkit_brings_the_repository_where_the_driver_does_not(lab: RenderedLab) -> None:
    slice_ = lab.plan["slices"]["node1"]
    kinds = {item["id"]: item["kind"] for item in lab.document("cuda", "node1")["items"]}
    assert "repository" not in kinds and "key" not in kinds and kinds["pin"] == "file"
    for driver in ({**slice_["driver"], "source": "runfile", "repository": None}, None):
        items = {
            item["id"]: item for item in lab.document("cuda", "node1", rackserve={**slice_, "driver": driver})["items"]
        }
        assert items["key"]["kind"] == "key"
        assert slice_["cuda"]["repository"]["uri"] in items["repository"]["content"]


def test_a_site_changes_one_item_by_its_id(lab: RenderedLab) -> None:
    changed = lab.document(
        "firewall",
        "node1",
        firewall_items_override={"firewall-package": None, "firewall-dir": {"mode": "0700"}},
        firewall_items_extra=[{"id": "mine", "kind": "absent", "path": "/etc/old"}],
    )
    items = {item["id"]: item for item in changed["items"]}
    assert "firewall-package" not in items
    assert items["firewall-dir"]["mode"] == "0700"
    assert items["mine"]["path"] == "/etc/old"


def test_the_secrets_of_the_lab_render(lab: RenderedLab, tmp_path: Path) -> None:
    (tmp_path / "gateway-ca.pem").write_text("-----BEGIN CERTIFICATE-----\nca\n-----END CERTIFICATE-----\n")
    (tmp_path / "gateway.key").write_text("-----BEGIN PRIVATE KEY-----\nkey\n-----END PRIVATE KEY-----\n")
    text = (REPO / "roles/lab_host/templates/secrets.yml.j2").read_text("utf-8")
    secrets = yaml.safe_load(lab.evaluate(text, "gw", lab_host_client_dir=str(tmp_path)))["rackserve_secrets"]
    assert secrets["gateway_tls_pem"].split("\n")[1::3] == ["ca", "key"]
    keys = [value for name, value in secrets.items() if "api_key" in name]
    assert len(set(keys)) == len(keys) >= 2
    assert {len(key) for key in keys} == {40}
    mentioned = secrets_of(secrets, [lab.document(role, host) for role in DOCUMENT_ROLES for host in lab.hosts])
    assert {"engine_api_key", "gateway_tls_pem"} <= set(mentioned)


def test_every_template_was_rendered(lab: RenderedLab) -> None:
    """Templates of roles with a document are reached through it; of the others, at least the syntax is right."""
    templates = document_lookup()._environment().cache
    templates.clear()
    lab._documents.clear()
    lab.document(
        "host_baseline", "gw", host_baseline_limits=[{"domain": "*", "type": "-", "item": "nofile", "value": "1"}],
        host_baseline_ntp_servers=["10.0.0.1"],
        host_baseline_logrotate=[{"path": "/var/log/site/*.log", "size": "100M", "keep": 10}],
    )  # fmt: skip
    for host in lab.hosts:
        written(lab, host)
    lab.document("vllm", "node1", vllm_release={"device": "cuda"})
    reached = {REPO / "roles" / name for _, name in templates}
    for template in tuple(reached):
        reached |= {
            template.parent / name for name in re.findall(r"{% include '(.+?)' %}", template.read_text("utf-8"))
        }
    left = []
    for role in ROLES:
        for template in sorted(role.glob("templates/**/*.j2")):
            names_in(template.read_text("utf-8"))
            if role.name in DOCUMENT_ROLES and template not in reached:
                left.append(here(template))
    assert left == []


ROUTED = (
    "{{ cluster | combine({'deployments': [cluster.deployments[0] | combine({'router': 'vllm-router'})]})"
    " | cluster_plan(groups, hostvars, root=playbook_dir ~ '/..') }}"
)


def test_a_router_is_a_unit_of_the_gateway_with_a_release_of_its_own(lab: RenderedLab) -> None:
    plan = json.loads(json.dumps(lab.evaluate(ROUTED, "gw")))
    slice_ = plan["slices"]["gw"]
    assert "router" in slice_["roles"] and slice_["release"] is None
    folder = lab.cache / "releases/router-0.1.17"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "router-0.1.17.json").write_text(json.dumps({"manifest_sha256": "0" * 64}))
    items = {item["id"]: item for item in lab.document("router", "gw", rackserve=slice_)["items"]}
    marker, unit = items["release-marker"], items["unit-tiny-deepseek"]
    assert marker["path"] == "/opt/rackserve/releases/router-0.1.17/RELEASE.json"
    assert unit["gated_by"] == "rackserve-router-tiny-deepseek.service"
    assert "ExecStart=/opt/rackserve/releases/router-0.1.17/bin/python3 -I" in unit["content"]
    assert "  --worker-urls http://10.77.0.11:8000 http://10.77.0.12:8000 " in unit["content"]
    config = {item["id"]: item for item in lab.document("load_balancer", "gw", rackserve=slice_)["items"]}["config"]
    assert "backend be_tiny-deepseek-engines\n" in config["content"]
    assert lab.document("router", "gw")["items"] == []


def test_preflight_compares_hosts_with_what_other_roles_set(lab: RenderedLab) -> None:
    names = "preflight_knobs, preflight_limits, preflight_governor, preflight_isolation, preflight_swap"
    knobs, limits, governor, isolation, swap = lab.evaluate(f"{{{{ [{names}] }}}}", "node1")
    assert knobs["vm.swappiness"] == "10" and [limit["item"] for limit in limits] == ["memlock"]
    assert (governor, isolation, swap) == ("performance", "report", "report")
