"""Photos through steps 1 and 2 as a stream: read and decode, detect and embed in chunks, in the input's order.

    sources ──read, decode (threads)──▶ photos ──chunks──▶ detect, embed (threads) ──▶ scanned

Every arrow is bounded and pulled from the right: memory depends on the chunk, not on the number of photos. The native libraries
release Python's lock while they work, so threads share one copy of the networks and pass pictures on without copying them.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from facepipe.catalog.shards import WHOLE, Shard
from facepipe.catalog.sources import Source
from facepipe.embed.describer import CHUNK_PIXELS, Describer, ordered_map
from facepipe.errors import InputError
from facepipe.files.atomic import as_output_error
from facepipe.images import content_hash, read_image_bytes
from facepipe.images.memory import apart
from facepipe.images.taken import taken_of
from facepipe.types import Described, Face, Failed, Image

#: Freed memory is given back after so many chunks.
GIVE_BACK_EVERY = 8
#: The bytes of a larger file do not wait in memory for a closer look at its faces.
_IN_MEMORY = 16 << 20
#: Decoded photos that wait for a chunk.
AHEAD = 16


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """How a scan goes about it; nothing here changes its answers about a photo.

    workers: chunks in work at a time, one thread each.
    give_back: called now and then, to return freed memory to the system.
    thumbnails: returns a JPEG of each face; None: none are kept.
    shard: the part of the input that is scanned.
    stream: has photos looked at elsewhere, as `scan_stream` does here; None: here.
    """

    workers: int = 1
    give_back: Callable[[], object] = lambda: None
    thumbnails: Callable[[Image, Sequence[Face]], list[bytes]] | None = None
    shard: Shard = WHOLE
    stream: Callable[..., Iterator[list[Scanned]]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scanned:
    """What a scan came to for one photo. position: its place in the input. content: SHA-256 of its bytes, empty when not read.

    found: what it came to; a string where a photo of the same bytes is known: its record, empty when it has none yet.
    taken: when the photo was taken, ISO 8601; None when it does not say.
    """

    source: Source
    position: int
    content: str
    found: Described | Failed | str
    thumbnails: Sequence[bytes] = ()
    taken: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A photo on its way. data: returns its bytes, only of a member of an archive. found: what is known of it already."""

    source: Source
    position: int
    data: Callable[[], bytes] | None = None
    content: str = ""
    image: Image | None = None
    found: Failed | str | None = None
    taken: str | None = None


def scan_stream(
    describer: Describer,
    sources: Iterable[tuple[int, Source]],
    recall: Callable[[str], str | None],
    options: ScanOptions,
) -> Iterator[list[Scanned]]:
    """Yield what all sources came to, in their order, a chunk at a time. A photo that cannot be used is a `Failed`.

    sources: each with its place in the input. recall: returns what `Scanned.found` has for the SHA-256 of a photo that is
    known, None for others. Errors: ModelError, and everything else that concerns more than one photo.
    """
    max_side = describer.facts.get("max_side")

    def read(photo: _Read) -> _Read:
        return _read(photo, max_side)

    def describe(chunk: list[_Read]) -> list[Scanned]:
        return _describe(describer, chunk, options.thumbnails)

    drawn = (_draw(position, source) for position, source in sources)
    photos = ordered_map(read, drawn, max(2, options.workers), AHEAD)
    fresh = (photo if photo.image is None else replace(photo, found=recall(photo.content)) for photo in photos)
    chunks = ordered_map(describe, _chunks(fresh, describer.photos), options.workers, 1)
    for number, chunk in enumerate(chunks, 1):
        yield chunk
        if number % GIVE_BACK_EVERY == 0:
            options.give_back()


def _draw(position: int, source: Source) -> _Read:
    if source.problem is not None:
        return _Read(source, position, found=Failed(source.name, source.problem))
    if source.streamed:
        try:
            return _Read(source, position, _kept(source.load()))
        except InputError as error:
            return _Read(source, position, found=Failed(source.name, str(error)))
    return _Read(source, position)


def _read(photo: _Read, max_side: int | None) -> _Read:
    """Read and decode a photo; one that cannot be is a failure afterwards."""
    if photo.found is not None:
        return photo
    content = ""
    try:
        load = photo.data or photo.source.load
        data = load()
        content = content_hash(data)
        name = photo.source.name
        image = read_image_bytes(data, name, max_side=max_side)
        enlarge = image.enlarge
        if enlarge is not None and len(data) > _IN_MEMORY:
            if photo.data is None and photo.source.path is None:  # a store is not asked twice
                load = _kept(data)
            enlarge = lambda side: read_image_bytes(load(), name, max_side=side)  # noqa: E731 - not the bytes themselves
    except InputError as error:
        return replace(photo, data=None, content=content, found=Failed(photo.source.name, str(error)))
    image = replace(image, rgb=apart(image.rgb), enlarge=enlarge)
    return replace(photo, data=None, content=content, image=image, taken=taken_of(data, photo.source.name))


def _kept(data: bytes) -> Callable[[], bytes]:
    """Return what gives the bytes of a member back; where they are many, they wait in a temporary file and not in memory."""
    if len(data) <= _IN_MEMORY:
        return lambda: data
    file = tempfile.TemporaryFile(prefix="facepipe-")  # noqa: SIM115 - it is gone when nobody needs it any more
    with as_output_error(tempfile.gettempdir()):
        file.write(data)
        file.flush()
    descriptor, count = file.fileno(), len(data)

    def load() -> bytes:
        return os.pread(descriptor, count, 0)  # not by seek and read: two threads may want it

    weakref.finalize(load, file.close)
    return load


def _chunks(photos: Iterable[_Read], most: int) -> Iterator[list[_Read]]:
    """Cut the stream by position into chunks of at most so many.

    A run that goes on where another was stopped makes the same chunks, so the same last digits.
    """
    chunk: list[_Read] = []
    pixels = 0
    for photo in photos:
        if chunk and (pixels >= most * CHUNK_PIXELS or photo.position // most != chunk[0].position // most):
            yield chunk
            chunk, pixels = [], 0
        chunk.append(photo)
        if photo.image is not None:
            pixels += photo.image.rgb.size // 3
    if chunk:
        yield chunk


def _describe(
    describer: Describer,
    chunk: list[_Read],
    thumbnails: Callable[[Image, Sequence[Face]], list[bytes]] | None,
) -> list[Scanned]:
    """Do steps 1 and 2 for those photos of a chunk that need them; the pixels are dropped."""
    described = iter(
        describer.describe_each([photo.image for photo in chunk if photo.found is None and photo.image is not None])
    )
    scanned = []
    for photo in chunk:
        found = next(described) if photo.found is None else photo.found
        small: Sequence[bytes] = ()
        if isinstance(found, Described):
            if thumbnails is not None and photo.image is not None:
                small = thumbnails(photo.image, found.faces)
            found = replace(found, image=None)
        scanned.append(Scanned(photo.source, photo.position, photo.content, found, small, photo.taken))
    return scanned
