"""Markers mean what `packaging` says they mean."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from packaging.markers import Marker
from rackserve.release.host import ReleaseError
from rackserve.release.markers import environment, holds
from rackserve.release.wheelhouse import parse_lock

LOCKS = sorted((Path(__file__).resolve().parents[3] / "requirements").glob("*.txt"))
MARKERS = (
    "python_full_version < '3.12'",
    "python_full_version >= '3.12'",
    'python_version >= "3.9" and python_version != "3.11"',
    "python_version <= '3.11' and (sys_platform == 'win32' or platform_machine == 'x86_64')",
    "sys_platform == 'win32' or platform_machine == 'x86_64' and os_name == 'nt'",
    "implementation_name != 'PyPy' and platform_python_implementation != 'PyPy'",
    "platform_machine in 'x86_64 amd64'",
    "'linux' not in sys_platform",
    "python_full_version > '3.11.4'",
    "(python_version == '3.10' or python_version == '3.12') and platform_system == 'Linux'",
    "extra == 'tests'",
)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
@pytest.mark.parametrize("marker", MARKERS)
def test_a_marker_holds_where_packaging_says_so(marker: str, python: str) -> None:
    known = environment(python)
    assert holds(marker, known) == Marker(marker).evaluate(known)


@pytest.mark.parametrize(
    "marker",
    [
        "",
        "python_version",
        "python_version >=",
        "moon_phase == 'full'",
        "python_version ~= '3.11'",
        "(python_version == '3.11'",
        "python_version == '3.11')",
        "python_version == 'new'",
        "python_version and '3.11'",
        "sys_platform 'linux'",
    ],
)
def test_a_marker_that_cannot_be_read_is_named(marker: str) -> None:
    with pytest.raises(ReleaseError, match="marker that cannot be read"):
        holds(marker, environment("3.11"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_each_of_our_locks_has_one_version_of_a_package(lock: Path) -> None:
    for python in ("3.11", "3.12"):
        names = [one.name for one in parse_lock(lock.read_text("utf-8"), python)]
        assert names and len(names) == len(set(names))


def test_a_lock_for_several_pythons_is_read_for_one() -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    text = "".join(
        f"deprecated=={version} ; python_full_version {when} '3.12' \\\n    --hash=sha256:{digest}\n    # via x\n"
        for version, when in (("1.3.1", "<"), ("3.0.1", ">="))
    )
    assert [one.version for one in parse_lock(text, "3.11")] == ["1.3.1"]
    assert [one.version for one in parse_lock(text, "3.12")] == ["3.0.1"]
