"""Load our table with an armed way back, and keep it only when somebody could still come in."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Callable

from ..preflight.findings import Finding, finding
from .foreign import foreign_tables
from .rules import FirewallError, admits, digest

Run = Callable[[list[str]], tuple[int, str, str]]

BOOT_FILE = "/etc/rackserve/firewall/rackserve.nft"
LOADED_FILE = "/run/rackserve/firewall.sha256"
WORK_DIR = "/run/rackserve/firewall"
ROLLBACK_UNIT = "rackserve-firewall-rollback"
EMPTY = "table inet rackserve\ndelete table inet rackserve\n"
_TOP = ("table inet rackserve", "delete table inet rackserve", "table inet rackserve {", "}")
MISSING = 127
DEEPEST_CHAIN = 64
CONNECTION_WORDS = 4  # client address, client port, server address, server port
_COMMENT = re.compile(r"rackserve sha256:([0-9a-f]{64})")


@dataclass
class Armed:
    """What one call found and did. `armed`: a rollback now waits; `confirmed`: the boot file and the table agree."""

    changed: bool = False
    armed: bool = False
    confirmed: bool = False
    healed: bool = False
    before: str = ""
    after: str = ""
    findings: list[Finding] = field(default_factory=list)


def _under(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    handle, name = tempfile.mkstemp(dir=str(path.parent), prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _must(run: Run, argv: list[str], doing: str) -> str:
    code, out, err = run(argv)
    if code != 0:
        told = " ".join((err or out).split()) or f"exit {code}"
        raise FirewallError(f"{doing}: `{' '.join(argv[:3])} …` said: {told[:600]}")
    return out


def live_digest(run: Run) -> str | None:
    """Return the digest in the comment of the loaded `table inet rackserve`, None when it is not loaded."""
    code, out, _ = run(["nft", "-t", "list", "table", "inet", "rackserve"])
    match = _COMMENT.search(out) if code == 0 else None
    return match.group(1) if match else None


def text_digest(ruleset: str) -> str | None:
    """Return the digest that the table of `ruleset` carries in its comment, None without one."""
    match = _COMMENT.search(ruleset)
    return match.group(1) if match else None


def ssh_source(environ: Mapping[str, str], proc: Path, pid: int) -> tuple[str, int] | None:
    """Return (address the controller comes from, port it reached) of the SSH session this process belongs to.

    sudo drops SSH_CONNECTION, so parents are asked too (proc/<pid>/environ). None: no SSH session, a local run.
    """
    text = environ.get("SSH_CONNECTION", "")
    seen = 0
    while not text and pid > 1 and seen < DEEPEST_CHAIN:
        seen += 1
        try:
            raw = (proc / str(pid) / "environ").read_bytes()
            stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            break
        for pair in raw.split(b"\0"):
            if pair.startswith(b"SSH_CONNECTION="):
                text = pair.split(b"=", 1)[1].decode("ascii", "replace")
        pid = int(stat.rpartition(")")[2].split()[1])
    parts = text.split()
    return (parts[0], int(parts[3])) if len(parts) == CONNECTION_WORDS else None


def check_source(built: Mapping[str, Any], source: tuple[str, int] | None) -> None:
    """Refuse rules under which the controller could not connect again. Raises FirewallError."""
    if source is not None and not admits(built["flows"], built["mode"], source[0], source[1]):
        raise FirewallError(
            f"these rules would refuse SSH from {source[0]}, where this run comes from, to port {source[1]}; "
            f"add {source[0]} to cluster.network.management_cidrs"
        )


def _check_text(built: Mapping[str, Any], ruleset: str) -> None:
    if digest(built) != built.get("digest") or text_digest(ruleset) != built["digest"]:
        raise FirewallError("the ruleset was not rendered from these rules: its table comment has another digest")
    stray = [line for line in ruleset.splitlines() if line[:1] not in ("", "#", " ", "\t") and line.strip() not in _TOP]
    if stray:
        raise FirewallError(f"the ruleset touches more than `table inet rackserve`, which alone is ours: {stray[0]!r}")


def rollback_waits(run: Run) -> bool:
    """Tell whether a rollback timer is armed: an earlier change that nobody confirmed yet."""
    _, out, _ = run(["systemctl", "show", "-p", "ActiveState", "--value", f"{ROLLBACK_UNIT}.timer"])
    return out.strip() == "active"


def _heal(root: Path, run: Run) -> None:
    saved = _under(root, WORK_DIR) / "rollback.nft"
    _must(run, ["nft", "-f", str(saved)], "taking back an unconfirmed change of an earlier run")
    _must(run, ["systemctl", "stop", f"{ROLLBACK_UNIT}.timer"], "stopping the rollback timer of an earlier run")


def _settled(root: Path, run: Run, ruleset: str) -> bool:
    wanted = sha256(ruleset.encode()).hexdigest()
    return (
        _read(_under(root, BOOT_FILE)) == ruleset
        and _read(_under(root, LOADED_FILE)).strip() == wanted
        and live_digest(run) == text_digest(ruleset)
    )


def _check_syntax(root: Path, run: Run, ruleset: str, check_mode: bool) -> Path:
    """Run nft -c over the candidate; in check mode the file lies in a temporary directory, not on the host."""
    candidate = _under(root, WORK_DIR) / "candidate.nft"
    if not check_mode:
        _write(candidate, ruleset, 0o600)
        _must(run, ["nft", "-c", "-f", str(candidate)], "the ruleset is refused, nothing was changed")
        return candidate
    with tempfile.TemporaryDirectory(prefix="rackserve-nft-") as folder:
        trial = Path(folder) / "candidate.nft"
        trial.write_text(ruleset, encoding="utf-8")
        _must(run, ["nft", "-c", "-f", str(trial)], "the ruleset is refused, nothing was changed")
    return candidate


def arm(
    root: Path,
    run: Run,
    built: Mapping[str, Any],
    ruleset: str,
    *,
    rollback_s: int,
    source: tuple[str, int] | None,
    take_over: Sequence[str] = (),
    check_mode: bool = False,
) -> Armed:
    """Load `ruleset` and arm the rollback that restores the table as it was after `rollback_s` seconds.

    Nothing happens where boot file, digest file and loaded table already agree with it. A change that an earlier run
    left unconfirmed is taken back first. Raises FirewallError when the controller would be shut out, the text touches
    another table, a foreign table blocks a flow, nft refuses it, or no rollback can be armed (then nothing is loaded).
    """
    _check_text(built, ruleset)
    check_source(built, source)
    result = Armed(before=_read(_under(root, BOOT_FILE)), after=ruleset)
    if check_mode and run(["nft", "-v"])[0] == MISSING:
        result.changed = True
        result.findings = [
            finding(
                "warning",
                "firewall-no-nft",
                "package nftables",
                "it is not installed",
                "a run without check mode installs it; the rules could not be checked",
            )
        ]
        return result
    result.findings = foreign_tables(run, built["flows"], take_over)
    blocking = [f for f in result.findings if f["severity"] == "error"]
    if blocking:
        raise FirewallError("; ".join(f"{f['where']}: {f['why']}: {f['fix']}" for f in blocking))
    waits = rollback_waits(run)
    if not waits and _settled(root, run, ruleset):
        result.confirmed = True
        return result
    result.changed = True
    if result.before == ruleset:
        result.before = f"# loaded: {live_digest(run) or 'nothing'}\n{ruleset}"
    candidate = _check_syntax(root, run, ruleset, check_mode)
    if check_mode:
        return result
    if waits:
        _heal(root, run)
        result.healed = True
    _load(root, run, candidate, rollback_s)
    result.armed = True
    return result


def _load(root: Path, run: Run, candidate: Path, rollback_s: int) -> None:
    code, listed, _ = run(["nft", "-s", "list", "table", "inet", "rackserve"])
    saved = _under(root, WORK_DIR) / "rollback.nft"
    _write(saved, EMPTY + (listed if code == 0 else ""), 0o600)
    _must(run, ["nft", "-c", "-f", str(saved)], "the way back cannot be loaded, nothing was changed")
    _must(
        run,
        [
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={ROLLBACK_UNIT}",
            f"--on-active={rollback_s}",
            "--timer-property=AccuracySec=100ms",
            "nft",
            "-f",
            str(saved),
        ],
        "no rollback can be armed, nothing was changed",
    )
    _must(run, ["nft", "-f", str(candidate)], f"loading failed; the rollback restores the old rules in {rollback_s} s")


def confirm(root: Path, run: Run, built: Mapping[str, Any], ruleset: str, check_mode: bool = False) -> Armed:
    """Write the boot file and the digest of what is loaded, after a new connection has cancelled the rollback.

    Raises FirewallError while the rollback still waits, or when it has already put the old rules back.
    """
    _check_text(built, ruleset)
    result = Armed(before=_read(_under(root, BOOT_FILE)), after=ruleset)
    result.changed = not _settled(root, run, ruleset)
    if check_mode:
        return result
    if rollback_waits(run):
        raise FirewallError(
            "the rollback is still armed: nobody proved over a new connection that SSH works; "
            "the host restores its old rules by itself"
        )
    if live_digest(run) != built["digest"]:
        raise FirewallError("the loaded table is not the candidate: the rollback fired first; run the play again")
    if result.changed:
        _write(_under(root, BOOT_FILE), ruleset, 0o644)
        _write(_under(root, LOADED_FILE), sha256(ruleset.encode()).hexdigest() + "\n", 0o644)
    result.confirmed = True
    return result


def summary(result: Armed) -> dict[str, Any]:
    """Return the result as the module's plain return values, with a diff."""
    return {
        "changed": result.changed,
        "armed": result.armed,
        "confirmed": result.confirmed,
        "healed": result.healed,
        "findings": result.findings,
        "diff": {
            "before_header": BOOT_FILE,
            "after_header": BOOT_FILE,
            "before": result.before if result.changed else result.after,
            "after": result.after,
        },
    }
