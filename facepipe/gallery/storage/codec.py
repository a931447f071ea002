"""How names, sources, vectors and chips are stored: as they are, or sealed with a key.

A plain gallery stores them as they are. A sealed one stores AES-256-GCM ciphertext under a random data key, and
AES-SIV ciphertext (equal for equal values) where the database must find a name or a photo again. The data key itself
lies in the database, sealed with a key from a passphrase (scrypt) or from a key file; without it nothing opens.

A sealed value opens only at the place that it was sealed for (column, row, person), which is its associated data: who can
write to the file but has no key cannot exchange two people's vectors or names. The rows' checksums are keyed for the same reason.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facepipe.errors import GalleryDamagedError, GalleryError, InputError
from facepipe.gallery.storage.checksums import checksum

#: scrypt: 64 MiB of memory and about a quarter of a second for each guess at the passphrase.
SCRYPT = {"n": 2**16, "r": 8, "p": 1}
KEY_BYTES = 32
_NONCE_BYTES = 12
_MIN_PASSPHRASE = 8
#: What a key record was sealed for, by version. Values of version 1 were not bound to their places.
VERSION = 2
_PURPOSES = {1: b"facepipe key", 2: b"facepipe key, values bound to their rows"}


class WrongKeyError(GalleryError):
    """The passphrase or key file does not open this gallery, or none was given."""


class Codec:
    """How values go into the database and come back; this one stores them as they are.

    place: the column ("face.source"), then the ids of the row and of the person that the value belongs to.
    """

    sealed = False  # whether values are encrypted
    bound = True  # whether a value opens at its own place only; an older sealed gallery's does anywhere

    def seal(self, value: bytes, *place: str | int) -> bytes:
        """Return what is stored for bytes."""
        return value

    def open(self, stored: bytes, *place: str | int) -> bytes:
        """Return the bytes again; GalleryDamagedError when they were altered or lie in another place (sealed only)."""
        return stored

    def seal_text(self, value: str, *place: str | int) -> str | bytes:
        """Return what is stored for text."""
        return value

    def open_text(self, stored: str | bytes, *place: str | int) -> str:
        """Return the text again; GalleryDamagedError when it is stored in the other form."""
        if not isinstance(stored, str):
            raise GalleryDamagedError("expected text, found something else: the database is damaged")
        return stored

    def lookup(self, value: bytes, kind: str) -> bytes:
        """Return what stands in an index for a value that must be found again: equal for equal values of a kind."""
        return value

    def lookup_photo(self, sha256: str) -> bytes:
        """Return what stands in an index for a photo, whose bytes have this SHA-256 (hex): half of it tells photos apart."""
        return self.lookup(bytes.fromhex(sha256)[:16], "content")

    def unlookup(self, stored: bytes, kind: str) -> bytes:
        """Return the value that an index entry stands for."""
        return stored

    def checksum(self, *values: Any) -> int:
        """Return the checksum of a row's values (numbers, text, bytes, None): CRC-32, or keyed in a sealed gallery."""
        return checksum(*values)


class SealedCodec(Codec):
    """Values under AES-256-GCM with a fresh nonce each; lookups under AES-SIV with a key derived from the same."""

    sealed = True

    def __init__(self, data_key: bytes, version: int = VERSION) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

        self.bound = version > 1
        self._altered = (InvalidTag, ValueError, TypeError)
        self._cipher = AESGCM(data_key)
        self._lookup = AESSIV(hashlib.sha512(b"facepipe lookup" + data_key).digest())
        self._row_key = hashlib.sha256(b"facepipe rows" + data_key).digest()

    def encrypt(self, value: bytes, purpose: bytes | None) -> bytes:
        """Return nonce and ciphertext, 28 bytes longer than the value; it opens for the same purpose only."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value, purpose)

    def decrypt(self, stored: bytes, purpose: bytes | None, what: str = "a sealed value") -> bytes:
        """Return the value; GalleryDamagedError when it was altered or sealed for another purpose."""
        try:
            return self._cipher.decrypt(stored[:_NONCE_BYTES], stored[_NONCE_BYTES:], purpose)
        except self._altered as error:
            raise GalleryDamagedError(f"{what} is damaged, or was put there from another place") from error

    def _purpose(self, place: tuple[str | int, ...]) -> bytes | None:
        return "\x1f".join(map(str, place)).encode() if self.bound else None

    def seal(self, value: bytes, *place: str | int) -> bytes:
        """Return the sealed bytes."""
        return self.encrypt(value, self._purpose(place))

    def open(self, stored: bytes, *place: str | int) -> bytes:
        """Return the value."""
        return self.decrypt(stored, self._purpose(place), f"the sealed {' of '.join(map(str, place[:2]))}")

    def seal_text(self, value: str, *place: str | int) -> bytes:
        """Return the sealed UTF-8 of the text."""
        return self.seal(value.encode(), *place)

    def open_text(self, stored: str | bytes, *place: str | int) -> str:
        """Return the text."""
        if isinstance(stored, str):
            raise GalleryDamagedError("expected sealed bytes, found text: the database is damaged")
        return self.open(stored, *place).decode()

    def lookup(self, value: bytes, kind: str) -> bytes:
        """Return deterministic ciphertext, 16 bytes longer than the value, which is not empty."""
        return self._lookup.encrypt(value, [kind.encode()] if self.bound else None)

    def unlookup(self, stored: bytes, kind: str) -> bytes:
        """Return the value."""
        try:
            return self._lookup.decrypt(stored, [kind.encode()] if self.bound else None)
        except self._altered as error:
            raise GalleryDamagedError(f"a sealed {kind} is damaged, or was put there from another place") from error

    def checksum(self, *values: Any) -> int:
        """Return 56 bits of a keyed hash (BLAKE2b, RFC 7693)."""
        if not self.bound:
            return checksum(*values)
        return int.from_bytes(hashlib.blake2b(repr(values).encode(), key=self._row_key, digest_size=7).digest())


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

    def require_strong(self) -> None:
        """InputError when it is a passphrase that is too short to seal anything with from now on."""
        if self.kind == "passphrase" and len(self.value.decode()) < _MIN_PASSPHRASE:
            raise InputError(f"the passphrase is too short: give at least {_MIN_PASSPHRASE} characters")

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
    record: dict[str, Any] = {"kind": secret.kind, "version": VERSION}
    if secret.kind == "passphrase":
        record |= SCRYPT | {"salt": os.urandom(16).hex()}
    return json.dumps(record | {"key": _wrapping(secret, record).encrypt(data_key, _PURPOSES[VERSION]).hex()})


def unwrap_key(secret: Secret | None, text: str, place: str) -> SealedCodec:
    """Return what opens the gallery; WrongKeyError when the secret is missing, of the other kind, or wrong."""
    record = json.loads(text)
    kind, version = record["kind"], record.get("version", 1)
    wanted = "FACEPIPE_PASSPHRASE" if kind == "passphrase" else "FACEPIPE_KEY_FILE"
    if secret is None:
        raise WrongKeyError(f"{place}: the gallery is sealed with a {kind}: give it in {wanted}")
    if secret.kind != kind:
        raise WrongKeyError(f"{place}: the gallery is sealed with a {kind}, not a {secret.kind}: use {wanted}")
    try:
        return SealedCodec(_wrapping(secret, record).decrypt(bytes.fromhex(record["key"]), _PURPOSES[version]), version)
    except GalleryDamagedError as error:
        raise WrongKeyError(f"{place}: wrong {kind}: nothing was opened or changed") from error
