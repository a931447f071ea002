"""A video's scan: steps 1 and 2 of its frames, noted every few seconds, so that a run that was stopped goes on inside it."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np

from facepipe.catalog.counts import Counts, Show
from facepipe.catalog.packing import pack, unpack
from facepipe.catalog.scan import GIVE_BACK_EVERY, Scanned, ScanOptions
from facepipe.catalog.sources import Source
from facepipe.catalog.store import Store
from facepipe.embed.clips import Seen, both, describe_frames, described_clip
from facepipe.embed.describer import Describer, ordered_map
from facepipe.embed.tracks import REST, Tracker, TrackerState
from facepipe.errors import InputError
from facepipe.images import file_hash, is_video
from facepipe.images.video import open_video
from facepipe.text import clock, printable
from facepipe.types import Clip, Failed

#: Seconds between two notes of how far it is; more, where writing one takes long.
NOTE_EVERY = 10.0
_SHARE = 20
_LENGTHS = struct.Struct("<4I")


@dataclass(slots=True, eq=False)
class Begun:
    """How far a video was looked at. state: its clip says until when, and what was damaged so far. thumbnails: of each track."""

    state: TrackerState
    thumbnails: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Notes:
    """How far videos were looked at, in a catalog, by the SHA-256 of their bytes.

    key: of the scan. keep: whether vectors may be kept. recall: returns what `Scanned.found` has for a video that is known.
    """

    store: Store
    key: str
    keep: bool
    recall: Callable[[str], str | None]

    def begun(self, content: str, name: str, model: str) -> Begun | None:
        """Return how far a video was looked at, None when it was not, or nothing was kept."""
        row = self.store._first("SELECT data FROM video WHERE content = ? AND key = ?", content, self.key)
        return None if row is None else unpack_begun(row[0], name, model)

    def note(self, content: str, begun: Begun) -> None:
        """Keep that."""
        if self.keep:
            with self.store._transaction() as db:
                db.execute("INSERT OR REPLACE INTO video VALUES (?, ?, ?)", (content, self.key, pack_begun(begun)))


def is_clip(source: Source) -> bool:
    """Say whether a source is a video; those in archives are not looked at."""
    return source.path is not None and is_video(source.name)


def without_videos(
    sources: Iterable[tuple[int, Source]], videos: list[tuple[int, Source]]
) -> Iterator[tuple[int, Source]]:
    """Yield the photos, and set the videos aside: they take minutes each, and photos are described many at a time."""
    for position, source in sources:
        if is_clip(source):
            videos.append((position, source))
        else:
            yield position, source


def scan_videos(
    describer: Describer,
    videos: Iterable[tuple[int, Source]],
    options: ScanOptions,
    notes: Notes,
    counts: Counts,
    show: Show,
) -> Iterator[list[Scanned]]:
    """Yield what the videos came to, one at a time; one that cannot be read is a `Failed`. Errors: ModelError, LibraryError.

    counts, show: told how far it is inside each.
    """

    def told(where: str) -> None:
        counts.inside = where
        show(counts.at("scan", counts.found))

    for position, source in videos:
        scanned = Scanned(source, position, "", "")
        try:
            assert source.path is not None
            scanned = replace(scanned, content=file_hash(source.path))
            known = notes.recall(scanned.content)
            yield [
                replace(scanned, found=known) if known is not None else _scan(describer, scanned, options, notes, told)
            ]
        except InputError as error:
            yield [replace(scanned, found=Failed(source.name, str(error)))]
        counts.inside = ""


def _scan(
    describer: Describer, video: Scanned, options: ScanOptions, notes: Notes, told: Callable[[str], object]
) -> Scanned:
    source = video.source
    begun = notes.begun(video.content, source.name, describer.embedder.fingerprint)
    tracker = Tracker(source.name, None if begun is None else begun.state)
    thumbs = {} if begun is None else begun.thumbnails
    before = Clip(0.0) if begun is None or begun.state.tracks.clip is None else begun.state.tracks.clip
    assert source.path is not None
    with open_video(
        source.path,
        source.name,
        max_side=describer.facts.get("max_side"),
        start=before.duration,
        **asdict(describer.sampling),
    ) as opened:
        seen, noted, pause = Seen(before.duration), time.monotonic(), NOTE_EVERY
        run = partial(ordered_map, workers=options.workers, ahead=1)
        for number, seen in enumerate(describe_frames(describer, opened, tracker, run), 1):
            thumbs.update(_thumbnails(seen, options))
            whole = "" if opened.duration is None else f" of {clock(opened.duration)}"
            told(f"{printable(source.path.name)} {clock(seen.time)}{whole}")
            if number % GIVE_BACK_EVERY == 0:
                options.give_back()
            if seen.time > 0.0 and time.monotonic() - noted >= pause:
                started = time.monotonic()
                until = Clip(seen.time, both(before.damage, both(opened.damage, seen.spoiled)))
                notes.note(video.content, Begun(_until(tracker.state, until), thumbs))
                noted = time.monotonic()
                pause = max(NOTE_EVERY, _SHARE * (noted - started))
        found = described_clip(tracker, opened, seen)
    assert found.clip is not None
    found = replace(found, clip=replace(found.clip, damage=both(before.damage, found.clip.damage)))
    small: Sequence[bytes] = [thumbs[number] for number in range(len(found.faces))] if options.thumbnails else ()
    return replace(video, found=found, thumbnails=small)


def _thumbnails(seen: Seen, options: ScanOptions) -> dict[int, bytes]:
    if options.thumbnails is None:
        return {}
    return {number: options.thumbnails(image, [face])[0] for number, (image, face) in seen.best.items()}


def _until(state: TrackerState, clip: Clip) -> TrackerState:
    return replace(state, tracks=replace(state.tracks, clip=clip))


def pack_begun(begun: Begun) -> bytes:
    """Return how far a video was looked at as bytes: a checksum, lengths, the tracks, the rest of the state, thumbnails."""
    tracks, rest, look = pack(begun.state.tracks), begun.state.rest, begun.state.look
    small = [begun.thumbnails.get(number, b"") for number in range(len(rest))]
    parts = [
        tracks,
        rest.astype("<f8").tobytes(),
        look.astype("<f4").tobytes(),
        np.array(list(map(len, small)), "<u4").tobytes(),
    ]
    data = _LENGTHS.pack(*map(len, parts)) + b"".join((*parts, *small))
    return zlib.crc32(data).to_bytes(4, "little") + data


def unpack_begun(data: bytes, path: str, model: str) -> Begun | None:
    """Return what `pack_begun` packed; None when the bytes are damaged."""
    if zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
        return None
    try:
        place, parts = 4 + _LENGTHS.size, []
        for length in _LENGTHS.unpack_from(data, 4):
            parts.append(data[place : place + length])
            place += length
        tracks = unpack(parts[0], path, model)
        look = np.frombuffer(parts[2], "<f4").astype(np.float32)
        small = {}
        for number, length in enumerate(np.frombuffer(parts[3], "<u4").tolist()):
            small[number] = data[place : place + length]
            place += length
        if tracks is None or tracks.clip is None or len(tracks.faces) != len(small):
            return None
        rest = np.frombuffer(parts[1], "<f8").reshape(len(small), REST + tracks.embeddings.vectors.shape[1])
    except (ValueError, struct.error):
        return None
    return Begun(TrackerState(tracks, rest, look), small)
