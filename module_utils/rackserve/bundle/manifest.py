"""What a bundle holds: every file with size and sha256, and what it was made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..progress.report import Report
from ..release.host import ReleaseError, Run
from ..release.manifest import hash_file
from .signature import verify_detached

MANIFEST = "MANIFEST.json"
SIGNATURE = f"{MANIFEST}.asc"
FORM = 1


def list_files(folder: Path) -> list[Path]:
    """Every file below, but for the manifest and its signature. Raises ReleaseError for what is no plain file."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ReleaseError(f"{path} is no plain file: a bundle holds files and folders only")
        if path.is_file() and path.relative_to(folder).as_posix() not in (MANIFEST, SIGNATURE):
            found.append(path)
    return found


def write_manifest(folder: Path, about: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Hash everything in `folder` and write the manifest; `about` is what it says besides `files`."""
    paths = list_files(folder)
    report.phase("hashing", sum(path.stat().st_size for path in paths), "B")
    files = {}
    for path in paths:
        size = path.stat().st_size
        files[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": hash_file(path)}
        report.add(size)
    manifest = {"form": FORM, **about, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished bundle; None where there is none that we can read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    good = isinstance(manifest, dict) and manifest.get("form") == FORM and isinstance(manifest.get("files"), dict)
    return dict(manifest) if good and (folder / SIGNATURE).is_file() else None


def looks_complete(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether every file is there in its size; hashes are for `verify`."""
    sizes = {name: said["bytes"] for name, said in manifest["files"].items()}
    there = {path.relative_to(folder).as_posix(): path.stat().st_size for path in list_files(folder)}
    return sizes == there


def package_sums(manifest: Mapping[str, Any], folder: str) -> list[str]:
    """Lines of sha256sum for the packages and their indexes, kept in `<folder>/debs`. KeyError for no manifest."""
    files = sorted(manifest["files"].items())
    return [f"{said['sha256']}  {folder}/{name}" for name, said in files if name.startswith("debs/")]


def verify(folder: Path, key_file: Path, run: Run, report: Report) -> dict[str, Any]:
    """Check signature, then every file; returns {signed_by, bytes, files, about}.

    Raises ReleaseError, one line, naming up to five files that are missing, differ, or that the manifest does not know.
    """
    report.phase("checking the signature")
    signed_by = verify_detached(folder / MANIFEST, key_file, run)
    manifest = read_manifest(folder)
    if manifest is None:
        raise ReleaseError(f"{folder / MANIFEST} is not a manifest of this form ({FORM}): build the bundle anew")
    wanted, there = manifest["files"], {path.relative_to(folder).as_posix(): path for path in list_files(folder)}
    wrong = [f"{name} is missing" for name in sorted(set(wanted) - set(there))]
    wrong += [f"{name} is not in the manifest" for name in sorted(set(there) - set(wanted))]
    report.phase("hashing", sum(said["bytes"] for said in wanted.values()), "B")
    for name in sorted(set(wanted) & set(there)):
        same_size = there[name].stat().st_size == wanted[name]["bytes"]
        if not same_size or hash_file(there[name]) != wanted[name]["sha256"]:
            wrong.append(f"{name} differs")
        report.add(wanted[name]["bytes"])
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""  # noqa: PLR2004 - so many are named
        raise ReleaseError(f"{folder}: {', '.join(wrong[:5])}{more}: copy the bundle again, or build it anew")
    about = {key: value for key, value in manifest.items() if key not in ("files", "form")}
    total = sum(said["bytes"] for said in wanted.values())
    return {"signed_by": signed_by, "bytes": total, "files": len(wanted), "about": about}


def verify_work(payload: dict[str, Any], report: Report) -> dict[str, Any]:
    """`verify` as a background job; the payload is {folder, key_file}."""
    from ..release.host import run_command  # noqa: PLC0415 - a job names its own way to run commands

    return verify(Path(payload["folder"]), Path(payload["key_file"]), run_command, report)
