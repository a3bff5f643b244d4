"""Write the archive of a backup, and prove one."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

INDEX = "index.json"
VERSION = 1
MOST_BYTES = 64 * 2**20
# Shorter ones are words.
SHORTEST_SECRET = 8
LONG_LINE = 16
_VAULT = b"$ANSIBLE_VAULT"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_PRIVATE_KEY = re.compile(rb"BEGIN [A-Z ]*PRIVATE KEY")
_PASSWORD_NAME = re.compile(r"ansible_\w*pass(?:word|wd|phrase)?")
# Its value follows on the line, and is no encrypted one, no template and not empty.
_CLEAR_PASSWORD = re.compile(
    rb"^[^#\n]*\b" + _PASSWORD_NAME.pattern.encode() + rb"[\"']?[ \t]*[:=](?![ \t]*"
    rb"(?:!vault\b|[\"']?\{\{|\"\"|''|null\b|~|#|\r?$))",
    re.MULTILINE,
)
# Never read, wherever they are.
_SECRET_NAMES = (
    "secrets.yml",
    "*.secret.env",
    "keys.map",
    "engine-key.map",
    "tls.pem",
    "token",
    "id_*",
    "*.key",
    "*vault*",
)


class BackupError(Exception):
    """The backup cannot be made or is not whole; one line: what, where, how to fix it."""


class Folder(NamedTuple):
    """Files below ``path`` that fit one of ``patterns`` go below ``name``."""

    name: str
    path: Path
    patterns: Sequence[str]


def read_folder(folder: Folder) -> tuple[dict[str, bytes], list[str]]:
    """({name in the archive: content}, what was left out because it is secret). Raises BackupError."""
    found: dict[str, bytes] = {}
    left: list[str] = []
    for pattern in folder.patterns:
        for path in sorted(folder.path.glob(pattern)):
            if path.is_symlink() or not path.is_file():
                continue
            name = (
                f"{folder.name}/{path.relative_to(folder.path)}" if folder.name else str(path.relative_to(folder.path))
            )
            if any(path.match(secret) for secret in _SECRET_NAMES):
                left.append(name)
                continue
            try:
                if path.stat().st_size > MOST_BYTES:
                    raise BackupError(f"{path} has {path.stat().st_size} bytes: it is none of the files that are meant")
                content = path.read_bytes()
            except OSError as error:
                raise BackupError(f"{path}: {error.strerror}; run it as a user who may read it") from None
            if content.startswith(_VAULT):
                left.append(name)
            else:
                found[name] = content
    return found, sorted(set(left))


def read_folders(folders: Iterable[Folder]) -> tuple[dict[str, bytes], list[str]]:
    """The same of several."""
    found: dict[str, bytes] = {}
    left: list[str] = []
    for folder in folders:
        files, out = read_folder(folder)
        found.update(files)
        left += out
    return found, left


def refuse_secrets(files: Mapping[str, bytes], secrets: Iterable[str]) -> None:
    """Raise BackupError naming the files that hold a secret; the value itself is not told.

    That is one of the values, a long line of one, a private key, or a password of a connection in clear.
    """
    values = {form.encode() for value in secrets for form in _forms(value)}
    holding = sorted(
        name
        for name, content in files.items()
        if _PRIVATE_KEY.search(content) or _CLEAR_PASSWORD.search(content) or any(value in content for value in values)
    )
    if holding:
        fix = "move it to the vault file and name it there; nothing was written"
        raise BackupError(f"a secret's value stands in {', '.join(holding)}: {fix}")


def _forms(value: str) -> set[str]:
    """How a value may stand in a file: whole, by its lines, each as it is, with escapes, or with quotes doubled."""
    lines = [line.strip() for line in _CERTIFICATE.sub("", value).splitlines()]
    # Lines such as BEGIN CERTIFICATE stand in public files as well.
    parts = [value, *(line for line in lines if len(line) >= LONG_LINE and not line.startswith("-----"))]
    return {
        form
        for part in parts
        if len(part) >= SHORTEST_SECRET
        for form in (part, json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1], part.replace("'", "''"))
    }


def is_password(name: str) -> bool:
    """Whether a variable is a password of a connection, by its name."""
    return bool(_PASSWORD_NAME.fullmatch(name))


def refuse_names(where: str, names: Iterable[str]) -> None:
    """Raise BackupError where unpacking would write outside of the folder; hosts name what they send."""
    bad = sorted(name for name in names if name.startswith("/") or ".." in name.split("/"))
    if bad:
        raise BackupError(f"{where}: {', '.join(map(repr, bad[:5]))} would leave its folder; look at who named it so")


def write(path: Path, files: Mapping[str, bytes], head: Mapping[str, Any], now_s: float) -> dict[str, Any]:
    """Write the archive, for its owner alone; its index. Raises BackupError, also where the file is there already."""
    refuse_names(str(path), files)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    index = {"kind": "rackserve-backup", "version": VERSION, **head, "made_at": int(now_s), "files": digests}
    part = path.with_name(path.name + ".part")
    try:
        if path.exists():
            raise BackupError(f"{path} is there already: name another file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as handle:
            part.chmod(0o600)
            with tarfile.open(fileobj=handle, mode="w:gz") as archive:
                for name, content in [(INDEX, _json(index)), *sorted(files.items())]:
                    member = tarfile.TarInfo(name)
                    member.size, member.mtime, member.mode = len(content), int(now_s), 0o600
                    archive.addfile(member, io.BytesIO(content))
        part.replace(path)
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror}; name a file where there is room") from None
    return index


def _json(thing: Any) -> bytes:
    return (json.dumps(thing, indent=1, sort_keys=True) + "\n").encode()


def verify(path: Path) -> dict[str, Any]:
    """The index of an archive whose every file is the one that was written. Raises BackupError."""
    seen: dict[str, str] = {}
    index: dict[str, Any] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() and member.size <= MOST_BYTES else None
                if stream is None:
                    raise BackupError(f"{path}: {member.name} is no plain file of a backup")
                content = stream.read()
                if member.name == INDEX:
                    index = json.loads(content)
                else:
                    seen[member.name] = hashlib.sha256(content).hexdigest()
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise BackupError(f"{path} cannot be read: {error}; take an older backup") from None
    if not isinstance(index, dict) or index.get("kind") != "rackserve-backup" or index.get("version") != VERSION:
        raise BackupError(f"{path} is no backup of this version of rackserve: it lacks a fitting {INDEX}")
    refuse_names(str(path), seen)
    wanted = index.get("files") or {}
    wrong = sorted({*wanted} ^ {*seen}) + sorted(
        name for name in wanted if seen.get(name, wanted[name]) != wanted[name]
    )
    if wrong:
        raise BackupError(f"{path} is not whole: {', '.join(wrong[:5])} differ; take an older backup")
    return index


def packed(files: Mapping[str, bytes]) -> dict[str, str]:
    """Contents as JSON carries them."""
    return {name: base64.b64encode(content).decode() for name, content in files.items()}


def unpacked(files: Mapping[str, str]) -> dict[str, bytes]:
    """The other way round. Raises BackupError."""
    try:
        return {name: base64.b64decode(content, validate=True) for name, content in files.items()}
    except ValueError as error:
        raise BackupError(f"what a host sent is no base64: {error}") from None
