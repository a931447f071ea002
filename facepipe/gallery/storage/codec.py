"""How names, sources, vectors and chips are stored: as they are, or sealed with a key.

A plain gallery stores them as they are. A sealed one stores AES-256-GCM ciphertext under a random data key, and
AES-SIV ciphertext (equal for equal values) where the database must find a name or a photo again. The data key itself
lies in the database, sealed with a key from a passphrase (scrypt) or from a key file; without it nothing opens.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facepipe.errors import GalleryDamagedError, GalleryError, InputError

#: scrypt: 64 MiB of memory and about a quarter of a second for each guess at the passphrase.
SCRYPT = {"n": 2**16, "r": 8, "p": 1}
KEY_BYTES = 32
_NONCE_BYTES = 12
_PURPOSE = b"facepipe key"


class WrongKeyError(GalleryError):
    """The passphrase or key file does not open this gallery, or none was given."""


class Codec:
    """How values go into the database and come back; this one stores them as they are."""

    sealed = False  # whether values are encrypted

    def seal(self, value: bytes) -> bytes:
        """Return what is stored for bytes."""
        return value

    def open(self, stored: bytes) -> bytes:
        """Return the bytes again; GalleryDamagedError when they were altered (sealed only)."""
        return stored

    def seal_text(self, value: str) -> str | bytes:
        """Return what is stored for text."""
        return value

    def open_text(self, stored: str | bytes) -> str:
        """Return the text again; GalleryDamagedError when it is stored in the other form."""
        if isinstance(stored, bytes):
            raise GalleryDamagedError("expected text, found bytes: the database is damaged")
        return stored

    def lookup(self, value: bytes) -> bytes:
        """Return what stands in an index for a value that must be found again: equal for equal values."""
        return value

    def unlookup(self, stored: bytes) -> bytes:
        """Return the value that an index entry stands for."""
        return stored


class SealedCodec(Codec):
    """Values under AES-256-GCM with a fresh nonce each; lookups under AES-SIV with a key derived from the same."""

    sealed = True

    def __init__(self, data_key: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

        self._altered = (InvalidTag, ValueError, TypeError)
        self._cipher = AESGCM(data_key)
        self._lookup = AESSIV(hashlib.sha512(b"facepipe lookup" + data_key).digest())

    def seal(self, value: bytes, purpose: bytes | None = None) -> bytes:
        """Return nonce and ciphertext, 28 bytes longer than the value; it opens for the same purpose only."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value, purpose)

    def open(self, stored: bytes, purpose: bytes | None = None) -> bytes:
        """Return the value."""
        try:
            return self._cipher.decrypt(stored[:_NONCE_BYTES], stored[_NONCE_BYTES:], purpose)
        except self._altered as error:
            raise GalleryDamagedError("a sealed value is damaged") from error

    def seal_text(self, value: str) -> bytes:
        """Return the sealed UTF-8 of the text."""
        return self.seal(value.encode())

    def open_text(self, stored: str | bytes) -> str:
        """Return the text."""
        if isinstance(stored, str):
            raise GalleryDamagedError("expected sealed bytes, found text: the database is damaged")
        return self.open(stored).decode()

    def lookup(self, value: bytes) -> bytes:
        """Return deterministic ciphertext, 16 bytes longer than the value, which is not empty."""
        return self._lookup.encrypt(value, None)

    def unlookup(self, stored: bytes) -> bytes:
        """Return the value."""
        try:
            return self._lookup.decrypt(stored, None)
        except self._altered as error:
            raise GalleryDamagedError("a sealed value is damaged") from error


@dataclass(frozen=True, slots=True)
class Secret:
    """What opens a sealed gallery: a passphrase, or the 32 bytes of a key file."""

    kind: str  # "passphrase" or "key-file"
    value: bytes

    def __repr__(self) -> str:
        return f"Secret({self.kind})"

    @classmethod
    def passphrase(cls, text: str) -> Secret:
        """Return the secret of a passphrase; InputError when it is empty."""
        if not text:
            raise InputError("the passphrase is empty: give one")
        return cls("passphrase", text.encode())

    @classmethod
    def key_file(cls, path: Path) -> Secret:
        """Read a key file: 64 hexadecimal digits or 32 bytes. InputError when it is neither."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: the key file cannot be read ({error.strerror})") from error
        if len(data) == KEY_BYTES:
            return cls("key-file", data)
        try:
            key = bytes.fromhex(data.decode("ascii").strip())
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise InputError(
                f"{path}: not a key file: expected 64 hexadecimal digits or 32 bytes; openssl rand -hex 32 makes one"
            )
        return cls("key-file", key)

    @classmethod
    def from_environment(cls) -> Secret | None:
        """Return the secret of FACEPIPE_KEY_FILE or FACEPIPE_PASSPHRASE, None when neither is set."""
        path = os.environ.get("FACEPIPE_KEY_FILE")
        if path:
            return cls.key_file(Path(path))
        text = os.environ.get("FACEPIPE_PASSPHRASE")
        return cls.passphrase(text) if text else None


def _wrapping(secret: Secret, record: dict[str, Any]) -> SealedCodec:
    """Return what seals the data key itself."""
    if secret.kind == "key-file":
        return SealedCodec(hashlib.sha256(b"facepipe wrap" + secret.value).digest())
    cost = {name: record[name] for name in SCRYPT}
    salt = bytes.fromhex(record["salt"])
    return SealedCodec(hashlib.scrypt(secret.value, salt=salt, maxmem=2**28, dklen=KEY_BYTES, **cost))


def wrap_key(secret: Secret, data_key: bytes) -> str:
    """Return the record, JSON, from which `unwrap_key` gets the data key back with the same secret."""
    record: dict[str, Any] = {"kind": secret.kind}
    if secret.kind == "passphrase":
        record |= SCRYPT | {"salt": os.urandom(16).hex()}
    return json.dumps(record | {"key": _wrapping(secret, record).seal(data_key, _PURPOSE).hex()})


def unwrap_key(secret: Secret | None, text: str, place: str) -> bytes:
    """Return the data key; WrongKeyError when the secret is missing, of the other kind, or wrong."""
    record = json.loads(text)
    kind = record["kind"]
    wanted = "FACEPIPE_PASSPHRASE" if kind == "passphrase" else "FACEPIPE_KEY_FILE"
    if secret is None:
        raise WrongKeyError(f"{place}: the gallery is sealed with a {kind}: give it in {wanted}")
    if secret.kind != kind:
        raise WrongKeyError(f"{place}: the gallery is sealed with a {kind}, not a {secret.kind}: use {wanted}")
    try:
        return _wrapping(secret, record).open(bytes.fromhex(record["key"]), _PURPOSE)
    except GalleryDamagedError as error:
        raise WrongKeyError(f"{place}: wrong {kind}: nothing was opened or changed") from error
