"""What is judged before any host is touched: variable names, secrets, and what a slice asks of its host."""

from __future__ import annotations

import pytest
import rackserve_preflight as filters
from ansible.errors import AnsibleFilterError
from rackserve.preflight.findings import finding
from rackserve.preflight.inputs import host_inputs
from rackserve.preflight.variables import check_secret_sources, check_secrets, check_variables, needed_secrets

KNOWN = {"vllm": {"vllm_nofile", "vllm_user"}, "host": {"host_x"}, "host_baseline": {"host_baseline_knobs"}}


def told(names, removed=None):
    found = check_variables({"h1": names, "h2": names, "h3": names, "h4": names}, KNOWN, removed or {})
    return [(f["severity"], f["code"], f["fix"]) for f in found]


def test_known_names_and_other_peoples_names_pass():
    assert told(["vllm_nofile", "ansible_user", "cluster", "vllm", "host_baseline_knobs"]) == []


def test_a_slip_is_an_error_with_the_right_name():
    assert told(["vllm_nofiles"]) == [("error", "variable-unknown", "did you mean vllm_nofile?")]
    assert told(["vllm_zzzzzzzzz"]) == [("error", "variable-unknown", "see roles/vllm/meta/argument_specs.yml")]
    assert told(["host_baseline_knob"]) == [("error", "variable-unknown", "did you mean host_baseline_knobs?")]


def test_a_slip_in_the_prefix_is_a_warning():
    assert told(["hst_baseline_knobs"]) == [("warning", "variable-near", "did you mean host_baseline_knobs?")]


def test_a_removed_variable_says_what_to_use_and_many_hosts_are_cut_short():
    found = check_variables({f"h{i}": ["vllm_old"] for i in range(5)}, KNOWN, {"vllm_old": "use vllm_user"})
    assert [(f["code"], f["fix"]) for f in found] == [("variable-removed", "use vllm_user")]
    assert found[0]["where"] == "variable vllm_old (h0, h1, h2, …)"


PLAN = {
    "instances": [{"api_key_secret": "engine_api_key"}, {"api_key_secret": ""}],
    "gateway": {"api_keys": ["alice"], "tls": True},
    "slices": {"h": {"other_secret": "copied"}},
}


def test_secrets_the_plan_needs_are_named_and_values_never_read():
    assert needed_secrets(PLAN) == {"engine_api_key", "api_key_alice", "gateway_tls_pem"}
    assert needed_secrets({"gateway": {"tls": False}}) == set()
    found = check_secrets(PLAN, ["engine_api_keys", "api_key_alice"])
    assert [f["where"] for f in found] == ["rackserve_secrets.engine_api_key", "rackserve_secrets.gateway_tls_pem"]
    assert "engine_api_keys" in found[0]["fix"]


def test_a_slice_becomes_questions():
    piece = {
        "release": {"id": "r", "path": "/opt/r"},
        "instances": [{"port": 8000, "unit": "vllm-a.service"}],
        "gateway": {"port": 8443, "metrics_port": 8404},
        "models": [
            {"name": "here", "path": "/srv/here", "source": {"kind": "present"}},
            {"card": "copied", "path": "/srv/copied", "bytes": 3 << 20, "source": {"kind": "controller"}},
            {"path": "/srv/unknown", "source": None},
        ],
    }
    asked = host_inputs(piece, 100)
    assert asked["ports"] == [
        {"port": 8000, "unit": "vllm-a.service"},
        {"port": 8443, "unit": "rackserve-gateway.service"},
        {"port": 8404, "unit": "rackserve-gateway.service"},
    ]
    assert asked["disk"] == [
        {"path": "/opt/r", "needed_mib": 100, "unless": "/opt/r"},
        {"path": "/srv/copied", "needed_mib": 3, "unless": "/srv/copied/READY"},
    ]
    assert asked["models"] == [{"name": "here", "path": "/srv/here"}]
    assert asked["written"] == [
        "/etc/rackserve", "/etc/systemd/system", "/var/lib/rackserve", "/opt/r", "/srv/copied", "/srv/unknown"
    ]  # fmt: skip
    assert host_inputs({}, 100) == {"ports": [], "units": [], "disk": [], "written": [], "models": []}


def test_ports_between_hosts_are_asked_about_where_they_are_opened():
    ray = {"unit": "ray-m-0.service", "part": "worker", "ports": {
        "port": 6379, "node_manager_port": 6380, "object_manager_port": 6381, "runtime_env_agent_port": 6382,
        "metrics_export_port": 6383,
    }}  # fmt: skip
    units = [{"unit": "vllm-m-0.service", "host": "n1", "part": "head"}, {"unit": "vllm-m-0-n1.service", "host": "n2"}]
    piece = {
        "host": "n1",
        "instances": [{"port": 8000, "unit": "vllm-m-0.service"}, {"port": None, "unit": "vllm-x-0-n1.service"}],
        "groups": [{"agent_port": 8700, "master_port": 29550, "units": units}],
    }
    group = {"port": 8700, "unit": "rackserve-group.service"}
    http, meeting = ({"port": port, "unit": "vllm-m-0.service"} for port in (8000, 29550))
    assert host_inputs(piece, 1)["ports"] == [http, group, meeting]
    assert host_inputs({**piece, "host": "n2", "instances": []}, 1)["ports"] == [group]
    worker = host_inputs({"host": "n2", "ray": ray}, 1)
    assert [entry["port"] for entry in worker["ports"]] == [6380, 6381, 6382, 6383]
    assert worker["units"] == ["ray-m-0.service"]
    assert host_inputs({"host": "n1", "ray": {**ray, "part": "head"}}, 1)["ports"][-1]["port"] == 6379


def test_a_toolkit_needs_space_until_it_is_there():
    piece = {"cuda": {"parts": {"cuda": {"version": "13.0.2"}}}, "simulated_hardware": False}
    need = {"path": "/usr/local/cuda-13.0", "needed_mib": 12288, "unless": "/usr/local/cuda-13.0/bin/nvcc"}
    assert host_inputs(piece, 100)["disk"] == [need]
    assert host_inputs({**piece, "simulated_hardware": True}, 100)["disk"] == []
    assert host_inputs({"cuda": {"parts": {"nccl": {"version": "2.27.7"}}}}, 100)["disk"] == []


def test_secrets_in_the_clear_must_be_closed_and_encrypted_ones_may_be_open(tmp_path):
    for name, text, mode in (
        ("group_vars/all/secrets.yml", "---\nrackserve_secrets:\n  a: b\n", 0o644),
        ("group_vars/all/closed.yml", "rackserve_secrets: {a: b}\n", 0o640),
        ("host_vars/h.yml", "$ANSIBLE_VAULT;1.1;AES256\n6261\n", 0o644),
        ("host_vars/other.yml", "# rackserve_secrets: elsewhere\n", 0o644),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    (found,) = check_secret_sources(tmp_path)
    assert (found["code"], found["where"]) == ("secret-readable", f"{tmp_path}/group_vars/all/secrets.yml")
    assert "its mode is 0644: others" in found["why"]
    assert check_secret_sources(tmp_path / "nowhere") == []


@pytest.fixture
def roles(tmp_path):
    for path, text in {
        "vllm/defaults/main.yml": "---\nvllm_a: 1\n",
        "vllm/vars/main.yml": "---\nvllm_b: 1\n",
        "vllm/tasks/main.yml": "---\n- block:\n    - x: {loop_var: vllm_item}\n      register: vllm_seen\n"
        "    - ansible.builtin.set_fact: {vllm_fact: 1}\n",
        "vllm/meta/argument_specs.yml": "---\nargument_specs: {main: {options: {vllm_c: {}}}, other: {}}\n",
        "empty/defaults/main.yml": "---\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "README.md").write_text("")
    return tmp_path


def test_the_filter_reads_the_roles_themselves(roles):
    names = ["vllm_a", "vllm_b", "vllm_c", "vllm_seen", "vllm_fact", "vllm_item", "vllm_d"]
    set_for = filters.variable_names({"h": dict.fromkeys(names), "other": {"vllm_e": 1}}, ["h"])
    assert set_for == {"h": names}
    found = filters.preflight_variables(set_for, str(roles), plan=PLAN, secrets={"x": "v"})
    assert [f["code"] for f in found] == ["variable-unknown"] + ["secret-missing"] * 3
    assert len(filters.finding_errors(found)) == 4
    assert filters.preflight_variables({"h": []}, str(roles)) == []
    inventory = roles / "group_vars"
    inventory.mkdir()
    (inventory / "all.yml").write_text("rackserve_secrets: {}\n")
    (inventory / "all.yml").chmod(0o604)
    found = filters.preflight_variables({"h": []}, str(roles), inventory=str(roles))
    assert [f["code"] for f in found] == ["secret-readable"]
    with pytest.raises(AnsibleFilterError, match="no roles in"):
        filters.preflight_variables({}, str(roles / "nowhere"))


def test_our_own_roles_know_their_own_variables():
    repository = filters.Path(filters.__file__).resolve().parents[1]
    known = filters.known_variables(repository / "roles")
    for role in ("firewall", "host_baseline", "preflight"):
        specs = filters.yaml.safe_load((repository / f"roles/{role}/meta/argument_specs.yml").read_text())
        declared = {n for entry in specs["argument_specs"].values() for n in entry["options"]}
        defaults = set(filters.yaml.safe_load((repository / f"roles/{role}/defaults/main.yml").read_text()))
        assert defaults == declared
        assert declared <= known[role]


def test_every_name_is_a_filter():
    names = {"variable_names", "preflight_variables", "preflight_inputs"}
    names |= {"settled_findings", "finding_errors", "finding_warnings"}
    assert set(filters.FilterModule().filters()) == names
    two = [finding("error", "a", "x", "y", "z"), finding("warning", "b", "x", "y", "z")]
    assert (filters.finding_errors(two), filters.finding_warnings(two)) == (["a: x: y; z"], ["b: x: y; z"])
    assert filters.preflight_inputs({}) == {"ports": [], "units": [], "disk": [], "written": [], "models": []}
