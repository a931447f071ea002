"""What was measured of a model: thresholds and certainty by gallery size, as `scripts/model_card` wrote them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facepipe.certainty import LeadCertainty, ProbabilityCurve
from facepipe.errors import ModelError, UsageError
from facepipe.models.registry import ModelRecord

STATISTICS = Path(__file__).with_name("calibration")


@dataclass(frozen=True, slots=True)
class SizeStatistics:
    """What was measured for one gallery size.

    thresholds: for each target FPIR the cosine.
    bounds: the 95 % upper bound of the FPIR there.
    measured: for each target, whether it was measured or is extrapolated.
    curve: probability that the best candidate is right.
    """

    gallery_size: int
    thresholds: Mapping[float, float]
    bounds: Mapping[float, float]
    measured: Mapping[float, bool]
    curve: ProbabilityCurve


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """A model's measured behaviour; sizes rise. margin: cosine that the best candidate must lead by. certainty: see LeadCertainty."""

    fingerprint: str
    margin: float
    sizes: tuple[SizeStatistics, ...]
    card: Mapping[str, Any]
    certainty: LeadCertainty | None = None

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
        lead = values.get("certainty")
        certainty = None if lead is None else LeadCertainty(**{**lead, "leads": tuple(map(tuple, lead["leads"]))})
        return ModelStatistics(values["fingerprint"], float(values["margin"]), sizes, values["card"], certainty)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ModelError(f"{path}: the model's statistics are damaged ({error}); install facepipe again") from error
