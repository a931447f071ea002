"""What a batch has come to, as numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from facepipe.text import files


@dataclass(slots=True)
class Counts:
    """What a batch has come to.

    found: photos and videos met. videos: so many of these. resumed: of those found, done by an earlier run.
    compared: decided anew, with faces that an earlier run had found.
    fresh: scanned. reused: of the latter, equal to one that was done. failed: that cannot be used.
    cut_short: videos of which not all could be read.
    vanished: met by an earlier run and gone; gone: of these, those that this run is the first to miss.
    left: met by the run before, still there, but not in the input any more. faces, known, ambiguous, unknown: faces.
    maybe: of the unknown, those that are probably somebody.
    damaged: photos whose faces could not be read in the catalog, and were found again.
    problems: of those found, named but not there, or no photos at all. decided: photos with a new result.
    sidecars: written beside photos. unwritten: those that could not be.
    passed: what lay among them and is no photo, in words.
    inside: how far the video is that is being looked at, in words; empty for none.
    stage: what is going on, `scan`, `decide` or `outputs`. done: photos that went through this stage. seconds: since the run began.
    """

    found: int = 0
    videos: int = 0
    resumed: int = 0
    compared: int = 0
    fresh: int = 0
    reused: int = 0
    failed: int = 0
    cut_short: int = 0
    vanished: int = 0
    gone: int = 0
    left: int = 0
    faces: int = 0
    known: int = 0
    ambiguous: int = 0
    unknown: int = 0
    maybe: int = 0
    damaged: int = 0
    decided: int = 0
    problems: int = 0
    sidecars: int = 0
    unwritten: int = 0
    passed: str = ""
    inside: str = ""
    stage: str = "scan"
    done: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def at(self, stage: str, done: int) -> Counts:
        """Note how far a stage is, and the time."""
        self.stage, self.done, self.seconds = stage, done, time.monotonic() - self.started
        return self

    def files(self, count: int) -> str:
        """Return how many some of those found are, in words."""
        return files(count, None if self.videos else 0)


Show = Callable[[Counts], object]
