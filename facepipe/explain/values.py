"""What an explanation is: a sentence, figures, pictures, maps."""

from __future__ import annotations

from dataclasses import dataclass, field

from facepipe.records import Record
from facepipe.types import Float32, UInt8


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Why a face got its answer.

    sentence: in one sentence. facts: all figures, as JSON has them (see docs/explain.md). pictures: uint8 RGB by name. maps: over
    the aligned face, float32 (size, size), by what they speak for: `person`, `rather` (than the next), `gradient`.
    """

    sentence: str
    facts: Record
    pictures: dict[str, UInt8] = field(default_factory=dict)
    maps: dict[str, Float32] = field(default_factory=dict)
