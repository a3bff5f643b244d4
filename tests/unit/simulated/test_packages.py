"""The mirror: compiled, packed, signed, once."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packages_support import REPO, Pretended, driver_sources, recipe, run, shipped, small
from rackserve.simulated import debian, packages, repository
from rackserve.simulated.package_set import Content, PackagesError, read

UNIT = "a.service"


def named(packages_data: dict[str, Any], name: str) -> Any:
    return next(package for package in read(packages_data)[0].packages if package.name == name)


def test_a_mirror_is_built_once(tmp_path: Path) -> None:
    asked = Pretended()
    given = recipe(tmp_path, small())
    path, made = packages.ensure(given, tmp_path / "mirrors", asked)
    assert made
    assert path == tmp_path / "mirrors" / given.digest
    assert {entry.name for entry in path.iterdir()} == {
        "Packages", "Release", "InRelease", "simulated-archive-keyring.asc", "tool_1.2-1_amd64.deb",
        "tool_1.3-1_amd64.deb", "keys_1.0-1_all.deb",
    }  # fmt: skip
    assert all(stat.S_IMODE(entry.stat().st_mode) == 0o644 for entry in path.iterdir())
    makes = [call for call in asked.calls if call[0] == "make"]
    assert [call[-2:] for call in makes] == [
        ["DRIVER_VERSION=1.2", "CUDA_VERSION=13000"],
        ["DRIVER_VERSION=1.3", "CUDA_VERSION=13000"],
    ]
    again = Pretended()
    assert packages.ensure(given, tmp_path / "mirrors", again) == (path, False)
    assert again.calls == []
    assert [entry.name for entry in (tmp_path / "mirrors").iterdir()] == [path.name]


def test_other_sources_keys_or_packages_are_another_mirror(tmp_path: Path) -> None:
    given = recipe(tmp_path, small())
    repository.ensure_key(given.keys, Pretended())
    digests = {given.digest, replace(given, packages=small(maintainer="another")).digest}
    (given.driver / "nvidia_smi_simulated/__pycache__/other.pyc").write_bytes(b"y")
    assert given.digest in digests
    for path in (given.driver / "nvidia-smi", given.pynvml, given.keys / repository.PUBLIC_KEY):
        path.write_text("another")
        digests.add(given.digest)
    (given.driver / "nvidia-smi").chmod(0o755)
    digests.add(given.digest)
    assert len(digests) == 6


def test_a_cut_off_build_is_thrown_away(tmp_path: Path) -> None:
    given = recipe(tmp_path, small())
    repository.ensure_key(given.keys, Pretended())
    left = tmp_path / "mirrors" / f"{given.digest}.part" / "half"
    left.mkdir(parents=True)
    packages.ensure(given, tmp_path / "mirrors", Pretended())
    assert not left.parent.exists()


def test_a_failure_names_the_command_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(PackagesError) as failed:
        packages.ensure(recipe(tmp_path, small()), tmp_path / "mirrors", Pretended("make"))
    assert str(failed.value).endswith("CUDA_VERSION=13000: make went wrong")
    assert not [entry for entry in (tmp_path / "mirrors").iterdir() if not entry.name.endswith(".part")]


def test_missing_inputs_are_named(tmp_path: Path) -> None:
    given = recipe(tmp_path, small())
    given.pynvml.unlink()
    with pytest.raises(PackagesError, match=r"pynvml\.py is not there"):
        packages.ensure(given, tmp_path / "mirrors", Pretended())
    package = named(small(), "tool")
    inputs = debian.Inputs(tmp_path, tmp_path, tmp_path / "pynvml.py", tmp_path / "k")
    with pytest.raises(PackagesError, match=r"tool: .*nv-fabricmanager is not there"):
        debian.build(package, inputs, tmp_path / "work", tmp_path, Pretended())


def test_the_key_is_made_once_and_its_secret_kept_private(tmp_path: Path) -> None:
    asked = Pretended()
    assert repository.ensure_key(tmp_path / "keys", asked) is True
    secret = tmp_path / "keys" / repository.SECRET_KEY
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    homes = {call[2] for call in asked.calls}
    assert len(homes) == 1
    assert not Path(homes.pop()).exists()
    assert asked.calls[-1][0] == "gpgconf"
    assert asked.calls[-1][-2:] == ["--kill", "all"]
    assert repository.ensure_key(tmp_path / "keys", Pretended("gpg")) is False
    secret.unlink()
    with pytest.raises(PackagesError, match=r"delete .*simulated-archive-keyring"):
        repository.sign(tmp_path, tmp_path / "keys", Pretended())


def test_gpg_is_ended_when_it_fails_too(tmp_path: Path) -> None:
    asked = Pretended("--quick-generate-key")
    with pytest.raises(PackagesError, match="went wrong"):
        repository.ensure_key(tmp_path / "keys", asked)
    assert asked.calls[-1][0] == "gpgconf"
    assert list((tmp_path / "keys").iterdir()) == []


def test_maintainer_scripts_enable_users_and_units() -> None:
    package = replace(named(small(), "tool"), units={UNIT: "enabled"}, users={"nvpd": "A Daemon"})
    scripts = dict(debian.maintainer_scripts(package))
    assert set(scripts) == {"postinst", "prerm", "postrm"}
    assert scripts["postinst"].index("adduser --system") < scripts["postinst"].index(
        f"deb-systemd-helper enable {UNIT}"
    )
    present = dict(debian.maintainer_scripts(replace(package, units={UNIT: "present"})))
    assert f"enable {UNIT}" not in present["postinst"]
    assert f"deb-systemd-invoke stop {UNIT}" in present["prerm"]


def test_every_maintainer_script_is_a_valid_script(tmp_path: Path) -> None:
    checked = 0
    for package in read(shipped())[0].packages:
        for name, text in debian.maintainer_scripts(package):
            (tmp_path / name).write_text(text)
            assert run(["sh", "-n", str(tmp_path / name)]) == (0, "", ""), (package.name, name)
            checked += 1
    assert checked > 5


def test_control_files_describe_the_tree(tmp_path: Path) -> None:
    package = replace(
        named(small(), "tool"),
        files={
            "/etc/tool.conf": Content("text", "a=1\n", conffile=True),
            "/usr/lib/tool.so.1": Content("link", "tool.so.1.2"),
        },
        triggers=("activate-noawait ldconfig",),
    )
    inputs = debian.Inputs(tmp_path, tmp_path, tmp_path, tmp_path)
    debian.build(package, inputs, tmp_path / "work", tmp_path, Pretended())
    control = tmp_path / "work" / package.file_name / "DEBIAN"
    assert (control / "conffiles").read_text() == "/etc/tool.conf\n"
    assert (control / "md5sums").read_text() == "d5e29449b9e66d5b4bb0d6ce48fbbcb1  etc/tool.conf\n"
    assert (control / "triggers").read_text() == "activate-noawait ldconfig\n"
    assert "Installed-Size: 1\n" in (control / "control").read_text()
    assert "Provides" not in (control / "control").read_text()
    assert (tmp_path / "work" / package.file_name / "usr/lib/tool.so.1").readlink() == Path("tool.so.1.2")


def test_the_driver_builds_to_a_signed_repository(tmp_path: Path) -> None:
    """For real, with the driver's own sources, in one of its versions."""
    data = shipped()
    given = recipe(tmp_path, {**data, "drivers": data["drivers"][1:]})
    given = replace(given, driver=REPO / "files/simulated/driver")
    path, _ = packages.ensure(given, tmp_path / "mirrors", run)
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    keyring = tmp_path / "ring.gpg"
    repository.export_binary(given.keys, keyring, run)
    status, _, said = run(["gpgv", "--homedir", str(home), "--keyring", str(keyring), str(path / "InRelease")])
    assert status == 0, said
    signed = (path / "InRelease").read_text().replace("Packages\n", "Package5\n")
    (tmp_path / "forged").write_text(signed)
    assert run(["gpgv", "--homedir", str(home), "--keyring", str(keyring), str(tmp_path / "forged")])[0] != 0
    index = (path / "Packages").read_text()
    assert "Package: nvidia-open\nVersion: 580.95.05-1\n" in index
    assert len(index.split("\n\n")) == len(list(path.glob("*.deb"))) == 19
    listing = run(["dpkg-deb", "--contents", str(path / "nvidia-driver-cuda_580.95.05-1_amd64.deb")])[1]
    assert "-rwxr-xr-x root/root" in listing
    assert "./usr/lib/nvidia-smi-simulated/pynvml.py" in listing
    assert "pycache" not in listing
    linked = run(["dpkg-deb", "--contents", str(path / "libnvidia-ml1_580.95.05-1_amd64.deb")])[1]
    assert "libnvidia-ml.so.1 -> libnvidia-ml.so.580.95.05" in linked


def test_the_same_sources_give_the_same_packages(tmp_path: Path) -> None:
    source = driver_sources(tmp_path)
    packed = []
    for name in ("one", "two"):
        build = tmp_path / name
        build.mkdir()
        run(["make", "-s", "-C", str(source), f"OUT={build}", "DRIVER_VERSION=1.2", "CUDA_VERSION=1"])
        inputs = debian.Inputs(build, source, source, source)
        packed.append(debian.build(named(small(), "tool"), inputs, build / "trees", build, run))
    assert packed[0].read_bytes() == packed[1].read_bytes()
    listing = run(["env", "TZ=UTC", "dpkg-deb", "--contents", str(packed[0])])[1]
    assert "-rwxr-xr-x root/root" in listing
    assert "2023-11-14 22:13 ./usr/bin/tool" in listing
