"""Build a release once, for all hosts of one OS, architecture and Python ABI."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, NamedTuple

from ..progress.report import Report
from . import tree as layout
from .archive import pack, require_free
from .host import ReleaseError, Run, run_command
from .manifest import MANIFEST, build_manifest, hash_file, manifest_id, parse_manifest
from .sandbox import Sandbox, describe_failure
from .wheelhouse import download_wheels, lock_digest

RECIPE = 1
"""Raised whenever the same inputs would give another tree."""

IMPORTS = ("vllm.entrypoints.cli.main", "vllm.entrypoints.openai.api_server", "pynvml")
_NEEDED_BYTES = 6 << 30
_PACKED_SHARE = 0.24  # of 1.89 GB of the CPU release, 0.46 GB are left; only for the estimate
USUAL_S = MappingProxyType({"interpreter": 1.0, "packages": 8.0, "prune": 1.0, "bytecode": 20.0, "imports": 8.0})
"""Seconds of the steps that do not say how far they are, on two cores; an earlier build here knows better."""
_IMPORT = """\
import importlib, sys, sysconfig
for name in sys.argv[1:]:
    importlib.import_module(name)
print(sysconfig.get_config_var("SOABI"))
"""


class BuildRequest(NamedTuple):
    """What to build. ``extra_files``: content by path in the release; ``find_links``: local folders with wheels."""

    release_id: str
    lock: Path
    wheelhouse: Path
    output_dir: Path
    python: str = "3.11"
    chroot: Path | None = None
    release_path: str = ""
    find_links: Sequence[Path] = ()
    extra_files: Mapping[str, str] = MappingProxyType({})
    pip_command: Sequence[str] = ("pip",)
    uv_command: Sequence[str] = ("uv",)
    imports: Sequence[str] = IMPORTS


def folder_of(request: BuildRequest) -> Path:
    """<output_dir>/<release_id>: the archive, its description, the log and the unpacked tree."""
    return request.output_dir / request.release_id


def inputs_digest(request: BuildRequest) -> str:
    """sha256 over everything the tree depends on. Raises ReleaseError when the lock or the interpreter is missing."""
    root = request.chroot or Path("/")
    interpreter = root / "usr/bin" / f"python{request.python}"
    for needed, fix in ((request.lock, "compile it (make lock)"), (interpreter, "install python3 in that root")):
        if not needed.is_file():
            raise ReleaseError(f"{needed} is missing: {fix}")
    facts: list[Any] = [
        RECIPE,
        request.release_id,
        request.release_path,
        lock_digest(request.lock),
        hash_file(interpreter),
    ]
    facts += [sorted(request.extra_files.items()), layout.PRUNE, layout.STDLIB_LEFT_OUT]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def read_built(request: BuildRequest) -> dict[str, Any] | None:
    """The description of what stands in the output folder, None when nothing finished does."""
    folder = folder_of(request)
    try:
        built = json.loads((folder / f"{request.release_id}.json").read_text(encoding="utf-8"))
        complete = (folder / built["archive"]).stat().st_size == built["archive_bytes"] and (
            folder / "tree" / MANIFEST
        ).is_file()
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return dict(built) if complete else None


def size_below(tree: Path) -> int:
    """Bytes of all files below ``tree``; links count as nothing."""
    return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink())


def build_work(payload: dict[str, Any], report: Report) -> dict[str, Any]:
    """``build`` as a background job; the payload holds the fields of BuildRequest, paths as text.

    ``before`` in the result: the manifest that stood there until then, or "none".
    """
    request = request_of(payload)
    before = (read_built(request) or {}).get("manifest_sha256", "none")
    return {**build(request, run_command, report=report), "before": before}


def request_of(given: Mapping[str, Any]) -> BuildRequest:
    """The request out of plain data, as `release_build` takes it."""
    return BuildRequest(
        release_id=given["release_id"],
        lock=Path(given["lock"]),
        wheelhouse=Path(given["wheelhouse"]),
        output_dir=Path(given["output_dir"]),
        python=given["python"],
        chroot=Path(given["chroot"]) if given["chroot"] else None,
        release_path=given["release_path"] or "",
        find_links=[Path(link) for link in given["find_links"]],
        extra_files=given["extra_files"],
        pip_command=given["pip_command"],
        uv_command=given["uv_command"],
        imports=given.get("imports") or IMPORTS,
    )


def os_identity(root: Path) -> str:
    """ID and VERSION_ID of a root filesystem, "debian 12"."""
    text = (root / "etc/os-release").read_text(encoding="utf-8")
    pairs = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return " ".join(pairs.get(key, "").strip('"') for key in ("ID", "VERSION_ID")).strip()


def build(
    request: BuildRequest,
    run: Run,
    check_mode: bool = False,
    clock: Callable[[], float] = time.monotonic,
    report: Report | None = None,
) -> dict[str, Any]:
    """Build what ``request`` says, unless it stands there already; returns the description and ``changed``.

    The result: {release, archive (path), manifest_sha256, archive_sha256, archive_bytes, bytes, files, python,
    built_for{os, arch, python_abi}, step_s{name: seconds}, changed}. Raises ReleaseError; what stood before stays.
    """
    digest = inputs_digest(request)
    built = read_built(request)
    folder = folder_of(request)
    if built is not None and built["inputs_sha256"] == digest:
        return {**built, "archive": str(folder / built["archive"]), "changed": False}
    if check_mode:
        return {
            "release": request.release_id,
            "archive": str(folder / f"{request.release_id}.tar.zst"),
            "changed": True,
        }
    part = request.output_dir / f"{request.release_id}.part"
    if part.exists():
        shutil.rmtree(str(part))
    require_free(part.parent, _NEEDED_BYTES, f"building release {request.release_id}")
    part.mkdir(parents=True)
    told = report or Report()
    usual_s = {**USUAL_S, **((built or {}).get("step_s") or {})}
    description = {**_build_in(part, request, run, clock, report=told, usual_s=usual_s), "inputs_sha256": digest}
    (part / f"{request.release_id}.json").write_text(
        json.dumps(description, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    old = request.output_dir / f"{request.release_id}.old"
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    if old.exists():
        shutil.rmtree(str(old))
    return {**description, "archive": str(folder / description["archive"]), "changed": True}


def _build_in(
    part: Path,
    request: BuildRequest,
    run: Run,
    clock: Callable[[], float],
    *,
    report: Report,
    usual_s: Mapping[str, float],
) -> dict[str, Any]:
    """All the steps, in ``part``; each is a line in build.log with its seconds."""
    tree, root = part / "tree", request.chroot or Path("/")
    sandbox = Sandbox(request.chroot, tree, request.release_path or f"/opt/rackserve/releases/{request.release_id}")
    step_s: dict[str, float] = {}
    started = clock()

    def begin(step: str) -> None:
        report.phase(step, usual_s.get(step), "s")

    def done(step: str, text: str) -> None:
        nonlocal started
        step_s[step] = round(clock() - started, 2)
        started = clock()
        with (part / "build.log").open("a", encoding="utf-8") as log:
            log.write(f"{step} {step_s[step]:.1f} s: {text}\n")

    needed, chosen = download_wheels(
        request.lock,
        request.wheelhouse,
        python=request.python,
        pip_command=request.pip_command,
        find_links=request.find_links,
        run=run,
        report=report,
    )
    done("wheels", f"{len(needed)} wheels in {request.wheelhouse}")
    tree.mkdir()
    begin("interpreter")
    layout.copy_interpreter(root, tree, request.python)
    packages = layout.packages_path(sandbox, request.python, run)
    done("interpreter", f"Python {request.python} of {root}")
    begin("packages")
    layout.install_packages(packages, needed, chosen, uv_command=request.uv_command, python=request.python, run=run)
    engine = layout.add_engine_metadata(packages, needed)
    done("packages", f"{len(needed)} wheels installed, vllm {engine or 'as its wheel says'}")
    begin("prune")
    freed = layout.prune(packages)
    for name, content in sorted(request.extra_files.items()):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content, encoding="utf-8")
    done("prune", f"{freed >> 20} MiB taken out, {len(request.extra_files)} files added")
    begin("bytecode")
    compiled, left = layout.compile_bytecode(sandbox, run)
    done("bytecode", f"{compiled} compiled, without bytecode: {' '.join(left) or 'none'}")
    begin("imports")
    abi = check_imports(sandbox, request.imports, run)
    done("imports", f"{' '.join(request.imports)}; ABI {abi}")
    tree_bytes = size_below(tree)
    report.phase("manifest", tree_bytes, "B")
    text = build_manifest(tree, on_bytes=report.add)
    (tree / MANIFEST).write_text(text, encoding="utf-8")
    done("manifest", f"{text.count(chr(10))} entries, {manifest_id(text)}")
    archive = part / f"{request.release_id}.tar.zst"
    report.phase("archive", tree_bytes * _PACKED_SHARE, "B")
    with report.sampled(lambda: archive.stat().st_size if archive.exists() else 0):
        pack(tree, archive, run)
    done("archive", f"{archive.stat().st_size >> 20} MiB")
    return {
        "release": request.release_id,
        "archive": archive.name,
        "manifest_sha256": manifest_id(text),
        "archive_sha256": hash_file(archive),
        "archive_bytes": archive.stat().st_size,
        "bytes": sum(-(-entry.size // 4096) * 4096 for entry in parse_manifest(text).values()),
        "files": text.count("\n"),
        "python": request.python,
        "built_for": {"os": os_identity(root), "arch": os.uname().machine, "python_abi": abi},
        "step_s": step_s,
    }


def check_imports(sandbox: Sandbox, imports: Sequence[str], run: Run) -> str:
    """Import every module of ``imports`` in one interpreter in the sandbox; returns the ABI tag, "cpython-311-…"."""
    result = sandbox.run(["bin/python3", "-c", _IMPORT, *imports], run)
    if result[0] != 0:
        raise describe_failure(result, f"importing {', '.join(imports)}")
    return result[1].splitlines()[-1]
