"""Videos of painted people, whom the fakes know, and a scan of one as a process of its own, to be killed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from facepipe.batch import thumbnails_of
from facepipe.catalog import videos
from facepipe.catalog.catalog import Catalog
from facepipe.catalog.scan import ScanOptions
from facepipe.embed.describer import Describer
from facepipe.types import Detected, Image, UInt8
from tests.fakes import FakeDetector, FakeEmbedder, picture
from tests.videos import write_video

#: Who is painted in each second of the usual video.
STORY = (("red",), ("red",), ("red", "blue"), ("blue",), (), (), (), (), ("red",), ("green",))


def paint_video(path: Path, story: Sequence[Sequence[str]] = STORY, rate: int = 4) -> Path:
    """Write a video in which these people are painted, a second each; its colours are nearly exact."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, frames(story, rate), rate=rate, pixels="yuv444p", options={"crf": "4", "g": str(rate)})


def frames(story: Sequence[Sequence[str]], rate: int) -> Iterator[UInt8]:
    for second, colours in enumerate(story):
        for number in range(rate):
            rgb = np.array(picture(*colours, size=(640, 480)).rgb)  # a chunk each
            rgb[:8, :] = 100 + (second * rate + number) % 50  # no two frames are alike
            yield rgb


class Looked(FakeDetector):
    """Counts the frames that it was shown, and takes `pause` seconds for each."""

    def __init__(self, pause: float = 0.0) -> None:
        self.count, self.pause = 0, pause

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        self.count += len(images)
        time.sleep(self.pause * len(images))
        return super().detect(images)


def describer(detector: FakeDetector | None = None) -> Describer:
    """Build one that takes a frame at a time."""
    return Describer(detector or FakeDetector(), FakeEmbedder(), photos=1, facts={"model": "fake:1", "max_side": 1280})


def main(place: Path) -> None:
    videos.NOTE_EVERY = 0.01
    options = ScanOptions(1, thumbnails=thumbnails_of)
    with Catalog(place / "c.catalog", write=True) as catalog:
        print("begun", flush=True)
        catalog.scan(
            [place / "clip.mkv"], describer(Looked(0.02)), options, show=lambda counts: print(counts.inside, flush=True)
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
