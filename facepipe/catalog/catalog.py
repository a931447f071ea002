"""The catalog of a batch: what was found in each photo, and what was decided about it, so that nothing is done twice.

Steps 1 and 2 depend on the photo alone: what they found is kept by the SHA-256 of the photo's bytes, with the key of the scan, a
digest of the behaviour of detection and embedding, the model and the options. Steps 3 and 4 depend on the gallery too: their
result is kept with the key of the decision, a digest of gallery, generation and policy. Each is done again when its key changed.

A run that was stopped continues where it was. The outputs are made from the catalog, in the order of the input, so every photo
appears in them once however often the run was stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from facepipe.catalog.counts import Counts, Show
from facepipe.catalog.packing import pack, unpack
from facepipe.catalog.scan import Scanned, ScanOptions, scan_stream
from facepipe.catalog.shards import Shard
from facepipe.catalog.sources import Source, as_sources, is_missing
from facepipe.catalog.store import Store
from facepipe.catalog.videos import Notes, is_clip, scan_videos, without_videos
from facepipe.embed.describer import Describer
from facepipe.records import Record, dumps, readable, to_record
from facepipe.types import Described, Failed, Recognized

#: Photos that are done already are noted this many at a time.
_MET_AT_ONCE = 1000
#: Photos that are decided together.
DECIDED_AT_ONCE = 200
_STATUSES = ("known", "ambiguous", "unknown")


class Decider(Protocol):
    """Steps 3 and 4: `facepipe.Recognizer`, or one like it. facts: what its answers depend on besides the photo, as JSON has it."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """See above."""
        ...

    def decide(self, photos: Sequence[Described]) -> Sequence[Recognized]:
        """Say who is in photos whose faces are known."""
        ...


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the digest of everything that an answer depends on besides the photo."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:32]


class Catalog(Store):
    """What a batch knows of its photos: scanned once, decided whenever the gallery changed.

        with facepipe.Catalog("results.jsonl.catalog") as catalog:
            for photo in catalog.photos():
                print(photo.path, len(photo.predictions if isinstance(photo, facepipe.Failed) else photo.faces))

    Reading changes nothing, and is possible while another process scans. Of those who write, one process at a time holds it; whoever
    comes meanwhile to write gets an InputError.
    """

    def __init__(self, path: str | os.PathLike[str], *, write: bool = False) -> None:
        """Open a catalog to read it, or with `write` to scan and decide; then it is made when it is not there.

        Errors: InputError when another process is writing to it, it is not a catalog of this version, or it should be read and
        does not exist; OutputError when it cannot be made.
        """
        super().__init__(Path(path), write=write)
        self._scan_key = self._video_key = self._decision_key = ""
        self._keep, self._begun = True, False
        # Until a pass begins, the photos of the last whole one and what a stopped one met since are in the catalog.
        self._pass = self._finished()

    # ---- the three calls ----

    def begin(
        self,
        scan: Mapping[str, Any],
        decision: Mapping[str, Any] = {},
        *,
        videos: Mapping[str, Any] = {},
        keep: bool = True,
    ) -> tuple[str, ...]:
        """Begin another pass over the input; return which facts differ from the pass before, none when there was none.

        scan, decision: `facts` of the describer and of the decider. videos: `video_facts` of the describer, which photos do not
        depend on. keep: vectors are written to the catalog.
        """
        self._scan_key, self._decision_key, self._keep = key_of(scan), key_of(decision), keep
        self._video_key = key_of({**scan, "videos": dict(videos)})
        with self._transaction() as db:
            (self._pass,) = db.execute("UPDATE about SET pass = pass + 1 RETURNING pass").fetchone()
        self._begun = True
        return self._note_facts({**decision, **scan, "videos": dict(videos)})

    def _note_facts(self, facts: Mapping[str, Any]) -> tuple[str, ...]:
        """Note what answers depend on from now on; return the names of the facts that differ from those noted before."""
        before = self._facts()
        now = {**before, **json.loads(json.dumps(facts))}
        if now != before:
            with self._transaction() as db:
                db.execute("INSERT OR REPLACE INTO state VALUES ('facts', ?)", (json.dumps(now),))
        # Nothing was done yet that depends on what was not noted: after a scan alone nothing is decided again.
        return tuple(name for name in now if name in before and before[name] != now[name])

    def scan(
        self,
        photos: Iterable[Source | str | os.PathLike[str]],
        describer: Describer,
        options: ScanOptions | None = None,
        *,
        decider: Decider | None = None,
        retry_failed: bool = True,
        counts: Counts | None = None,
        show: Show = lambda counts: None,
    ) -> Counts:
        """Do steps 1 and 2 for new and changed photos, then for videos.

        Interrupted at any moment, the catalog holds whole photos only, and how far the video in work was looked at.

        photos: files, folders (searched recursively), patterns and archives.
        decider: decides each chunk at once, where vectors are not kept.
        retry_failed: scan again what failed, though it did not change.
        counts: goes on from there.
        show: is given the counts now and then.
        Errors: ModelError, and everything else that concerns more than one photo.
        """
        counts = Counts() if counts is None else counts
        counts.found = counts.videos = counts.problems = 0
        if not self._begun:
            self.begin(describer.facts, videos=describer.video_facts)
        options = options or ScanOptions()
        videos: list[tuple[int, Source]] = []
        self._note_shard(options.shard)
        todo = self._skip_done(options.shard.share(as_sources(photos)), counts, retry_failed)
        chunks = (options.stream or scan_stream)(describer, without_videos(todo, videos), self._recall, options)
        notes = Notes(self, self._video_key, self._keep, partial(self._recall, key=self._video_key))
        for chunk in chain(chunks, scan_videos(describer, videos, options, notes, counts, show)):
            records = {} if self._keep or decider is None else _decided(decider, chunk)
            self._record(chunk, records)
            counts.found += len(chunk)
            for photo in chunk:
                counts.videos += is_clip(photo.source)
                counts.failed += isinstance(photo.found, Failed)
                counts.fresh += photo.source.problem is None
                counts.problems += photo.source.problem is not None
                counts.reused += isinstance(photo.found, str)
                counts.faces += len(photo.found.faces) if isinstance(photo.found, Described) else 0
            counts.decided += len(records)
            show(counts.at("scan", counts.found))
        self._finish(counts)
        return counts

    def decide(self, decider: Decider, *, counts: Counts | None = None, show: Show = lambda counts: None) -> Counts:
        """Do steps 3 and 4 for every photo whose result does not belong to the facts of the pass.

        Counts.damaged: photos whose faces cannot be read; they are scanned again in the next pass, and this one is not whole.
        """
        counts = Counts() if counts is None else counts
        counts.damaged, place = 0, -1
        self._decision_key = key_of(decider.facts)
        self._note_facts(decider.facts)
        while rows := list(self._rows(_UNDECIDED, self._pass, place, self._decision_key, DECIDED_AT_ONCE)):
            place = rows[-1][0]
            self._decide(decider, rows, counts)
            show(counts.at("decide", place + 1))
        self._total(counts)
        return counts

    def _decide(self, decider: Decider, rows: Sequence[tuple[Any, ...]], counts: Counts) -> None:
        model = self.model
        photos: list[Described] = []
        done: list[tuple[bytes, Recognized | Failed]] = []
        damaged: list[tuple[bytes]] = []
        named: list[bytes] = []
        for _, name, data, reason, record in rows:
            path = os.fsdecode(name)
            if reason is not None:
                done.append((name, Failed(path, reason)))
            elif (photo := unpack(data, path, model)) is None:
                damaged.append((name,))
            else:
                photos.append(photo)
                named.append(name)
                counts.compared += record != ""
        done += zip(named, decider.decide(photos), strict=True)
        with self._transaction() as db:
            for name, result in done:
                db.execute(_DECIDED, (self._decision_key, *_as_columns(to_record(result, model)), name))
            db.executemany("UPDATE photo SET scanned = '' WHERE name = ?", damaged)
            db.executemany(
                "DELETE FROM description WHERE content = (SELECT content FROM photo WHERE name = ?)", damaged
            )
        counts.decided += len(done)
        counts.damaged += len(damaged)

    # ---- scanning ----

    def _note_shard(self, shard: Shard) -> None:
        if shard != self.shard:
            with self._transaction() as db:
                db.execute("INSERT OR REPLACE INTO state VALUES ('shard', ?)", (str(shard),))

    def _skip_done(
        self, sources: Iterable[tuple[int, Source]], counts: Counts, retry_failed: bool
    ) -> Iterator[tuple[int, Source]]:
        """Yield the sources that are to be scanned; note the others as met. sources: each with its place in the input."""
        met: list[tuple[int, int, bytes]] = []
        for position, source in sources:
            if not self._is_done(source, retry_failed):
                yield position, source
                continue
            counts.found += 1
            counts.videos += is_clip(source)
            met.append((self._pass, position, os.fsencode(source.name)))
            if len(met) >= _MET_AT_ONCE:
                self._meet(met)
        self._meet(met)

    def _meet(self, met: list[tuple[int, int, bytes]]) -> None:
        with self._transaction() as db:
            db.executemany("UPDATE photo SET pass = ?, position = ?, vanished = 0 WHERE name = ?", met)
        met.clear()

    def _is_done(self, source: Source, retry_failed: bool) -> bool:
        """Say whether nothing is to be scanned: the file was not touched, and its faces are known, or its result is that of now."""
        key = self._key_of(source)
        values = (os.fsencode(source.name), source.stamp, key, not retry_failed, self._decision_key)
        return bool(source.stamp) and self._first(_DONE, *values) is not None

    def _key_of(self, source: Source) -> str:
        return self._video_key if is_clip(source) else self._scan_key

    def _recall(self, content: str, key: str = "") -> str | None:
        """Return the record of a photo with the same bytes, under any name, empty when only its faces are known, else None."""
        key = key or self._scan_key
        if self._first("SELECT 1 FROM description WHERE content = ? AND key = ?", content, key):
            return ""
        query = "SELECT record FROM photo WHERE content = ? AND scanned = ? AND decided = ? AND reason IS NULL LIMIT 1"
        row = self._first(query, content, key, self._decision_key)
        return None if row is None else str(row[0])

    def _record(self, photos: Sequence[Scanned], records: Mapping[int, Record]) -> None:
        """Keep what was found in one transaction. records: of those that were decided at once, by their places."""
        with self._transaction() as db:
            for photo in photos:
                found, record, key = photo.found, records.get(photo.position), self._key_of(photo.source)
                db.execute("DELETE FROM video WHERE content = ?", (photo.content,))
                if isinstance(found, Described):
                    db.execute("DELETE FROM thumbnail WHERE content = ?", (photo.content,))
                    self._put_thumbnails(photo.content, photo.thumbnails)
                    if self._keep:
                        packed = (photo.content, key, pack(found))
                        db.execute("INSERT OR REPLACE INTO description VALUES (?, ?, ?)", packed)
                elif isinstance(found, str) and found:
                    record = {**json.loads(found), "path": readable(photo.source.name)}
                reason = found.reason if isinstance(found, Failed) else None
                name, stamp = os.fsencode(photo.source.name), photo.source.stamp
                values = (
                    name,
                    stamp,
                    photo.content,
                    key,
                    reason,
                    self._pass,
                    photo.position,
                    self._decision_key,
                )
                db.execute(_SCANNED, (*values, *_as_columns(record), photo.taken))

    def _finish(self, counts: Counts) -> None:
        """Note that the pass met all of its input; mark photos that are gone. One that is still there, but was not met, is left."""
        self._begun = False
        finished, gone = self._finished(), []
        query = "SELECT name, pass FROM photo WHERE pass < ? AND NOT vanished AND stamp != ''"
        for name, met in self._rows(query, self._pass):
            if is_missing(os.fsdecode(name)):
                gone.append((name,))
            elif met >= finished:
                counts.left += 1
        with self._transaction() as db:
            db.executemany("UPDATE photo SET vanished = 1 WHERE name = ?", gone)
            db.execute("INSERT OR REPLACE INTO state VALUES ('finished', ?)", (str(self._pass),))
            db.execute("DELETE FROM video")
            if counts.fresh:  # photos may have lost their content
                for table in ("description", "thumbnail"):
                    db.execute(
                        f"DELETE FROM {table} WHERE content NOT IN (SELECT content FROM photo WHERE reason IS NULL)"
                    )
        counts.gone += len(gone)
        self._total(counts)

    def scan_again(self, names: Iterable[str]) -> None:
        """Let photos count as not scanned: they are not what the catalog says, though size and time are."""
        with self._transaction() as db:
            db.executemany("UPDATE photo SET scanned = '' WHERE name = ?", ((os.fsencode(name),) for name in names))

    def forget_vectors(self, *, thumbnails: bool = True) -> int:
        """Delete all faces and vectors so that no byte of them is left in the file; return of how many photos there were some.

        thumbnails: delete these as well.
        """
        with self._transaction() as db:
            query = "SELECT count(*) FROM photo WHERE content IN (SELECT content FROM description)"
            (count,) = db.execute(query).fetchone()
            gone = db.execute("DELETE FROM description").rowcount
            gone += db.execute("DELETE FROM video").rowcount
            gone += db.execute("DELETE FROM thumbnail").rowcount if thumbnails else 0
            if gone:
                db.execute("INSERT OR REPLACE INTO state VALUES ('scrub', '')")
        # A run that was killed in between, or had a reader, left the note, and this one ends what it began.
        if self._state("scrub") is not None and self._rewrite():
            with self._transaction() as db:
                db.execute("DELETE FROM state WHERE name = 'scrub'")
        return int(count)

    def note_results(self, path: Path) -> None:
        """Note that a batch writes results there, which another one that goes on from this catalog may write over."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO state VALUES (?, '')", (_results_key(path),))

    def wrote(self, path: Path) -> bool:
        """Say whether `note_results` noted this path."""
        return self._state(_results_key(path)) is not None

    def vanished(self) -> Iterator[str]:
        """Yield the names of photos of earlier runs that are gone."""
        return (os.fsdecode(name) for (name,) in self._rows("SELECT name FROM photo WHERE vanished"))

    # ---- thumbnails ----

    def lacks_thumbnails(self, content: str = "") -> bool:
        """Say whether not each face has a thumbnail: of the photos of these bytes, or of all photos of the pass."""
        query = """
            SELECT 1 FROM photo WHERE pass >= ? AND NOT vanished AND (content = ? OR ? = '') AND known + ambiguous + unknown !=
            (SELECT count(*) FROM thumbnail WHERE thumbnail.content = photo.content) LIMIT 1"""
        return self._first(query, self._pass, content, content) is not None

    def put_thumbnails(self, photos: Mapping[str, Sequence[bytes]]) -> None:
        """Keep a JPEG of each face, by the SHA-256 of the photo's bytes."""
        with self._transaction() as db:
            for content, jpegs in photos.items():
                db.execute("DELETE FROM thumbnail WHERE content = ?", (content,))
                self._put_thumbnails(content, jpegs)

    def _put_thumbnails(self, content: str, jpegs: Sequence[bytes]) -> None:
        self._db.executemany(
            "INSERT INTO thumbnail VALUES (?, ?, ?)", ((content, number, jpeg) for number, jpeg in enumerate(jpegs))
        )

    def described(self) -> tuple[int, int]:
        """Return of how many photos of these, failed ones aside, the faces are known, and how many photos that are."""
        query = """
            SELECT coalesce(sum(photo.scanned IN (?, ?) AND description.key = photo.scanned), 0), count(*)
            FROM photo LEFT JOIN description USING (content)
            WHERE NOT vanished AND stamp != '' AND reason IS NULL AND pass >= ?"""
        keys = (self._scan_key, self._video_key) if self._keep else ("-", "-")
        known, photos = self._first(query, *keys, self._finished()) or (0, 0)
        return int(known), int(photos)

    def _total(self, counts: Counts) -> None:
        """Count what the photos of the pass came to."""
        query = "SELECT sum(reason IS NOT NULL), sum(known), sum(ambiguous), sum(unknown) FROM photo WHERE pass = ?"
        row = self._first(query, self._pass) or ()
        counts.failed, counts.known, counts.ambiguous, counts.unknown = (int(value or 0) for value in row)
        counts.faces = counts.known + counts.ambiguous + counts.unknown
        (counts.maybe,) = self._first(_MAYBE, self._pass) or (0,)
        (counts.vanished,) = self._first("SELECT count(*) FROM photo WHERE vanished") or (0,)
        counts.at(counts.stage, counts.done)


def _results_key(path: Path) -> str:
    return f"results {key_of({'path': os.path.realpath(path)})}"


_DONE = """
    SELECT 1 FROM photo WHERE name = ? AND stamp = ? AND scanned = ? AND CASE WHEN reason IS NOT NULL THEN ? ELSE decided = ?
    OR EXISTS (SELECT 1 FROM description WHERE content = photo.content AND key = photo.scanned) END"""
#: What was decided about a photo stays as long as its bytes, its scan and its failure do.
_SCANNED = """
    INSERT INTO photo VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, iif(?9 = '', '', ?8), ?9, ?10, ?11, ?12, ?13)
    ON CONFLICT (name) DO UPDATE SET (decided, record, known, ambiguous, unknown) = (
        SELECT decided, record, known, ambiguous, unknown
        WHERE ?9 = '' AND content = ?3 AND scanned = ?4 AND reason IS ?5 AND decided = ?8
        UNION ALL SELECT excluded.decided, ?9, ?10, ?11, ?12 LIMIT 1),
    stamp = ?2, content = ?3, scanned = ?4, reason = ?5, pass = ?6, position = ?7, vanished = 0, taken = ?13"""
_UNDECIDED = """
    SELECT position, name, data, reason, record FROM photo LEFT JOIN description USING (content)
    WHERE pass = ? AND position > ? AND decided != ? ORDER BY position LIMIT ?"""
#: instr keeps the JSON of most photos unread.
_MAYBE = """
    SELECT count(*) FROM photo, json_each(photo.record, '$.faces') AS face
    WHERE pass = ? AND unknown AND instr(record, '"suggestion":"') AND json_extract(face.value, '$.status') = 'unknown'
    AND json_extract(face.value, '$.suggestion') IS NOT NULL"""
_DECIDED = "UPDATE photo SET decided = ?, record = ?, known = ?, ambiguous = ?, unknown = ? WHERE name = ?"


def _as_columns(record: Record | None) -> tuple[str, int, int, int]:
    if record is None:
        return "", 0, 0, 0
    statuses = Counter(face["status"] for face in record["faces"])
    known, ambiguous, unknown = (statuses[status] for status in _STATUSES)
    return dumps(record), known, ambiguous, unknown


def _decided(decider: Decider, photos: Sequence[Scanned]) -> dict[int, Record]:
    """Return the records of those photos of a chunk that were described now, by their places."""
    described = [photo for photo in photos if isinstance(photo.found, Described)]
    results = decider.decide([photo.found for photo in described if isinstance(photo.found, Described)])
    return {photo.position: to_record(result) for photo, result in zip(described, results, strict=True)}
