"""What open-set identification came to: the report, its tables' rows, its worst cases, and its JSON document."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facepipe.evaluate.metrics import Float64
from facepipe.evaluate.searching import Searches
from facepipe.types import Float32


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Two photos that were taken for one person, or were not: their paths, their faces' boxes, their score."""

    first: Path
    second: Path
    first_box: Float32 | None
    second_box: Float32 | None
    score: float


@dataclass(frozen=True, slots=True)
class SourceRow:
    """Searches of one source of strangers (or one group) at a threshold: how many, of how many people, FPIR."""

    name: str
    searches: int
    people: int
    fpir: float
    interval: tuple[float, float]
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class FusionRow:
    """One way to fuse templates and one margin: threshold for the FPIR, FNIR there, share that is ambiguous."""

    fusion: str
    margin: float
    fpir: float
    threshold: float
    fnir: float
    rank1: float
    ambiguous: float


@dataclass(frozen=True, slots=True)
class SizeRow:
    """One gallery size: FNIR with the threshold chosen for it; FPIR at the full gallery's threshold against theory."""

    gallery_size: int
    threshold: float
    fnir: float
    rank1: float
    fpir_at_full_threshold: float
    independent_fpir: float


@dataclass(frozen=True, slots=True)
class GroupErrors:
    """One group: its FPIR and FNIR at the whole's threshold."""

    group: str
    mated: int
    non_mated: int
    fnir: float | None
    fpir: float | None
    fpir_interval: tuple[float, float] | None
    warning: str | None


@dataclass(frozen=True, slots=True, eq=False)
class IdentificationReport:
    """All figures of one open-set run. Rates are shares 0..1, intervals are 95 % over people and repetitions.

    false_names: the strangers with the highest scores, each photo once: probe, enrolled photo of the name, score. missed:
    the enrolled people whose searches missed by most, or came closest to it, with the photo of who came first. Where the
    strangers are too few to show any FPIR, what would be measured at one is empty.
    """

    rank1: float
    cmc: Float64
    fnir_at_fpir: dict[str, float]
    threshold_at_fpir: dict[str, float]
    needs: dict[str, int]
    intervals: dict[str, tuple[float, float]]
    people: int
    enrolled: int
    probes: int
    mated: int
    non_mated: int
    strangers: int
    repeats: int
    failed_to_enrol: int
    people_not_enrolled: int
    wrong_names: float | None
    sources: tuple[SourceRow, ...]
    relatives: SourceRow | None
    fusions: tuple[FusionRow, ...]
    sizes: tuple[SizeRow, ...]
    groups: tuple[GroupErrors, ...]
    model: str
    searches: Searches
    relative_searches: Searches | None
    false_names: tuple[Case, ...]
    missed: tuple[Case, ...]
    grid_band: tuple[Float64, Float64] | None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document's content."""
        return {
            "schema_version": 1,
            "model": self.model,
            "people": self.people,
            "enrolled": self.enrolled,
            "probes": self.probes,
            "mated_searches": self.mated,
            "non_mated_searches": self.non_mated,
            "strangers": self.strangers,
            "repeats": self.repeats,
            "failed_to_enrol": self.failed_to_enrol,
            "people_not_enrolled": self.people_not_enrolled,
            "rank1": self.rank1,
            "cmc": [float(v) for v in self.cmc],
            "fnir_at_fpir": self.fnir_at_fpir,
            "threshold_at_fpir": self.threshold_at_fpir,
            "more_strangers_needed": self.needs,
            "intervals_95": {name: list(pair) for name, pair in self.intervals.items()},
            "wrong_names": self.wrong_names,
            "by_source": [_source_dict(row) for row in self.sources],
            "relatives": _source_dict(self.relatives) if self.relatives else None,
            "fusions": [
                {
                    "fusion": f.fusion,
                    "margin": f.margin,
                    "fpir": f.fpir,
                    "threshold": f.threshold,
                    "fnir": f.fnir,
                    "rank1": f.rank1,
                    "ambiguous": f.ambiguous,
                }
                for f in self.fusions
            ],
            "gallery_sizes": [
                {
                    "gallery_size": s.gallery_size,
                    "threshold": s.threshold,
                    "fnir": s.fnir,
                    "rank1": s.rank1,
                    "fpir_at_full_threshold": s.fpir_at_full_threshold,
                    "independent_fpir": s.independent_fpir,
                }
                for s in self.sizes
            ],
            "groups": [
                {
                    "group": g.group,
                    "mated_searches": g.mated,
                    "non_mated_searches": g.non_mated,
                    "fnir": g.fnir,
                    "fpir": g.fpir,
                    "fpir_interval_95": g.fpir_interval,
                    "warning": g.warning,
                }
                for g in self.groups
            ],
        }


def _source_dict(row: SourceRow) -> dict[str, Any]:
    return {
        "source": row.name,
        "searches": row.searches,
        "people": row.people,
        "fpir": row.fpir,
        "fpir_interval_95": list(row.interval),
        "warning": row.warning,
    }
