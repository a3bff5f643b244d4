"""A package repository's public key: a file on the controller."""

from __future__ import annotations

import hashlib
from pathlib import Path

_ARMOUR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_PACKET_BIT = 0x80  # first bit of every OpenPGP packet


def key_digest(path: Path) -> str:
    """sha256 of the key at `path`. apt reads a file by its name: .asc must be ASCII, .gpg must be binary.

    Raises ValueError, one line, when it is missing, or is no public key of that kind.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise ValueError(f"{path}: {problem.strerror}; put the repository's public key there") from None
    if b"PRIVATE KEY" in data:
        raise ValueError(f"{path} holds a private key; export the public one (gpg --export)")
    armoured = data.lstrip().startswith(_ARMOUR)
    if path.suffix == ".asc" and not armoured:
        raise ValueError(f"{path} is no ASCII key; export it with gpg --export --armor, or name it .gpg")
    if path.suffix != ".asc" and (armoured or not data or not data[0] & _PACKET_BIT):
        raise ValueError(f"{path} is no binary key; export it with gpg --export, or name it .asc")
    return hashlib.sha256(data).hexdigest()
