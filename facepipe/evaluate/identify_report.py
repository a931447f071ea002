"""What open-set identification came to: the report, its tables' rows, its worst cases, and its JSON document."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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

    source: str
    searches: int
    people: int
    fpir: float
    fpir_interval_95: tuple[float, float]
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
    """One group: its FPIR and FNIR at the overall threshold."""

    group: str
    mated_searches: int
    non_mated_searches: int
    fnir: float | None
    fpir: float | None
    fpir_interval_95: tuple[float, float] | None
    warning: str | None


@dataclass(frozen=True, slots=True)
class IdentificationFigures:
    """What the JSON document of an open-set run holds. Rates are shares 0..1, intervals are 95 % over people and repetitions.

    Where the strangers are too few to show any FPIR, what would be measured at one is empty.
    """

    model: str
    people: int
    enrolled: int
    probes: int
    mated_searches: int
    non_mated_searches: int
    strangers: int
    repeats: int
    failed_to_enrol: int
    people_not_enrolled: int
    rank1: float
    cmc: tuple[float, ...]
    fnir_at_fpir: dict[str, float]
    threshold_at_fpir: dict[str, float]
    more_strangers_needed: dict[str, int]
    intervals_95: dict[str, tuple[float, float]]
    wrong_names: float | None = None
    by_source: tuple[SourceRow, ...] = ()
    relatives: SourceRow | None = None
    fusions: tuple[FusionRow, ...] = ()
    gallery_sizes: tuple[SizeRow, ...] = ()
    groups: tuple[GroupErrors, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class IdentificationReport:
    """An open-set run: its figures, and what its sheet draws.

    false_names: the strangers with the highest scores, each photo once: probe, enrolled photo of the name, score.
    missed: the enrolled people whose searches missed by most, or came closest to it, with the photo of who came first.
    """

    figures: IdentificationFigures
    searches: Searches
    relative_searches: Searches | None
    false_names: tuple[Case, ...]
    missed: tuple[Case, ...]
    grid_band: tuple[Float64, Float64] | None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document's content."""
        return {"schema_version": 1, **asdict(self.figures)}

    def warnings(self) -> list[str]:
        """Return a line for each source and group whose false positive rate is over twice the overall one."""
        found = self.figures
        rows = (*found.by_source, *((found.relatives,) if found.relatives else ()), *found.groups)
        return [row.warning for row in rows if row.warning]
