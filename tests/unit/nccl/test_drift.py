"""What changed between two records of a host, in words."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from rackserve.nccl.document import read, walk
from rackserve.nccl.drift import drift, drift_lines
from rackserve.nccl.parser import Element

from .host import FIXTURES

Change = Callable[[Element], None]


def find(root: Element, name: str, /, **attributes: str) -> Element:
    return next(e for e in walk(root) if e.name == name and attributes.items() <= e.attributes.items())


def put(name: str, key: str, value: str, /, **which: str) -> Change:
    return lambda root: find(root, name, **which).attributes.__setitem__(key, value)


def remove(name: str, /, **which: str) -> Change:
    def change(root: Element) -> None:
        element = find(root, name, **which)
        next(parent for parent in walk(root) if element in parent.children).children.remove(element)

    return change


def swap(root: Element) -> None:
    """Two GPUs change places."""
    one, other = (find(root, "gpu", dev=dev) for dev in "12")
    one.attributes["dev"], other.attributes["dev"] = "2", "1"


def to_other_node(root: Element) -> None:
    """A switch moves to the other CPU."""
    first, second = root.children
    second.children.append(first.children.pop())


CHANGES: list[tuple[Change, list[tuple[str, str, str]]]] = [
    (swap, [("warning", "gpu-moved", "GPU 1"), ("warning", "gpu-moved", "GPU 2")]),
    (
        to_other_node,
        [("warning", "gpu-rewired", "GPU 3"), ("warning", "nic-rewired", "adapter mlx5_3:1")],
    ),
    (put("pci", "link_width", "8", busid="0000:18:00.0"), [("error", "link-narrower", "PCI device 0000:18:00.0")]),
    (
        put("pci", "link_speed", "16.0 GT/s PCIe", busid="0000:19:00.0"),
        [("error", "link-slower", "PCI device 0000:19:00.0")],
    ),
    (put("pci", "device", "0x2330", busid="0000:18:00.0"), [("warning", "card-differs", "PCI device 0000:18:00.0")]),
    (remove("gpu", dev="7"), [("error", "gpu-gone", "GPU 7")]),
    (remove("net", name="mlx5_5"), [("error", "nic-gone", "adapter mlx5_5:1")]),
    (remove("nvlink", target="0000:05:00.0"), [("error", "nvlinks-fewer", "GPU 0")]),
    (put("net", "speed", "200000", name="mlx5_0"), [("error", "nic-slower", "adapter mlx5_0:1")]),
    (put("net", "gdr", "0", name="mlx5_0"), [("warning", "gdr-lost", "adapter mlx5_0:1")]),
    (put("cpu", "affinity", "ff", numaid="0"), [("warning", "cpu-differs", "NUMA node 0")]),
    (put("gpu", "rank", "5", dev="0"), []),
]
BETTER = {"link-narrower": "link-wider", "link-slower": "link-faster", "nic-slower": "nic-faster"}
BETTER.update({"gpu-gone": "gpu-new", "nic-gone": "nic-new", "nvlinks-fewer": "nvlinks-more"})


@pytest.fixture
def host() -> Element:
    return read((FIXTURES / "synthetic-h20-8gpu-8x400ib.xml").read_text())


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_a_change_is_named(host: Element, change: Change, expected: list[tuple[str, str, str]]) -> None:
    now = copy.deepcopy(host)
    change(now)
    found = drift(host, now)
    assert [(item["severity"], item["code"], item["where"]) for item in found] == expected
    for line in drift_lines(found):
        assert line.count("\n") == 0 and line.split(": ")[0] in {code for _, code, _ in expected}
    back = [(item["severity"], item["code"]) for item in drift(now, host)]
    for severity, code, _ in expected:
        assert (("note", BETTER[code]) if severity == "error" else (severity, code)) in back or code == "gdr-lost"


def test_what_was_and_what_is_stands_in_the_line(host: Element) -> None:
    now = copy.deepcopy(host)
    swap(now)
    assert "moved from 0000:38:00.0 to 0000:48:00.0" in drift_lines(drift(host, now))[0]


def test_order_is_no_difference(host: Element) -> None:
    now = copy.deepcopy(host)
    for element in walk(now):
        element.children.reverse()
    assert drift(host, now) == [] == drift(host, host)
