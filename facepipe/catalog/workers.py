"""A scan by workers elsewhere: blocks of photos go out, what they came to comes back in order; workers may die at any moment.

    sources ──blocks──▶ read (worker) ──contents──▶ recall (here) ──▶ describe (the same worker) ──▶ scanned

A block is what `scan_stream` looks at together at most, cut by position, and the worker cuts it by pixels as that does: so the same
last digits. What of it is known already is asked here, between the two calls, because only this process has the catalog.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from threading import Condition, Lock, Thread
from typing import Any, Protocol

from facepipe import __version__
from facepipe.catalog.scan import (
    GIVE_BACK_EVERY,
    Scanned,
    ScanOptions,
    _chunks,
    _describe,
    _draw,
    _Read,
    _read,
)
from facepipe.catalog.sources import Source
from facepipe.embed.describer import Describer, ordered_map
from facepipe.errors import FacepipeError, LibraryError, ModelError
from facepipe.text import printable
from facepipe.types import Failed

#: So many workers in a row may die while they start.
_STARTS = 3
Block = list[_Read]


class LostError(Exception):
    """A worker died, or its machine did, and with it what it had in work."""


class Remote(Protocol):
    """A `Worker` elsewhere."""

    def call(self, method: str, *arguments: Any) -> Any:
        """Return what the method returns. Errors: LostError; what the method raises."""
        ...

    def stop(self) -> None:
        """End it, with what it has in work."""
        ...


class Worker:
    """What runs elsewhere: loads the networks once, reads a block, and describes those of its photos that are not known."""

    def __init__(self, load: Callable[[], Describer], folder: str, options: ScanOptions) -> None:
        """load: makes the describer. folder: what relative names are relative to. options: its threads, thumbnails, give_back."""
        self._load, self._folder, self._options = load, folder, options
        self._blocks: dict[int, Block] = {}
        self._lock, self._done = Lock(), 0

    def hello(self) -> tuple[str, dict[str, Any], int]:
        """Load the networks; return facepipe's version, the describer's facts, and how many photos it wants at a time."""
        with suppress(OSError):  # absolute names are found from anywhere
            os.chdir(self._folder)
        self._describer = self._load()
        return __version__, dict(self._describer.facts), self._describer.photos

    def alive(self) -> bool:
        """Say so."""
        return True

    def read(self, block: Block) -> list[str]:
        """Read and decode photos; return the SHA-256 of each that is an image, else an empty text."""
        max_side = self._describer.facts.get("max_side")
        photos = list(ordered_map(lambda photo: _read(photo, max_side), block, 2, 1))
        self._blocks[block[0].position] = photos
        return [photo.content if photo.image is not None else "" for photo in photos]

    def describe(self, first: int, known: Sequence[str | None]) -> list[Scanned]:
        """Do steps 1 and 2 for a block that was read. first: the place of its first photo. known: what is known of each."""
        photos = self._blocks.pop(first)
        fresh = (
            photo if found is None else replace(photo, found=found) for photo, found in zip(photos, known, strict=True)
        )
        scanned: list[Scanned] = []
        with self._lock:  # chunks one after the other: the networks have this worker's cores
            for chunk in _chunks(fresh, self._describer.photos):
                scanned += _describe(self._describer, chunk, self._options.thumbnails)
                self._done += 1
                if self._done % GIVE_BACK_EVERY == 0:
                    self._options.give_back()
        return scanned


@dataclass(slots=True, eq=False)
class _Seat:
    """A worker that is up. calls: in progress. held: blocks that it read. alone: it works on what may have killed another one."""

    remote: Remote
    photos: int
    calls: int = 0
    held: int = 0
    alone: bool = False
    lost: bool = False


@dataclass(slots=True, eq=False)
class _Out:
    """A block that is out. seat: who read it; None: it is to be tried alone. contents: of its photos, None: nobody could read it."""

    block: Block
    seat: _Seat | None = None
    contents: list[str] | None = field(default=None)


class Pool:
    """Workers, kept at a number: one that is lost is replaced, and what it had in work is done again.

    start: starts a worker; raises LostError when it is lost. It is asked whether the pool was closed meanwhile.
    """

    def __init__(self, start: Callable[[Callable[[], bool]], Remote], workers: int, facts: dict[str, Any]) -> None:
        self._start, self.workers, self.facts = start, workers, facts
        self._changed = Condition()
        self._seats: list[_Seat] = []
        self._error: FacepipeError | None = None
        self._closed = False
        self._keepers = [Thread(target=self._keep, name="facepipe-worker", daemon=True) for _ in range(workers)]
        for keeper in self._keepers:
            keeper.start()

    def close(self) -> None:
        """End all workers."""
        with self._changed:
            self._closed = True
            seats = list(self._seats)
            self._changed.notify_all()
        for seat in seats:
            seat.remote.stop()
        for keeper in self._keepers:
            keeper.join()

    def scan(
        self, sources: Iterable[tuple[int, Source]], recall: Callable[[str], str | None]
    ) -> Iterator[list[Scanned]]:
        """As `facepipe.catalog.scan.scan_stream`. At most three blocks for each worker are out."""
        reading: deque[Future[_Out]] = deque()
        describing: deque[Future[list[Scanned]]] = deque()
        threads = ThreadPoolExecutor(3 * self.workers, thread_name_prefix="facepipe")

        def read_one() -> None:
            out = reading.popleft().result()
            known = [recall(content) if content else None for content in out.contents or [""] * len(out.block)]
            describing.append(threads.submit(self._describe, out, known))

        try:
            for block in self._blocks(sources):
                reading.append(threads.submit(self._read, block))
                if len(reading) >= self.workers:
                    read_one()
                if len(describing) >= 2 * self.workers:
                    yield describing.popleft().result()
            while reading:
                read_one()
            while describing:
                yield describing.popleft().result()
        except BaseException:
            self.close()  # nobody waits for what is out
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def _blocks(self, sources: Iterable[tuple[int, Source]]) -> Iterator[Block]:
        """Cut the input by position; members of archives go along as bytes."""
        photos = self._photos()
        for _, group in groupby(sources, lambda source: source[0] // photos):
            yield [_sendable(_draw(position, source)) for position, source in group]

    def _photos(self) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._seats or self._ended())
            self._raise()
            return self._seats[0].photos

    # ---- blocks ----

    def _read(self, block: Block) -> _Out:
        """Let a worker read a block; where that dies, another one that has nothing else in work."""
        for alone in (False, True):
            try:
                with self._seat(alone=alone) as seat:
                    contents = seat.remote.call("read", block)
                    seat.held += 1
                    return _Out(block, seat, contents)
            except LostError:
                continue
        return _Out(block)

    def _describe(self, out: _Out, known: Sequence[str | None]) -> list[Scanned]:
        scanned = None
        if out.seat is not None:
            with suppress(LostError), self._seat(out.seat) as seat:
                seat.held -= 1
                scanned = seat.remote.call("describe", out.block[0].position, known)
            if scanned is None:
                scanned = self._alone(out.block, known)
        scanned = scanned if scanned is not None else self._split(out.block, known)
        return [_seen(replace(found, source=sent.source)) for sent, found in zip(out.block, scanned, strict=True)]

    def _alone(self, block: Block, known: Sequence[str | None]) -> list[Scanned] | None:
        """Let a worker that has nothing else in work read and describe; None when it dies."""
        try:
            with self._seat(alone=True) as seat:
                seat.remote.call("read", block)
                result: list[Scanned] = seat.remote.call("describe", block[0].position, known)
                return result
        except LostError:
            return None

    def _split(self, block: Block, known: Sequence[str | None]) -> list[Scanned]:
        """Find the photo that kills workers, in a block that killed two; it is a failure, the others are described."""
        middle = len(block) // 2
        scanned: list[Scanned] = []
        for part in (slice(0, middle), slice(middle, None)) if middle else (slice(None),):
            one = len(block[part]) == 1
            found = self._alone(block[part], known[part]) or (self._alone(block[part], known[part]) if one else None)
            if found is None and one:
                (photo,) = block[part]
                reason = f"{printable(photo.source.name)}: made a worker die twice; scan it without --ray, or repair it"
                found = [Scanned(photo.source, photo.position, "", Failed(photo.source.name, reason))]
            scanned += found if found is not None else self._split(block[part], known[part])
        return scanned

    # ---- workers ----

    def _keep(self) -> None:
        """Keep one worker up until the pool is closed."""
        failures = 0
        while not self._closed:
            try:
                remote = self._start(self._ended)
                version, facts, photos = remote.call("hello")
                self._require_same(version, facts)
            except LostError as error:
                failures += 1
                if failures == _STARTS:
                    return self._fail(LibraryError(f"--ray: workers die while they start ({printable(str(error))})"))
                continue
            except FacepipeError as error:
                return self._fail(error)
            failures = 0
            seat = _Seat(remote, photos)
            with self._changed:
                self._seats.append(seat)
                self._changed.notify_all()
                self._changed.wait_for(lambda: seat.lost or self._ended())  # noqa: B023 - it is waited for here
                self._seats.remove(seat)
            remote.stop()
        return None

    def _require_same(self, version: str, facts: dict[str, Any]) -> None:
        if version != __version__:
            raise ModelError(f"--ray: a worker has facepipe {version}, this is {__version__}; install the same on all")
        if other := sorted(name for name in {*facts, *self.facts} if facts.get(name) != self.facts.get(name)):
            raise ModelError(f"--ray: a worker's facepipe differs in {', '.join(other)}; install the same on all")

    def _fail(self, error: FacepipeError) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _ended(self) -> bool:
        return self._closed or self._error is not None

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise LibraryError("--ray: the workers were stopped")

    @contextmanager
    def _seat(self, wanted: _Seat | None = None, *, alone: bool = False) -> Iterator[_Seat]:
        """Give a worker that is up: the wanted one, else that with the least to do; alone: nobody else gets it meanwhile.

        Errors: LostError when the wanted one is gone. alone: it answered just now, so that what kills it is what it gets.
        """
        seat = self._take(wanted, alone)
        while alone and not self._answers(seat):
            seat = self._take(wanted, alone)
        try:
            yield seat
        except LostError:
            seat.lost = True
            raise
        finally:
            self._leave(seat, alone)

    def _take(self, wanted: _Seat | None, alone: bool) -> _Seat:
        """Wait for a worker. Calls end whether or not their results are taken, so whoever waits here is served."""

        def free() -> list[_Seat]:
            return [seat for seat in self._seats if not (seat.lost or seat.alone) and wanted in (None, seat)]

        with self._changed:
            self._changed.wait_for(lambda: free() or self._ended() or (wanted is not None and wanted.lost))
            self._raise()
            if not (seats := free()):
                raise LostError("it died earlier")
            seat = min(seats, key=lambda seat: (seat.calls, seat.held) if alone else (seat.held + seat.calls, 0))
            if alone:
                seat.alone = True
                self._changed.wait_for(lambda: seat.calls == 0 or self._ended())
            seat.calls += 1
            return seat

    def _leave(self, seat: _Seat, alone: bool) -> None:
        with self._changed:
            seat.calls -= 1
            seat.alone = seat.alone and not alone
            self._changed.notify_all()

    def _answers(self, seat: _Seat) -> bool:
        """Say whether a worker is still there: a machine that goes takes all of its workers, and most of them without work."""
        with suppress(LostError):
            seat.remote.call("alive")
            return True
        seat.lost = True
        self._leave(seat, alone=True)
        return False


def _sendable(photo: _Read) -> _Read:
    """Return a photo as it can go elsewhere: the bytes of an archive's member instead of what returns them."""
    if photo.data is None:
        source = photo.source if photo.found is None else replace(photo.source, load=bytes)
        return replace(photo, source=source)
    return replace(photo, data=None, source=replace(photo.source, load=_Bytes(photo.data()), streamed=False))


@dataclass(frozen=True, slots=True)
class _Bytes:
    data: bytes

    def __call__(self) -> bytes:
        return self.data


def _seen(photo: Scanned) -> Scanned:
    """Say so where a photo is here, and not where the worker looked for it."""
    source, what = photo.source, photo.found
    if isinstance(what, Failed) and "no such file" in what.reason and source.path is not None and source.path.is_file():
        reason = (
            f"{printable(source.name)}: not on the workers' file system; mount the folder there under the same path"
        )
        return replace(photo, found=Failed(source.name, reason))
    return photo
