"""How step 1 searches: `DetectOptions`."""

from __future__ import annotations

from dataclasses import dataclass

from facepipe.detect.levels import CELL


@dataclass(frozen=True, slots=True)
class DetectOptions:
    """How to search for faces.

    min_face: smallest face in displayed pixels. A picture that is reduced is searched from one pyramid step below it, in pixels
        after the reduction.
    max_side: larger pictures are reduced to this many pixels on their longer side; None: never.
    thresholds: least probability that each of the three networks must give. The last two are below MTCNN's usual 0.7, since the
        second look decides: with 0.7 a third more of the usual script's faces are missed.
    factor: ratio of neighbouring pyramid scales.
    edge_gate: let the edge map rule out regions and scales before any network runs.
    second_look: show each face to the third network again, in its own box, mirrored, and a little larger. What is not a face
        rarely convinces it every time, and the mean of the landmarks is steadier. The mean score becomes the face's score.
    min_score: least mean score of a face. It is lower than the usual threshold of a single look, since covered, turned and
        blurred faces waver like things that are not faces. Below `SURE_SCORE` a face is doubtful.
    second_chance: where nothing certain is found, search the picture turned, with a border, and brightened (`chances`).
    true_border: what the networks say about a crop that the picture's border cuts off refers to what was cut out. False: to the
        whole box, as in facenet-pytorch, which misplaces the landmarks of such faces.
    """

    min_face: float = 40.0
    max_side: int | None = 1280
    thresholds: tuple[float, float, float] = (0.6, 0.6, 0.5)
    factor: float = 0.709
    edge_gate: bool = True
    second_look: bool = True
    min_score: float = 0.4
    second_chance: bool = True
    true_border: bool = True

    @classmethod
    def reference(cls, min_face: float = 20.0) -> DetectOptions:
        """Return the options with which boxes equal those of `facenet_pytorch.MTCNN(min_face_size=min_face)`."""
        return cls(
            min_face, None, (0.6, 0.7, 0.7), edge_gate=False, second_look=False, second_chance=False, true_border=False
        )

    def __post_init__(self) -> None:
        if self.min_face < CELL:
            raise ValueError(f"min_face: expected {CELL} pixels or more, got {self.min_face}")
        if not 0.0 < self.factor < 1.0:
            raise ValueError(f"factor: expected a value between 0 and 1, got {self.factor}")
        if not all(0.0 < threshold < 1.0 for threshold in self.thresholds):
            raise ValueError(f"thresholds: expected values between 0 and 1, got {self.thresholds}")
        if not 0.0 <= self.min_score <= 1.0:
            raise ValueError(f"min_score: expected a value between 0 and 1, got {self.min_score}")
