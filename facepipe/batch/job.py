"""The job as a whole: sources through the stream into the ledger, and from the ledger into the output."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from facepipe.batch.ledger import Entry, Ledger
from facepipe.batch.sources import Source
from facepipe.batch.stream import Outcome, Photo, StreamOptions, recognize_stream
from facepipe.report.records import dumps, readable, to_record, to_result
from facepipe.types import Image, PhotoResult

if TYPE_CHECKING:
    from facepipe.pipeline import Recognizer

#: Photos that are done already are noted in the ledger this many at a time.
_MET_AT_ONCE = 1000


@dataclass(slots=True)
class Counts:
    """What a batch has come to.

    found: photos met. resumed: of these, done by an earlier run. fresh: read in this one. reused: equal to one that was done.
    vanished: met by an earlier run and gone; gone: of these, those that this pass is the first to miss.
    left: met by the run before, still there, but not in the input any more. known, ambiguous, unknown: faces.
    """

    found: int = 0
    resumed: int = 0
    fresh: int = 0
    reused: int = 0
    failed: int = 0
    vanished: int = 0
    gone: int = 0
    left: int = 0
    faces: int = 0
    known: int = 0
    ambiguous: int = 0
    unknown: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def add(self, record: dict[str, Any]) -> None:
        """Count one photo's record."""
        self.found += 1
        self.failed += record["error"] is not None
        for face in record["faces"]:
            self.faces += 1
            setattr(self, face["status"], getattr(self, face["status"]) + 1)


class SideOutput(Protocol):
    """Something that is made of photos as they are done: annotated copies, crops, folders by person."""

    def add(self, photo: Photo, result: PhotoResult) -> None:
        """Take one photo; one that failed has no faces. It comes again when the run was stopped before the ledger knew of it."""
        ...

    def tidy(self) -> None:
        """At the end of a pass, take away what belongs to photos that are gone."""
        ...


def run_batch(
    recognizer: Recognizer,
    sources: Iterable[Source],
    ledger: Ledger,
    options: StreamOptions,
    side_outputs: Sequence[SideOutput] = (),
    progress: Callable[[Counts], None] = lambda counts: None,
    retry_failed: bool = True,
    thumbnails: bool = False,
) -> Counts:
    """Bring the ledger up to date with the sources; what it knows already is not looked at again.

    retry_failed: look again at what failed, though it did not change. thumbnails: keep one of each face, for a report.

    Interrupted at any moment, the ledger holds whole photos only, and the same call goes on from there.
    """
    counts = Counts()
    todo = _skip_done(sources, ledger, counts, retry_failed)
    for outcomes in recognize_stream(recognizer, todo, options, ledger.record_of):
        entries = []
        for outcome in outcomes:
            entry, record = _entry(outcome, thumbnails)
            if side_outputs:
                result = outcome.result or to_result(record)
                for output in side_outputs:
                    output.add(outcome.photo, result)
            counts.fresh += outcome.photo.source.problem is None
            counts.reused += outcome.result is None
            counts.add(record)
            entries.append(entry)
        ledger.record(entries)
        counts.seconds = time.monotonic() - counts.started
        progress(counts)
    missing = ledger.mark_vanished()
    counts.gone, counts.left, counts.vanished = missing.gone, missing.left, missing.vanished
    for output in side_outputs:
        output.tidy()
    counts.seconds = time.monotonic() - counts.started
    progress(counts)
    return counts


def _skip_done(
    sources: Iterable[Source], ledger: Ledger, counts: Counts, retry_failed: bool
) -> Iterator[tuple[int, Source]]:
    """Yield the sources that are to be looked at, with their places; note the others as met."""
    met: list[tuple[int, str]] = []
    for position, source in enumerate(sources):
        record = ledger.done(source.name, source.stamp, retry_failed)
        if record is None:
            yield position, source
            continue
        met.append((position, source.name))
        counts.resumed += 1
        counts.add(json.loads(record))
        if len(met) >= _MET_AT_ONCE:
            ledger.met(met)
            met.clear()
    ledger.met(met)


def _entry(outcome: Outcome, thumbnails: bool) -> tuple[Entry, dict[str, Any]]:
    photo = outcome.photo
    if outcome.result is None:
        assert photo.record is not None
        record: dict[str, Any] = json.loads(photo.record)
        record["path"] = readable(photo.source.name)
    else:
        record = to_record(outcome.result)
    pictures: tuple[bytes, ...] = ()
    if thumbnails and photo.image is not None:
        pictures = _thumbnails(photo.image, outcome.result or to_result(record))
    failed = record["error"] is not None
    source = photo.source
    return Entry(source.name, source.stamp, photo.content, photo.position, dumps(record), failed, pictures), record


def _thumbnails(image: Image, result: PhotoResult) -> tuple[bytes, ...]:
    from facepipe.report.html import encode_thumbnail, thumbnail

    return tuple(encode_thumbnail(thumbnail(image, prediction.face)) for prediction in result.predictions)
