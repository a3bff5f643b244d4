"""The wheels of a lock: which files satisfy it, and getting those that are missing."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..progress.report import Report
from .host import ReleaseError, Run, must
from .manifest import hash_file
from .markers import environment, holds


class Requirement(NamedTuple):
    """One locked package: ``name`` normalised (PEP 503), ``version``, the ``hashes`` (hex) its file may have."""

    name: str
    version: str
    hashes: set[str]


def normalise(name: str) -> str:
    """A package name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_lock(text: str, python: str) -> list[Requirement]:
    """The requirements of a hashed lock that are for CPython ``python`` ("3.11") on Linux x86_64.

    Raises ReleaseError for a line without ``==`` or without a sha256 hash, and for a marker that cannot be read.
    """
    locked, target = [], environment(python)
    for entry in text.replace("\\\n", " ").splitlines():
        words = entry.split()
        if not words or words[0].startswith("#"):
            continue
        name, pinned, version = words[0].rstrip(";").partition("==")
        hashes = {word.split(":", 1)[1] for word in words if word.startswith("--hash=sha256:")}
        if not pinned or not hashes:
            raise ReleaseError(
                f"the lock has {words[0]!r} without '==' or without a hash: compile it again (make lock)"
            )
        marker = entry.partition(" --hash=")[0].partition(";")[2]
        if not marker or holds(marker, target):
            locked.append(Requirement(normalise(name), version, hashes))
    if not locked:
        raise ReleaseError("the lock names no package: compile it again (make lock)")
    return locked


def choose_wheels(locked: Sequence[Requirement], wheelhouse: Path) -> dict[str, Path]:
    """{name: the wheel that satisfies it by name, version and content hash}; a requirement without one is left out.

    Where a build with a local version (2.13.0+cpu) and one without both satisfy, the local one is taken.
    """
    files: dict[str, list[Path]] = {}
    for wheel in sorted(wheelhouse.glob("*.whl"), key=lambda path: ("+" not in path.name, path.name)):
        files.setdefault(normalise(wheel.name.split("-", 1)[0]), []).append(wheel)

    def pick(requirement: Requirement) -> Path | None:
        candidates = files.get(requirement.name, [])
        named = [wheel for wheel in candidates if wheel.name.split("-")[1].split("+")[0] == requirement.version]
        return next((wheel for wheel in named if hash_file(wheel) in requirement.hashes), None)

    with ThreadPoolExecutor(max_workers=2) as pool:
        return {one.name: wheel for one, wheel in zip(locked, pool.map(pick, locked)) if wheel is not None}


def wanted(locked: Sequence[Requirement], chosen: dict[str, Path]) -> list[Requirement]:
    """``locked`` without nvidia-* and cuda-* when the chosen torch is a CPU build (+cpu), which needs none of them.

    nvidia-ml-py stays: it is no part of CUDA, and the guard of GPUs needs it.
    """
    if "torch" not in chosen or "+cpu-" not in chosen["torch"].name:
        return list(locked)
    return [one for one in locked if one.name == "nvidia-ml-py" or not one.name.startswith(("nvidia-", "cuda-"))]


def take_local(locked: Sequence[Requirement], wheelhouse: Path, find_links: Sequence[Path]) -> None:
    """Copy the wheels the lock accepts out of local folders; pip would prefer an index, whose links state hashes."""
    known = {one.name: one.hashes for one in locked}
    for folder in find_links:
        for wheel in sorted(folder.glob("*.whl")):
            there = wheelhouse / wheel.name
            if not there.exists() and hash_file(wheel) in known.get(normalise(wheel.name.split("-", 1)[0]), set()):
                part = there.with_name(there.name + ".part")
                shutil.copyfile(str(wheel), str(part))
                part.replace(there)


def write_lock(locked: Sequence[Requirement], path: Path, chosen: dict[str, Path] | None = None) -> None:
    """Write ``locked`` as a hashed requirements file; with ``chosen``, exactly those wheels' versions and hashes."""
    lines = []
    for one in locked:
        version, hashes = one.version, sorted(one.hashes)
        if chosen is not None:
            local = chosen[one.name].name.split("-")[1].partition("+")[2]
            version, hashes = version + (f"+{local}" if local else ""), [hash_file(chosen[one.name])]
        lines.append(" ".join([f"{one.name}=={version}", *(f"--hash=sha256:{digest}" for digest in hashes)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def download_wheels(
    lock: Path,
    wheelhouse: Path,
    *,
    python: str,
    pip_command: Sequence[str],
    find_links: Sequence[Path],
    run: Run,
    report: Report | None = None,
) -> tuple[list[Requirement], dict[str, Path]]:
    """Bring every wheel of ``lock`` for CPython ``python`` on Linux x86_64 into ``wheelhouse``: (needed, wheels).

    Only what is missing is fetched. Raises ReleaseError when pip fails or leaves the lock unsatisfied.
    """
    told = report or Report()
    told.phase("comparing wheels with the lock")
    locked = parse_lock(lock.read_text(encoding="utf-8"), python)
    wheelhouse.mkdir(parents=True, exist_ok=True)
    take_local(locked, wheelhouse, find_links)
    chosen = choose_wheels(locked, wheelhouse)
    needed = wanted(locked, chosen)
    missing = [one for one in needed if one.name not in chosen]
    if not missing:
        return needed, chosen
    command = [*pip_command, "download", "-q", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    # pip downloads for its own interpreter when that is the target's; only for another one must the tags be spelt out.
    status, version, _error = run([*pip_command, "--version"])
    if status != 0 or f"(python {python})" not in version:
        command += ["--python-version", python, "--implementation", "cp", "--abi", f"cp{python.replace('.', '')}"]
        command += [
            "--abi",
            "abi3",
            "--abi",
            "none",
            "--platform",
            "manylinux2014_x86_64",
            "--platform",
            "linux_x86_64",
        ]
        command += [word for minor in range(36, 16, -1) for word in ("--platform", f"manylinux_2_{minor}_x86_64")]
    rest = wheelhouse / "missing.txt"
    write_lock(missing, rest)
    told.phase("downloading", len(missing), "wheels")
    # pip keeps what it downloads in its temporary folder until it has everything.
    with tempfile.TemporaryDirectory(dir=str(wheelhouse), prefix=".download-") as scratch:
        pip = ["env", f"TMPDIR={scratch}", *command, "-d", str(wheelhouse), "-r", str(rest)]
        with told.sampled(lambda: sum(1 for _wheel in Path(scratch).rglob("*.whl"))):
            must(run, pip, f"downloading {len(missing)} wheels of {lock.name}")
    rest.unlink()
    chosen = choose_wheels(needed, wheelhouse)
    left = [one.name for one in needed if one.name not in chosen]
    if left:
        raise ReleaseError(
            f"{wheelhouse} still lacks {', '.join(left)} after the download: compile the lock again (make lock)"
        )
    return needed, chosen


def lock_digest(lock: Path) -> str:
    """sha256 of the lock without comments, so that a reworded comment does not build a new release."""
    lines = [line.strip() for line in lock.read_text(encoding="utf-8").splitlines()]
    return hashlib.sha256("\n".join(line for line in lines if line and line[0] != "#").encode()).hexdigest()
