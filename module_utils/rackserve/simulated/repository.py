"""A flat, signed package repository, and the key it is signed with."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

from .debian import Run, must, paragraph
from .package_set import PackagesError

SECRET_KEY = "simulated-archive-key.asc"  # noqa: S105 - a file's name
PUBLIC_KEY = "simulated-archive-keyring.asc"
_OWNER = "rackserve lab, simulated packages <lab@localhost>"


@contextmanager
def _keyring(run: Run) -> Iterator[tuple[str, ...]]:
    """gpg with an own folder; its agent is ended and the folder removed afterwards."""
    home = tempfile.mkdtemp(prefix="rackserve-gpg-")
    try:
        yield (
            "gpg",
            "--homedir",
            home,
            "--batch",
            "--quiet",
            "--no-tty",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
        )
    finally:
        run(["gpgconf", "--homedir", home, "--kill", "all"])
        shutil.rmtree(home, ignore_errors=True)


def ensure_key(folder: Path, run: Run) -> bool:
    """Make the lab's signing key, once; True when it was made."""
    secret, public = folder / SECRET_KEY, folder / PUBLIC_KEY
    if secret.is_file() and public.is_file():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    with _keyring(run) as gpg:
        must(run, *gpg, "--quick-generate-key", _OWNER, "ed25519", "sign", "never")
        _write_private(secret, must(run, *gpg, "--armor", "--export-secret-keys"))
        public.write_text(must(run, *gpg, "--armor", "--export"))
    return True


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def export_binary(folder: Path, target: Path, run: Run) -> None:
    """The public key in the form that packages of keyrings bring."""
    with _keyring(run) as gpg:
        must(run, *gpg, "--output", str(target), "--dearmor", str(folder / PUBLIC_KEY))


def index(pool: Path, run: Run) -> str:
    """`Packages`: control files of all packages with name, size and checksum."""
    parts = []
    for deb in sorted(pool.glob("*.deb")):
        content = deb.read_bytes()
        place = {"Filename": f"./{deb.name}", "Size": str(len(content)), "SHA256": hashlib.sha256(content).hexdigest()}
        control = must(run, "dpkg-deb", "--field", str(deb))
        parts.append(f"{control.rstrip()}\n{paragraph(place)}")
    return "\n".join(parts)


def release(pool: Path, epoch_s: int) -> str:
    """`Release`: what the repository is, and the checksum of its index."""
    content = (pool / "Packages").read_bytes()
    return paragraph(
        {
            "Origin": "rackserve lab (simulated)",
            "Label": "rackserve lab (simulated)",
            "Description": "Simulated packages of the GPU driver",
            "Date": formatdate(epoch_s, usegmt=True).replace("GMT", "+0000"),
            "Architectures": "amd64 all",
            "SHA256": f"\n {hashlib.sha256(content).hexdigest()} {len(content)} Packages",
        }
    )


def sign(pool: Path, folder: Path, run: Run) -> None:
    """`InRelease`: the same, signed with the lab's key."""
    secret = folder / SECRET_KEY
    if not secret.is_file():
        raise PackagesError(f"{secret} is not there; delete {folder / PUBLIC_KEY} to have a new pair made")
    with _keyring(run) as gpg:
        must(run, *gpg, "--import", str(secret))
        must(
            run,
            *gpg,
            "--digest-algo",
            "SHA512",
            "--output",
            str(pool / "InRelease"),
            "--clearsign",
            str(pool / "Release"),
        )
