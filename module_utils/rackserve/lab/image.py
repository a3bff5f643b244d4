"""The root file system that all lab hosts share: a bare Debian 12 with a small package repository inside.

Hosts have no way out, so what the roles install has to be on them as packages; installed it is only by the roles.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from .network import must
from .spec import Run


@dataclass(frozen=True)
class Recipe:
    """`installed` packages are in the image, `offered` ones lie in its repository; `files` is copied over it."""

    suite: str
    installed: tuple[str, ...]
    offered: tuple[str, ...]
    masked_units: tuple[str, ...]
    enabled_units: tuple[str, ...]
    files: Path

    @property
    def digest(self) -> str:
        """Names the image: another recipe is another image."""
        state = hashlib.sha256(
            repr((self.suite, self.installed, self.offered, self.masked_units, self.enabled_units)).encode()
        )
        for path in sorted(self.files.rglob("*")):
            if path.is_file():
                state.update(f"{path.relative_to(self.files)} {path.stat().st_mode & 0o100}\n".encode())
                state.update(path.read_bytes())
        return state.hexdigest()[:12]


def mmdebstrap(recipe: Recipe, target: Path) -> list[str]:
    """The command that builds the tree; offered packages are fetched while the builder still has its package lists."""
    fetch = " ".join(["apt-get", "install", "--yes", "--no-install-recommends", "--download-only", *recipe.offered])
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(recipe.installed)}",
        f'--customize-hook=rm -f "$1"/var/cache/apt/archives/*.deb && chroot "$1" {fetch}',
        '--customize-hook=mkdir -p "$1/srv/packages" && mv "$1"/var/cache/apt/archives/*.deb "$1/srv/packages/"',
        f"--customize-hook=cp -r --no-preserve=ownership '{recipe.files}/.' \"$1/\"",
        f'--customize-hook=chroot "$1" systemctl --quiet mask {" ".join(recipe.masked_units)}',
        f'--customize-hook=chroot "$1" systemctl --quiet enable {" ".join(recipe.enabled_units)}',
        '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/apt/sources.list" && : > "$1/etc/machine-id"',
        recipe.suite,
        str(target),
    ]


def index_packages(tree: Path, run: Run) -> None:
    """Make the image's own repository usable without any other one."""
    listing = must(run, "env", "-C", str(tree / "srv/packages"), "apt-ftparchive", "packages", ".")
    (tree / "srv/packages/Packages").write_text(listing)
    must(run, "chroot", str(tree), "apt-get", "--quiet", "update")


def ensure(recipe: Recipe, images_dir: Path, run: Run) -> tuple[Path, bool]:
    """Build the image if it is not there; (its folder, whether it was built). A cut-off build is thrown away."""
    image = images_dir / recipe.digest
    if image.is_dir():
        return image, False
    images_dir.mkdir(parents=True, exist_ok=True)
    part = images_dir / f"{recipe.digest}.part"
    if part.exists():
        shutil.rmtree(part)
    must(run, *mmdebstrap(recipe, part))
    index_packages(part, run)
    part.rename(image)
    return image, True
