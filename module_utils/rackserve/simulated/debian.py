"""A Debian package from a tree: control file, maintainer scripts, dpkg-deb."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from .package_set import Content, Package, PackagesError

Result = tuple[int, str, str]
Run = Callable[[list[str]], Result]

_PLAIN = 0o644
_PROGRAM = 0o755
_LEFT_OUT = ("__pycache__", ".mypy_cache", ".ruff_cache")

NOTICE = "Simulated for the lab of rackserve: it drives no hardware and is not NVIDIA's software."

USER = """\
if [ "$1" = configure ] && ! getent passwd {user} >/dev/null; then
  adduser --system --group --quiet --no-create-home --home /nonexistent --gecos "{name}" {user}
fi
"""
UNIT_INSTALLED = """\
if [ "$1" = configure ]; then
  deb-systemd-helper unmask {unit} >/dev/null
  {enable}
  if [ -d /run/systemd/system ]; then systemctl --system daemon-reload; fi
fi
"""
ENABLE = (
    "if deb-systemd-helper --quiet was-enabled {unit}; then deb-systemd-helper enable {unit} >/dev/null; "
    "else deb-systemd-helper update-state {unit} >/dev/null; fi"
)
UNIT_STOPPED = """\
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then deb-systemd-invoke stop {unit}; fi
"""
UNIT_REMOVED = """\
if [ "$1" = purge ]; then deb-systemd-helper purge {unit} >/dev/null; fi
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then systemctl --system daemon-reload; fi
"""


@dataclass(frozen=True)
class Inputs:
    """What packages are made of: the driver's build, its sources, pynvml.py, the repository's public key (binary)."""

    build: Path
    source: Path
    pynvml: Path
    keyring: Path


def must(run: Run, *command: str) -> str:
    """Run a command that has to succeed; its output, or PackagesError with what it said."""
    status, out, err = run(list(command))
    if status != 0:
        said = " ".join((err or out).split())
        raise PackagesError(f"{' '.join(command)}: {said}")
    return out


def source_files(folder: Path) -> list[Path]:
    """The files of a source folder, without what tools leave in it."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in found if not set(path.relative_to(folder).parts) & set(_LEFT_OUT)]


def build(package: Package, inputs: Inputs, work: Path, pool: Path, run: Run) -> Path:
    """Build one package into `pool`; the same inputs give the same bytes."""
    tree = work / package.file_name
    tree.mkdir(parents=True)
    for path, content in package.files.items():
        _place(package, tree / path.lstrip("/"), content, inputs)
    control = tree / "DEBIAN"
    write_control(package, tree, control)
    for folder in [tree, *tree.rglob("*")]:
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(_PROGRAM)
    target = pool / package.file_name
    epoch = f"SOURCE_DATE_EPOCH={package.epoch_s}"
    must(run, "env", epoch, "dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(target))
    return target


def _place(package: Package, target: Path, content: Content, inputs: Inputs) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if content.kind == "link":
        target.symlink_to(content.value)
    elif content.kind == "text":
        target.write_text(content.value)
        target.chmod(content.mode)
    elif content.kind == "source_folder":
        folder = inputs.source / content.value
        for path in source_files(folder):
            _copy(package, path, target / path.relative_to(folder), _PLAIN)
    else:
        named = {"build": inputs.build / content.value, "source": inputs.source / content.value}
        _copy(
            package, {**named, "pynvml": inputs.pynvml, "keyring": inputs.keyring}[content.kind], target, content.mode
        )


def _copy(package: Package, source: Path, target: Path, mode: int) -> None:
    if not source.is_file():
        raise PackagesError(f"{package.name}: {source} is not there; the driver's build and packages.yml differ")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def fields(package: Package, installed_kib: int) -> dict[str, str]:
    """The control file's fields, in Debian's order."""
    all_fields = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": package.architecture,
        "Maintainer": package.maintainer,
        "Installed-Size": str(installed_kib),
        "Provides": ", ".join(package.provides),
        "Depends": ", ".join(package.depends),
        "Section": "contrib/utils",
        "Priority": "optional",
        "Homepage": package.homepage,
        "Description": f"{package.summary}\n {NOTICE}",
    }
    return {key: value for key, value in all_fields.items() if value}


def paragraph(values: dict[str, str]) -> str:
    return "".join(f"{key}: {value}\n" for key, value in values.items())


def write_control(package: Package, tree: Path, control: Path) -> None:
    """The package's control files, last, because they sum up the tree."""
    content = [path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()]
    size_kib = sum(-(-path.stat().st_size // 1024) for path in content)
    control.mkdir()
    sums = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}\n"
        for path in content
    ]
    files = {
        "control": paragraph(fields(package, size_kib)),
        "md5sums": "".join(sums),
        "conffiles": "".join(f"{path}\n" for path, content in package.files.items() if content.conffile),
        "triggers": "".join(f"{line}\n" for line in package.triggers),
    }
    for name, text in files.items():
        if text:
            (control / name).write_text(text)
            (control / name).chmod(_PLAIN)
    for name, text in maintainer_scripts(package):
        (control / name).write_text(text)
        (control / name).chmod(_PROGRAM)


def maintainer_scripts(package: Package) -> Iterator[tuple[str, str]]:
    """Given scripts, with what users and units of the package need."""
    parts: dict[str, list[str]] = {name: [text] for name, text in package.scripts.items()}
    for user, name in package.users.items():
        parts.setdefault("postinst", []).insert(0, USER.format(user=user, name=name))
    for unit, state in package.units.items():
        enable = ENABLE if state == "enabled" else "deb-systemd-helper update-state {unit} >/dev/null"
        parts.setdefault("postinst", []).append(UNIT_INSTALLED.format(unit=unit, enable=enable.format(unit=unit)))
        parts.setdefault("prerm", []).append(UNIT_STOPPED.format(unit=unit))
        parts.setdefault("postrm", []).append(UNIT_REMOVED.format(unit=unit))
    for name, texts in sorted(parts.items()):
        yield name, "#!/bin/sh\nset -e\n" + "".join(texts)
