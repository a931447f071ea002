"""The recipe: photos through the four steps in order. Nothing is loaded or configured here: `loading` does that.

photo ──detect──▶ faces ──embed──▶ embeddings ──match──▶ candidates ──predict──▶ predictions
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from facepipe.embed.clips import Seen, describe_video
from facepipe.embed.describer import PHOTO_ERRORS, Describer, spoiled
from facepipe.embed.embedding import embed
from facepipe.errors import InputError
from facepipe.gallery.store import GalleryStore
from facepipe.images.inputs import Source, is_one, read_inputs
from facepipe.loading import Steps, load_steps
from facepipe.match.matcher import Matcher, match
from facepipe.predict.decision import predict
from facepipe.types import Described, Detector, Embedder, Failed, Image, Policy, Recognized, Sampling


class Recognizer:
    """All four steps: photos in, predictions out. It knows who was enrolled when it was made."""

    def __init__(
        self,
        gallery: GalleryStore,
        *,
        device: str = "auto",
        model: str | None = None,
        threshold: float | None = None,
        margin: float | None = None,
        top_k: int = 3,
        repeat: bool = False,
        min_face: float = 40,
        min_score: float = 0.4,
        max_side: int | None = 1280,
        second_chance: bool = True,
        every_seconds: float = 1.0,
        keyframes: bool = False,
        quick: bool = False,
        late: bool = False,
        detector: Detector | None = None,
        embedder: Embedder | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Load what answers "who is this?" for the people of a gallery.

        device: auto, cpu, cuda or cuda:N, for the networks and, in a large gallery, the search.
        model: name of the embedder; None: the gallery's own, which is the only one that fits.
        threshold: cosine, -1..1, from which on a face is known; None: the gallery's calibration, else the model's record.
        margin: 0..2, how far the best person must lead the second, else the face is ambiguous; None: as for threshold.
        top_k: candidates of each face, 1 or more.
        repeat: one person may be named more than once in a photo.
        min_face: smallest face, displayed pixels, 12 or more.
        min_score: least score of a face, 0..1.
        max_side: larger photos are searched, and files decoded, reduced to this many pixels; None or 0: never.
        second_chance: where nothing certain is found, search the photo turned, with a border, and brightened.
        every_seconds: of videos a frame for each so many seconds is looked at. keyframes: only of those that stand alone in the file.
        quick: for a few photos: on the CPU the networks run without torch, whose import takes longer than those photos.
        late: load the networks with the first photo.
        detector, embedder: engines of your own behind `facepipe.types.Detector` and `Embedder`, instead of the usual ones.
        tell: is given what the search has to say about its index, a line at a time.
        Errors: GalleryMissingError when nobody is enrolled yet, GalleryModelError for a model that is not the gallery's,
        ModelError, DeviceError; ValueError for values out of range.
        """
        self._take(
            load_steps(
                gallery,
                device=device,
                model=model,
                threshold=threshold,
                margin=margin,
                top_k=top_k,
                repeat=repeat,
                min_face=min_face,
                min_score=min_score,
                max_side=max_side,
                second_chance=second_chance,
                quick=quick,
                late=late,
                detector=detector,
                embedder=embedder,
                tell=tell,
            )
        )
        self.max_side = max_side or None
        self.describer.sampling = Sampling(every_seconds, keyframes)

    @classmethod
    def of(
        cls,
        describer: Describer,
        matcher: Matcher,
        policy: Policy,
        witness: Callable[[Sequence[Recognized]], None] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Recognizer:
        """Return one made of ready steps.

        witness: is given all results before they are returned, for a log.
        facts: what the answers of steps 3 and 4 depend on besides the photo, as JSON has it, for a catalog.
        """
        return cls.of_steps(Steps(describer, matcher, policy, witness, facts or {}))

    @classmethod
    def of_steps(cls, steps: Steps) -> Recognizer:
        """Return one made of steps that `loading` built."""
        made = cls.__new__(cls)
        made._take(steps)
        made.max_side = None
        return made

    def _take(self, steps: Steps) -> None:
        self.describer, self.matcher, self.policy = steps.describer, steps.matcher, steps.policy
        self._witness, self.facts = steps.witness, steps.facts

    def recognize(self, images: Sequence[Image]) -> list[Recognized]:
        """Say who is in each photo. Errors: GalleryModelError when gallery and embedder do not belong together."""
        detected = self.describer.detector.detect(images)
        described = embed(self.describer.embedder, detected, self.describer.min_score)
        matched = match(self.matcher, described, self.policy)
        recognized = predict(matched, self.policy)
        return self._witnessed(recognized)

    def decide(self, photos: Sequence[Described]) -> list[Recognized]:
        """Do steps 3 and 4 alone, for photos whose faces are known already."""
        return self._witnessed(predict(match(self.matcher, photos, self.policy), self.policy))

    def _witnessed(self, results: list[Recognized]) -> list[Recognized]:
        if self._witness is not None:
            self._witness(results)
        return results

    def __call__(self, inputs: Source | Iterable[Source], *, pool: int | None = None) -> Iterator[Recognized | Failed]:
        """Yield the answer about each photo, in order; a photo that cannot be read is a Failed and stops nothing.

        inputs: one photo or many, drawn one at a time: paths (also of videos), folders (searched recursively), bytes, open files, PIL
        images, NumPy arrays (uint8, RGB or grey), `Image`; see `facepipe.images.inputs`. pool: photos that share the
        networks' batches and are answered together. None: as many as fill those batches, 24 on the CPU and 48 on CUDA; but 1
        when `inputs` is an iterator, such as the frames of a camera: its next photo may be long in coming.
        Errors: of the model, the device and the gallery; ValueError and TypeError for what is not a photo at all.
        """
        for _, result in self.with_images(inputs, pool=pool):
            yield result

    def with_images(
        self,
        inputs: Source | Iterable[Source],
        *,
        pool: int | None = None,
        workers: int = 1,
        seen: Callable[[Path, Seen], object] = lambda path, seen: None,
    ) -> Iterator[tuple[Image | None, Recognized | Failed]]:
        """Yield each photo's pixels and the answer about it, for drawing; None with a Failed and a video. See `__call__`.

        workers: threads that look at the frames of a video. seen: is given its path and what each chunk of frames brought.
        """
        if pool is None:
            pool = self.describer.photos if is_one(inputs) or isinstance(inputs, Sized) else 1
        if pool < 1:
            raise ValueError(f"pool: expected 1 photo or more, got {pool}")
        photos = read_inputs(inputs, max_side=self.max_side)
        while some := list(islice(photos, pool)):
            answers = iter(self._each([photo for photo in some if isinstance(photo, Image)]))
            for photo in some:
                if isinstance(photo, Path):
                    yield None, self.watch(photo, workers=workers, seen=partial(seen, photo))
                else:
                    yield (None, photo) if isinstance(photo, Failed) else (photo, next(answers))

    def watch(
        self, path: Path, *, workers: int = 1, seen: Callable[[Seen], object] = lambda seen: None
    ) -> Recognized | Failed:
        """Say who is seen in a video, and when: each prediction's face has a span. See `describe_video` of `embed.clips`."""
        try:
            found = describe_video(self.describer, path, str(path), max_side=self.max_side, workers=workers, seen=seen)
        except InputError as error:
            return Failed(str(path), str(error))
        return self.decide([found])[0]

    def _each(self, images: Sequence[Image]) -> list[Recognized | Failed]:
        """Recognize; when that fails, or memory does not suffice, each half for itself, so that one photo spoils only itself."""
        try:
            return list(self.recognize(images)) if images else []
        except PHOTO_ERRORS as error:
            if len(images) == 1:
                return [spoiled(images[0].path, error)]
        middle = len(images) // 2
        return self._each(images[:middle]) + self._each(images[middle:])
