"""Galleries and exported files from somebody who means harm, tried with every command: `scripts/tampered` runs all, the tests a few.

Each is a sound gallery, or an export of one, with one thing changed; checksums are made right again afterwards, as who wants to do
harm would. A command over it must end within a minute in an exit code of its own, without a traceback, in bounded memory,
and may change nothing outside the gallery's folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import skimage.data

from facepipe.gallery.chips import StoredChip
from facepipe.gallery.storage.checksums import CRC_OF_FACE, CRC_OF_PERSON, checksum, vector_checksum
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.models.registry import get_record
from facepipe.types import Face, Quality

#: Enough for any answer about nine faces; what an attacker's values must not make the program ask for.
_MEMORY_MIB = 1500
_TIME_S = 60
_CODES = frozenset({0, 2, 3, 4, 5, 6, 7})

Tamper = Callable[[Path], object]


def make_sound(root: Path) -> None:
    """Make in `root`: photo.png, other.png, a gallery with people, chips and an anchor, exports of it, and a victim's file."""
    portrait = PIL.Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    portrait.save(root / "photo.png")
    portrait.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT).save(root / "other.png")
    (root / "victim").mkdir()
    (root / "victim" / "bashrc").write_text("export PRECIOUS=1\n" * 40)
    record = get_record("mini")
    draw = np.random.default_rng(3)
    chip = root / "chip.jpg"
    portrait.crop((100, 20, 340, 260)).save(chip)
    with GalleryStore.create(root / "gallery", record.fingerprint, record.dim or 0) as gallery:
        faces = []
        for person in ("Ann", "Bea", "Cyd"):
            for number in range(3):
                vector = draw.standard_normal(record.dim or 0).astype(np.float32)
                vector /= np.linalg.norm(vector)
                box = np.array([10, 10, 90, 90], np.float32)
                points = np.array([[30, 40], [60, 40], [45, 55], [33, 70], [58, 70]], np.float32)
                face = Face(box, 0.99, points, Quality(80.0, 900.0, 0.0, 0.0, 0.0, 0.5))
                faces.append(
                    NewFace(
                        person,
                        vector,
                        source=f"{person}/{number}.jpg",
                        content=hashlib.sha256(f"{person}{number}".encode()).hexdigest(),
                        face=face,
                        chip=StoredChip(chip.read_bytes(), 0.0, 0.0, 1.0),
                    )
                )
        gallery.add(faces)
    _facepipe(root, "enroll", "photo.png", "--name", "Dot", "--keep-chips")
    _facepipe(root, "gallery", "not", "Ann", "other.png")
    _facepipe(root, "gallery", "export", "export.sqlite")
    _facepipe(root, "gallery", "export", "export.parquet")


def _facepipe(root: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "facepipe", *arguments], cwd=root, check=True, capture_output=True)


def _sql(*statements: str, resign: bool = True) -> Tamper:
    """Run statements over the gallery's database, with its checks off, and make all checksums right again."""

    def change(root: Path) -> None:
        with closing(_connect(root / "gallery" / "faces.sqlite")) as connection:
            for statement in statements:
                connection.execute(statement)
            if resign:
                _resign(connection)
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    return change


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.create_function("checksum", -1, checksum, deterministic=True)
    connection.create_function("vector_checksum", 2, _vector_checksum, deterministic=True)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    return connection


def _vector_checksum(row_id: int, data: bytes | str | float | None) -> int:
    return vector_checksum(row_id, data) if isinstance(data, bytes) else 0


def _resign(connection: sqlite3.Connection) -> None:
    for statement in (
        "UPDATE meta SET crc = checksum(key, value)",
        f"UPDATE person SET crc = {CRC_OF_PERSON}",
        f"UPDATE face SET crc = {CRC_OF_FACE}",
        "UPDATE vector SET crc = vector_checksum(face_id, data)",
        "UPDATE chip SET crc = vector_checksum(face_id, data)",
        "UPDATE anchor SET crc = vector_checksum(id, vector)",
    ):
        try:
            connection.execute(statement)
        except sqlite3.Error:
            continue  # that table was changed into something else


def _meta(key: str, value: str) -> Tamper:
    quoted = value.replace("'", "''")
    return _sql(f"INSERT OR REPLACE INTO meta VALUES ('{key}', '{quoted}', 0)")


def _column(table: str, column: str, value: str, where: str = "1") -> Tamper:
    """Give a column another value; where its declaration forbids that, the table loses its constraints first."""

    def change(root: Path) -> None:
        try:
            _sql(f"UPDATE {table} SET {column} = {value} WHERE {where}")(root)
            return
        except sqlite3.Error:
            pass  # a constraint, or the journal's trigger
        with closing(_connect(root / "gallery" / "faces.sqlite")) as connection:
            connection.execute("DROP TRIGGER IF EXISTS journal_is_append_only_1")
            connection.execute("DROP TRIGGER IF EXISTS journal_is_append_only_2")
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(f"UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = '{table}'")
            connection.commit()
        with closing(_connect(root / "gallery" / "faces.sqlite")) as connection:
            connection.execute(f"UPDATE {table} SET {column} = {value} WHERE {where}")
            _resign(connection)
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    return change


def _instead(name: str, make: Callable[[Path, Path], object]) -> Tamper:
    """Put something else where a file of the gallery lies. make: called with the root and the place, which is free."""

    def change(root: Path) -> None:
        place = root / "gallery" / name
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        make(root, place)

    return change


def _link_to_victim(root: Path, place: Path) -> None:
    place.symlink_to(root / "victim" / "bashrc")


def _link_to_nothing(root: Path, place: Path) -> None:
    place.symlink_to(root / "victim" / "new")


def _fifo(root: Path, place: Path) -> None:
    os.mkfifo(place)


def _folder(root: Path, place: Path) -> None:
    place.mkdir()
    (place / "thesis").write_text("mine")


def _bytes(data: bytes) -> Callable[[Path, Path], object]:
    return lambda root, place: place.write_bytes(data)


def _sparse(root: Path, place: Path) -> None:
    place.touch()
    os.truncate(place, 20 << 30)


def _view(table: str, select: str) -> Tamper:
    return _sql(f"ALTER TABLE {table} RENAME TO old_{table}", f"CREATE VIEW {table} AS {select}", resign=False)


_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
_DEEP = "[" * 100_000

GALLERIES: dict[str, Tamper] = {
    **{f"dim is {v or 'empty'}": _meta("dim", v) for v in ("abc", "", "0", "-5", "99999999999", "255", "2e2", "٣")},
    **{f"fingerprint is {v[:8] or 'empty'}": _meta("fingerprint", v) for v in ("", "x" * 100_000, "a\nb\x1b[2J")},
    **{
        f"calibration is {v[:24]}": _meta("calibration", v)
        for v in ("null", "[]", "{}", "{", _DEEP, '{"threshold": "x"}', '{"threshold": NaN}', "5")
    },
    **{
        f"index is {v[:24]}": _meta("index", v)
        for v in ("null", "[]", "{", '{"kind": 5}', '{"kind": "pq", "min_recall": "x"}', _DEEP)
    },
    **{
        f"key is {v[:40]}": _meta("key", v)
        for v in (
            "null",
            "{",
            "[]",
            "{}",
            '{"kind": "passphrase"}',
            '{"kind": "passphrase", "salt": "00", "n": 1073741824, "r": 64, "p": 64, "key": "00"}',
            '{"kind": "passphrase", "salt": "zz", "n": 2, "r": 8, "p": 1, "key": "00"}',
            '{"kind": "key-file", "key": 5}',
            '{"kind": ["key-file"], "key": ""}',
        )
    },
    **{f"scrub is {v[:20]}": _meta("scrub", v) for v in ("x", "{", "null")},
    "gone_since is text": _meta("gone_since", "abc"),
    "reembed is text": _meta("reembed", "{"),
    "identity is missing": _sql("DELETE FROM meta WHERE key = 'identity'"),
    "dim is missing": _sql("DELETE FROM meta WHERE key = 'dim'"),
    **{
        f"person.{c} is {v[:24]}": _column("person", c, v, "id = 1")
        for c, v in (
            ("name", "NULL"),
            ("name", "x'ff00'"),
            ("name", "5"),
            ("name", "''"),
            ("name", "'a' || char(10) || char(27) || '[2J'"),
            ("name", "replace(hex(zeroblob(2000000)), '00', 'ab')"),
            ("name", "(SELECT name FROM person WHERE id = 2)"),
            ("name_key", "NULL"),
            ("name_key", "'text'"),
            ("created", "'abc'"),
            ("created", "1e300"),
            ("changed", "'abc'"),
            ("changed", "9223372036854775807"),
        )
    },
    **{
        f"face.{c} is {v[:24]}": _column("face", c, v, "id = 1")
        for c, v in (
            ("person_id", "999"),
            ("person_id", "'abc'"),
            ("source", "x'ff'"),
            ("source", "5"),
            ("source", "'/dev/zero'"),
            ("content", "'text'"),
            ("content", "x'00'"),
            ("ordinal", "'abc'"),
            ("ordinal", "-1"),
            ("x1", "'abc'"),
            ("x1", "NULL"),
            ("x1", "1e300"),
            ("x2", "-5"),
            ("score", "'abc'"),
            ("score", "7"),
            ("score", "NULL"),
            ("landmarks", "NULL"),
            ("landmarks", "x'00'"),
            ("landmarks", "'text'"),
            ("landmarks", "zeroblob(400000000)"),
            ("size", "NULL"),
            ("size", "'abc'"),
            ("yaw", "9e999"),
            ("enrolled", "'abc'"),
            ("enrolled", "1e300"),
            ("enrolled", "NULL"),
            ("expires", "'abc'"),
            ("expires", "1e300"),
            ("changed", "'abc'"),
        )
    },
    **{
        f"vector.data is {v[:24]}": _column("vector", "data", v, "face_id = 1")
        for v in ("NULL", "'text'", "5", "x''", "x'00'", "zeroblob(1024)", "zeroblob(1025)", "zeroblob(500000000)")
    },
    "vector is not finite": _column(
        "vector", "data", f"x'{struct.pack('<f', float('nan')).hex() * 256}'", "face_id = 1"
    ),
    "vector is missing": _sql("DELETE FROM vector WHERE face_id = 1"),
    "vector without a face": _sql("INSERT INTO vector SELECT 99, data, 0 FROM vector WHERE face_id = 1"),
    **{
        f"chip.{c} is {v[:24]}": _column("chip", c, v, "face_id = 1")
        for c, v in (
            ("data", "NULL"),
            ("data", "'text'"),
            ("data", "x''"),
            ("data", "CAST('%!PS-Adobe-3.0 EPSF-3.0' || char(10) || '%%BoundingBox: 0 0 9 9' AS BLOB)"),
            ("x", "'abc'"),
            ("x", "1e300"),
            ("scale", "0"),
            ("scale", "NULL"),
        )
    },
    **{
        f"anchor.{c} is {v[:24]}": _column("anchor", c, v)
        for c, v in (
            ("vector", "NULL"),
            ("vector", "'text'"),
            ("vector", "x'00'"),
            ("landmarks", "'text'"),
            ("landmarks", "x'00'"),
            ("x1", "'abc'"),
            ("source", "x'ff'"),
            ("content", "5"),
            ("created", "'abc'"),
            ("person_id", "999"),
        )
    },
    **{
        f"stamp.{c} is {v}": _column("stamp", c, v, "generation = (SELECT max(generation) FROM stamp)")
        for c, v in (("token", "'abc'"), ("token", "NULL"), ("at", "'abc'"), ("generation", "9223372036854775807"))
    },
    **{
        f"journal.{c} is {v[:24]}": _column("journal", c, v)
        for c, v in (
            ("at", "'abc'"),
            ("at", "1e300"),
            ("actor", "x'ff'"),
            ("action", "5"),
            ("details", "'{'"),
            ("details", "NULL"),
            ("details", "'[]'"),
            ("digest", "'abc'"),
            ("person_id", "'abc'"),
        )
    },
    **{
        f"subject.{c} is {v}": _column("subject", c, v)
        for c, v in (("name", "NULL"), ("name", "x'ff'"), ("name_key", "NULL"))
    },
    **{f"migration is {v}": _sql(f"UPDATE migration SET number = {v} WHERE number = 3") for v in ("999", "-1")},
    "migration is gone": _sql("DROP TABLE migration"),
    "migration is empty": _sql("DELETE FROM migration"),
    "migration is text": _column("migration", "title", "NULL"),
    "application id": _sql("PRAGMA application_id = 1"),
    "person is an endless view": _view(
        "person",
        f"{_ENDLESS} SELECT i AS id, 'p' || i AS name, x'00' AS name_key, 0 AS created, 0 AS changed, 0 AS crc FROM n",
    ),
    "meta is an endless view": _view("meta", f"{_ENDLESS} SELECT 'dim' AS key, i AS value, 0 AS crc FROM n"),
    "stamp is an endless view": _view("stamp", f"{_ENDLESS} SELECT i AS generation, 1 AS token, 0 AS at FROM n"),
    "migration is an endless view": _view("migration", f"{_ENDLESS} SELECT i AS number, '' AS title, 0 AS at FROM n"),
    "vector is a view": _view("vector", "SELECT * FROM old_vector"),
    "chip is an endless view": _view(
        "chip", f"{_ENDLESS} SELECT i AS face_id, x'00' AS data, 0 AS x, 0 AS y, 1 AS scale, 0 AS crc FROM n"
    ),
    **{
        f"trigger on {t}": _sql(f"CREATE TRIGGER evil AFTER {w} ON {t} BEGIN DELETE FROM vector; END")
        for t, w in (
            ("person", "INSERT"),
            ("face", "INSERT"),
            ("journal", "INSERT"),
            ("stamp", "INSERT"),
            ("face", "DELETE"),
        )
    },
    **{
        f"{t} is missing": _sql(f"DROP TABLE {t}")
        for t in ("person", "face", "vector", "chip", "anchor", "stamp", "gone")
    },
    **{
        f"{t} has another shape": _sql(f"DROP TABLE {t}", f"CREATE TABLE {t} (a, b)")
        for t in ("person", "face", "vector")
    },
    "one more column": _sql("ALTER TABLE face ADD COLUMN evil GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL"),
    "an index on an expression": _sql("CREATE INDEX evil ON person (hex(zeroblob(1000) || name))"),
    "a table of another module": _sql("CREATE VIRTUAL TABLE evil USING fts5(a)"),
    **{
        f"{name} is {what}": _instead(name, make)
        for name in (
            "lock",
            "last-write",
            "vectors.f32",
            "templates.faiss",
            "own-photos.f32",
            "faces.sqlite",
            "faces.sqlite-wal",
            "faces.sqlite-shm",
        )
        for what, make in (
            ("a link", _link_to_victim),
            ("a link to nothing", _link_to_nothing),
            ("a FIFO", _fifo),
            ("a folder", _folder),
            ("garbage", _bytes(b"\x93\x00garbage" * 900)),
            ("empty", _bytes(b"")),
        )
    },
    "vectors.f32 is 20 GiB": _instead("vectors.f32", _sparse),
    "last-write is 20 GiB": _instead("last-write", _sparse),
    "lock is 20 GiB": _instead("lock", _sparse),
    "the user's own files": lambda root: _own_files(root / "gallery"),
}


def _own_files(folder: Path) -> None:
    for name in ("thesis.tmp", "corpus.faiss", "x.f32", ".0123456789abcdef.tmp"):
        (folder / name).write_text("mine")
    (folder / "x.tmp").mkdir()


COMMANDS: dict[str, tuple[str, ...]] = {
    "identify": ("identify", "photo.png"),
    "list": ("gallery", "list"),
    "show": ("gallery", "show", "Ann"),
    "sheet": ("gallery", "show", "Ann", "--sheet", "sheet.png"),
    "audit": ("gallery", "audit", "--page", "audit.html"),
    "log": ("gallery", "log"),
    "stats": ("gallery", "stats"),
    "check": ("gallery", "check"),
    "export": ("gallery", "export", "out.sqlite", "--chips"),
    "enroll": ("enroll", "other.png", "--name", "Eve", "--force"),
    "rename": ("gallery", "rename", "Bea", "Bob"),
    "repair": ("gallery", "check", "--repair"),
    "compact": ("gallery", "compact"),
    "erase": ("gallery", "erase", "Cyd", "--yes"),
    "salvage": ("gallery", "salvage", "saved"),
}


def _export(*statements: str) -> Tamper:
    def change(root: Path) -> None:
        with closing(sqlite3.connect(root / "export.sqlite")) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '')")
            connection.commit()
        with closing(sqlite3.connect(root / "export.sqlite")) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return change


def _parquet(change: Callable[[dict[str, list[object]]], object] | None = None, **facts: str) -> Tamper:
    """Write the Parquet export again from plain lists that were changed, with changed facts."""

    def rewrite(root: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(root / "export.parquet")
        columns: dict[str, list[object]] = {name: table[name].to_pylist() for name in table.column_names}
        if change is not None:
            change(columns)
        old = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        made = pa.table(columns).replace_schema_metadata(old | {f"facepipe_{k}": v for k, v in facts.items()})
        pq.write_table(made, root / "export.parquet")

    return rewrite


def _put(name: str, value: object) -> Callable[[dict[str, list[object]]], None]:
    return lambda columns: columns.__setitem__(name, [value] * len(columns[name]))


def _fifo_instead(place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


IMPORTS: dict[str, Tamper] = {
    **{
        f"face.{c} is {v[:24]}": _export(f"UPDATE face SET {c} = {v}")
        for c, v in (
            ("person", "NULL"),
            ("person", "x'ff'"),
            ("person", "''"),
            ("person", "5"),
            ("person", "'a' || char(10) || 'b'"),
            ("source", "5"),
            ("source", "x'ff'"),
            ("content", "'text'"),
            ("content", "5"),
            ("content", "x''"),
            ("ordinal", "'abc'"),
            ("ordinal", "NULL"),
            ("ordinal", "-9223372036854775808"),
            ("x1", "'abc'"),
            ("x1", "9e999"),
            ("x2", "NULL"),
            ("score", "NULL"),
            ("score", "'abc'"),
            ("landmarks", "NULL"),
            ("landmarks", "x'00'"),
            ("landmarks", "'text'"),
            ("size", "NULL"),
            ("size", "'abc'"),
            ("yaw", "'abc'"),
            ("enrolled", "'abc'"),
            ("enrolled", "1e300"),
            ("expires", "'abc'"),
            ("vector", "NULL"),
            ("vector", "'text'"),
            ("vector", "x'00'"),
            ("vector", "zeroblob(1024)"),
            ("vector", "zeroblob(900000000)"),
            ("chip", "'text'"),
            ("chip_x", "'abc'"),
        )
    },
    **{
        f"meta {k} is {v[:24]}": _export(f"UPDATE meta SET value = {v} WHERE key = '{k}'")
        for k, v in (
            ("dim", "'99999999999'"),
            ("dim", "'abc'"),
            ("dim", "'0'"),
            ("dim", "x'ff'"),
            ("dim", "'٣'"),
            ("fingerprint", "5"),
            ("fingerprint", "x'ff'"),
            ("fingerprint", "''"),
            ("format", "5"),
        )
    },
    "face is missing": _export("DROP TABLE face"),
    "face is an endless view": _export(
        "ALTER TABLE face RENAME TO old_face",
        f"CREATE VIEW face AS {_ENDLESS} SELECT old_face.* FROM n, old_face",
    ),
    "meta is an endless view": _export(
        "ALTER TABLE meta RENAME TO old_meta",
        f"CREATE VIEW meta AS {_ENDLESS} SELECT key || i AS key, value FROM n, old_meta",
    ),
    "garbage": lambda root: (root / "export.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 9000),
    "empty": lambda root: (root / "export.sqlite").write_bytes(b""),
    "a FIFO": lambda root: _fifo_instead(root / "export.sqlite"),
    **{
        f"parquet {n} is {v!r:.24}": _parquet(_put(n, v))
        for n, v in (
            ("person", None),
            ("person", 5),
            ("person", b"\xff"),
            ("vector", None),
            ("vector", []),
            ("vector", [1.0]),
            ("vector", "text"),
            ("vector", [float("nan")] * 256),
            ("landmarks", [1.0]),
            ("landmarks", ["a"]),
            ("landmarks", None),
            ("content", "text"),
            ("ordinal", None),
            ("ordinal", "abc"),
            ("enrolled", "abc"),
            ("enrolled", None),
            ("x1", "abc"),
            ("chip", "text"),
        )
    },
    **{
        f"parquet {k} is {v[:24]}": _parquet(None, **{k: v})
        for k, v in (("dim", "99999999999"), ("dim", "x"), ("dim", "0"), ("fingerprint", ""), ("format", "x"))
    },
    "parquet without a column": _parquet(lambda columns: columns.pop("person")),
    "parquet is garbage": lambda root: (root / "export.parquet").write_bytes(b"PAR1" + b"\xff" * 900 + b"PAR1"),
}


@dataclass(frozen=True)
class Ending:
    """How one command over one tampered gallery ended, and what is wrong with that ("" when nothing is)."""

    tampering: str
    command: str
    code: int
    last_line: str
    wrong: str


def try_command(root: Path, tampering: str, command: str, arguments: tuple[str, ...]) -> Ending:
    """Run one command in `root` and judge how it ends."""
    before = _outside(root)
    process = subprocess.Popen(
        [sys.executable, "-m", "facepipe", *arguments],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=_limit_memory,  # noqa: PLW1509 - it calls setrlimit alone
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    wrong = []
    try:
        _, errors = process.communicate(timeout=_TIME_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        wrong.append(f"not done after {_TIME_S} s")
    lines = errors.strip().splitlines()
    if "Traceback" in errors:
        wrong.append("traceback")
    elif process.returncode not in _CODES:
        wrong.append(f"exit code {process.returncode}")
    elif process.returncode and not lines and command not in ("check", "repair"):
        wrong.append("nothing said")
    if _outside(root) != before:
        wrong.append("changed a file outside")
    return Ending(tampering, command, process.returncode, lines[-1][:160] if lines else "", ", ".join(wrong))


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_MIB << 23, _MEMORY_MIB << 23))


def _outside(root: Path) -> dict[str, str]:
    """Return the files that no command may change: the victim's, and the user's own in the gallery's folder."""
    own = [
        root / "gallery" / name for name in ("thesis.tmp", "corpus.faiss", "x.f32", ".0123456789abcdef.tmp", "x.tmp")
    ]
    kept = [*(root / "victim").iterdir(), *(path for path in own if os.path.lexists(path))]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in kept}


def try_gallery(sound: Path, tampering: str, commands: dict[str, tuple[str, ...]] = COMMANDS) -> list[Ending]:
    """Try commands, each over a fresh copy of a gallery that was tampered with."""
    endings = []
    for command, arguments in commands.items():
        with tempfile.TemporaryDirectory(prefix="tampered-") as folder:
            root = Path(folder) / "root"
            shutil.copytree(sound, root, symlinks=True)
            GALLERIES[tampering](root)
            endings.append(try_command(root, tampering, command, arguments))
    by_command = {ending.command: ending for ending in endings}
    if {"identify", "check"} <= by_command.keys():
        identify, check = by_command["identify"], by_command["check"]
        if identify.code == 5 and check.code == 0:
            endings.append(Ending(tampering, "check", 0, "", f"says nothing, but identify: {identify.last_line}"))
    return endings


def try_import(sound: Path, tampering: str) -> Ending:
    """Import one hostile export into a new gallery."""
    with tempfile.TemporaryDirectory(prefix="tampered-") as folder:
        root = Path(folder) / "root"
        shutil.copytree(sound, root, symlinks=True)
        IMPORTS[tampering](root)
        name = "export.parquet" if "parquet" in tampering else "export.sqlite"
        ending = try_command(root, tampering, "import", ("gallery", "import", name, "--gallery", "new"))
        if ending.code == 0 and not ending.wrong:
            listed = try_command(root, tampering, "import+list", ("gallery", "list", "--gallery", "new"))
            checked = try_command(root, tampering, "import+check", ("gallery", "check", "--gallery", "new"))
            return next((e for e in (listed, checked) if e.code or e.wrong), ending)
        if ending.code and (root / "new").exists() and not ending.wrong:
            return Ending(tampering, "import", ending.code, ending.last_line, "left a folder behind")
        return ending


def main() -> None:
    """Try every command over every tampered gallery, and every hostile import; print what is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/tampered", description=main.__doc__)
    parser.add_argument("--only", default="", help="part of a tampering's name")
    parser.add_argument("--start", default="", help="begin at this tampering")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--all", action="store_true", help="print every ending, not only those that are wrong")
    options = parser.parse_args()
    commands = {name: COMMANDS[name] for name in options.commands.split(",") if name}
    endings: list[Ending] = []
    with tempfile.TemporaryDirectory(prefix="sound-") as folder:
        sound = Path(folder)
        make_sound(sound)
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(2) as pool:
            tampered = [name for name in GALLERIES if options.only in name]
            tampered = tampered[tampered.index(options.start) if options.start else 0 :]
            imported = [name for name in IMPORTS if options.only in name]
            for found in pool.map(lambda name: try_gallery(sound, name, commands), tampered):
                endings += found
                _show(found, options.all)
            for ending in pool.map(lambda name: try_import(sound, name), imported):
                endings.append(ending)
                _show([ending], options.all)
    wrong = [ending for ending in endings if ending.wrong]
    print(
        f"{len(tampered)} tampered galleries, {len(commands)} commands each; {len(imported)} imports: {len(endings)} endings, "
        f"{len(wrong)} wrong: {json.dumps(_count(wrong))}"
    )
    sys.exit(1 if wrong else 0)


def _show(endings: list[Ending], every: bool) -> None:
    for ending in endings:
        if ending.wrong or every:
            print(
                f"{ending.wrong or 'ok'} | {ending.tampering} | {ending.command} | {ending.code} | {ending.last_line}",
                flush=True,
            )


def _count(wrong: list[Ending]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for ending in wrong:
        kind = ending.wrong.split(":")[0]
        counted[kind] = counted.get(kind, 0) + 1
    return counted


if __name__ == "__main__":
    main()
