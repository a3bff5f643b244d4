"""Everything that was collected, as one archive with a manifest; `intake` reads it again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .case import Case, Host
from .intake import KIND, MANIFEST
from .redact import Redactor

VERSION = 1
_SAFE = re.compile(r"[^\w.@:+-]+")


def contents(
    case: Case, causes: Sequence[Mapping[str, Any]], told: Sequence[str], redactor: Redactor, now_s: float
) -> dict[str, bytes]:
    """{name in the archive: content}; the manifest comes last and names every file with size and sha256."""
    files: dict[str, bytes] = {}
    hosts = {}
    for host in case.hosts.values():
        hosts[host.name] = _host(host, files, redactor)
    files["causes.json"] = _json(redactor.deep(list(causes)))
    files["report.txt"] = redactor.text("\n".join(told) + "\n").encode()
    manifest = {
        "kind": KIND,
        "version": VERSION,
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s)),
        "hosts": hosts,
        "redacted": redactor.count,
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    return {**files, MANIFEST: _json(manifest)}


def _json(thing: Any) -> bytes:
    return (json.dumps(thing, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _host(host: Host, files: dict[str, bytes], redactor: Redactor) -> dict[str, Any]:
    folder = f"hosts/{_SAFE.sub('_', host.name)}"
    entry: dict[str, Any] = {"lost": redactor.text(host.lost), "readings": f"{folder}/readings.json", "sources": []}
    files[entry["readings"]] = _json({"readings": redactor.deep(host.readings), "plan": redactor.deep(host.plan)})
    for source in host.sources:
        parts = [_SAFE.sub("_", part) for part in source.name.split("/") if part not in ("", ".", "..")]
        file = "/".join([folder, *parts])
        while file in files:
            file += "_"
        files[file] = redactor.text(source.text).encode()
        entry["sources"].append(
            {"file": file, "name": source.name, "kind": source.kind, "unit": source.unit, "state": source.state,
             "cut": source.cut}
        )  # fmt: skip
    return entry


def pack(files: Mapping[str, bytes], now_s: float) -> bytes:
    """The archive: gzip, one folder, owner root, no more than its owner may read."""
    top = f"diagnosis-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now_s))}"
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz", compresslevel=6) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mode, member.mtime = len(content), 0o600, int(now_s)
            archive.addfile(member, io.BytesIO(content))
    return whole.getvalue()


def write_file(path: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by its owner only. Raises OSError."""
    part = path.with_name(f"{path.name}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.chmod(0o600)
    part.replace(path)
