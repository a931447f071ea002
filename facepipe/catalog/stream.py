"""Photos through the four steps as a stream: read and decode, detect and embed in chunks, match and predict, in the input's order.

    sources ──read, decode (threads)──▶ photos ──chunks──▶ detect, embed (threads) ──▶ match, predict ──▶ outcomes

A photo whose faces are known already goes the same way in the same chunks, but is neither read nor looked at.

Every arrow is bounded and pulled from the right: memory depends on the chunk, not on the number of photos. The native libraries
release Python's lock while they work, so threads share one copy of the networks and pass pictures on without copying them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from facepipe import threads
from facepipe.catalog.allocator import give_back, share_arenas
from facepipe.catalog.looks import Earlier, Look
from facepipe.catalog.ordered import ordered_map
from facepipe.errors import ImageError, InputError, ModelError, NoFaceError
from facepipe.images import content_hash, read_image_bytes
from facepipe.images.memory import apart
from facepipe.text import printable
from facepipe.types import Described, Embeddings, Failed, Image, Recognized

if TYPE_CHECKING:
    from facepipe.catalog.sources import Source
    from facepipe.embed.describer import Describer
    from facepipe.pipeline import Recognizer

#: Pixels in one chunk, for each of the photos that the describer wants at a time: several chunks are in memory.
CHUNK_PIXELS = 250_000
#: Freed memory is given back after so many chunks.
GIVE_BACK_EVERY = 8
#: Decoded photos that wait for a chunk.
AHEAD = 16

#: What a single photo may make the numerical libraries raise; whatever else is raised is a fault of facepipe and stops the batch.
_PHOTO_ERRORS = (NoFaceError, ImageError, MemoryError, RuntimeError, ArithmeticError)


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A photo on its way. position: its place in the input. content: SHA-256 of its bytes, empty when they could not be read.

    earlier: what is known of it without reading it. data: its bytes, only of a member of an archive. image: its pixels, None
    when it was not decoded. record: the result that is known already. look: its faces, when they are. problem: why it failed.
    """

    source: Source
    position: int
    earlier: Earlier | None = None
    data: bytes | None = None
    content: str = ""
    image: Image | None = None
    record: str | None = None
    look: Look | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of a photo: its result, or a record that an equal photo got earlier. look: its faces; None when it failed."""

    photo: Photo
    result: Recognized | Failed | None
    look: Look | None


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """workers: photos' chunks in work at a time, one thread each. max_side: photos are decoded no larger than this."""

    workers: int = 1
    max_side: int | None = 1280


class Memory(Protocol):
    """What earlier photos came to, by the SHA-256 of their bytes."""

    def record_of(self, content: str) -> str | None:
        """Return the result of an equal photo; such photos are not looked at again."""
        ...

    def look_of(self, content: str) -> Look | None:
        """Return the faces of an equal photo; such photos are only compared."""
        ...


def recognize_stream(
    recognizer: Recognizer,
    sources: Iterable[tuple[int, Source, Earlier | None]],
    options: StreamOptions,
    memory: Memory,
) -> Iterator[list[Outcome]]:
    """Yield the outcomes of all sources in their order, a chunk at a time.

    sources: each with its place and what is known of it. An unreadable photo is an outcome with an error. Errors: ModelError,
    GalleryModelError, and everything else that concerns more than one photo.
    """

    def look(chunk: list[Photo]) -> list[tuple[Photo, Described | None]]:
        return _extract(recognizer, chunk)

    def read(photo: Photo) -> Photo:
        return photo if photo.look is not None else read_photo(photo, options.max_side)

    setup = threads.limit
    drawn = (_draw(position, source, earlier) for position, source, earlier in sources)
    photos = ordered_map(read, drawn, max(2, options.workers), AHEAD, setup)
    fresh = (_recall(photo, memory) for photo in photos)
    share_arenas()
    chunks = ordered_map(look, _chunks(fresh, recognizer.describer.photos), options.workers, 1, setup)
    for number, chunk in enumerate(chunks, 1):
        yield _judge(recognizer, chunk)
        if number % GIVE_BACK_EVERY == 0:
            give_back()


def look_again(recognizer: Recognizer, photo: Photo) -> Outcome:
    """Do all four steps for a photo that was read and is not what the ledger knew."""
    return _judge(recognizer, _extract(recognizer, [replace(photo, earlier=None, record=None, look=None)]))[0]


def _draw(position: int, source: Source, earlier: Earlier | None) -> Photo:
    photo = Photo(source, position, problem=source.problem)
    if earlier is not None:
        photo = replace(photo, earlier=earlier, content=earlier.content, look=earlier.look)
    if source.problem is None and source.streamed and (earlier is None or earlier.wanted):
        try:
            return replace(photo, data=source.load())
        except InputError as error:
            return Photo(source, position, problem=str(error))
    return photo


def read_photo(photo: Photo, max_side: int | None) -> Photo:
    """Read and decode a photo; one that cannot be has a problem afterwards."""
    if photo.problem is not None:
        return photo
    content = ""
    try:
        data = photo.source.load() if photo.data is None else photo.data
        content = content_hash(data)
        image = read_image_bytes(data, photo.source.name, max_side=max_side)
    except InputError as error:
        return replace(photo, content=content, problem=str(error))
    return replace(photo, content=content, image=replace(image, rgb=apart(image.rgb)))


def _recall(photo: Photo, memory: Memory) -> Photo:
    if photo.problem is not None:
        return photo
    record, look = memory.record_of(photo.content), photo.look or memory.look_of(photo.content)
    return photo if record is None and look is photo.look else replace(photo, record=record, look=look)


def _chunks(photos: Iterable[Photo], most: int) -> Iterator[list[Photo]]:
    """Cut the stream by position into chunks of at most so many.

    A run that goes on where another was stopped makes the same chunks, so the same last digits.
    """
    chunk: list[Photo] = []
    pixels = 0
    for photo in photos:
        if chunk and (pixels >= most * CHUNK_PIXELS or photo.position // most != chunk[0].position // most):
            yield chunk
            chunk, pixels = [], 0
        chunk.append(photo)
        if photo.image is not None:
            pixels += _pixels(photo.image)
        elif photo.look is not None:
            pixels += photo.look.pixels
    if chunk:
        yield chunk


def _pixels(image: Image) -> int:
    return image.rgb.size // 3


def _extract(recognizer: Recognizer, chunk: list[Photo]) -> list[tuple[Photo, Described | None]]:
    """Steps 1 and 2 for those photos of a chunk that need them."""
    todo = [photo for photo in chunk if photo.image is not None and photo.record is None and photo.look is None]
    done = dict(zip((photo.position for photo in todo), _halving(recognizer.describer, todo), strict=True))
    described: list[tuple[Photo, Described | None]] = []
    for photo in chunk:
        found = done.get(photo.position)
        if isinstance(found, str):
            described.append((replace(photo, problem=found), None))
        elif photo.look is not None and photo.record is None:
            known = Embeddings(photo.look.vectors, recognizer.matcher.fingerprint)
            described.append((photo, Described(photo.source.name, photo.look.size, photo.look.faces, known)))
        else:
            described.append((photo, found))
    return described


def _halving(describer: Describer, photos: Sequence[Photo]) -> list[Described | str]:
    """Extract; when that fails, or memory does not suffice, do each half for itself, so that one photo spoils only itself."""
    if not photos:
        return []
    images = [photo.image for photo in photos if photo.image is not None]
    try:
        describer.load()
        threads.limit()  # this thread may have told the libraries its number when some of them were not loaded yet
        return list(describer.describe(images))
    except ModelError:
        raise
    except _PHOTO_ERRORS as error:
        if len(photos) == 1:
            name = printable(photos[0].source.name)
            reason = printable(str(error).strip().split("\n")[0]) or type(error).__name__
            return [f"{name}: cannot be processed ({reason}); open it in an image editor and save it again"]
    middle = len(photos) // 2
    return _halving(describer, photos[:middle]) + _halving(describer, photos[middle:])


def _judge(recognizer: Recognizer, chunk: Sequence[tuple[Photo, Described | None]]) -> list[Outcome]:
    """Steps 3 and 4; the faces of all photos of the chunk are searched together."""
    results = iter(recognizer.decide([found for _, found in chunk if found is not None]))
    outcomes = []
    for photo, found in chunk:
        if found is not None and found.image is not None:
            look = Look(found.size, _pixels(found.image), found.faces, found.embeddings.vectors)
            outcomes.append(Outcome(photo, next(results), look))
        elif found is not None:
            outcomes.append(Outcome(photo, next(results), photo.look))
        elif photo.record is not None:
            outcomes.append(Outcome(photo, None, photo.look))
        else:
            failed = Failed(photo.source.name, photo.problem or "")
            outcomes.append(Outcome(photo, failed, None))
    return outcomes
