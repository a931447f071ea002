"""Steps 1 and 2 of many photos at a time, with networks that may be loaded as late as the first photo."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from threading import Lock
from typing import Any, TypeVar

from facepipe.embed.embedding import embed
from facepipe.embed.tracks import BEHAVIOUR
from facepipe.errors import ImageError, ModelError, NoFaceError
from facepipe.text import printable
from facepipe.types import Described, Detector, Embedder, Failed, Image, Sampling

_In = TypeVar("_In")
_Out = TypeVar("_Out")

#: Photos at a time that fill the networks' batches on the CPU, and are still little in memory.
CPU_PHOTOS = 24
#: Pixels described together, for each of the photos that a describer wants at a time: several such chunks are in memory.
CHUNK_PIXELS = 250_000
#: What a single photo may make the numerical libraries raise; whatever else is raised is not the photo's fault.
PHOTO_ERRORS = (NoFaceError, ImageError, MemoryError, RuntimeError, ArithmeticError)


class Describer:
    """Steps 1 and 2: photos in, faces and embeddings out. sampling: of videos."""

    facts: Mapping[str, Any]
    sampling: Sampling = Sampling()
    _load: Callable[[], tuple[Detector, Embedder]]
    _lock: Lock

    def __init__(
        self,
        detector: Detector,
        embedder: Embedder,
        photos: int = CPU_PHOTOS,
        facts: Mapping[str, Any] | None = None,
        min_score: float = 0.0,
    ) -> None:
        """Take the steps.

        photos: how many `describe` should get at a time.
        facts: what the answers depend on besides the photo, as JSON has it, for a catalog; None: the names of the engines.
        min_score: least score of a face, after its embedding was judged.
        """
        self._steps: tuple[Detector, Embedder] | None = (detector, embedder)
        self.photos, self.min_score = photos, min_score
        self.facts = {"detector": detector.name, "model": embedder.fingerprint} if facts is None else facts

    @classmethod
    def late(
        cls,
        load: Callable[[], tuple[Detector, Embedder]],
        photos: int = CPU_PHOTOS,
        facts: Mapping[str, Any] | None = None,
        min_score: float = 0.0,
    ) -> Describer:
        """Return one that calls `load` when detector or embedder is first needed; what that raises is raised then."""
        made = cls.__new__(cls)
        made._steps, made._load, made._lock, made.photos = None, load, Lock(), photos
        made.facts, made.min_score = facts or {}, min_score
        return made

    @property
    def video_facts(self) -> dict[str, Any]:
        """What the answers about a video depend on besides `facts`."""
        return {"tracks": BEHAVIOUR, **asdict(self.sampling)}

    def load(self) -> tuple[Detector, Embedder]:
        """Return detector and embedder; they are loaded once, whatever the number of threads that ask."""
        if self._steps is None:
            with self._lock:
                if self._steps is None:
                    self._steps = self._load()
        return self._steps

    @property
    def detector(self) -> Detector:
        """Step 1."""
        return self.load()[0]

    @property
    def embedder(self) -> Embedder:
        """The network of step 2."""
        return self.load()[1]

    def describe(self, images: Sequence[Image]) -> list[Described]:
        """Find and embed the faces of all photos; the faces of all of them share the networks' batches."""
        return embed(self.embedder, self.detector.detect(images), self.min_score)

    def describe_each(self, images: Sequence[Image]) -> list[Described | Failed]:
        """Describe; when that fails, or memory does not suffice, each half for itself, so that one photo spoils only itself."""
        if not images:
            return []
        try:
            return list(self.describe(images))
        except ModelError:
            raise
        except PHOTO_ERRORS as error:
            if len(images) == 1:
                return [spoiled(images[0].path, error)]
        middle = len(images) // 2
        return self.describe_each(images[:middle]) + self.describe_each(images[middle:])


def spoiled(path: str, error: Exception) -> Failed:
    """Return what is said of a photo that was read, and that made one of the steps raise one of `PHOTO_ERRORS`."""
    reason = printable(str(error).strip().split("\n")[0]) or type(error).__name__
    return Failed(
        path, f"{printable(path)}: cannot be processed ({reason}); open it in an image editor and save it again"
    )


def ordered_map(
    function: Callable[[_In], _Out],
    items: Iterable[_In],
    workers: int,
    ahead: int,
) -> Iterator[_Out]:
    """Yield function(item) in the order of the items, computed on `workers` threads.

    At most `workers + ahead` results exist that were not yielded: a slow consumer slows the producers down. The items are drawn
    in the consumer's thread. An exception of the function is raised where its result would have been yielded. When the
    consumer stops early, what has not begun is dropped.
    """
    pending: deque[Future[_Out]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="facepipe") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= workers + ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
