"""The filters of the role host_baseline."""

from __future__ import annotations

import pytest
import rackserve_baseline as filters
from ansible.errors import AnsibleFilterError


def test_layers_items_and_files():
    given = filters.FilterModule().filters()
    knobs = given["baseline_knobs"]({"vm.swappiness": 10, "vm.x": 1}, None, {"vm.x": None, "vm.y": 2})
    assert knobs == {"vm.swappiness": "10", "vm.y": "2"}
    assert [item["id"] for item in given["baseline_knob_items"](knobs)] == ["sysctl-vm.swappiness", "sysctl-vm.y"]
    assert given["baseline_sysctl"](knobs).count("=") == 2
    taken = given["baseline_sysctl"](knobs, ["sysctl:vm.y", "nftables:ip x", "sysctl:vm.gone"])
    assert taken.splitlines()[1:] == ["vm.y = 2"]
    with pytest.raises(AnsibleFilterError, match="no sysctl key"):
        given["baseline_knobs"]({"x": 1})
