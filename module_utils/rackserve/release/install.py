"""Put a release archive at its path on a host: unpack beside it, verify every file, rename."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from ..progress.report import Report
from .archive import require_free, unpack
from .host import ReleaseError, sync_directory, write_atomic
from .manifest import MANIFEST, MARKER, manifest_id, parse_manifest, verify_tree

_SPARE_BYTES = 256 << 20


class InstallRequest(NamedTuple):
    """What shall stand at ``path``. ``unpacked_bytes``: what the tree takes on disk, as release_build says."""

    release_id: str
    path: Path
    archive: Path
    manifest_sha256: str
    unpacked_bytes: int


def marker_text(release_id: str, manifest_sha256: str) -> str:
    """The content of RELEASE.json: written last, so that its presence means the tree was verified."""
    return json.dumps({"manifest_sha256": manifest_sha256, "release": release_id}) + "\n"


def installed_manifest(path: Path) -> str | None:
    """manifest_sha256 of the release installed at ``path``; None when there is none or it was never finished."""
    try:
        return str(json.loads((path / MARKER).read_text(encoding="utf-8"))["manifest_sha256"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as bad:
        raise ReleaseError(f"{path / MARKER} is not a release marker ({bad}): remove {path} and run again") from bad


def install(request: InstallRequest, check_mode: bool = False, threads: int = 4, report: Report | None = None) -> bool:
    """Install a release; returns whether anything was (in check mode: would be) changed.

    A release is immutable: another content under the same id is refused. A ``<path>.part`` left by an interrupted run
    is removed first. Raises ReleaseError, and leaves nothing at ``path``, when the archive is missing, the disk is too
    small, or a file differs from the manifest.
    """
    there = installed_manifest(request.path)
    if there == request.manifest_sha256:
        return False
    if there is not None:
        raise ReleaseError(
            f"{request.path} holds another build of {request.release_id} ({there[:12]}, wanted "
            f"{request.manifest_sha256[:12]}): releases are immutable, give the new build a new id"
        )
    if request.path.exists() and any(request.path.iterdir()):
        raise ReleaseError(f"{request.path} exists and is no finished release: remove it, something else put it there")
    if check_mode:
        return True
    if not request.archive.is_file():
        raise ReleaseError(f"{request.archive} is not on this host: ship the release first (role serving_runtime)")
    part = request.path.with_name(request.path.name + ".part")
    if part.exists():
        shutil.rmtree(str(part))
    require_free(request.path.parent, request.unpacked_bytes + _SPARE_BYTES, f"release {request.release_id}")
    part.mkdir(parents=True, mode=0o755)
    told = report or Report()
    told.phase("unpacking", request.archive.stat().st_size, "B")
    unpack(request.archive, part, told.add)
    verify(part, request.manifest_sha256, threads, told)
    told.phase("flushing to disk")
    os.sync()
    write_atomic(part / MARKER, marker_text(request.release_id, request.manifest_sha256))
    part.chmod(0o755)
    part.rename(request.path)
    sync_directory(request.path.parent)
    return True


def install_work(payload: dict[str, Any], report: Report) -> dict[str, Any]:
    """``install`` as a background job; the payload holds the fields of InstallRequest."""
    request = InstallRequest(
        release_id=payload["release_id"],
        path=Path(payload["path"]),
        archive=Path(payload["archive"]),
        manifest_sha256=payload["manifest_sha256"],
        unpacked_bytes=payload["unpacked_bytes"],
    )
    return {"changed": install(request, report=report)}


def verify(tree: Path, manifest_sha256: str, threads: int = 4, report: Report | None = None) -> int:
    """Check every file of ``tree`` against its manifest and that against ``manifest_sha256``; returns the file count.

    Raises ReleaseError naming the first files that are missing, changed or not in the manifest.
    """
    try:
        text = (tree / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError as missing:
        raise ReleaseError(f"{tree} has no {MANIFEST}: the archive is not a release, ship it again") from missing
    if manifest_id(text) != manifest_sha256:
        raise ReleaseError(
            f"{tree / MANIFEST} has sha256 {manifest_id(text)[:12]}, wanted {manifest_sha256[:12]}: ship it again"
        )
    entries = parse_manifest(text)
    told = report or Report()
    told.phase("verifying", sum(entry.size for entry in entries.values()), "B")
    missing_files, corrupt, extra = verify_tree(tree, entries, threads, told.add)
    wrong = [
        (name, paths) for name, paths in (("missing", missing_files), ("corrupt", corrupt), ("extra", extra)) if paths
    ]
    if wrong:
        said = "; ".join(f"{len(paths)} {name} (first: {paths[0]})" for name, paths in wrong)
        raise ReleaseError(f"{tree} differs from its manifest: {said}: ship it again")
    return len(entries)
