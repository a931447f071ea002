"""The job as a whole: sources through the stream into the ledger, and from the ledger into the output."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from facepipe.catalog.ledger import Entry, Ledger
from facepipe.catalog.looks import Earlier
from facepipe.catalog.pictures import PictureReader, SideOutput, pictures_of, stays
from facepipe.catalog.sources import Source
from facepipe.catalog.stream import Outcome, StreamOptions, recognize_stream
from facepipe.records import Record, dumps, readable, to_record
from facepipe.types import Image

if TYPE_CHECKING:
    from facepipe.pipeline import Recognizer

#: Photos that are done already are noted in the ledger this many at a time.
_MET_AT_ONCE = 1000


@dataclass(slots=True)
class Counts:
    """What a batch has come to.

    found: photos met. resumed: of these, done by an earlier run. compared: in this one, with faces that an earlier run had found.
    fresh: looked at in this one. reused: of the latter, equal to one that was done.
    vanished: met by an earlier run and gone; gone: of these, those that this pass is the first to miss.
    left: met by the run before, still there, but not in the input any more. known, ambiguous, unknown: faces.
    """

    found: int = 0
    resumed: int = 0
    compared: int = 0
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
    record_of = partial(_record, model=recognizer.matcher.fingerprint)
    ledger.pictures = pictures_of(side_outputs)
    todo = _skip_done(sources, ledger, counts, retry_failed, bool(side_outputs), thumbnails)
    with PictureReader(recognizer, options, side_outputs, thumbnails) as reader:
        for chunk in recognize_stream(recognizer, todo, options, ledger):
            entries = []
            outcomes = reader.complete([(outcome, record_of(outcome)) for outcome in chunk], record_of)
            if side_outputs:
                ledger.withdraw([outcome.photo.source.name for outcome, _ in outcomes])
            for outcome, record in outcomes:
                for output in side_outputs:
                    if not stays(output, outcome.photo, record):
                        output.add(outcome.photo, record)
                _count(counts, outcome, record)
                entries.append(_entry(outcome, record, thumbnails))
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
    sources: Iterable[Source], ledger: Ledger, counts: Counts, retry_failed: bool, sides: bool, thumbnails: bool
) -> Iterator[tuple[int, Source, Earlier | None]]:
    """Yield the sources that are to be done, with their places and what is known of them; note the others as met."""
    met: list[tuple[int, str]] = []
    for position, source in enumerate(sources):
        record = ledger.done(source.name, source.stamp, retry_failed)
        if record is None:
            earlier = ledger.earlier_of(source.name, source.stamp)
            if earlier is not None:
                lacking = thumbnails and earlier.thumbnails != len(earlier.look.faces)
                earlier = replace(earlier, wanted=sides or lacking)
            yield position, source, earlier
            continue
        met.append((position, source.name))
        counts.resumed += 1
        counts.add(json.loads(record))
        if len(met) >= _MET_AT_ONCE:
            ledger.met(met)
            met.clear()
    ledger.met(met)


def _record(outcome: Outcome, model: str) -> dict[str, Any]:
    if outcome.result is not None:
        return to_record(outcome.result, model)
    assert outcome.photo.record is not None
    record: dict[str, Any] = json.loads(outcome.photo.record)
    record["path"] = readable(outcome.photo.source.name)
    return record


def _count(counts: Counts, outcome: Outcome, record: dict[str, Any]) -> None:
    photo = outcome.photo
    if photo.earlier is not None or (photo.look is not None and outcome.result is not None):
        counts.compared += 1
    else:
        counts.fresh += photo.source.problem is None
        counts.reused += outcome.result is None
    counts.add(record)


def _entry(outcome: Outcome, record: dict[str, Any], thumbnails: bool) -> Entry:
    photo, same = outcome.photo, outcome.photo.earlier is not None
    pictures: tuple[bytes, ...] = ()
    if thumbnails and photo.image is not None:
        pictures = _thumbnails(photo.image, record)
    failed, source = record["error"] is not None, photo.source
    return Entry(
        *(source.name, source.stamp, photo.content, photo.position, dumps(record), failed, pictures),
        look=outcome.look,
        same=same,
    )


def _thumbnails(image: Image, record: Record) -> tuple[bytes, ...]:
    from facepipe.outputs.html import encode_thumbnail, thumbnail

    return tuple(encode_thumbnail(thumbnail(image, face)) for face in record["faces"])
