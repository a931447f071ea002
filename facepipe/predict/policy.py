"""From measured error rates to a decision: the policy of stage 4 for a gallery of a given size.

Where a gallery was calibrated (`facepipe calibrate`), its own threshold and probability hold; otherwise those of the
model's record, which `scripts/model_card` measured for gallery sizes from 1 (verification) to a million. A larger gallery
needs a higher threshold: each further person is one more chance to be mistaken for somebody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from facepipe.certainty import ProbabilityCurve
from facepipe.errors import GalleryModelError, ModelError
from facepipe.models.statistics import ModelStatistics, load_statistics
from facepipe.types import Policy

if TYPE_CHECKING:
    from facepipe.models.registry import ModelRecord


#: The false positive identification rate that facepipe promises when nobody asks for another.
TARGET_FPIR = 0.01


def policy_for(
    record: ModelRecord,
    gallery_size: int,
    calibration: Mapping[str, Any] | None = None,
    target_fpir: float | None = None,
    *,
    threshold: float | None = None,
    margin: float | None = None,
    exclusive: bool = True,
    top_k: int = 3,
) -> Policy:
    """Return how stage 4 decides for a gallery of `gallery_size` people.

    calibration: what `Gallery.calibration()` returns. A calibrated threshold holds for the size at which it was measured;
    when the gallery has grown since, it is raised by as much as the record's threshold rises between the two sizes (it is
    not lowered when the gallery shrinks). target_fpir: None means the calibration's own target, or TARGET_FPIR; another
    target than the calibrated one falls back on the record. threshold, margin: override everything.
    Errors: GalleryModelError for a calibration of another network; ModelError when the model has no threshold;
    UsageError for a target that nothing was measured for.
    """
    statistics = load_statistics(record)
    if calibration is not None and calibration["model"] != record.fingerprint:
        raise GalleryModelError(
            f"the gallery was calibrated for {calibration['model']}, not for {record.fingerprint}: "
            "run `facepipe calibrate` again"
        )
    own = calibration is not None and target_fpir in (None, calibration["target_fpir"])
    if own and calibration is not None:
        found, gap = float(calibration["threshold"]), float(calibration["margin"])
        before = int(calibration["gallery_size"])
        if statistics is not None and gallery_size > before:
            target = min(max(float(calibration["target_fpir"]), 0.001), 0.1)
            found += statistics.threshold(gallery_size, target) - statistics.threshold(before, target)
    elif statistics is not None:
        found, gap = statistics.threshold(gallery_size, target_fpir or TARGET_FPIR), statistics.margin
    elif threshold is not None:
        found, gap = threshold, record.margin or 0.0
    elif target_fpir is not None:
        raise ModelError(
            f"model {record.name!r}: no error rates are recorded; run `facepipe calibrate`, or give --threshold"
        )
    else:
        found, gap = record.decision()
    return Policy(
        threshold=min(1.0, found) if threshold is None else threshold,
        margin=gap if margin is None else margin,
        exclusive=exclusive,
        top_k=top_k,
        curve=_curve(calibration, statistics, gallery_size),
        certainty=None if calibration is not None or statistics is None else statistics.certainty,
    )


def limits_for(record: ModelRecord, gallery_size: int, fpir: float) -> tuple[float, float | None]:
    """Return the margin of a model's record, and its threshold for a gallery of this size where it was measured for the FPIR."""
    statistics = load_statistics(record)
    if statistics is None:
        return record.margin or 0.0, None
    measured = 0.001 <= fpir <= 0.1
    return statistics.margin, policy_for(record, gallery_size, target_fpir=fpir).threshold if measured else None


def _curve(
    calibration: Mapping[str, Any] | None, statistics: ModelStatistics | None, gallery_size: int
) -> ProbabilityCurve | None:
    if calibration is not None and calibration.get("curve"):
        curve = calibration["curve"]
        return ProbabilityCurve(tuple(curve["similarity"]), tuple(curve["probability"]))
    return statistics.curve(gallery_size) if statistics is not None else None
