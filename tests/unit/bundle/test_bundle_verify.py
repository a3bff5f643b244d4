"""A bundle that was changed on its way is refused, and what changed is named."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from bundle_support import Site
from rackserve.bundle.collect import collect
from rackserve.bundle.manifest import MANIFEST, package_sums, read_manifest, verify
from rackserve.progress.report import Report
from rackserve.release.host import ReleaseError, run_command


@pytest.fixture
def folder(given: dict[str, Any]) -> Path:
    return Path(collect(given, run_command, Report())["path"])


def test_a_bundle_as_it_was_made_is_proven(folder: Path, site: Site, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere"
    shutil.copytree(folder, copied)
    said = verify(copied, site.public, run_command, Report())
    assert said["signed_by"] == site.key and said["files"] == 6 and said["bytes"] > 0
    assert said["about"]["bundle"] == "set-1"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "debs/base_1.4-1_all.deb").write_bytes(b"x"), "debs/base_1.4-1_all.deb differs"),
        (lambda f: (f / "engine/releases/set-1/set-1.tar.zst").write_text("AN ARCHIVE"), "set-1.tar.zst differs"),
        (lambda f: (f / "debs/base_1.4-1_all.deb").unlink(), "debs/base_1.4-1_all.deb is missing"),
        (lambda f: (f / "debs/evil.deb").write_text("x"), "debs/evil.deb is not in the manifest"),
        (lambda f: (f / "debs/evil.deb").symlink_to("/etc/passwd"), "is no plain file"),
        (lambda f: (f / MANIFEST).write_text((f / MANIFEST).read_text() + " "), "no signature by"),
        (lambda f: (f / f"{MANIFEST}.asc").unlink(), "this bundle is not signed"),
        (lambda f: (f / MANIFEST).unlink(), "this is no bundle"),
    ],
)
def test_what_was_changed_is_named(spoil: Callable[[Path], object], said: str, folder: Path, site: Site) -> None:
    spoil(folder)
    with pytest.raises(ReleaseError) as refused:
        verify(folder, site.public, run_command, Report())
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_only_the_given_key_counts(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "g"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    assert run_command([*gpg, "--quick-generate-key", "other <o@localhost>", "ed25519", "sign", "never"])[0] == 0
    other = tmp_path / "other.gpg"
    assert run_command([*gpg, "--output", str(other), "--export"])[0] == 0
    run_command(["gpgconf", "--homedir", str(home), "--kill", "all"])
    with pytest.raises(ReleaseError, match="no signature by"):
        verify(folder, other, run_command, Report())
    with pytest.raises(ReleaseError, match="give the public key"):
        verify(folder, tmp_path / "none.asc", run_command, Report())


def test_a_host_compares_its_packages_with_sha256sum(folder: Path) -> None:
    """As bring-bundle has it compare them: packages and indexes, and nothing else of the bundle."""
    manifest = read_manifest(folder)
    assert manifest is not None
    (folder / "debs/base_1.4-1_all.deb").write_bytes(b"x")
    (folder / "debs/Packages").unlink()
    lines = "\n".join(package_sums(manifest, str(folder)))
    said = subprocess.run(
        ["/usr/bin/sha256sum", "--check"],
        input=lines, env={"LC_ALL": "C"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    words = dict(line.rpartition("/")[2].split(": ", 1) for line in said.stdout.splitlines())
    assert words == {
        "base_1.4-1_all.deb": "FAILED",
        "tool_1.0-1_all.deb": "OK",
        "InRelease": "OK",
        "Packages": "FAILED open or read",
        "Release": "OK",
    }
    assert said.returncode == 1
