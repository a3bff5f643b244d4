"""Debian packages with what they depend on, resolved by apt against a given state, as a flat signed repository."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from ..converge.host import one_line
from ..progress.report import Report
from ..release.archive import require_free
from ..release.host import ReleaseError, Run, must
from ..release.manifest import hash_file
from .signature import Signer, sign_release

_URI = re.compile(r"^'([^']+)' (\S+) (\d+)(?: SHA256:([0-9a-f]{64}))?", re.MULTILINE)
# The epoch in a file's name, 1%3a, is left out: a web server's paths are easier without.
_EPOCH = re.compile(r"_\d+%3a")
_INDEXES = ("Packages", "Release", "InRelease")


class Wanted(NamedTuple):
    """`packages`: name to exact version, "" for the newest; `sources`: a deb822 file; `status`: dpkg's, "" for none."""

    packages: Mapping[str, str]
    sources: str
    status: str = ""
    architecture: str = "amd64"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Wanted:
        """Out of plain data."""
        return cls(given["packages"], given["sources"], given.get("status") or "", given["architecture"])


class Deb(NamedTuple):
    """One file that apt would fetch; `sha256` is "" where the repository's index has none."""

    uri: str
    name: str
    size: int
    sha256: str


def write_state(wanted: Wanted, work: Path) -> list[str]:
    """apt's own folders below `work`, apart from this machine's; returns the words in front of an apt command."""
    for folder in ("state/lists/partial", "cache/archives/partial", "empty"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    status = work / "status"
    if wanted.status:
        shutil.copyfile(wanted.status, str(status))
    else:
        status.write_text("", encoding="utf-8")
    settings = {
        "Dir::State": work / "state",
        "Dir::State::status": status,
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": wanted.sources,
        "Dir::Etc::sourceparts": work / "empty",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": work / "empty",
        "Dir::Etc::parts": work / "empty",
        "Dir::Etc::trusted": "/dev/null",
        "Dir::Etc::trustedparts": work / "empty",
        "APT::Architecture": wanted.architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
    }
    lines = [f'{key} "{value}";' for key, value in settings.items()]
    lines += ["#clear APT::Architectures;", f'APT::Architectures {{ "{wanted.architecture}"; }};']
    lines += ["#clear APT::Update::Post-Invoke;", "#clear APT::Update::Post-Invoke-Success;"]
    (work / "apt.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ["env", f"APT_CONFIG={work / 'apt.conf'}", "LC_ALL=C"]


def resolve(wanted: Wanted, work: Path, run: Run) -> tuple[list[str], list[Deb]]:
    """(apt-get with its options, what it would fetch). Raises ReleaseError with apt's words where it cannot."""
    for path, fix in ((wanted.sources, "write the sources file"), (wanted.status, "copy /var/lib/dpkg/status there")):
        if path and not Path(path).is_file():
            raise ReleaseError(f"{path} is missing: {fix}")
    apt = [*write_state(wanted, work), "apt-get", "--quiet=1", "--yes", "--no-remove"]
    must(run, [*apt, "update"], f"reading the indexes of {wanted.sources}")
    status, planned, said = run([*apt, "--print-uris", "install", *_names(wanted)])
    if status != 0:
        # apt names what does not fit on its standard output, and only that it does not on the other.
        unmet = [line.strip() for line in planned.splitlines() if "Depends:" in line]
        why = " | ".join([*unmet, *(line for line in said.splitlines() if line.startswith("E: "))])
        raise ReleaseError(f"resolving the packages of {wanted.sources} failed: {why or one_line(said)}")
    found = [Deb(uri, name, int(size), digest) for uri, name, size, digest in _URI.findall(planned)]
    return apt, [deb for deb in found if deb.name.endswith(".deb")]


def collect_debs(wanted: Wanted, target: Path, work: Path, run: Run, report: Report) -> int:
    """Bring the packages, with all they depend on beyond `status`, into `target`; returns how many.

    What an earlier, interrupted call fetched is used again. Raises ReleaseError.
    """
    report.phase("resolving packages")
    apt, planned = resolve(wanted, work, run)
    total = sum(deb.size for deb in planned)
    require_free(target, 2 * total, "collecting packages")
    archives = work / "cache/archives"
    report.phase("downloading packages", total, "B")
    with report.sampled(lambda: sum(path.stat().st_size for path in archives.rglob("*.deb"))):
        must(run, [*apt, "--download-only", "install", *_names(wanted)], "downloading packages")
    target.mkdir(parents=True)
    for deb in planned:
        # apt uses packages of a file: repository where they lie.
        local = deb.uri.startswith("file:")
        there = Path(unquote(deb.uri[len("file:") :])) if local else archives / deb.name
        if not there.is_file():
            raise ReleaseError(f"apt did not bring {deb.name}: run again; {archives} keeps what is there")
        copy = target / _EPOCH.sub("_", deb.name)
        shutil.copyfile(str(there), str(copy))
        if deb.sha256 and hash_file(copy) != deb.sha256:
            raise ReleaseError(f"{there} is not what the index says (sha256): delete it and run again")
    return len(planned)


def _names(wanted: Wanted) -> list[str]:
    return [f"{name}={version}" if version else name for name, version in sorted(wanted.packages.items())]


def write_repository(folder: Path, label: str, signer: Signer, run: Run, report: Report) -> None:
    """`Packages`, `Release` and `InRelease` for the packages in `folder`. Raises ReleaseError."""
    report.phase("indexing packages")
    for name in _INDEXES:
        (folder / name).unlink(missing_ok=True)
    inside = ["env", f"--chdir={folder}", "LC_ALL=C", "apt-ftparchive"]
    packages = must(run, [*inside, "--md5=no", "--sha1=no", "--sha512=no", "packages", "."], "indexing the packages")
    (folder / "Packages").write_text(packages, encoding="utf-8")
    about = [f"APT::FTPArchive::Release::{key}={label}" for key in ("Origin", "Label")]
    words = [word for setting in about for word in ("-o", setting)]
    release = must(run, [*inside, *words, "release", "."], "describing the repository")
    (folder / "Release").write_text(release, encoding="utf-8")
    sign_release(folder / "Release", signer, run)
