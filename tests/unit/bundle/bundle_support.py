"""The site's key, and packages of one file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from rackserve.release.host import must, run_command


class Site(NamedTuple):
    """The site's key: its fingerprint, gpg's folder, the passphrase's file, the public key."""

    key: str
    home: Path
    passphrase: Path
    public: Path

    @property
    def signing(self) -> dict[str, str]:
        return {"key": self.key, "gpg_home": str(self.home), "passphrase_file": str(self.passphrase)}


def package(folder: Path, name: str, version: str, depends: str = "") -> None:
    """A package of one file."""
    tree = folder / f".{name}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / f"usr/share/{name}").mkdir(parents=True)
    (tree / f"usr/share/{name}/file").write_text(f"{name} {version}\n")
    lines = [f"Package: {name}", f"Version: {version}", "Architecture: all", "Maintainer: nobody <nobody@localhost>"]
    lines += [f"Depends: {depends}"] if depends else []
    (tree / "DEBIAN/control").write_text("\n".join([*lines, f"Description: {name}"]) + "\n")
    file = folder / f"{name}_{version.rpartition(':')[2]}_all.deb"
    must(run_command, ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(file)], "packing")
    shutil.rmtree(tree)
