"""Faces of a video's frames linked into tracks: tracking by detection, a frame at a time.

Each track is compared with each face of the next frame, and all are assigned together so that what is linked is most alike (Kuhn
1955, "The Hungarian method for the assignment problem"). What counts is the overlap with the track's last box and the cosine
with its mean embedding (as in Wojke et al. 2017, "Simple online and realtime tracking with a deep association metric"). Frames lie
a second or so apart, in which people walk through the picture: so a cosine that two people hardly have links wherever the face is,
and an overlap links only where the embeddings do not speak against it. Boxes are not predicted.

Cuts are told by colour histograms (intersection, Swain and Ballard 1991).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from facepipe.types import Described, Embeddings, Face, Float32, Image, Span

#: Raised when frames are chosen, or faces linked, in another way.
BEHAVIOUR = 1
#: Cosine with a track's mean from which on a face is the track's, wherever it is. 1 of 400 pairs of people have it; in the videos of
#: `scripts/bench video` tracks are mixed from 0.3 down, and people who turn are lost more often from 0.5 up.
SAME = 0.4
#: Overlap from which on a face is the track's, where the cosine reaches `NEAR`, or one of the two is too poor to tell.
OVERLAP, NEAR = 0.3, 0.2
#: See `Quality.usable`. Below that a face of the same person may have any cosine.
_TELLS = 0.6
#: What an overlap counts beside a cosine: it decides where embeddings are poor, and not between two people who cross.
_OF_OVERLAP = 1 / 3
#: Frames in a row in which a track may be missed.
MISSED = 3
#: Share of the colours that two frames have in common, below which there is a cut between them.
CUT = 0.45
_BINS = 4
#: Columns of `TrackerState.rest` before the total.
REST = 6
#: A closed track.
_ENDED = np.iinfo(np.int16).max


@dataclass(slots=True, eq=False)
class _Track:
    """face: of the best frame, with the span so far. total: sum of the weighted vectors. box: the last one. missed: frames since."""

    face: Face
    weight: float
    total: Float32
    box: Float32
    missed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class TrackerState:
    """What a tracker goes on from.

    tracks: so far. rest: float64 (n, REST + d), of each the last box, missed frames, weight, and the total. look: of the last frame.
    """

    tracks: Described
    rest: NDArray[np.float64]
    look: Float32


class Tracker:
    """Links the faces of frames into tracks."""

    def __init__(self, path: str = "", state: TrackerState | None = None) -> None:
        """path: what the video is called. state: goes on from there."""
        self.path, self.size, self.fingerprint = path, (0, 0), ""
        self._tracks: list[_Track] = []
        self._look: Float32 | None = None
        self._dim = 0
        if state is not None:
            self._resume(state)

    def add(self, frame: Described, time: float, look: Float32) -> list[int]:
        """Add the next frame; return the track, from 0 in the order of appearance, of each of its faces. look: see `look_of`."""
        vectors = frame.embeddings.vectors
        self.size, self.fingerprint, self._dim = frame.size, frame.embeddings.fingerprint, vectors.shape[1]
        if self._look is not None and is_cut(self._look, look):
            for track in self._tracks:
                track.missed = _ENDED
        self._look = look
        going = [number for number, track in enumerate(self._tracks) if track.missed <= MISSED]
        linked = dict(assign(*self._similar(going, frame.faces, vectors)))
        numbers = []
        for place, face in enumerate(frame.faces):
            if place in linked:
                number = going[linked[place]]
                self._extend(self._tracks[number], face, vectors[place], time)
            else:
                number = len(self._tracks)
                self._begin(face, vectors[place], time)
            numbers.append(number)
        for number in set(going).difference(numbers):
            self._tracks[number].missed += 1
        return numbers

    def best_at(self, number: int) -> float:
        """Return the time of a track's best frame so far."""
        span = self._tracks[number].face.span
        assert span is not None
        return span.best

    def described(self) -> Described:
        """Return the tracks as the faces of one photo, in the order of appearance: each its best frame's, its vectors as one."""
        vectors = np.zeros((len(self._tracks), self._dim), np.float32)
        for row, track in enumerate(self._tracks):
            vectors[row] = track.total / max(float(np.linalg.norm(track.total)), 1e-12)
        faces = tuple(track.face for track in self._tracks)
        return Described(self.path, self.size, faces, Embeddings(vectors, self.fingerprint))

    @property
    def state(self) -> TrackerState:
        """What another tracker can go on from."""
        rest = np.zeros((len(self._tracks), REST + self._dim))
        for row, track in enumerate(self._tracks):
            rest[row] = (*track.box, track.missed, track.weight, *track.total)
        return TrackerState(self.described(), rest, np.zeros(0, np.float32) if self._look is None else self._look)

    def _resume(self, state: TrackerState) -> None:
        found = state.tracks
        self.size, self.fingerprint = found.size, found.embeddings.fingerprint
        self._dim, self._look = found.embeddings.vectors.shape[1], state.look if len(state.look) else None
        for face, rest in zip(found.faces, state.rest, strict=True):
            box, total = rest[:4].astype(np.float32), rest[REST:].astype(np.float32)
            self._tracks.append(_Track(face, float(rest[5]), total, box, int(rest[4])))

    def _similar(self, going: Sequence[int], faces: Sequence[Face], vectors: Float32) -> tuple[Float32, Float32]:
        """Return cosines and overlaps, (faces, tracks) each; of what cannot be linked the cosine is -inf."""
        cosines = np.full((len(faces), len(going)), -np.inf, np.float32)
        overlaps = np.zeros_like(cosines)
        for column, number in enumerate(going):
            track = self._tracks[number]
            mean = track.total / max(float(np.linalg.norm(track.total)), 1e-12)
            for row, face in enumerate(faces):
                cosine, overlap = float(vectors[row] @ mean), overlap_of(face.box, track.box)
                poor = min(_usable(face), _usable(track.face)) < _TELLS
                if cosine >= SAME or (overlap >= OVERLAP and (poor or cosine >= NEAR)):
                    cosines[row, column], overlaps[row, column] = cosine, overlap
        return cosines, overlaps

    def _begin(self, face: Face, vector: Float32, time: float) -> None:
        weight = weight_of(face)
        seen = replace(face, span=Span(time, time, time, 1))
        self._tracks.append(_Track(seen, weight, vector * np.float32(weight), face.box))

    def _extend(self, track: _Track, face: Face, vector: Float32, time: float) -> None:
        weight, span = weight_of(face), track.face.span
        assert span is not None
        better = (weight, face.quality.size) > (track.weight, track.face.quality.size)
        span = Span(span.start, time, time if better else span.best, span.frames + 1)
        track.face = replace(face if better else track.face, span=span)
        track.weight = max(weight, track.weight)
        track.total = track.total + vector * np.float32(weight)
        track.box, track.missed = face.box, 0


def assign(cosines: Float32, overlaps: Float32) -> list[tuple[int, int]]:
    """Return (row, column) of what is linked: of all ways, the one in which it is most alike together.

    cosines, overlaps: (rows, columns); -inf: cannot be linked.
    """
    possible = np.isfinite(cosines)
    if not possible.any():
        return []
    # A weak link gains hardly more than none: a good one is not given up so that two weak ones can be made.
    gain = np.where(possible, np.maximum(cosines - NEAR, 0.0) + _OF_OVERLAP * overlaps + 1e-3, 0.0)
    rows, columns = np.arange(len(gain)), gain.argmax(axis=1)
    linked = columns[possible.any(axis=1)]
    if len(np.unique(linked)) < len(
        linked
    ):  # two faces are most like one track: only now a solver, half a second to import
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(gain, maximize=True)
    return [(row, column) for row, column in zip(rows.tolist(), columns.tolist(), strict=True) if possible[row, column]]


def weight_of(face: Face) -> float:
    """Return how much a frame's face counts in its track: how likely it is one, and its embedding right; above 0."""
    return max(face.score * _usable(face), 1e-3)


def overlap_of(one: Float32, other: Float32) -> float:
    """Return intersection over union of two boxes."""
    width, height = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = max(0.0, float(width)) * max(0.0, float(height))
    areas = sum(float((box[2] - box[0]) * (box[3] - box[1])) for box in (one, other))
    return shared / max(areas - shared, 1e-9)


def look_of(image: Image) -> Float32:
    """Return what a frame looks like, float32 (64,): shares of its colours."""
    step = max(1, min(image.rgb.shape[:2]) // 64)
    small = np.ascontiguousarray(image.rgb[::step, ::step])
    counts = cv2.calcHist([small], [0, 1, 2], None, [_BINS] * 3, [0, 256] * 3)
    return np.asarray(counts.ravel() / counts.sum(), np.float32)


def is_cut(one: Float32, other: Float32) -> bool:
    """Say whether there is a cut between two frames."""
    return float(np.minimum(one, other).sum()) < CUT


def _usable(face: Face) -> float:
    return 1.0 if face.quality.usable is None else face.quality.usable


def link(frames: Iterable[tuple[float, Described, Float32]], path: str = "") -> Described:
    """Return the tracks of all frames: time, faces, look of each, in order."""
    tracker = Tracker(path)
    for time, frame, look in frames:
        tracker.add(frame, time, look)
    return tracker.described()
