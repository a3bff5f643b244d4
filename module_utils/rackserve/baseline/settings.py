"""Foreign sysctl.d and limits.d files that set what we set. Read, never written."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..preflight.findings import Finding, finding

OURS = ("60-rackserve.conf", "60-rackserve-rdma.conf", "99-zz-rackserve.conf")
SYSCTL_DIRS = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d")
_ADMIN = ("etc/sysctl.d", "run/sysctl.d")
_LIMIT_FIELDS = 4
# Services that set the CPU governor too, and kernel settings with it.
_TUNERS = ("cpufrequtils", "power-profiles-daemon", "tlp", "tuned")


def _normal(key: str) -> str:
    first = min((i for i in (key.find("."), key.find("/")) if i >= 0), default=-1)
    if first >= 0 and key[first] == "/":
        return key.replace(".", "\0").replace("/", ".").replace("\0", "/")
    return key


def read_sysctl(text: str) -> dict[str, str]:
    """Return key (dotted) to value of a sysctl.d file; keys may hold globs, lines without a value are left out."""
    found: dict[str, str] = {}
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line[0] in "#;" or "=" not in line:
            continue
        key, _, value = line.partition("=")
        found[_normal(key.strip().lstrip("-").strip())] = " ".join(value.split())
    return found


def _files(root: Path, folders: Iterable[str]) -> dict[str, tuple[str, Path]]:
    """Return name to (folder, path); a name in an earlier folder masks the later ones, as systemd reads them."""
    seen: dict[str, tuple[str, Path]] = {}
    for folder in folders:
        directory = root / folder
        if directory.is_dir():
            for path in sorted(directory.glob("*.conf")):
                seen.setdefault(path.name, (folder, path))
    return seen


def sysctl_conflicts(root: Path, knobs: Mapping[str, str], take_over: Sequence[str] = ()) -> list[Finding]:
    """Report files that set one of `knobs` to another value.

    A file of the administrator (/etc, /run) is an error wherever it sorts; a file of a package (/usr/lib) only where it
    sorts behind ours and so wins at boot. `take_over` holding `sysctl:<key>` makes it a note: our second file, which
    sorts last, then sets the key. A file of the same name in /etc masks the one in /usr/lib, as in systemd.
    """
    found = []
    for name, (folder, path) in sorted(_files(root, SYSCTL_DIRS).items()):
        if name in OURS or (folder not in _ADMIN and name < OURS[0]) or not path.is_file():
            continue
        theirs = read_sysctl(path.read_text(encoding="utf-8", errors="replace"))
        for pattern, value in theirs.items():
            for key in fnmatch.filter([_normal(k) for k in knobs], pattern):
                ours = next(v for k, v in knobs.items() if _normal(k) == key)
                if value != ours:
                    found.append(_sysctl_finding(f"/{folder}/{name}", key, value, ours, take_over))
    return found


def _sysctl_finding(where: str, key: str, value: str, ours: str, take_over: Sequence[str]) -> Finding:
    why = f"it sets {key} = {value}, rackserve wants {ours}"
    if f"sysctl:{key}" in take_over:
        return finding("note", "sysctl-conflict", where, why, f"taken over (take_over: sysctl:{key})")
    return finding(
        "error",
        "sysctl-conflict",
        where,
        why,
        f"remove it there, set host_baseline_knobs_override: {{{key}: null}}, or add 'sysctl:{key}' "
        "to cluster.take_over",
    )


def _limit_lines(text: str) -> list[tuple[str, str, str, str]]:
    rows = (line.partition("#")[0].split() for line in text.splitlines())
    return [(row[0], row[1], row[2], row[3]) for row in rows if len(row) == _LIMIT_FIELDS]


def limits_conflicts(root: Path, limits: Sequence[Mapping[str, str]], take_over: Sequence[str] = ()) -> list[Finding]:
    """Report foreign limits.conf lines that give one of `limits` {domain, type, item, value} another value.

    `take_over` holding `limits:<domain>:<item>` makes it a note.
    """
    wanted = {(str(x["domain"]), str(x["type"]), str(x["item"])): str(x["value"]) for x in limits}
    files = {name: path for name, (_, path) in _files(root, ["etc/security/limits.d"]).items() if name not in OURS}
    files["limits.conf"] = root / "etc/security/limits.conf"
    found = []
    for _, path in sorted(files.items()) if wanted else []:
        if not path.is_file():
            continue
        for domain, kind, item, value in _limit_lines(path.read_text(encoding="utf-8", errors="replace")):
            ours = wanted.get((domain, kind, item))
            if ours is None or ours == value:
                continue
            taken = f"limits:{domain}:{item}" in take_over
            found.append(
                finding(
                    "note" if taken else "error",
                    "limits-conflict",
                    f"/{path.relative_to(root)}",
                    f"it sets {domain} {kind} {item} {value}, rackserve wants {ours}",
                    "taken over" if taken else f"remove it there, or add 'limits:{domain}:{item}' to cluster.take_over",
                )
            )
    return found


def tuner_findings(root: Path, take_over: Sequence[str] = ()) -> list[Finding]:
    """Report enabled services of others that set what we set: whoever comes later wins.

    `take_over` holding `unit:<name>.service` makes it a note; the service is left as it is in any case.
    """
    found = []
    for name in _TUNERS:
        links = list((root / "etc/systemd/system").glob(f"*.wants/{name}.service"))
        links += list((root / "etc/rc2.d").glob(f"S[0-9][0-9]{name}"))
        if not links:
            continue
        why = "it sets the CPU governor as well, and whoever comes later wins"
        taken = f"unit:{name}.service" in take_over
        fix = "taken over" if taken else f"systemctl disable --now {name}, or host_baseline_governor: ''"
        found.append(finding("note" if taken else "warning", "tuner-foreign", f"{name}.service", why, fix))
    return found
