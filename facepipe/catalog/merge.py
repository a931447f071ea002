"""Several catalogs as one: the parts of a scan that machines made side by side, or piles that were scanned apart.

The parts are only read. What they hold comes into a new catalog; a batch that goes on from it scans nothing again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facepipe.catalog.catalog import Catalog
from facepipe.catalog.store import SUFFIX
from facepipe.errors import InputError, UsageError
from facepipe.files.atomic import atomic_path
from facepipe.images import is_video
from facepipe.text import printable

#: What the faces and vectors in a catalog depend on besides the photos; see `facepipe.loading`.
_FACTS = ("model", "detector", "detect", "embed", "min_face", "min_score", "max_side", "second_chance")


@dataclass(frozen=True, slots=True)
class Merged:
    """What came together.

    photos: in the new catalog; videos, failed: so many of these. missing: shards of the same input that are not among the parts.
    stopped: parts of which the last scan did not come to its end.
    """

    photos: int
    videos: int
    failed: int
    missing: tuple[int, ...]
    stopped: tuple[Path, ...]


def merge_catalogs(parts: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Merged:
    """Write what these catalogs hold into a new one, whole or not at all.

    The shards of one input keep its order; other catalogs follow each other. Of a photo that is in several the one that can be used
    counts, else the last. Of photos with equal bytes the first one's faces are those of all, as in one run.
    Errors: InputError for a part that is no catalog, or was scanned with another model or other options; UsageError when `out` is
    there, or is not called NAME.catalog, or a part is named twice; OutputError.
    """
    out, paths = Path(out), [Path(part) for part in parts]
    if out.suffix != SUFFIX:
        raise UsageError(
            f"{printable(out)}: a catalog is called NAME{SUFFIX}; batch --out results.jsonl goes on from results.jsonl{SUFFIX}"
        )
    if os.path.lexists(out):
        raise UsageError(f"{printable(out)}: is there already; remove it, or choose another --out")
    real = [os.path.realpath(path) for path in paths]
    if len(set(real)) < len(real):
        raise UsageError(f"{printable(next(p for p in paths if real.count(os.path.realpath(p)) > 1))}: is named twice")
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Catalog(path)) for path in paths]
        for part in opened[1:]:
            _require_alike(opened[0], part)
        shards = [part.shard for part in opened]
        one_input = len({shard.of for shard in shards}) == 1 and len(set(shards)) == len(shards) > 1
        with atomic_path(out) as path, _Whole(path, write=True) as whole:
            whole.take(opened, keep_places=one_input)
            (photos, failed), videos = whole.counted(), whole.count_videos()
        missing = set(range(1, shards[0].of + 1)) - {shard.number for shard in shards} if one_input else set()
        stopped = tuple(part.path for part in opened if part.is_stopped())
    return Merged(photos, videos, failed, tuple(sorted(missing)), stopped)


def _require_alike(first: Catalog, other: Catalog) -> None:
    mine, theirs = first._facts(), other._facts()
    differing = [name for name in _FACTS if mine.get(name) != theirs.get(name)]
    filmed, others = mine.get("videos"), theirs.get("videos")
    if filmed and others:  # a scan that knew of no videos has none
        differing += [name for name in sorted({*filmed, *others}) if filmed.get(name) != others.get(name)]
    if differing:
        options = ", ".join(name.replace("_", "-") for name in differing)
        raise InputError(
            f"{printable(other.path)}: was scanned with another {options} than {printable(first.path)}; scan both alike"
        )


#: What is copied of a photo, besides its place.
_COLUMNS = (
    *("name", "stamp", "content", "scanned", "reason", "vanished", "decided"),
    *("record", "known", "ambiguous", "unknown", "taken"),
)


def _photos(part: Catalog) -> Iterator[tuple[Any, ...]]:
    """Yield the photos of a catalog that its last scan met, or that vanished since: the place and `_COLUMNS` of each."""
    columns = ", ".join(_COLUMNS if part.schema > 1 else (*_COLUMNS[:-1], "NULL"))
    return part._rows(f"SELECT position, {columns} FROM photo WHERE vanished OR pass >= ?", part._finished())


class _Whole(Catalog):
    """The new catalog."""

    def take(self, parts: Sequence[Catalog], *, keep_places: bool) -> None:
        """Copy everything in one transaction. keep_places: the places of the photos are those of one input."""
        with self._transaction() as db:
            db.execute("CREATE TEMP TABLE met (content TEXT, part INTEGER, position INTEGER, name BLOB PRIMARY KEY)")
            start = 0
            for number, part in enumerate(parts):
                last = 0
                for position, *values in _photos(part):
                    last = max(last, position)
                    place = position * len(parts) + number if keep_places else start + position
                    if db.execute(_TAKE, (*values, place)).rowcount:
                        name, content, reason = values[0], values[2], values[4]
                        owner = content if reason is None else None
                        db.execute("INSERT OR REPLACE INTO met VALUES (?, ?, ?, ?)", (owner, number, place, name))
                start += last + 1
            db.execute("CREATE TEMP TABLE owner AS SELECT content, part, min(position) FROM met GROUP BY content")
            db.execute("CREATE UNIQUE INDEX temp.owner_content ON owner (content)")
            # A photo that another part has scanned first gets the answer about that one's faces: it is decided again.
            db.execute(_UNDECIDE)
            for number, part in enumerate(parts):
                for table in ("description", "thumbnail"):
                    wanted = (
                        f"INSERT INTO {table} SELECT ?1, ?2, ?3 WHERE (?1, ?4) IN (SELECT content, part FROM owner)"
                    )
                    db.executemany(wanted, ((*row, number) for row in part._rows(f"SELECT * FROM {table}")))
            db.execute(_NUMBER)
            db.execute("UPDATE about SET pass = 1")
            db.execute("INSERT INTO state VALUES ('finished', '1'), ('facts', ?)", (json.dumps(parts[0]._facts()),))
        self._pass = 1

    def count_videos(self) -> int:
        """Return how many of its photos are videos."""
        return sum(is_video(os.fsdecode(name)) for (name,) in self._rows("SELECT name FROM photo WHERE NOT vanished"))


_VALUES = (*_COLUMNS, "position")
#: Of two photos of one name that is kept which can be used, else the last.
_TAKE = f"""
    INSERT INTO photo ({", ".join(_VALUES)}, pass) VALUES ({"?, " * len(_VALUES)} 1)
    ON CONFLICT (name) DO UPDATE SET ({", ".join(_VALUES[1:])}) = ({", ".join(f"excluded.{name}" for name in _VALUES[1:])})
    WHERE NOT excluded.vanished AND (excluded.reason IS NULL OR photo.reason IS NOT NULL OR photo.vanished)"""
_UNDECIDE = """
    UPDATE photo SET decided = '', record = '', known = 0, ambiguous = 0, unknown = 0 WHERE name IN (
        SELECT name FROM met JOIN owner USING (content) WHERE met.part != owner.part)"""
_NUMBER = """
    UPDATE photo SET position = place FROM (SELECT name AS n, row_number() OVER (ORDER BY position, name) - 1 AS place FROM photo)
    WHERE name = n"""
