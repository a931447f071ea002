"""The gallery's SQLite database: its soundness and key, reading and writing transactions, generations, the journal.

This module and `people` need no numpy: `gallery list` costs little more than Python's start.

Durability: WAL with `synchronous=FULL`. In WAL mode NORMAL syncs only at checkpoints, so a power cut may take back
the last transactions; FULL syncs the WAL at every commit, so what was reported is there. EXTRA would add nothing: it
concerns the directory entry of a rollback journal, which WAL does not have. `secure_delete` overwrites what is deleted.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facepipe.errors import GalleryAccessError, GalleryDamagedError, GalleryError, GalleryServerError
from facepipe.gallery.storage import opening
from facepipe.gallery.storage.checksums import CRC_OF_FACE, CRC_OF_PERSON, checksum, journal_digest, vector_checksum
from facepipe.gallery.storage.codec import KEY_BYTES, Codec, SealedCodec, Secret, unwrap_key, wrap_key
from facepipe.gallery.storage.disk import DATABASE_NAME, sqlite_errors
from facepipe.gallery.storage.lock import LOCK_TIMEOUT, WriterLock, read_note
from facepipe.gallery.storage.recoding import recode
from facepipe.gallery.storage.schema import APPLICATION_ID, is_outdated, migrate
from facepipe.gallery.storage.soundness import SYMPTOMS, fault_in_rows, fault_in_settings, require_known_schema

if TYPE_CHECKING:
    from facepipe.gallery.storage.follower import Follower

#: Holds the generation of the last write, outside the database: SQLite takes a damaged WAL for a shorter one, in silence.
LAST_WRITE_NAME = "last-write"


class Database:
    """One open gallery database. Not to be shared between threads or over a fork."""

    def __init__(
        self,
        folder: Path,
        connection: sqlite3.Connection,
        writable: bool,
        scratch: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self.folder = folder
        self.path = folder / DATABASE_NAME
        self.connection = connection
        self.writable = writable
        self.lock_timeout = LOCK_TIMEOUT
        self.codec = Codec()
        self.key_record: str | None = None
        self._lock = WriterLock(folder)
        #: A temporary folder that goes when the database is closed.
        self.scratch = scratch

    @classmethod
    def create(cls, folder: Path, fingerprint: str, dim: int, secret: Secret | None = None) -> Database:
        """Make a gallery in `folder` (made when missing) for vectors of length `dim` of the embedder `fingerprint`.

        It appears whole or not at all. GalleryError when there is one already or the folder cannot be written.
        """
        opening.make_database(folder, fingerprint, dim, secret)
        return cls.open(folder, secret)

    @classmethod
    def open(cls, folder: Path, secret: Secret | None = None, *, accept_loss: bool = False) -> Database:
        """Open the gallery in `folder`, bringing an older schema up to date.

        secret: opens a sealed gallery; None takes FACEPIPE_KEY_FILE or FACEPIPE_PASSPHRASE. A read-only disk is fine
        as long as nothing is written. accept_loss: open although the last writes are missing (damaged WAL, a copy from
        before put in its place). GalleryMissingError, GalleryError, WrongKeyError.
        """
        opening.require_there(folder)
        with sqlite_errors(folder):
            database = cls(folder, *opening.connect(folder))
            try:
                database._prepare(secret, accept_loss)
            except BaseException:
                database.close()
                raise
        return database

    def _prepare(self, secret: Secret | None, accept_loss: bool) -> None:
        if self.connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise GalleryError(f"{self.path}: not a facepipe gallery, or its header is damaged: restore a copy")
        with self._as_damage():
            require_known_schema(self.connection)
            if is_outdated(self.connection, writable=self.writable):
                with self.lock("migrate"):
                    migrate(self.connection)
            require_known_schema(self.connection, whole=True)
            if fault := fault_in_settings(self.connection):
                raise GalleryDamagedError(fault)
        self._read_key(secret)
        lost = self.lost_writes()
        if lost and not accept_loss:
            raise GalleryError(
                f"{self.folder}: the last {lost} writes are missing: its WAL is damaged, or faces.sqlite was replaced by an "
                "older copy; facepipe gallery check --repair continues without them, then enrol the newest photos again"
            )
        if not self.codec.bound and self.writable and not lost:
            self._bind(secret)

    def _read_key(self, secret: Secret | None) -> None:
        self.key_record = self.get_meta("key")
        if self.key_record is not None:
            self._use(unwrap_key(secret or Secret.from_environment(), self.key_record, str(self.folder)))

    def _use(self, codec: Codec) -> None:
        self.codec = codec
        self.connection.create_function("checksum", -1, codec.checksum, deterministic=True)

    def _bind(self, secret: Secret | None) -> None:
        """Seal an older gallery anew, its values bound to their rows. One that is damaged or busy stays as it is for now."""
        with contextlib.suppress(GalleryError), self.lock("migrate"):
            self._read_key(secret)  # another process may have done it meanwhile
            secret = secret or Secret.from_environment()
            if not self.codec.bound and secret is not None:
                data_key = secrets.token_bytes(KEY_BYTES)
                self.recode("migrate", SealedCodec(data_key), wrap_key(secret, data_key))

    def recode(self, action: str, codec: Codec, key_record: str | None, *, scrub: str | None = None) -> None:
        """Store everything as `codec` stores it, in one transaction. scrub: why bytes of before must go afterwards."""
        old = self.codec
        try:
            with self.write(action) as generation:
                recode(self.connection, old, codec)
                for table in ("person", "face"):
                    self.connection.execute(f"UPDATE {table} SET changed = ?", (generation,))
                self._use(codec)
                for key, value in self.connection.execute("SELECT key, value FROM meta").fetchall():
                    self.set_meta(key, value)
                self.set_meta("key", key_record)
                if scrub is not None:
                    self.set_meta("scrub", scrub)
                self.log("seal" if codec.sealed else "unseal")
        except BaseException:
            self._use(old)
            raise
        self.key_record = key_record

    @contextlib.contextmanager
    def _as_damage(self) -> Iterator[None]:
        """Say of which database what is wrong."""
        try:
            yield
        except GalleryDamagedError as error:
            if error.what.startswith(str(self.folder)):
                raise
            raise GalleryDamagedError(f"{self.path}: {error.what}") from error

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Where the block fails as code does that meets a value of another kind, look at the rows: a bad one is the reason.

        GalleryDamagedError then; what is not the database's fault is raised as it is.
        """
        try:
            yield
        except SYMPTOMS as error:
            with contextlib.suppress(sqlite3.Error):
                fault = fault_in_rows(self.connection)
                if fault is not None:
                    raise GalleryDamagedError(f"{self.path}: {fault}") from error
            raise

    def lost_writes(self) -> int:
        """Return how many writes were reported but are not in the database; 0 in a sound gallery."""
        try:
            note = json.loads(read_note(self.folder / LAST_WRITE_NAME))
            if note["crc"] != checksum(note["identity"], note["generation"]) or note["identity"] != self.identity:
                return 0
            return max(0, int(note["generation"]) - self.generation())
        except (OSError, ValueError, KeyError, TypeError):  # it only helps; without it, or damaged, nothing is known
            return 0

    def note_last_write(self) -> None:
        """Note the generation outside the database, after a commit and under the writer's lock."""
        identity, generation = self.identity, self.generation()
        text = json.dumps({"identity": identity, "generation": generation, "crc": checksum(identity, generation)})
        with contextlib.suppress(OSError):  # a full disk: the write itself is safe
            descriptor = os.open(
                self.folder / LAST_WRITE_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            try:
                os.pwrite(descriptor, text.ljust(120).encode(), 0)
            finally:
                os.close(descriptor)

    def _require_same_key(self) -> None:
        """GalleryError when another process sealed the gallery anew: this one's key would write what nobody can read."""
        if self.get_meta("key") != self.key_record:
            raise GalleryError(
                f"{self.folder}: the gallery was sealed with a new key meanwhile: open it again with that key"
            )

    def close(self) -> None:
        """Close the file. What was committed stays."""
        self.connection.close()
        if self.scratch is not None:
            self.scratch.cleanup()

    def require_writable(self) -> None:
        """GalleryAccessError when nothing can be written; asked before long work whose result is written at its end."""
        if not self.writable:
            raise GalleryAccessError(
                f"{self.folder}: the gallery is read-only: give write permission, or copy it to a disk that can be written"
            )

    @contextlib.contextmanager
    def lock(self, action: str, timeout: float | None = None) -> Iterator[None]:
        """Hold the writer's lock, for work of several transactions that nobody may interleave with.

        timeout: seconds to wait for another process; None: `lock_timeout`.
        """
        self.require_writable()
        with self._lock.hold(action, self.lock_timeout if timeout is None else timeout):
            yield

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Read one consistent state, whatever others commit meanwhile. May be nested, also within `write`."""
        with sqlite_errors(self.folder), self._as_damage():
            if self.connection.in_transaction:
                yield self.connection
                return
            self.connection.execute("BEGIN")
            try:
                self._require_same_key()
                yield self.connection
            finally:
                self.connection.execute("COMMIT")

    @contextlib.contextmanager
    def write(self, action: str) -> Iterator[int]:
        """Write in one transaction of a new generation, which is yielded; durable when the block has ended.

        Rows of `person` and `face` whose `changed` is the generation get their checksums at the end. A vector database that
        follows the gallery has the change as well then. GalleryServerError before anything is written when it does not answer;
        GalleryLockedError when another process writes for longer than `lock_timeout`.
        """
        with self.lock(action):
            follower = self.follower()
            if follower is not None:
                follower.bring_up()
            with self.append(action):
                generation = self.generation() + 1
                stamp = (generation, secrets.randbits(62), time.time())
                self.connection.execute("INSERT INTO stamp VALUES (?, ?, ?)", stamp)
                yield generation
                self.connection.execute(f"UPDATE person SET crc = {CRC_OF_PERSON} WHERE changed = ?", (generation,))
                self.connection.execute(f"UPDATE face SET crc = {CRC_OF_FACE} WHERE changed = ?", (generation,))
            if follower is not None:
                try:
                    follower.bring_up()
                except GalleryServerError as error:
                    raise GalleryServerError(
                        f"{self.folder}: written, but not yet to the vector database: {error}"
                    ) from error

    def follower(self) -> Follower | None:
        """Return the vector database that holds this gallery's templates, connected; None when there is none."""
        if self.server() is None:
            return None
        # It needs NumPy, which a gallery on this machine alone does without.
        from facepipe.gallery.storage.follower import Follower

        return Follower(self, json.loads(self._required("index")))

    def server(self) -> str | None:
        """Return the address of the vector database that holds this gallery's templates, None when there is none."""
        text = self.get_meta("index")
        return None if text is None else json.loads(text).get("uri")

    @contextlib.contextmanager
    def append(self, action: str) -> Iterator[None]:
        """Write in one transaction, without a new generation: for the journal, which changes nobody's answers."""
        with self.lock(action), sqlite_errors(self.folder), self._as_damage():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                self._require_same_key()
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # a full disk rolls back by itself
                    self.connection.execute("ROLLBACK")
                raise
            self.note_last_write()

    def generation(self) -> int:
        """Return the number of the last write transaction."""
        return int(self.connection.execute("SELECT coalesce(max(generation), 0) FROM stamp").fetchone()[0])

    def token(self, generation: int) -> int | None:
        """Return the random mark of a generation, None when this database never was there (restored, replaced)."""
        row = self.connection.execute("SELECT token FROM stamp WHERE generation = ?", (generation,)).fetchone()
        return None if row is None else int(row[0])

    def insert(self, table: str, **values: Any) -> int | None:
        """Add a row and return its id, None when one like it is there already; within `write`."""
        cursor = self.connection.execute(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))}) ON CONFLICT DO NOTHING",
            tuple(values.values()),
        )
        return cursor.lastrowid if cursor.rowcount else None

    def put_vector(self, face_id: int, person_id: int, vector: bytes) -> None:
        """Store the vector, little-endian float32, of a person's face; within `write`."""
        data = self.codec.seal(vector, "vector.data", face_id, person_id)
        self.connection.execute(
            "INSERT OR REPLACE INTO vector VALUES (?, ?, ?)", (face_id, data, vector_checksum(face_id, data))
        )

    def checksum_of(self, key: str, value: str) -> int:
        """Return the checksum of a setting."""
        # The record of the key is read before the key is there.
        return checksum(key, value) if key == "key" else self.codec.checksum(key, value)

    def get_meta(self, key: str) -> str | None:
        """Return a setting, None when it is not set; GalleryError when it is damaged."""
        with sqlite_errors(self.folder):
            row = self.connection.execute("SELECT value, crc FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        if self.checksum_of(key, row[0]) != row[1]:
            if key != "key":
                self._require_same_key()
            raise GalleryDamagedError(f"{self.path}: the setting {key!r} is damaged")
        return str(row[0])

    def set_meta(self, key: str, value: str | None) -> None:
        """Set or, with None, remove a setting; within `write`."""
        if value is None:
            self.connection.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            self.connection.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, value, self.checksum_of(key, value))
            )

    def _required(self, key: str) -> str:
        value = self.get_meta(key)
        if value is None:
            raise GalleryError(f"{self.path}: the setting {key!r} is missing: restore a copy")
        return value

    @property
    def fingerprint(self) -> str:
        """Of the embedder that made the vectors."""
        return self._required("fingerprint")

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._required("dim"))

    @property
    def identity(self) -> str:
        """Random name of this gallery, for derived files."""
        return self._required("identity")

    def log(self, action: str, person_id: int | None = None, **details: Any) -> None:
        """Append to the journal, within `write`. Details hold no names and no paths: an entry is never changed."""
        last = self.connection.execute("SELECT digest FROM journal ORDER BY id DESC LIMIT 1").fetchone()
        entry = (time.time(), actor(), action, person_id, json.dumps(details, sort_keys=True))
        digest = journal_digest(last[0] if last else b"", entry)
        columns = zip(("at", "actor", "action", "person_id", "details"), entry, strict=True)
        self.insert("journal", **dict(columns), digest=digest)


def actor() -> str:
    """Return who acts: the user's name on this system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in a container
        return f"uid {os.getuid()}"
