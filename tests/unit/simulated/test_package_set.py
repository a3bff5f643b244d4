"""packages.yml as data: what it means, and what it must not say."""

from __future__ import annotations

from typing import Any

import pytest
from packages_support import PRODUCTS, shipped, small
from rackserve.simulated.package_set import PackagesError, read


def test_texts_are_filled_for_each_driver() -> None:
    first, second = read(small())
    assert (first.version, first.cuda, second.version) == ("1.2", 13000, "1.3")
    tool = first.packages[0]
    assert (tool.version, tool.depends) == ("1.2-1", ("libtool1 (= 1.2-1)",))
    assert tool.summary == "a tool (simulated)"
    assert tool.files["/usr/bin/tool"].mode == 0o755
    assert second.packages[0].depends == ("libtool1 (= 1.3-1)",)


def test_a_package_with_its_own_version_comes_once() -> None:
    first, second = read(small())
    assert [package.file_name for package in first.packages] == ["tool_1.2-1_amd64.deb", "keys_1.0-1_all.deb"]
    assert [package.name for package in second.packages] == ["tool"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"drivers": []}, "drivers is empty"),
        ({"sources": {}}, "drivers 1.2: seen is not among sources"),
        ({"packages": {"Tool": {"summary": "x", "cites": {"name": ["seen"]}}}}, "package name 'Tool' must match"),
        ({"packages": {"tool": {"summary": "x"}}}, "tool: say in cites.name where it was seen"),
        ({"packages": {"tool": {"summary": "x", "cites": {"name": ["heard"]}}}}, "tool.cites.name: heard is not"),
        (
            {"packages": {"tool": {"summary": "x", "cites": {"name": ["seen"]}, "scripts": {"after": ":"}}}},
            "tool: after is no script",
        ),
        (
            {"packages": {"tool": {"summary": "x", "cites": {"name": ["seen"]}, "units": {"a.service": "started"}}}},
            "tool: started is no script or state",
        ),
        (
            {"packages": {"tool": {"summary": "x", "cites": {"name": ["seen"]}, "files": {"/a": {"copy": "b"}}}}},
            "tool: /a needs a path from / and exactly one of build",
        ),
        (
            {"packages": {"tool": {"summary": "x", "cites": {"name": ["seen"]}, "files": {"a": {"text": "b"}}}}},
            "tool: a needs a path from /",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(PackagesError) as refused:
        read(small(**change))
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_the_shipped_set_is_sound() -> None:
    drivers = read(shipped())
    assert [driver.version for driver in drivers] == ["580.65.06", "580.95.05"]
    for driver in drivers:
        names = {package.name for package in driver.packages}
        assert {"nvidia-open", "libnvidia-ml1", "nvidia-fabricmanager"} <= names
        built = set()
        for package in driver.packages:
            assert package.summary.endswith("(simulated)")
            assert not [text for text in (*package.depends, *package.files, *package.scripts.values()) if "@" in text]
            built |= {content.value for content in package.files.values() if content.kind == "build"}
            exact = [part for part in package.depends if "(= " in part]
            assert {part.split()[0] for part in exact} <= names
            own = driver.version if package.version == f"{driver.version}-1" else package.version.rpartition("-")[0]
            assert all(part.split("(= ")[1].startswith(f"{own}-1") for part in exact)
        assert built == set(PRODUCTS)


def test_fabric_manager_does_not_depend_on_the_driver() -> None:
    """As the real one: two versions install side by side, and the daemon refuses to run."""
    manager = next(package for package in read(shipped())[0].packages if package.name == "nvidia-fabricmanager")
    assert not [part for part in manager.depends if "nvidia" in part]
