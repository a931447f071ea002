"""Pictures for photos whose faces are known already: which of them are read, and that they still are what the ledger knows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from facepipe import threads
from facepipe.catalog.stream import Outcome, Photo, StreamOptions, look_again, read_photo

if TYPE_CHECKING:
    from facepipe.pipeline import Recognizer

Record = dict[str, Any]


class SideOutput(Protocol):
    """Something that is made of photos as they are done: annotated copies, crops, folders by person.

    pictures: names what it makes of pixels, and where; empty when it needs none.
    """

    pictures: str

    def add(self, photo: Photo, record: Record) -> None:
        """Take one photo; one that failed has no faces. It comes again when the run was stopped before the ledger knew of it."""
        ...

    def stays(self, before: Record, now: Record) -> bool:
        """Say whether what was made of a photo's earlier result is what would be made now; the faces are the same."""
        ...

    def tidy(self) -> None:
        """At the end of a pass, take away what belongs to photos that are gone."""
        ...


def pictures_of(side_outputs: Sequence[SideOutput]) -> str:
    """Return what names all pictures that are made, for the ledger."""
    return "\n".join(sorted(filter(None, (output.pictures for output in side_outputs))))


def stays(output: SideOutput, photo: Photo, record: Record) -> bool:
    """Say whether what an output made of a photo earlier can stay as it is."""
    earlier = photo.earlier
    return earlier is not None and earlier.made and output.stays(json.loads(earlier.record), record)


class PictureReader:
    """Reads the photos that were only compared, and of which a picture is needed all the same, on threads."""

    def __init__(
        self, recognizer: Recognizer, options: StreamOptions, side_outputs: Sequence[SideOutput], thumbnails: bool
    ) -> None:
        """thumbnails: one of each face is kept."""
        self._recognizer = recognizer
        self._max_side = options.max_side
        self._outputs = [output for output in side_outputs if output.pictures]
        self._thumbnails = thumbnails
        self._pool = ThreadPoolExecutor(options.workers, thread_name_prefix="facepipe", initializer=threads.limit)

    def __enter__(self) -> PictureReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def complete(
        self, chunk: Sequence[tuple[Outcome, Record]], record_of: Callable[[Outcome], Record]
    ) -> list[tuple[Outcome, Record]]:
        """Return the outcomes with the pictures that are needed.

        A photo that is not what the ledger knows, though its size and time are, is looked at again.
        """
        lacking = [outcome.photo for outcome, record in chunk if self._is_needed(outcome.photo, record)]
        read = {photo.position: photo for photo in self._pool.map(self._read, lacking)}
        done = []
        for outcome, record in chunk:
            photo = read.get(outcome.photo.position)
            if photo is None:
                done.append((outcome, record))
            elif photo.problem is None and photo.content == outcome.photo.content:
                done.append((replace(outcome, photo=photo), record))
            else:
                anew = look_again(self._recognizer, photo)
                done.append((anew, record_of(anew)))
        return done

    def _read(self, photo: Photo) -> Photo:
        return read_photo(photo, self._max_side)

    def _is_needed(self, photo: Photo, record: Record) -> bool:
        if photo.earlier is None or photo.image is not None or not record["faces"]:
            return False
        if self._thumbnails and photo.earlier.thumbnails != len(record["faces"]):
            return True
        return any(not stays(output, photo, record) for output in self._outputs)
