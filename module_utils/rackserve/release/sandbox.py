"""Run programs of a release at its final path, inside the hosts' own root filesystem, leaving nothing behind.

A sandbox is a private mount, PID and network namespace (``unshare``): the tree is bound to the release's path, /proc,
/dev and tmpfs are there, the only network is loopback, and every process ends with the command. Without a chroot the
same happens over the builder's own root, so the release still sees no network and still runs at its own path.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .host import ReleaseError, Run, write_atomic
from .manifest import hash_file

_LOOPBACK_UP = """\
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x49))
os.execv(sys.argv[1], sys.argv[1:])
"""


_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
_MOUNTS = """\
mount -t tmpfs -o mode=0755 stage {stage}
mkdir {stage}/upper {stage}/work {stage}/root
mount -t overlay -o {overlay} overlay {stage}/root
cd {stage}/root
mkdir -p proc dev tmp sys
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t tmpfs -o mode=1777 tmp tmp
"""


class Bind(NamedTuple):
    """``source`` on the builder shows up as ``target`` inside."""

    source: Path
    target: str
    writable: bool = False


class Sandbox(NamedTuple):
    """Where a release's programs run. ``chroot`` None means the builder's own root filesystem."""

    chroot: Path | None
    tree: Path
    release_path: str

    @property
    def stage(self) -> Path:
        """An empty directory beside the tree; what is mounted on it exists in the private namespace only."""
        return self.tree.with_name(self.tree.name + ".sandbox")

    def run(
        self,
        argv: Sequence[str],
        run: Run,
        binds: Sequence[Bind] = (),
        env: dict[str, str] | None = None,
        writable: bool = False,
    ) -> tuple[int, str, str]:
        """Run ``argv`` inside and return (exit status, stdout, stderr); the tree is read-only unless ``writable``."""
        self.stage.mkdir(exist_ok=True)
        try:
            return run(self.command(argv, binds, env, writable))
        finally:
            self.stage.rmdir()

    def command(
        self, argv: Sequence[str], binds: Sequence[Bind] = (), env: dict[str, str] | None = None, writable: bool = False
    ) -> list[str]:
        """The command line that runs ``argv`` inside. A relative argv[0] is a program of the release."""
        program = argv[0] if argv[0].startswith("/") else f"{self.release_path}/{argv[0]}"
        environment = {**_ENVIRONMENT, **(env or {})}
        inner = ["env", "-i", *(f"{key}={value}" for key, value in sorted(environment.items()))]
        inner += [f"{self.release_path}/bin/python3", "-c", _LOOPBACK_UP, program, *argv[1:]]
        script = self._script([Bind(self.tree, self.release_path, writable), *binds], inner)
        unshare = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
        return [*unshare, "--propagation", "private", "sh", "-ec", script]

    def _script(self, binds: Sequence[Bind], inner: Sequence[str]) -> str:
        """The mounts, then ``inner``. Mount points are made in an overlay over the root, never in the root itself."""
        overlay = f"lowerdir={self.chroot or '/'},upperdir={self.stage}/upper,workdir={self.stage}/work"
        lines = [_MOUNTS.format(stage=shlex.quote(str(self.stage)), overlay=shlex.quote(overlay))]
        for bind in binds:
            inside = self.stage / "root" / bind.target.lstrip("/")
            source, target, parent = (shlex.quote(str(path)) for path in (bind.source, inside, inside.parent))
            lines.append(f"mkdir -p {target}" if bind.source.is_dir() else f"mkdir -p {parent}; : > {target}")
            lines.append(f"mount --bind {source} {target}")
            if not bind.writable:
                lines.append(f"mount -o remount,bind,ro {target}")
        lines.append(f"exec chroot . {shlex.join(list(inner))}")
        return "\n".join(lines)


def describe_failure(result: tuple[int, str, str], what: str) -> ReleaseError:
    """The error for a command that failed inside the sandbox."""
    status, out, err = result
    tail = " | ".join(line.strip() for line in (err or out).strip().splitlines()[-4:])
    return ReleaseError(f"{what} failed in the sandbox (exit {status}): {tail or 'no output'}")


def run_script(sandbox: Sandbox, script: Path, output_dir: Path, run: Run, check_mode: bool = False) -> str | None:
    """Run ``script <output_dir>`` with the release's Python; returns its stdout, None when it need not run.

    The script's digest is kept in the folder (.made-by-<script>), so an unchanged script runs once.
    """
    digest = hash_file(script) + "\n"
    stamp = output_dir / f".made-by-{script.stem}"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return None
    if check_mode:
        return ""
    output_dir.mkdir(parents=True, exist_ok=True)
    binds = [Bind(script, f"/mnt/{script.name}"), Bind(output_dir, "/mnt/output", writable=True)]
    result = sandbox.run(["bin/python3", f"/mnt/{script.name}", "/mnt/output"], run, binds)
    if result[0] != 0:
        raise describe_failure(result, f"running {script.name}")
    write_atomic(stamp, digest)
    return result[1]
