"""From measured error rates to a decision: the policy of stage 4 for a gallery of a given size.

Where a gallery was calibrated (`facepipe calibrate`), its own threshold and probability hold; otherwise those of the
model's record, which `scripts/model_card` measured for gallery sizes from 1 (verification) to a million. A larger gallery
needs a higher threshold: each further person is one more chance to be mistaken for somebody.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facepipe.errors import GalleryModelError, ModelError, UsageError
from facepipe.types import Policy, ProbabilityCurve

if TYPE_CHECKING:
    from facepipe.networks.registry import ModelRecord

STATISTICS = Path(__file__).parent / "networks" / "calibration"

#: The false positive identification rate that facepipe promises when nobody asks for another.
TARGET_FPIR = 0.01


@dataclass(frozen=True, slots=True)
class SizeStatistics:
    """What was measured for one gallery size.

    thresholds: for each target FPIR the cosine. bounds: the 95 % upper bound of the FPIR there. measured: for each target,
    whether it was measured or is extrapolated. curve: probability that the best candidate is right.
    """

    gallery_size: int
    thresholds: Mapping[float, float]
    bounds: Mapping[float, float]
    measured: Mapping[float, bool]
    curve: ProbabilityCurve


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """A model's measured behaviour; sizes rise. margin: cosine that the best candidate must lead by."""

    fingerprint: str
    margin: float
    sizes: tuple[SizeStatistics, ...]
    card: Mapping[str, Any]

    def threshold(self, gallery_size: int, target_fpir: float) -> float:
        """Return the threshold for a gallery size and FPIR, interpolated between measured ones on log scales.

        Outside the measured sizes the nearest holds. UsageError for an FPIR outside the measured ones.
        """
        targets = sorted(self.sizes[0].thresholds)
        if not targets[0] <= target_fpir <= targets[-1]:
            raise UsageError(
                f"no threshold is recorded for FPIR {target_fpir:g}: choose {targets[0]:g} to {targets[-1]:g}, "
                "or give --threshold"
            )
        logs = [math.log(target) for target in targets]
        return self._at_size(
            gallery_size,
            [_between(math.log(target_fpir), logs, [s.thresholds[t] for t in targets]) for s in self.sizes],
        )

    def curve(self, gallery_size: int) -> ProbabilityCurve:
        """Return the probability curve for a gallery size, interpolated between the neighbouring sizes."""
        knots = self.sizes[0].curve.similarity
        columns = zip(*(size.curve.probability for size in self.sizes), strict=True)
        # Interpolation may lose the order of equal values by rounding; the running maximum restores it.
        rising = itertools.accumulate((self._at_size(gallery_size, values) for values in columns), max)
        return ProbabilityCurve(knots, tuple(rising))

    def _at_size(self, gallery_size: int, values: Sequence[float]) -> float:
        places = [math.log(size.gallery_size) for size in self.sizes]
        return _between(math.log(max(1, gallery_size)), places, values)


def _between(place: float, places: Sequence[float], values: Sequence[float]) -> float:
    """Interpolate linearly; the end values hold outside."""
    if place <= places[0]:
        return values[0]
    for left, right, low, high in zip(places, places[1:], values, values[1:], strict=False):
        if place <= right:
            return low + (high - low) * (place - left) / (right - left)
    return values[-1]


def load_statistics(record: ModelRecord) -> ModelStatistics | None:
    """Read what was measured for a model; None when nothing was, or it was for other weights of the same name.

    ModelError when the shipped file is damaged.
    """
    path = STATISTICS / f"{record.name}.json"
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["fingerprint"] != record.fingerprint:
            return None
        sizes = tuple(
            SizeStatistics(
                int(row["gallery_size"]),
                {float(rate): float(value) for rate, value in row["thresholds"].items()},
                {float(rate): float(value) for rate, value in row["fpir_bounds_95"].items()},
                {float(rate): bool(value) for rate, value in row["measured"].items()},
                ProbabilityCurve(tuple(row["curve"]["similarity"]), tuple(row["curve"]["probability"])),
            )
            for row in values["sizes"]
        )
        if len({size.curve.similarity for size in sizes}) != 1:
            raise ValueError("the curves of all sizes must share their knots")
        return ModelStatistics(values["fingerprint"], float(values["margin"]), sizes, values["card"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ModelError(f"{path}: the model's statistics are damaged ({error}); install facepipe again") from error


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
        threshold=min(1.0, found if threshold is None else threshold),
        margin=gap if margin is None else margin,
        exclusive=exclusive,
        top_k=top_k,
        curve=_curve(calibration, statistics, gallery_size),
    )


def _curve(
    calibration: Mapping[str, Any] | None, statistics: ModelStatistics | None, gallery_size: int
) -> ProbabilityCurve | None:
    if calibration is not None and calibration.get("curve"):
        curve = calibration["curve"]
        return ProbabilityCurve(tuple(curve["similarity"]), tuple(curve["probability"]))
    return statistics.curve(gallery_size) if statistics is not None else None
