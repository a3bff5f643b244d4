"""What root does for the relay on one host: prepare, start its unit, follow it, take over what it brought, close."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from ..model.verify import READY, known_good, manifest_digest, parse_manifest, table
from ..progress import worker
from ..progress.job import code_of
from ..progress.report import FINISHED, progress_of
from ..progress.worker import RESULT, STATE, read_json, write_json
from ..release.host import sync_directory
from . import program
from .door import Run, close, closing, open_for
from .fetch import Patience
from .shelf import PART

CONFIG, TOKEN = "relay.json", "token"
# Named by what is imported, so that a module brings it to the host.
_PROGRAM = program.__name__.rpartition("rackserve.")[2]
STAGING = ".rackserve-relay"
NONCE = ".rackserve-relay-nonce"
USER = "rackserve-relay"
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from {program} import main; sys.exit(main())"
_PAUSE_S = 0.25
_HEADROOM = 1 << 30
_LOG_LINES = 3
_SHORTEST_LINGER_S = 3 * Patience().join_s

Owner = Callable[[str], None]
"""Gives a file to whom the model's files belong."""


class HostError(Exception):
    """A host cannot take part; one line: what, where, how to fix."""


class Asked(NamedTuple):
    """One host's part in one copy. ``role``: source (has it all), fed (somebody brings it), receiver."""

    model: str
    role: str
    folder: Path
    manifest: str
    wanted: list[str]
    address: str
    port: int
    peers: list[str]
    parents: list[dict[str, Any]]
    group: str
    streams: int
    limit_mib_s: float
    linger_s: float
    longest_s: int
    root: Path = Path("/")

    @property
    def name(self) -> str:
        """Of the unit and its folders."""
        return f"rackserve-relay-{re.sub(r'[^A-Za-z0-9.-]', '-', self.model)}"

    @property
    def work(self) -> Path:
        """What root prepares: settings and code, no secret for longer than the start."""
        return self.root / "run" / f"{self.name}.setup"

    @property
    def state(self) -> Path:
        """What the unit writes; systemd makes it."""
        return self.root / "run" / self.name

    @property
    def staging(self) -> Path:
        """Where files arrive, on the model's own disk."""
        return self.folder / STAGING


def settings_of(asked: Asked) -> dict[str, Any]:
    """What the unit reads; no secret."""
    files = {name: {"size": size, "sha256": sha} for name, (size, sha) in parsed(asked.manifest).items()}
    return {
        "folder": str(asked.folder),
        "staging": str(asked.staging) if asked.role == "receiver" else "",
        "files": files,
        "wanted": sorted(set(asked.wanted) & set(files)) if asked.role != "source" else [],
        "address": asked.address,
        "port": asked.port,
        "peers": _others(asked),
        "parents": asked.parents if asked.role == "receiver" else [],
        "fed": asked.role == "fed",
        "streams": asked.streams,
        "limit_mib_s": asked.limit_mib_s,
        # Those behind wait a while for a host that never comes before they ask this one.
        "linger_s": max(asked.linger_s, _SHORTEST_LINGER_S),
    }


def parsed(manifest: str) -> dict[str, tuple[int, str]]:
    """The manifest's files. Raises ModelError."""
    return parse_manifest(json.loads(manifest))


def command(asked: Asked, code: str, module: str, opened: bool) -> list[str]:
    """The command that starts the unit: no privileges, one folder to write, peers of the copy only.

    ``opened``: the firewall was opened for it.
    """
    receiver = asked.role == "receiver"
    who = [f"User={USER}", f"Group={USER}"] if receiver else ["DynamicUser=yes"]
    properties = [
        *who,
        f"SupplementaryGroups={asked.group}",
        f"RuntimeDirectory={asked.name}",
        "RuntimeDirectoryMode=0755",
        "RuntimeDirectoryPreserve=yes",
        f"LoadCredential={TOKEN}:{asked.work / TOKEN}",
        f"RuntimeMaxSec={asked.longest_s}",
        "TimeoutStopSec=10",
        *([f"ReadWritePaths={asked.staging}"] if receiver else []),
        # Engines of the host go first, for processor and disk.
        *("Nice=10", "CPUWeight=20", "IOWeight=20", "IOSchedulingClass=best-effort", "IOSchedulingPriority=7"),
        *("MemoryMax=4G", "TasksMax=512", "LimitNOFILE=4096", "LimitCORE=0", "UMask=0022"),
        *("NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "ProtectHome=read-only"),
        *("PrivateTmp=yes", "PrivateDevices=yes", "ProtectClock=yes", "ProtectHostname=yes", "ProtectProc=invisible"),
        *("ProtectKernelLogs=yes", "ProtectKernelModules=yes", "ProtectKernelTunables=yes", "ProtectControlGroups=yes"),
        *("RestrictNamespaces=yes", "RestrictRealtime=yes", "RestrictSUIDSGID=yes", "LockPersonality=yes"),
        *("RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX", "SystemCallArchitectures=native", "RemoveIPC=yes"),
        *(
            "SystemCallFilter=@system-service",
            "SystemCallFilter=~@privileged @resources",
            "SystemCallErrorNumber=EPERM",
        ),
        # As root: however the unit ends, and whether or not a controller is there to see it.
        *(f'ExecStopPost=-+/usr/bin/env {nft} "{words}"' for nft, words in closing(_others(asked) if opened else [])),
        "InaccessiblePaths=-/etc/rackserve",
        "IPAddressDeny=any",
        f"IPAddressAllow={' '.join([asked.address, *asked.peers])}",
    ]
    words = ["systemd-run", "--quiet", "--collect", f"--unit={asked.name}", "--service-type=exec"]
    words += [f"--description=Weights of {asked.model} between hosts ({asked.role})"]
    words += [f"--property={one}" for one in properties]
    program = [sys.executable, "-I", "-c", _START.format(program=module), code]
    options = ["--config", str(asked.work / CONFIG), "--token", f"/run/credentials/{asked.name}.service/{TOKEN}"]
    return [*words, "--", *program, *options, "--state", str(asked.state)]


def _others(asked: Asked) -> list[str]:
    return [peer for peer in asked.peers if peer != asked.address]


def is_ready(asked: Asked) -> bool:
    """Whether this host has the weights of this manifest, and none was written to since they were proven."""
    digest, names = manifest_digest(asked.manifest), sorted(parsed(asked.manifest))
    try:
        return (asked.folder / READY).read_text("utf-8") == digest + "\n" and (
            known_good(asked.folder, digest) == table(asked.folder, names)
        )
    except OSError:
        return False


def start(asked: Asked, token: str, run: Run) -> dict[str, Any]:
    """Open the firewall and start the unit, in place of one that an earlier run left; {door}.

    What that one brought stays: whole files are kept, partial ones go on. Raises HostError, DoorError.
    """
    if asked.role == "source" and not is_ready(asked):
        raise HostError(
            f"{asked.folder} is not proven for this manifest: bring this host to it first (playbooks/site.yml), or "
            "name another source (model_store_sources)"
        )
    stop(asked, run)
    if asked.role == "receiver":
        _make_staging(asked)
    door = open_for(run, _others(asked), asked.longest_s)
    asked.work.mkdir(parents=True, exist_ok=True)
    asked.work.chmod(0o755)
    write_json(asked.work / CONFIG, settings_of(asked))
    (asked.work / CONFIG).chmod(0o644)
    path, module = code_of(asked.work)
    if Path(path).parent == asked.work:
        Path(path).chmod(0o644)
    secret = asked.work / TOKEN
    secret.touch(mode=0o600)
    try:
        secret.write_text(token, encoding="utf-8")
        program_module = module.replace(worker.__name__.rpartition("rackserve.")[2], _PROGRAM)
        status, out, err = run(command(asked, path, program_module, door == "opened"))
        if status != 0:
            close(run, _others(asked))
            raise HostError(f"the relay's unit does not start: {' '.join((err or out).split())[:300]}")
    finally:
        secret.unlink()
    return {"door": door}


def _make_staging(asked: Asked) -> None:
    files = parsed(asked.manifest)
    needed = sum(files[name][0] for name in asked.wanted if name in files)
    asked.folder.mkdir(parents=True, exist_ok=True)
    asked.staging.mkdir(exist_ok=True, mode=0o755)
    if asked.staging.is_symlink():
        raise HostError(f"{asked.staging} is a link: remove it")
    kept = sum(path.stat().st_size for path in asked.staging.rglob("*") if path.is_file() and not path.is_symlink())
    free = shutil.disk_usage(str(asked.folder)).free
    if needed - kept + min(_HEADROOM, needed // 50) > free:
        missing = (needed - kept - free) / (1 << 30)
        raise HostError(f"{asked.folder} has {free / (1 << 30):.1f} GiB free, {missing:.1f} GiB too little: make room")
    try:
        user = pwd.getpwnam(USER)
        for path in (asked.staging, *asked.staging.rglob("*")):
            os.chown(str(path), user.pw_uid, user.pw_gid, follow_symlinks=False)
    except KeyError as unknown:
        raise HostError(f"the user {USER} does not exist here: run playbooks/site.yml --tags model_store") from unknown


def stop(asked: Asked, run: Run) -> None:
    """End the unit where it runs; what it brought stays."""
    run(["systemctl", "stop", f"{asked.name}.service"])
    run(["systemctl", "reset-failed", f"{asked.name}.service"])
    _remove(asked.state)


def _remove(folder: Path) -> None:
    """A folder, or the link that systemd makes to one of a user without a name."""
    if folder.is_symlink():
        shutil.rmtree(str(folder.resolve()), ignore_errors=True)
        folder.unlink()
    elif folder.is_dir():
        shutil.rmtree(str(folder))


def follow(asked: Asked, run: Run, patience_s: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """(result, progress) after at most ``patience_s``; the result is empty while the host still gets files.

    Raises HostError when the unit failed or was killed.
    """
    given_up = time.monotonic() + patience_s
    while True:
        outcome = read_json(asked.state / RESULT)
        if outcome is not None:
            if "error" in outcome:
                raise HostError(f"{outcome['error']} ({asked.folder})")
            return {**outcome["result"], "step_s": outcome["step_s"]}, FINISHED
        _, out, _ = run(["systemctl", "is-active", f"{asked.name}.service"])
        if out.strip() not in ("active", "activating") and read_json(asked.state / RESULT) is None:
            _, said, _ = run(["journalctl", "--quiet", "--output=cat", f"--lines={_LOG_LINES}", f"--unit={asked.name}"])
            last = " | ".join(said.split("\n")).strip(" |") or "it said nothing"
            raise HostError(f"the relay on this host ended before it had everything ({last[:300]}): run again")
        if time.monotonic() >= given_up:
            return {}, progress_of(read_json(asked.state / STATE) or {}, time.monotonic())
        time.sleep(_PAUSE_S)


def finish(asked: Asked, run: Run, owner: Owner | None = None) -> dict[str, Any]:
    """End the unit, close the firewall, move what it brought into the model's folder; {taken, proven}.

    ``proven``: {name: [size, modification time in ns]} of files whose digest the unit found right while they came.
    """
    outcome = read_json(asked.state / RESULT) or {}
    run(["systemctl", "stop", f"{asked.name}.service"])
    close(run, _others(asked))
    proven = (outcome.get("result") or {}).get("proven") or {}
    taken = adopt(asked, proven, owner or (lambda path: shutil.chown(path, "root", asked.group)))
    for folder in (asked.work, asked.state):
        _remove(folder)
    return {"taken": taken, "proven": proven}


def adopt(asked: Asked, proven: Mapping[str, Sequence[int]], owner: Owner) -> list[str]:
    """Give the staged, proven files their owner and place, and remove the staging folder once it is empty of use."""
    if asked.role != "receiver" or not asked.staging.is_dir():
        return []
    taken = []
    for name in sorted(set(parsed(asked.manifest)) & set(proven)):
        staged, final = asked.staging / name, asked.folder / name
        if staged.is_symlink() or not staged.is_file():
            continue
        owner(str(staged))
        staged.chmod(0o644)
        final.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(final)
        sync_directory(final.parent)
        taken.append(name)
    if not any(path.name.endswith(PART) for path in asked.staging.rglob("*")):
        shutil.rmtree(str(asked.staging))
    return taken


def write_nonce(folder: Path, nonce: str) -> None:
    """Leave a mark that other hosts see where they share this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NONCE).write_text(nonce, encoding="utf-8")


def is_shared(folder: Path, nonce: str) -> bool:
    """Whether another host left its mark over ours: one file system, and that host copies. Raises HostError."""
    try:
        # Reading the folder makes a network file system ask its server.
        list(folder.iterdir())
        return (folder / NONCE).read_text("utf-8") != nonce
    except OSError as gone:
        raise HostError(
            f"the mark of this copy is gone from {folder} ({gone.strerror}): another run works there, wait for its end "
            "and run again"
        ) from gone


def remove_nonce(folder: Path) -> None:
    """Take the mark away."""
    if (folder / NONCE).exists():
        (folder / NONCE).unlink()


def step(asked: Asked, state: str, given: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """Take the step ``state`` with {token, nonce, progress_s}; the module's result. Raises HostError, DoorError."""
    if state == "marked":
        write_nonce(asked.folder, given["nonce"])
        return {"changed": False}
    if state == "looked":
        return {"changed": False, "shared": is_shared(asked.folder, given["nonce"])}
    if state == "unmarked":
        remove_nonce(asked.folder)
        if asked.role == "fed":
            # Of an earlier run, in which this host was to get its files from another.
            _remove(asked.staging)
        return {"changed": False}
    if state == "started":
        return {"changed": asked.role == "receiver", **start(asked, given["token"], run)}
    if state == "followed":
        result, progress = follow(asked, run, given["progress_s"])
        return {"changed": False, "progress": progress, "relay": result, "step_s": result.pop("step_s", {})}
    done = finish(asked, run)
    return {"changed": bool(done["taken"]), **done}
