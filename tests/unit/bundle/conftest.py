"""A signed repository of two small packages, a key of the site, and what a bundle is asked to be."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundle_support import Site, package
from rackserve.bundle.debs import write_repository
from rackserve.bundle.signature import Signer
from rackserve.progress.report import Report
from rackserve.release.host import must, run_command


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """Made once; in a short path, because gpg's agent has a socket there."""
    home = Path(tempfile.mkdtemp(prefix="rsb-"))
    passphrase = home / "passphrase"
    passphrase.write_text("correct horse\n")
    passphrase.chmod(0o600)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback"]
    make = ["--passphrase-file", str(passphrase), "--quick-generate-key", "site <site@localhost>", "ed25519", "sign"]
    must(run_command, [*gpg, *make, "never"], "making a key")
    listed = must(run_command, [*gpg, "--list-keys", "--with-colons"], "listing keys")
    key = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
    public = home / "key.asc"
    public.write_text(must(run_command, [*gpg, "--armor", "--export"], "exporting the key"))
    yield Site(key, home, passphrase, public)
    run_command(["gpgconf", "--homedir", str(home), "--kill", "all"])
    shutil.rmtree(home, ignore_errors=True)  # the ending agent removes its sockets meanwhile


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Path:
    """What NVIDIA's repository is to the bundle: `tool` needs `base`, and nobody asks for `other`."""
    folder = tmp_path_factory.mktemp("mirror")
    package(folder, "tool", "1:1.0-1", "base (>= 1)")
    package(folder, "base", "1.4-1")
    package(folder, "other", "1.0-1")
    write_repository(folder, "mirror", Signer(site.key, str(site.home), str(site.passphrase)), run_command, Report())
    return folder


@pytest.fixture
def given(tmp_path: Path, site: Site, mirror: Path) -> dict[str, Any]:
    """What the module is asked for."""
    sources = tmp_path / "bundle.sources"
    sources.write_text(f"Types: deb\nURIs: file:{mirror}/\nSuites: ./\nSigned-By: {site.public}\n")
    (tmp_path / "engine.tar.zst").write_text("an archive")
    (tmp_path / "requirements.yml").write_text("---\n# none\ncollections: []\n")
    return {
        "name": "set-1",
        "output_dir": str(tmp_path / "bundles"),
        "debs": {
            "packages": {"tool": "1:1.0-1"},
            "sources": str(sources),
            "status": "",
            "architecture": "amd64",
        },
        "wheels": [],
        "files": [{"source": str(tmp_path / "engine.tar.zst"), "path": "engine/releases/set-1/set-1.tar.zst"}],
        "collections": str(tmp_path / "requirements.yml"),
        "signing": site.signing,
        "pip_command": ["pip"],
        "galaxy_command": ["ansible-galaxy"],
    }
