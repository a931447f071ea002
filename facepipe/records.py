"""The JSON record of a photo: the one form in which results leave the program, and from which every report is made.

    {"schema_version", "path", "width", "height", "error", "rotate",
     "faces": [{"box": [x1, y1, x2, y2], "score", "landmarks", "quality", "turn", "enhanced", "status", "person",
                "similarity", "probability", "threshold", "candidates": [{"person", "similarity"}], "suggestion"}],
     "model"}

The record of a video has besides, and no photo's has:

     "duration": seconds, "damage": what could not be read, null when all could be,
     "tracks": [{"from", "to", "person", "best_frame", "frames"}]   of each face, in their order; times in seconds

Numbers are rounded here and nowhere else, so that two runs, or two outputs of one run, can be compared as text. A number
that is not finite is null: the records are strict JSON.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from facepipe.types import Face, Failed, Prediction, Recognized

#: Raised when a field changes its meaning or goes away; a new field does not change it.
SCHEMA_VERSION = 1

Record = dict[str, Any]

_QUALITY_DIGITS = {"size": 1, "sharpness": 1, "yaw": 1, "pitch": 1, "roll": 1, "edge_density": 3, "usable": 2}


def to_record(result: Recognized | Failed, model: str = "") -> Record:
    """Return the record of a photo (see the top of this module). model: fingerprint of the embedder, for a photo that failed.

    Coordinates are displayed pixels to 0.01; scores, similarities and probabilities have four decimals.
    """
    photo: Record = {"schema_version": SCHEMA_VERSION, "path": readable(result.path)}
    if isinstance(result, Failed):
        return {
            **photo,
            "width": None,
            "height": None,
            "error": readable(result.reason),
            "rotate": 0,
            "faces": [],
            "model": model,
        }
    faces = [_prediction(prediction) for prediction in result.predictions]
    return {
        **photo,
        "width": result.width,
        "height": result.height,
        "error": None,
        "rotate": result.rotate,
        "faces": faces,
        "model": result.model,
        **_video(result, faces),
    }


def _video(result: Recognized, faces: list[Record]) -> Record:
    """Return what only the record of a video has: a face of it is a track, and all that is said of it is of the best frame."""
    if result.clip is None:
        return {}
    spans = [prediction.face.span for prediction in result.predictions]
    tracks = [
        {
            "from": rounded(span.start, 2),
            "to": rounded(span.end, 2),
            "person": face["person"],
            "best_frame": rounded(span.best, 2),
            "frames": span.frames,
        }
        for face, span in zip(faces, spans, strict=True)
        if span is not None
    ]
    damage = None if result.clip.damage is None else readable(result.clip.damage)
    return {"duration": rounded(result.clip.duration, 2), "damage": damage, "tracks": tracks}


def track_of(record: Record, number: int) -> Record | None:
    """Return the track of a face of a video, by its place from 0; None in a photo."""
    return record["tracks"][number] if "tracks" in record else None


def face_record(face: Face) -> Record:
    """Return what step 1 alone knows of a face: box, score, landmarks, quality."""
    return {
        "box": [rounded(value, 2) for value in face.box],
        "score": rounded(face.score, 4),
        "landmarks": [[rounded(x, 2), rounded(y, 2)] for x, y in face.landmarks],
        "quality": {name: rounded(getattr(face.quality, name), digits) for name, digits in _QUALITY_DIGITS.items()},
        "turn": face.turn,
        "enhanced": face.enhanced,
    }


def _prediction(prediction: Prediction) -> Record:
    return {
        **face_record(prediction.face),
        "status": str(prediction.status),
        "person": None if prediction.person is None else readable(prediction.person),
        "similarity": rounded(prediction.similarity, 4),
        "probability": rounded(prediction.probability, 4),
        "threshold": rounded(prediction.threshold, 4),
        "candidates": [
            {"person": readable(candidate.person), "similarity": rounded(candidate.similarity, 4)}
            for candidate in prediction.candidates
        ],
        "suggestion": None if prediction.suggestion is None else readable(prediction.suggestion),
    }


def rounded(value: float | np.floating[Any] | None, digits: int) -> float | None:
    """Round to a Python float; None for None and for what is not finite. There is one zero: -0.0 becomes 0.0."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), digits) + 0.0


def readable(text: str) -> str:
    """Return text that can be written as UTF-8: bytes of a file name that were none appear as escapes (`\\udcff`)."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def dumps(value: object, *, indent: int | None = None) -> str:
    """Return strict JSON in UTF-8: names stay readable, NaN is a ValueError; one line unless indent is given."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
