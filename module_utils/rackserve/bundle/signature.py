"""Signing with the site's key, and checking with its public one. Keys and passphrases stay in files and with gpg."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from ..release.host import ReleaseError, Run, must


class Signer(NamedTuple):
    """`key`: fingerprint in the keyring `gpg_home` ("": gpg's own); `passphrase_file`: "" asks gpg's agent."""

    key: str
    gpg_home: str = ""
    passphrase_file: str = ""

    def command(self) -> list[str]:
        """gpg with this keyring; what is secret is read from a file by gpg itself."""
        words = ["gpg", "--batch", "--quiet", "--no-tty", "--yes"]
        words += ["--homedir", self.gpg_home] if self.gpg_home else []
        if self.passphrase_file:
            words += ["--pinentry-mode", "loopback", "--passphrase-file", self.passphrase_file]
        return [*words, "--local-user", self.key, "--digest-algo", "SHA512"]


def check_signer(signer: Signer, run: Run) -> None:
    """Raise ReleaseError unless gpg has the secret key and the passphrase file is for its owner alone."""
    if signer.passphrase_file:
        path = Path(signer.passphrase_file)
        if not path.is_file():
            raise ReleaseError(f"{path} is missing: put the passphrase of key {signer.key} there, mode 0600")
        if path.stat().st_mode & 0o077:
            raise ReleaseError(f"{path} may be read by others: chmod 600 {path}")
    home = ["--homedir", signer.gpg_home] if signer.gpg_home else []
    status, _, _ = run(["gpg", "--batch", "--quiet", *home, "--list-secret-keys", signer.key])
    if status != 0:
        where = signer.gpg_home or "gpg's own keyring"
        raise ReleaseError(f"{where} has no secret key {signer.key}: import it, or name another in bundle_sign_key")


def sign_detached(path: Path, signer: Signer, run: Run) -> None:
    """Write `<path>.asc`. Raises ReleaseError with what gpg said."""
    target = f"{path}.asc"
    must(run, [*signer.command(), "--armor", "--output", target, "--detach-sign", str(path)], f"signing {path.name}")


def sign_release(release: Path, signer: Signer, run: Run) -> None:
    """Write `InRelease` beside a repository's Release. Raises ReleaseError."""
    target = str(release.with_name("InRelease"))
    must(run, [*signer.command(), "--output", target, "--clearsign", str(release)], "signing the repository")


def verify_detached(path: Path, key_file: Path, run: Run) -> str:
    """The fingerprint that signed `<path>.asc`. Raises ReleaseError unless it is one of the keys in `key_file`."""
    signature = path.with_name(path.name + ".asc")
    for needed, fix in (
        (key_file, "give the public key of who made the bundle"),
        (path, "this is no bundle, or it was not finished"),
        (signature, "this bundle is not signed"),
    ):
        if not needed.is_file():
            raise ReleaseError(f"{needed} is missing: {fix}")
    with tempfile.TemporaryDirectory(prefix="rackserve-gpg-") as home:
        ring = key_file
        if key_file.suffix == ".asc":
            ring = Path(home) / "ring.gpg"
            command = [
                "gpg",
                "--homedir",
                home,
                "--batch",
                "--quiet",
                "--output",
                str(ring),
                "--dearmor",
                str(key_file),
            ]
            must(run, command, f"reading {key_file}")
        keyring = ["--homedir", home, "--keyring", str(ring.resolve())]
        status, out, err = run(["gpgv", "--status-fd", "1", *keyring, str(signature), str(path)])
    for line in out.splitlines():
        words = line.split()
        if status == 0 and words[1:2] == ["VALIDSIG"]:
            return words[2]
    said = [line for line in err.splitlines() if line.strip()]
    raise ReleaseError(
        f"{path}: no signature by {key_file} ({said[-1] if said else 'gpgv said nothing'}): do not use it"
    )
