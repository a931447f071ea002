"""The values that flow between the stages, and the protocols of the engines that make them.

One colour order (RGB), one box convention (xyxy, float32, displayed pixels), one norm (unit). Shapes and ranges are
checked when a value is built, so that nothing that receives one need check again; arrays inside are read-only views.

    Image ──detect──▶ Detected ──embed──▶ Described ──match──▶ Matched ──predict──▶ Recognized
                       (Face)              (Embeddings)         (Candidate)            (Prediction)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from facepipe.certainty import LeadCertainty, ProbabilityCurve

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]

_Scalar = TypeVar("_Scalar", bound=np.generic)

#: Least score of a face that the detector is sure of.
SURE_SCORE = 0.7
#: Degrees by which a face may lean: the detector knows upright ones, and finds the landmarks of others badly.
MOST_LEAN = 60.0
#: A vector's length may differ from 1 by this much (float32 rounding, half-precision networks).
UNIT_TOLERANCE = 1e-3


def _frozen(
    array: NDArray[_Scalar], dtype: type[_Scalar], shape: tuple[int | None, ...], name: str
) -> NDArray[_Scalar]:
    """Return a read-only view of `array`; ValueError when its dtype or shape is not the expected one (None: any)."""
    if array.dtype != dtype:
        raise ValueError(f"{name}: expected dtype {np.dtype(dtype)}, got {array.dtype}")
    if array.ndim != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, array.shape, strict=True)
    ):
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A picture as displayed: the EXIF turn is applied.

    rgb: uint8 (H, W, 3). path: where it came from. scale: rgb pixels per displayed pixel, below 1 when it was decoded
    reduced; `width` and `height` are the size as displayed, and every box refers to that size. enlarge: where it was decoded
    reduced, decodes it again with this many pixels on its longer side, or as many as it has.
    """

    rgb: UInt8
    path: str = "<array>"
    size: tuple[int, int] | None = None  # displayed (width, height); None: that of rgb
    enlarge: Callable[[int], Image] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rgb", _frozen(self.rgb, np.uint8, (None, None, 3), "Image.rgb"))
        if min(self.rgb.shape[:2]) < 1:
            raise ValueError(f"Image.rgb: expected at least one pixel, got shape {self.rgb.shape}")
        if self.size is None:
            object.__setattr__(self, "size", (self.rgb.shape[1], self.rgb.shape[0]))

    @classmethod
    def from_bgr(cls, bgr: UInt8, path: str = "<array>") -> Image:
        """Return what OpenCV reads and films, uint8 (H, W, 3) in the order blue, green, red, as an image (a copy)."""
        return cls(np.ascontiguousarray(bgr[..., ::-1]), path)

    @property
    def width(self) -> int:
        """Displayed width in pixels."""
        assert self.size is not None
        return self.size[0]

    @property
    def height(self) -> int:
        """Displayed height in pixels."""
        assert self.size is not None
        return self.size[1]

    @property
    def scale(self) -> float:
        """Pixels of `rgb` per displayed pixel, 0 < scale <= 1."""
        return float(self.rgb.shape[1] / self.width)


@dataclass(frozen=True, slots=True)
class Quality:
    """How usable a face is.

    size: shorter side of the box in displayed pixels.
    sharpness: variance of the Laplacian of the grey face at 112x112 (0 blurred, some thousands sharp).
    yaw, pitch, roll: degrees, from the landmarks, 0 is frontal and upright.
    edge_density: share of strong-gradient pixels in the box, 0..1.
    usable: how likely it is, 0..1, that the embedding is nearest to its person. None: not embedded, or not measured for the network.
    """

    size: float
    sharpness: float
    yaw: float
    pitch: float
    roll: float
    edge_density: float
    usable: float | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """When a face is seen in a video: seconds of its first, last and best frame; frames: in how many it was found."""

    start: float
    end: float
    best: float
    frames: int

    def __post_init__(self) -> None:
        if not (self.start <= self.best <= self.end and self.frames >= 1):
            raise ValueError(f"Span: expected start <= best <= end and a frame or more, got {self}")

    def overlaps(self, other: Span | None) -> bool:
        """Say whether both are seen at one time; a face of a photo (None) is seen at any."""
        return other is None or (self.start <= other.end and other.start <= self.end)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of videos are looked at. every_seconds: one for each so many. keyframes: no other than those."""

    every_seconds: float = 1.0
    keyframes: bool = False

    def __post_init__(self) -> None:
        if not 0.01 <= self.every_seconds <= 86400.0:
            raise ValueError(f"every_seconds: expected 0.01 to 86400, got {self.every_seconds}")


@dataclass(frozen=True, slots=True)
class Clip:
    """What a video has besides faces. duration: seconds. damage: what could not be read, and from where on; None: all could be."""

    duration: float
    damage: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A face found in a picture, or in the frames of a video: then everything is of its best frame.

    box: float32 (4,), x1 y1 x2 y2 in displayed pixels, may reach over the border. score: 0..1, doubtful below `SURE_SCORE`.
    landmarks: float32 (5, 2), x y of the eye on the left of the upright face, the eye on its right, nose, mouth corner left, right.
    turn: 0, 90, 180 or 270: degrees clockwise by which the picture had to be turned to find it. enhanced: it was found in a
    picture that was brightened. span: when it is seen in a video; None in a photo.
    """

    box: Float32
    score: float
    landmarks: Float32
    quality: Quality
    turn: int = 0
    enhanced: bool = False
    span: Span | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", _frozen(self.box, np.float32, (4,), "Face.box"))
        object.__setattr__(self, "landmarks", _frozen(self.landmarks, np.float32, (5, 2), "Face.landmarks"))
        if not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise ValueError(f"Face.box: expected x1 < x2 and y1 < y2, got {self.box.tolist()}")
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"Face.score: expected 0..1, got {self.score}")

    @property
    def lean(self) -> float:
        """Degrees, -180 to below 180, by which the face leans clockwise in the picture in which it was found (see `turn`)."""
        return (self.quality.roll + self.turn + 180.0) % 360.0 - 180.0

    @property
    def doubtful(self) -> bool:
        """Whether this may not be a face, or one that is covered, turned away, lying or blurred."""
        return self.score < SURE_SCORE or abs(self.lean) > MOST_LEAN


def rotation_of(faces: Iterable[Face]) -> int:
    """Return by how many degrees clockwise, 0, 90, 180 or 270, a photo must be turned for its sure faces to stand.

    0 where they do, where they do not agree, and where there are none.
    """
    turns = {face.turn for face in faces if not face.doubtful}
    return turns.pop() if len(turns) == 1 else 0


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Unit vectors, float32 (n, d), and the fingerprint of the embedder that made them.

    usable: float32 (n,), see `Quality`; evidence: float32 (n,), at most 0, what each embedding adds to the log-odds of the score
    that it is of a face. None: not measured for this network.
    """

    vectors: Float32
    fingerprint: str
    usable: Float32 | None = None
    evidence: Float32 | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", _frozen(self.vectors, np.float32, (None, None), "Embeddings.vectors"))
        norms = np.linalg.norm(self.vectors, axis=1)
        if not np.all(np.abs(norms - 1.0) <= UNIT_TOLERANCE):
            raise ValueError(
                f"Embeddings.vectors: expected unit length, got lengths {norms.min():.4f} to {norms.max():.4f}"
            )

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person that a probe may be: cosine similarity -1..1 with the person's template, nearest enrolled face."""

    person: str
    similarity: float
    face_id: int | None = None


class Status(StrEnum):
    """The answer about one face."""

    KNOWN = "known"
    AMBIGUOUS = "ambiguous"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What facepipe says about one face.

    person: the name, only when status is known.
    similarity: of the best candidate, None in an empty gallery.
    probability: that the best candidate's name is right, 0..1, None when nothing is calibrated.
    candidates: best first.
    suggestion: who it probably is, when nobody is named: the name is more likely than not, `probability` says how likely.
    """

    face: Face
    status: Status
    person: str | None
    similarity: float | None
    probability: float | None
    threshold: float
    candidates: tuple[Candidate, ...] = ()
    suggestion: str | None = None

    def __post_init__(self) -> None:
        if (self.status is Status.KNOWN) != (self.person is not None):
            raise ValueError(
                f"Prediction: a person is named exactly when the status is known, got {self.status} {self.person}"
            )
        if self.probability is not None and not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"Prediction.probability: expected 0..1, got {self.probability}")


@dataclass(frozen=True, slots=True)
class Policy:
    """How stage 4 decides.

    threshold: cosine at and above which the best candidate is known.
    margin: the second person must be this much less similar, else the face is ambiguous.
    exclusive: one person at most once in one photo.
    top_k: candidates shown.
    curve: probability by similarity, None when nothing is calibrated.
    certainty: probability by similarity and lead; the lower of the two holds. None: that of the curve.
    """

    threshold: float
    margin: float
    exclusive: bool = True
    top_k: int = 3
    curve: ProbabilityCurve | None = field(default=None)
    certainty: LeadCertainty | None = field(default=None)

    def probability(self, similarity: float, lead: float) -> float | None:
        """Return the probability that the best candidate is right, None when nothing was measured.

        lead: cosine by which it is more similar than the next person; than nobody (0), when there is no other.
        """
        if self.curve is None:
            return None
        found = self.curve(similarity)
        return found if self.certainty is None else min(found, self.certainty(similarity, lead))

    def __post_init__(self) -> None:
        if not -1.0 <= self.threshold <= 1.0:
            raise ValueError(f"Policy.threshold: expected -1..1, got {self.threshold}")
        if self.margin < 0.0:
            raise ValueError(f"Policy.margin: expected 0 or more, got {self.margin}")
        if self.top_k < 1:
            raise ValueError(f"Policy.top_k: expected 1 or more, got {self.top_k}")


@dataclass(frozen=True, slots=True)
class DecideOptions:
    """What the user asked of stage 4. threshold, margin: None, as the gallery needs it. repeat: a person may be in a photo twice."""

    threshold: float | None = None
    margin: float | None = None
    repeat: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Detected:
    """A photo after step 1.

    image: the photo as it was read. faces: best score first; none is an answer. larger: the same photo in more pixels, where
    the faces are small in those that were read; None: there are no better ones.
    """

    image: Image
    faces: tuple[Face, ...]
    larger: Image | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """A photo after steps 1 and 2, made now or read back from a catalog.

    path: where it came from.
    size: displayed (width, height).
    faces: best score first; those of a video in the order in which they appear.
    embeddings: a unit vector for each face, in their order.
    image: its pixels, None when they are not at hand.
    clip: what a video has besides; None: it is a photo.
    """

    path: str
    size: tuple[int, int]
    faces: tuple[Face, ...]
    embeddings: Embeddings
    image: Image | None = None
    clip: Clip | None = None

    def __post_init__(self) -> None:
        if len(self.faces) != len(self.embeddings):
            raise ValueError(
                f"Described: {len(self.faces)} faces and {len(self.embeddings)} vectors do not fit each other"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """A photo after step 3. candidates: of each face, best first."""

    photo: Described
    candidates: tuple[tuple[Candidate, ...], ...]


@dataclass(frozen=True, slots=True)
class Recognized:
    """A photo after step 4.

    width, height: displayed pixels. predictions: one for each face. model: fingerprint of the embedder. clip: see `Described`.
    """

    path: str
    width: int
    height: int
    predictions: tuple[Prediction, ...]
    model: str
    clip: Clip | None = None

    @property
    def rotate(self) -> int:
        """Degrees clockwise by which the photo must be turned for its faces to stand; see `rotation_of`."""
        return rotation_of(prediction.face for prediction in self.predictions)


@dataclass(frozen=True, slots=True)
class Failed:
    """A photo that cannot be used. reason: one line that names it, says what is wrong and what to do."""

    path: str
    reason: str

    @property
    def predictions(self) -> tuple[Prediction, ...]:
        """Empty, so that a loop over the faces of many photos need not ask which photos failed."""
        return ()


class Detector(Protocol):
    """Stage 1 as an engine: finds faces in pictures of any sizes."""

    @property
    def name(self) -> str:
        """What `models` calls it, for records and messages."""
        ...

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        """Yield each picture with its faces, in order: one at a time, since larger ones should not wait in memory.

        Errors: ImageError when a photo cannot be decoded again for a closer look.
        """
        ...


class Embedder(Protocol):
    """Stage 2's network as an engine: turns aligned chips into unit vectors."""

    @property
    def name(self) -> str:
        """What `models` calls it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names network and weights: vectors are comparable exactly when their fingerprints are equal."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def template(self) -> str:
        """Name of the alignment template in `facepipe.embed.alignment` that its chips are cut with."""
        ...

    def embed(self, chips: UInt8) -> Embeddings:
        """Embed chips, uint8 RGB (n, H, W, 3) with the template's H and W; n may be 0."""
        ...


class Index(Protocol):
    """Stage 3's search as an engine: nearest neighbours among rows of vectors, by inner product."""

    def search(self, vectors: Float32, k: int) -> tuple[Float32, Int64]:
        """Return similarities and rows for vectors, float32 (n, d): both (n, k), best first; row -1 where there are fewer."""
        ...
