"""The recipe: photos through the four steps in order. Nothing is loaded or configured here: `loading` does that.

photo ──detect──▶ faces ──embed──▶ embeddings ──match──▶ candidates ──predict──▶ predictions
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from facepipe.embed.embedding import embed
from facepipe.match.matcher import Matcher
from facepipe.match.matching import match
from facepipe.predict.decision import predict
from facepipe.types import Described, Detector, Embedder, Image, Policy, Recognized

#: Photos at a time that fill the networks' batches on the CPU, and are still little in memory.
CPU_PHOTOS = 24


class Describer:
    """Steps 1 and 2: photos in, faces and embeddings out."""

    def __init__(self, detector: Detector, embedder: Embedder, photos: int = CPU_PHOTOS) -> None:
        """photos: how many `describe` should get at a time."""
        self.detector = detector
        self.embedder = embedder
        self.photos = photos

    def describe(self, images: Sequence[Image]) -> list[Described]:
        """Find and embed the faces of all photos; the faces of all of them share the networks' batches."""
        return embed(self.embedder, self.detector.detect(images))


class Recognizer:
    """All four steps: photos in, predictions out."""

    def __init__(
        self,
        describer: Describer,
        matcher: Matcher,
        policy: Policy,
        witness: Callable[[Sequence[Recognized]], None] | None = None,
    ) -> None:
        """witness: is given all results before they are returned, for a log."""
        self.describer = describer
        self.matcher = matcher
        self.policy = policy
        self._witness = witness

    def recognize(self, images: Sequence[Image]) -> list[Recognized]:
        """Say who is in each photo. Errors: GalleryModelError when gallery and embedder do not belong together."""
        detected = self.describer.detector.detect(images)
        described = embed(self.describer.embedder, detected)
        matched = match(self.matcher, described, self.policy)
        recognized = predict(matched, self.policy)
        if self._witness is not None:
            self._witness(recognized)
        return recognized

    def decide(self, photos: Sequence[Described]) -> list[Recognized]:
        """Do steps 3 and 4 alone, for photos whose faces are known already."""
        recognized = predict(match(self.matcher, photos, self.policy), self.policy)
        if self._witness is not None:
            self._witness(recognized)
        return recognized
