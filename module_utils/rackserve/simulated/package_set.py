"""The simulated driver's packages as data: what files/simulated/packages.yml means."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
KINDS = ("build", "text", "source", "source_folder", "link", "pynvml", "keyring")
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
UNIT_STATES = ("enabled", "present")


class PackagesError(Exception):
    """The packages cannot be built; the text is one line: what, where, how to fix."""


@dataclass(frozen=True)
class Content:
    """Where a file of a package comes from: a `kind` of KINDS and what it names."""

    kind: str
    value: str
    mode: int = 0o644
    conffile: bool = False


@dataclass(frozen=True)
class Package:
    """One package in one version, all texts filled in."""

    name: str
    version: str
    architecture: str
    summary: str
    maintainer: str
    homepage: str
    epoch_s: int
    depends: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    files: Mapping[str, Content] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict)
    triggers: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        return f"{self.name}_{self.version}_{self.architecture}.deb"


@dataclass(frozen=True)
class Driver:
    """One version of the driver, the libraries that come with it by name, and the packages made of their build."""

    version: str
    cuda: int
    packages: tuple[Package, ...]
    libraries: Mapping[str, str] = field(default_factory=dict)


def read(data: Mapping[str, Any]) -> list[Driver]:
    """The drivers that the data describes. A package in one version comes with the first driver that has it."""
    _cited(data)
    drivers: list[Driver] = []
    files: set[str] = set()
    for given in data["drivers"]:
        libraries = {name: str(version) for name, version in given.get("libraries", {}).items()}
        words = {"version": str(given["version"]), "package_version": str(given["package_version"]), **libraries}
        for name, version in libraries.items():
            words.update({f"{name}.{place}": part for place, part in enumerate(version.split("."))})
        made = [_package(name, said, data, words, given["epoch_s"]) for name, said in data["packages"].items()]
        packages = tuple(package for package in made if package.file_name not in files)
        files |= {package.file_name for package in packages}
        drivers.append(Driver(words["version"], int(given["cuda"]), packages, libraries))
    if not drivers:
        raise PackagesError("packages.yml: drivers is empty; name at least one version")
    return drivers


def _package(
    name: str, said: Mapping[str, Any], data: Mapping[str, Any], words: Mapping[str, str], epoch_s: int
) -> Package:
    if not NAME.fullmatch(name):
        raise PackagesError(f"packages.yml: package name {name!r} must match {NAME.pattern}")
    unknown = set(said.get("scripts", {})) - set(SCRIPTS)
    unknown |= {state for state in said.get("units", {}).values() if state not in UNIT_STATES}
    if unknown:
        raise PackagesError(f"packages.yml: {name}: {', '.join(sorted(unknown))} is no script or state of a unit")
    return Package(
        name=name,
        version=_fill(str(said.get("version", words["package_version"])), words),
        architecture=said.get("architecture", data["architecture"]),
        summary=f"{said['summary']} (simulated)",
        maintainer=data["maintainer"],
        homepage=data["homepage"],
        epoch_s=int(epoch_s),
        depends=tuple(_fill(part, words) for part in said.get("depends", [])),
        provides=tuple(said.get("provides", [])),
        files={_fill(path, words): _content(name, path, of, words) for path, of in said.get("files", {}).items()},
        scripts={script: _fill(text, words) for script, text in said.get("scripts", {}).items()},
        units=said.get("units", {}),
        users=said.get("users", {}),
        triggers=tuple(said.get("triggers", [])),
    )


def _content(name: str, path: str, of: Mapping[str, Any], words: Mapping[str, str]) -> Content:
    kinds = [kind for kind in KINDS if kind in of]
    if len(kinds) != 1 or not path.startswith("/") or "/../" in path:
        raise PackagesError(f"packages.yml: {name}: {path} needs a path from / and exactly one of {', '.join(KINDS)}")
    value = _fill(str(of[kinds[0]]), words)
    return Content(kinds[0], value, int(str(of.get("mode", "0644")), 8), bool(of.get("conffile", False)))


def _fill(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text


def _cited(data: Mapping[str, Any]) -> None:
    """Raise PackagesError on a package without a source for its name, or a source that is nowhere."""
    for name, said in data["packages"].items():
        if not said.get("cites", {}).get("name"):
            raise PackagesError(f"packages.yml: {name}: say in cites.name where it was seen, or unverified")
    for where, cites in _cites(data):
        for cite in cites:
            if cite not in data["sources"]:
                raise PackagesError(f"packages.yml: {where}: {cite} is not among sources; add it there")


def _cites(data: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for given in data["drivers"]:
        yield f"drivers {given['version']}", given["cites"]
    for name, said in data["packages"].items():
        for what, cites in said["cites"].items():
            yield f"{name}.cites.{what}", cites
