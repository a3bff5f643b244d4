"""Make a bundle: packages, wheels, the engine's archive, collections; a manifest over it all; the site's signature."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..progress.report import Report
from ..release.host import ReleaseError, Run, must, run_command
from ..release.manifest import hash_file
from ..release.wheelhouse import download_wheels, lock_digest
from .debs import Wanted, collect_debs, write_repository
from .manifest import MANIFEST, looks_complete, read_manifest, write_manifest
from .signature import Signer, check_signer, sign_detached

RECIPE = 1
"""Raised whenever the same inputs would give another bundle."""


def engine_files(cache: Path, release: str) -> list[dict[str, str]]:
    """[{source, path}] of a built engine and its golden recordings; the bundle's `engine` can stand for `cache`."""
    folder = cache / "releases" / release
    found = [
        folder / f"{release}.json",
        folder / f"{release}.tar.zst",
        *sorted((cache / "golden").glob(f"{release}--*")),
    ]
    return [{"source": str(path), "path": f"engine/{path.relative_to(cache).as_posix()}"} for path in found]


def inputs_of(given: Mapping[str, Any]) -> dict[str, str]:
    """What the bundle is made of, each by its digest. Raises ReleaseError for a file that is missing."""
    debs = given.get("debs") or {}
    found = {"recipe": str(RECIPE), "packages": _digest(debs.get("packages") or {}), "key": given["signing"]["key"]}
    for what in ("sources", "status"):
        if debs.get(what):
            found[f"debs.{what}"] = hash_file(_there(debs[what], f"name another in bundle_apt_{what}"))
    for item in given["wheels"]:
        found[f"wheels.{item['folder']}"] = lock_digest(_there(item["lock"], "compile it (make lock)"))
    for item in given["files"]:
        found[f"files.{item['path']}"] = hash_file(_there(item["source"], "build the release first (build-release)"))
    if given.get("collections"):
        found["collections"] = hash_file(_there(given["collections"], "write it"))
    return found


def standing(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The bundle that is there, if it is complete and made of the same; None otherwise."""
    folder = Path(given["output_dir"]) / given["name"]
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("inputs") != inputs_of(given) or not looks_complete(folder, manifest):
        return None
    return _result(folder, manifest, changed=False)


def collect(given: Mapping[str, Any], run: Run, report: Report) -> dict[str, Any]:
    """Make the bundle `<output_dir>/<name>`; returns {path, files, bytes, packages, changed}.

    given: name, output_dir, debs {packages, sources, status, architecture} | None, wheels [{lock, python, folder,
    wheelhouse}], files [{source, path}], collections (requirements.yml) | None, signing {key, gpg_home,
    passphrase_file}, pip_command, galaxy_command. Raises ReleaseError; a bundle that stood before stays until the new
    one is finished.
    """
    inputs = inputs_of(given)
    signer = Signer(**{key: given["signing"].get(key) or "" for key in Signer._fields})
    check_signer(signer, run)
    output, name = Path(given["output_dir"]), given["name"]
    part, work = output / f"{name}.part", output / f"{name}.work"
    if part.exists():
        shutil.rmtree(str(part))
    part.mkdir(parents=True)
    if given.get("debs"):
        collect_debs(Wanted.of(given["debs"]), part / "debs", work, run, report)
        write_repository(part / "debs", f"rackserve bundle {name}", signer, run, report)
    for item in given["wheels"]:
        _collect_wheels(item, part / "wheels" / item["folder"], given["pip_command"], run, report)
    report.phase("copying", len(given["files"]), "files")
    for item in given["files"]:
        target = part / item["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item["source"], str(target))
        report.add(1)
    if given.get("collections") and not _no_collections(Path(given["collections"])):
        report.phase("downloading collections")
        words = ["collection", "download", "--requirements-file", given["collections"]]
        must(run, [*given["galaxy_command"], *words, "--download-path", str(part / "collections")], "collections")
    manifest = write_manifest(part, {"bundle": name, "inputs": inputs}, report)
    report.phase("signing")
    sign_detached(part / MANIFEST, signer, run)
    folder, old = output / name, output / f"{name}.old"
    if old.exists():
        shutil.rmtree(str(old))
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    for left in (old, work):
        if left.exists():
            shutil.rmtree(str(left))
    return _result(folder, manifest, changed=True)


def collect_work(payload: dict[str, Any], report: Report) -> dict[str, Any]:
    """`collect` as a background job."""
    return collect(payload, run_command, report)


def _collect_wheels(item: Mapping[str, Any], target: Path, pip_command: list[str], run: Run, report: Report) -> None:
    """The wheels of a lock, out of its wheelhouse; what is missing there is downloaded into it."""
    _, chosen = download_wheels(
        Path(item["lock"]),
        Path(item["wheelhouse"]),
        python=item["python"],
        pip_command=pip_command,
        find_links=[],
        run=run,
        report=report,
    )
    report.phase("copying", len(chosen), "wheels")
    target.mkdir(parents=True)
    for wheel in sorted(chosen.values()):
        shutil.copyfile(str(wheel), str(target / wheel.name))
        report.add(1)
    shutil.copyfile(item["lock"], str(target / "requirements.txt"))


def _no_collections(path: Path) -> bool:
    """Whether a requirements file asks for nothing, as rackserve's own; ansible-galaxy refuses such a one."""
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return not [line for line in lines if line not in ("", "---", "collections: []", "collections:")]


def _there(path: str, fix: str) -> Path:
    if not Path(path).is_file():
        raise ReleaseError(f"{path} is missing: {fix}")
    return Path(path)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _result(folder: Path, manifest: Mapping[str, Any], changed: bool) -> dict[str, Any]:
    files = manifest["files"]
    return {
        "path": str(folder),
        "files": len(files),
        "bytes": sum(said["bytes"] for said in files.values()),
        "packages": len([name for name in files if name.endswith(".deb")]),
        "changed": changed,
    }
