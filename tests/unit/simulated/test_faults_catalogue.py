"""The catalogue: what may stand in it, what the documents say of it, the filters and the module over it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import rackserve_simulated
import simulated_fault
import yaml
from ansible.errors import AnsibleFilterError
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from faults_support import REPO, SimulatedHost, catalogue, h20_hardware
from rackserve.simulated import document
from rackserve.simulated.catalogue import KINDS, SOURCES, FaultError, load
from rackserve.simulated.faults import inject, seen
from rackserve.simulated.records import Entry
from rackserve.simulated.values import Machine

DATA = yaml.safe_load((REPO / "files/simulated/faults.yml").read_text("utf-8"))
DOCUMENT = REPO / "docs/faults.md"
SMALL: dict[str, Any] = {
    "odd": {
        "doc": "Odd.",
        "parameters": {"gpu": {"type": "gpu", "default": 0, "doc": "which"}},
        "reboot": "vanishes",
        "because": "It is odd.",
        "effects": [{"kind": "state", "layer": "volatile", "values": {"gpu.{gpu}.lost": "1"}}],
        "seen": [{"source": "nvml", "where": "x", "reading": "1"}],
    }
}


def test_the_documents_table_is_the_catalogue(request: pytest.FixtureRequest) -> None:
    """After a change that is meant: pytest --update-golden."""
    text = DOCUMENT.read_text("utf-8")
    wanted = document.document(text, catalogue())
    if request.config.getoption("--update-golden"):
        DOCUMENT.write_text(wanted, "utf-8")
    assert DOCUMENT.read_text("utf-8") == wanted


def test_a_document_without_its_marks_is_refused() -> None:
    for text in ("", f"{document.BEGIN}\n", f"{document.END}\n"):
        with pytest.raises(ValueError, match="lacks one of the lines"):
            document.document(text, catalogue())


def test_the_catalogue_uses_every_kind_of_effect_and_describes_itself() -> None:
    assert {effect["kind"] for fault in catalogue().values() for effect in fault.effects} == set(KINDS)
    assert {reading.source for fault in catalogue().values() for reading in fault.seen} <= set(SOURCES)
    for name, fault in catalogue().items():
        assert fault.doc.endswith(".") and fault.because.endswith("."), name
        assert fault.seen, name
        assert all(parameter.doc for parameter in fault.parameters.values()), name


def test_json_gives_the_same_catalogue() -> None:
    assert load(json.loads(json.dumps(DATA))) == catalogue()


def broken(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    data = copy.deepcopy(SMALL)
    change(data["odd"])
    return data


WRONG: list[tuple[Any, str]] = [
    ([], "not a mapping of faults"),
    ({"odd": []}, "odd: not a mapping"),
    ({"All": SMALL["odd"]}, "All: not a name for a fault"),
    ({"all": SMALL["odd"]}, "all: not a name for a fault"),
    (broken(lambda f: f.pop("doc")), "odd: doc is missing"),
    (broken(lambda f: f.update(effect=[])), "odd: no key effect; did you mean effects?"),
    (broken(lambda f: f.update(reboot="maybe")), "odd: reboot is one of survives, vanishes"),
    (broken(lambda f: f.update(reboot="survives")), "odd: survives, but no effect does"),
    (broken(lambda f: f["effects"].append({"kind": "magic"})), "odd, effect 2: kind is one of state, sysfs"),
    (broken(lambda f: f["effects"].append({"kind": "event", "gpu": "0"})), "odd, effect 2: xid is missing"),
    (broken(lambda f: f["effects"][0].update(layer="both")), "odd, effect 1: layer is one of volatile, persistent"),
    (
        broken(lambda f: f["effects"].append({"kind": "sysfs", "layer": "persistent", "path": "x", "text": None})),
        "only a volatile effect may take a file away",
    ),
    (
        broken(lambda f: f["effects"].append({"kind": "unit", "layer": "volatile", "unit": "x", "action": "kill"})),
        "action is stop or mask",
    ),
    (
        broken(lambda f: f["effects"].append({"kind": "unit", "layer": "persistent", "unit": "x", "action": "stop"})),
        "a stopped unit starts at boot",
    ),
    (broken(lambda f: f["parameters"]["gpu"].update(type="float")), "odd, gpu: type is one of int, str, path"),
    (broken(lambda f: f["parameters"]["gpu"].update(type="int")), "a number needs min and max, or choices"),
    (broken(lambda f: f["parameters"]["gpu"].update(default="x")), 'odd, gpu (default): gpu "x" is not a number'),
    (broken(lambda f: f["seen"][0].update(source="gossip")), "odd, reading 1: source is one of nvml"),
    (broken(lambda f: f["seen"][0].update(reboot="maybe")), "odd, reading 1: reboot is one of survives"),
]


@pytest.mark.parametrize(("data", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_catalogue_is_named_in_one_line(data: Any, said: str) -> None:
    with pytest.raises(FaultError) as wrong:
        load(data)
    assert said in str(wrong.value)
    assert "\n" not in str(wrong.value)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimulatedHost:
    hardware = h20_hardware(tmp_path_factory.mktemp("machines") / "h20-8")
    return SimulatedHost(tmp_path_factory.mktemp("host") / "root", hardware)


@pytest.mark.parametrize(
    ("template", "said"), [("{nobody}", "nothing is called {nobody}"), ("{gpu.colour}", "gpu 0 has no {gpu.colour}")]
)
def test_a_template_that_names_nothing_is_told(host: SimulatedHost, template: str, said: str) -> None:
    fault = load(broken(lambda f: f["seen"][0].update(where=template)))["odd"]
    with pytest.raises(FaultError, match=said):
        seen(Machine(host.root), fault, Entry("odd", {"gpu": 0}))


def test_an_unknown_operation_and_a_value_that_is_no_number_are_told(host: SimulatedHost) -> None:
    odd = load(broken(lambda f: f["effects"][0]["values"].update({"gpu.0.lost": {"multiply": "2"}})))
    with pytest.raises(FaultError, match="multiply is not one of add, or"):
        inject(host.root, host.systemd, odd, "odd", {})
    text = load(broken(lambda f: f["effects"][0]["values"].update({"gpu.0.name": {"add": "2"}})))
    with pytest.raises(FaultError, match=r"state gpu.0.name: NVIDIA H20 is not a number to add to"):
        inject(host.root, host.systemd, text, "odd", {})
    host.clear("all")
    assert host.state("gpu.0.name") == "NVIDIA H20"


def test_tables_for_a_terminal() -> None:
    lines = rackserve_simulated.fault_table(DATA)
    assert lines[0].split() == ["fault", "parameters", "reboot", "seen", "in"]
    assert len(lines) == len(DATA) + 1
    on = [{"fault": "xid", "parameters": {"gpu": 3}, "reboot": "vanishes", "complete": True}]
    left = [{"fault": "remap-pending", "parameters": {}, "reboot": "vanishes", "complete": False}]
    rows = rackserve_simulated.fault_active_table({"node1": on, "node2": [], "node3": left})
    assert [row.split() for row in rows[1:3]] == [["node1", "xid", "gpu=3", "vanishes"], ["node2", "none", "-", "-"]]
    assert "remap-pending (what a reboot left)" in rows[3]
    reading = {"source": "disk", "where": "df", "reading": "64", "reboot": "survives"}
    assert rackserve_simulated.fault_seen_table([reading])[1].split() == ["disk", "df", "64", "survives"]
    assert set(rackserve_simulated.FilterModule().filters()) >= {"fault_table", "fault_problem"}


def test_filters_tell_what_cannot_be_asked_for() -> None:
    assert rackserve_simulated.fault_problem("all", DATA, {}) == ""
    assert rackserve_simulated.fault_problem("xid", DATA, {"xid": "79"}) == ""
    assert "did you mean xid?" in rackserve_simulated.fault_problem("xidd", DATA, {})
    assert "no parameter xd" in rackserve_simulated.fault_problem("xid", DATA, {"xd": 1})
    with pytest.raises(AnsibleFilterError, match="not a mapping of faults"):
        rackserve_simulated.fault_table([])


def test_the_module_puts_on_tells_and_takes_off(
    host: SimulatedHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AnsibleModule, "run_command", lambda _, command: host.systemd(command))

    def call(**options: Any) -> dict[str, Any]:
        with patch_module_args({"catalogue": DATA, "root": str(host.root), **options}), pytest.raises(SystemExit):
            simulated_fault.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    assert call()["active"] == []
    dry = call(fault="hca-slow", parameters={"rate_gbps": "40"}, _ansible_check_mode=True)
    assert dry["changed"] and call()["active"] == []
    on = call(fault="hca-slow", parameters={"rate_gbps": "40"})
    assert on["changed"] and "rate: 40 Gb/sec (4X QDR)\n" in on["diff"]["after"]
    assert on["seen"][0]["where"] == "sys/class/infiniband/mlx5_0/ports/1/rate"
    assert not call(fault="hca-slow", parameters={"rate_gbps": 40})["changed"]
    parameters = {"hca": "mlx5_0", "port": 1, "rate_gbps": 40}
    told = {"fault": "hca-slow", "parameters": parameters, "reboot": "survives", "complete": True}
    assert call()["active"] == [told]
    assert call(fault="all", state="absent")["active"] == []
    refused = call(fault="hca-slwo")
    assert refused["failed"] and "did you mean hca-slow?" in refused["msg"]
