"""Looks for secrets where none may be: in processes while they run, in streams, and on a host's disk."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Needles = dict[str, list[str]]
CHUNK = 1 << 20

# Runs on a host as root. It comes by stdin with the secrets in it, so that they are in no argument and in no file.
HOST_SEARCH = r"""
import glob, grp, json, os, pwd, stat, subprocess
NEEDLES = {name: [text.encode() for text in texts] for name, texts in json.loads(__NEEDLES__).items()}
SKIPPED = ("/proc", "/sys", "/dev", "/usr", "/opt/rackserve/releases", "/srv/models", "/srv/mirror")
hits, counts = [], {"files": 0, "processes": 0, "bytes": 0}

def search(stream, where, **more):
    rest, found = b"", set()
    while True:
        chunk = stream.read(1 << 20)
        if not chunk:
            break
        counts["bytes"] += len(chunk)
        text = rest + chunk
        found |= {name for name, texts in NEEDLES.items() if any(one in text for one in texts)}
        rest = text[-200:]
    hits.extend({"where": where, "secret": name, **more} for name in sorted(found))

def name_of(table, key, number):
    try:
        return getattr(table(number), key)
    except KeyError:
        return str(number)

def tree(top):
    for folder, names, files in os.walk(top):
        names[:] = [name for name in names if os.path.join(folder, name) not in SKIPPED]
        for file in files:
            path = os.path.join(folder, file)
            try:
                shown = os.lstat(path)
                if not stat.S_ISREG(shown.st_mode):
                    continue
                owner = "%04o %s:%s" % (stat.S_IMODE(shown.st_mode), name_of(pwd.getpwuid, "pw_name", shown.st_uid),
                                        name_of(grp.getgrgid, "gr_name", shown.st_gid))
                with open(path, "rb") as stream:
                    search(stream, path, owner=owner)
                counts["files"] += 1
            except OSError:
                continue

def command(*words):
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        search(process.stdout, "output of " + " ".join(words[:2]))

for top in ("/", "/usr/local", "/dev/shm"):
    tree(top)
command("systemctl", "show", "*", "--all", "--no-pager")
command("systemctl", "cat", "*", "--no-pager")
command("journalctl", "-o", "export", "--all", "--no-pager")
for folder in glob.glob("/proc/[0-9]*"):
    for part in ("cmdline", "environ"):
        try:
            unit = open(folder + "/cgroup").read().rpartition(".service")[0].rpartition("/")[2] + ".service"
            owner = name_of(pwd.getpwuid, "pw_name", os.stat(folder).st_uid)
            with open(folder + "/" + part, "rb") as stream:
                search(stream, part + " of " + unit, owner=owner)
            counts["processes"] += part == "cmdline"
        except OSError:
            continue
print(json.dumps({"hits": hits, "counts": counts}))
"""


def canaries(secrets: Mapping[str, str], key_files: Iterable[Path]) -> Needles:
    """What to look for: short secrets whole; of keys in PEM or armour every full line of the private part."""
    texts = dict(secrets) | {path.name: path.read_text("utf-8") for path in key_files}
    found: Needles = {}
    for name, text in texts.items():
        if "PRIVATE KEY" in text:
            private = text[text.index("PRIVATE KEY") :].splitlines()[1:]
            found[name] = [line for line in private if len(line) > 40 and "-----" not in line and not _common(line)]
        else:
            found[name] = [text.strip()]
    assert all(found.values()), f"no line to look for: {found}"
    return found


def _common(line: str) -> bool:
    """The first line of an OpenSSH key names the format: it is the same in all of them."""
    return line.startswith("b3BlbnNzaC1rZXktdjE")


def search_text(text: str, needles: Needles) -> set[str]:
    """Names of the secrets in a text."""
    return {name for name, lines in needles.items() if any(line in text for line in lines)}


def search_stream(stream: Any, needles: Needles) -> tuple[set[str], int]:
    """Names of the secrets in a stream of bytes, and how many bytes were read."""
    found: set[str] = set()
    rest, size = b"", 0
    while chunk := stream.read(CHUNK):
        size += len(chunk)
        text = rest + chunk
        found |= {name for name, lines in needles.items() if any(line.encode() in text for line in lines)}
        rest = text[-200:]
    return found, size


def search_host(ssh: list[str], needles: Needles) -> dict[str, Any]:
    """Search a host's files, journal, units and processes; {hits: [{where, secret, owner}], counts}."""
    script = HOST_SEARCH.replace("__NEEDLES__", repr(json.dumps(needles)))
    done = subprocess.run([*ssh, "python3 -"], input=script, capture_output=True, text=True, timeout=120, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@dataclass
class ProcessWatch:
    """Reads arguments and environments of processes as they come and go, those `wanted` by their pid.

    `allowed(pid, part, secret)` names what may be. Use as a context manager; `hits` are words, `seen` counts processes.
    """

    needles: Needles
    wanted: Callable[[int], bool]
    allowed: Callable[[int, str, str], bool]
    hits: set[str] = field(default_factory=set)
    seen: set[tuple[int, bytes]] = field(default_factory=set)
    skipped: set[tuple[int, bytes]] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> ProcessWatch:
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _loop(self) -> None:
        while not self._stop.is_set():
            for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
                self._look(pid)
            time.sleep(0.01)

    def _look(self, pid: int) -> None:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
            key = (pid, arguments)
            if key in self.seen or key in self.skipped:
                return
            if not self.wanted(pid):
                self.skipped.add(key)
                return
            parts = {"cmdline": arguments, "environ": Path(f"/proc/{pid}/environ").read_bytes()}
        except OSError:
            return
        self.seen.add(key)
        for part, content in parts.items():
            for name in search_text(content.decode(errors="replace"), self.needles):
                if not self.allowed(pid, part, name):
                    words = arguments.replace(b"\0", b" ")[:60].decode(errors="replace")
                    self.hits.add(f"{name} in {part} of {words}")


def parents(pid: int) -> Iterator[int]:
    """A process and those above it."""
    while pid > 1:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])


def namespace(pid: int) -> str:
    """The network namespace of a process, as the kernel names it."""
    return f"net:[{Path(f'/proc/{pid}/ns/net').stat().st_ino}]"
