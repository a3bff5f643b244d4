"""Put findings right, in an order that is safe to stop at any point."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable

from .compare import enablement_met, ids_of
from .contents import redact
from .errors import ConvergeError, ItemError
from .finding import Finding, Seen
from .host import Host, Run, one_line
from .kernel import apply_irq, apply_knob
from .write import PRIVATE, make_directory, remove, replace_link, set_metadata, write_file

_ORDER = ("directory", "link", "file", "knob", "irq", "absent", "unit")
_LOADED_KINDS = ("file", "link", "absent")
UNIT_FOLDER = "/etc/systemd/system/"


def check_applicable(findings: list[Finding], host: Host) -> None:
    """Raise ItemError, before anything is touched, for what is refused or needs an account that does not exist."""
    for finding in findings:
        item = finding.item
        reason = finding.refusal
        if reason is None and item.kind in ("file", "directory"):
            missing = ids_of(item, host)[2]
            reason = f"{missing}; create the account first" if missing else None
        if reason:
            raise ItemError(item.role, item.id, reason)


def wants_reload(findings: list[Finding]) -> bool:
    """Whether putting `findings` right changes a file systemd has read."""
    return any(
        finding.item.kind in _LOADED_KINDS
        and finding.item.target.startswith(UNIT_FOLDER)
        and (finding.content or finding.item.kind != "file")
        for finding in findings
    )


def apply_findings(findings: list[Finding], seen: Seen, reload: bool, done: Callable[[Finding], None]) -> None:
    """Apply `findings`, calling `done` after each. Units are enabled or disabled, never started, stopped or restarted.

    Raises ItemError for the first item that fails; those before it are finished.
    """
    for finding in sorted(findings, key=_rank):
        item = finding.item
        if item.kind == "unit":
            continue
        try:
            _APPLY[item.kind](finding, seen)
        except OSError as problem:
            raise ItemError(item.role, item.id, f"{item.target}: {problem.strerror}{_hint(finding, problem)}") from None
        done(finding)
    units = [finding for finding in findings if finding.item.kind == "unit"]
    run = seen.host.run
    if run is None:
        return
    if reload:
        _systemctl(run, ["daemon-reload"])
    _set_enablement([finding for finding in units if finding.content], seen.host, run)
    for finding in units:
        done(finding)


def _rank(finding: Finding) -> tuple[int, int]:
    kind, depth = finding.item.kind, finding.item.target.count("/")
    if kind == "absent":
        depth = -depth
    return _ORDER.index(kind), depth if kind in ("directory", "absent") else 0


def _hint(finding: Finding, problem: OSError) -> str:
    if isinstance(problem, FileNotFoundError) and finding.item.kind not in ("knob", "irq"):
        return "; its directory is missing, add a directory item"
    if finding.item.kind == "absent":
        return "; converge removes files, links and empty directories only"
    return ""


def _ids(finding: Finding, host: Host) -> tuple[int, int]:
    uid, gid, missing = ids_of(finding.item, host)
    if uid is None or gid is None:
        raise ItemError(finding.item.role, finding.item.id, f"{missing}; create the account first")
    return uid, gid


def _apply_directory(finding: Finding, seen: Seen) -> None:
    path = seen.host.at(finding.item.target)
    change = set_metadata if path.is_dir() else make_directory
    change(path, finding.item.spec["mode"], *_ids(finding, seen.host))


def _apply_link(finding: Finding, seen: Seen) -> None:
    replace_link(seen.host.at(finding.item.target), finding.item.spec["target"])


def _apply_file(finding: Finding, seen: Seen) -> None:
    item = finding.item
    path = seen.host.at(item.target)
    uid, gid = _ids(finding, seen.host)
    if not finding.content:
        set_metadata(path, item.spec["mode"], uid, gid)
        return
    data = seen.contents.files[(item.role, item.id)].data
    if item.spec["validate"]:
        _validate(finding, path, data, seen)
    write_file(path, data, item.spec["mode"], uid, gid)


def _validate(finding: Finding, path: Path, data: bytes, seen: Seen) -> None:
    import tempfile  # noqa: PLC0415 - slow to import and needed only where a validated file changes

    item = finding.item
    run = seen.host.run
    if run is None:
        raise ItemError(item.role, item.id, "validate needs the running host; apply a copied tree without it")
    runtime = seen.host.at("/run")
    with tempfile.TemporaryDirectory(prefix="rackserve-", dir=runtime if runtime.is_dir() else None) as folder:
        candidate = Path(folder) / path.name
        write_file(candidate, data, PRIVATE, os.geteuid(), os.getegid())
        command = [word.replace("{}", str(candidate)) for word in item.spec["validate"]]
        code, out, err = run(command)
    if code != 0:
        said = one_line(redact(f"{out}\n{err}", seen.secrets).replace(str(candidate), item.target))
        raise ItemError(item.role, item.id, f"{command[0]} refuses {item.target} ({code}), nothing written: {said}")


def _apply_absent(finding: Finding, seen: Seen) -> None:
    remove(seen.host.at(finding.item.target))


def _set_enablement(findings: list[Finding], host: Host, run: Run) -> None:
    """One systemctl call each way, then a look at what systemd made of it."""
    for verb, wanted in (("enable", True), ("disable", False)):
        names = [finding.item.target for finding in findings if finding.item.spec["enabled"] is wanted]
        if names:
            _systemctl(run, [verb, *dict.fromkeys(names)])
    host.load_units(list(dict.fromkeys(finding.item.target for finding in findings)))
    for finding in findings:
        state = host.units[finding.item.target].file_state
        if not enablement_met(state, finding.item.spec["enabled"]):
            word = "enabled" if finding.item.spec["enabled"] else "disabled"
            raise ItemError(
                finding.item.role,
                finding.item.id,
                f"{finding.item.target} stays {state or 'not installed'}, wanted {word}; "
                f"give it an [Install] section, unmask it, or drop enabled",
            )


def _systemctl(run: Run, words: list[str]) -> None:
    code, out, err = run(["systemctl", *words])
    if code != 0:
        raise ConvergeError(f"systemctl {' '.join(words)} failed ({code}): {one_line(err or out)}")


_APPLY: dict[str, Callable[[Finding, Seen], None]] = {
    "directory": _apply_directory,
    "link": _apply_link,
    "file": _apply_file,
    "knob": apply_knob,
    "irq": apply_irq,
    "absent": _apply_absent,
}
