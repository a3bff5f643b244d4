#!/usr/bin/env python3
"""Compile one engine lock: python3 requirements/lock_engine.py requirements/engine-cpu

The input is its own override list, so `torch==X` replaces an engine's pin on `torch==X+cpu`, which PyPI does not have.
Hashes are the union of two compiles, with and without the find-links directories of pip's configuration.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HEADER = """\
# Made by: python3 requirements/lock_engine.py requirements/{name}   (part of `make lock`)
{note}
"""
LEFT_OUT = "# Left out, because the target never loads them or they break it:\n#   {names}\n"
NOTE = {
    "engine-cpu": """\
# torch: the last hash is the CPU build (+cpu) a find-links directory may offer, the others are PyPI's files; either one
# satisfies the lock. PyPI's file is a CUDA build whose libtorch_python.so links to libcudart, libcudnn, libnccl and
# libcufile, so it cannot be imported without the nvidia-* and cuda-* wheels below, GPU or not. release_build takes
# those wheels only when the wheelhouse has no +cpu wheel of torch; the download then is 2.3 GB larger.""",
}


def compile_once(source: Path, excluded: list[str], find_links: list[str]) -> dict[str, list[str]]:
    """{requirement without local version: sorted hashes}."""
    command = ["uv", "pip", "compile", "-q", "--no-config", "--python-version", "3.11", "--generate-hashes"]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--no-annotate", "--no-header"]
    command += ["--override", str(source), str(source)]
    command += [word for name in excluded for word in ("--no-emit-package", name)]
    command += [word for link in find_links for word in ("--find-links", link)]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    text = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    locked: dict[str, list[str]] = {}
    for entry in re.split(r"(?<!\\)\n", text.replace("\\\n", " ")):
        words = entry.split()
        if words and not entry.startswith("#"):
            hashes = [word[len("--hash=") :] for word in words if word.startswith("--hash=")]
            locked[words[0].split("+")[0]] = hashes
    return locked


def main() -> int:
    """Write <base>.txt from <base>.in."""
    base = Path(sys.argv[1])
    source = base.with_name(base.name + ".in")
    found = re.search(r"^# lock-exclude: (.+)$", source.read_text(), re.MULTILINE)
    excluded = found.group(1).split() if found else []
    locked = compile_once(source, excluded, [])
    for name, hashes in compile_once(source, excluded, os.environ.get("PIP_FIND_LINKS", "").split()).items():
        known = locked.setdefault(name, [])
        known += [digest for digest in hashes if digest not in known]
    note = LEFT_OUT.format(names=", ".join(excluded)) if excluded else ""
    lines = [HEADER.format(name=base.name, note=note + NOTE.get(base.name.removesuffix("-other"), ""))]
    for requirement in sorted(locked):
        lines.append(" \\\n    ".join([requirement, *(f"--hash={digest}" for digest in locked[requirement])]) + "\n")
    base.with_name(base.name + ".txt").write_text("".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
