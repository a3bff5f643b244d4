"""The lab's mirror: the simulated driver compiled, packed and signed, once for each state of its sources."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import debian, package_set, repository
from .debian import Run, must

# What this code makes of the same sources; another form is another mirror.
FORM = 1


@dataclass(frozen=True)
class Recipe:
    """`packages` is files/simulated/packages.yml as data, `driver` the sources, `keys` the folder of the lab's keys."""

    packages: Mapping[str, Any]
    driver: Path
    pynvml: Path
    keys: Path

    @property
    def digest(self) -> str:
        """Names the mirror: other sources, packages or keys are another one."""
        state = hashlib.sha256(json.dumps([FORM, self.packages], sort_keys=True).encode())
        for path in debian.source_files(self.driver):
            state.update(f"{path.relative_to(self.driver)} {path.stat().st_mode & 0o100}\n".encode())
            state.update(path.read_bytes())
        for path in (self.pynvml, self.keys / repository.PUBLIC_KEY):
            state.update(path.read_bytes())
        return state.hexdigest()[:12]


def ensure(recipe: Recipe, mirrors: Path, run: Run) -> tuple[Path, bool]:
    """Build the mirror if it is not there; (its folder, whether something was made). A cut-off build is thrown away."""
    drivers = package_set.read(recipe.packages)
    for path in (recipe.driver / "Makefile", recipe.pynvml):
        if not path.is_file():
            raise package_set.PackagesError(f"{path} is not there; run `make venv` and see files/simulated")
    made_key = repository.ensure_key(recipe.keys, run)
    mirror = mirrors / recipe.digest
    if mirror.is_dir():
        return mirror, made_key
    work = mirrors / f"{recipe.digest}.part"
    if work.exists():
        shutil.rmtree(work)
    pool = work / "pool"
    pool.mkdir(parents=True)
    keyring = work / "keyring.gpg"
    repository.export_binary(recipe.keys, keyring, run)
    for driver in drivers:
        built = work / "build" / driver.version
        built.mkdir(parents=True)
        words = [f"OUT={built}", f"DRIVER_VERSION={driver.version}", f"CUDA_VERSION={driver.cuda}"]
        words += [f"{name.upper()}_VERSION={version}" for name, version in driver.libraries.items()]
        must(run, "make", "-s", "-C", str(recipe.driver), *words)
        inputs = debian.Inputs(built, recipe.driver, recipe.pynvml, keyring)
        for package in driver.packages:
            debian.build(package, inputs, work / "trees" / driver.version, pool, run)
    (pool / "Packages").write_text(repository.index(pool, run))
    newest_s = max(package.epoch_s for driver in drivers for package in driver.packages)
    (pool / "Release").write_text(repository.release(pool, newest_s))
    repository.sign(pool, recipe.keys, run)
    shutil.copyfile(recipe.keys / repository.PUBLIC_KEY, pool / repository.PUBLIC_KEY)
    for path in (pool, *pool.iterdir()):
        path.chmod(0o755 if path == pool else 0o644)
    pool.replace(mirror)
    shutil.rmtree(work)
    return mirror, True
