"""Photos of an evaluation: the chosen face, failures as data, and a cache that never lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from facepipe.embed.describer import Describer
from facepipe.errors import InputError, UsageError
from facepipe.evaluate.photo_set import choose_face, embed_photos
from facepipe.images import write_image
from facepipe.types import Detected, Image
from tests.fakes import FakeDetector, FakeEmbedder, face_at, picture


class CountingDetector(FakeDetector):
    """Counts the pictures it is shown."""

    def __init__(self) -> None:
        self.seen = 0

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        self.seen += len(images)
        return super().detect(images)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("red.png", "green.png", "nobody.png", "broken.png")]
    write_image(paths[0], picture("red").rgb)
    write_image(paths[1], picture("green").rgb)
    write_image(paths[2], picture().rgb)
    paths[3].write_bytes(b"no picture")
    return paths


def test_failures_are_data_with_a_reason(photos: list[Path]) -> None:
    done: list[int] = []
    found = embed_photos(photos, Describer(FakeDetector(), FakeEmbedder()), progress=done.append)
    assert found.found.tolist() == [True, True, False, False]
    assert found.failures[photos[2]] == "no face found"
    assert "unreadable" in found.failures[photos[3]]
    assert np.linalg.norm(found.vectors, axis=1).round(4).tolist() == [1, 1, 0, 0]
    assert sum(done) == 4
    assert found.take([1]).paths == (photos[1],)


def test_the_cache_gives_the_same_and_spares_the_work(photos: list[Path], tmp_path: Path) -> None:
    cache, detector = tmp_path / "c" / "cache.npz", CountingDetector()
    describer = Describer(detector, FakeEmbedder())
    first = embed_photos(photos, describer, cache=cache)
    again = embed_photos(photos, describer, cache=cache)
    assert detector.seen == 3  # the broken one never gets so far
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert first.failures == again.failures
    write_image(photos[1], picture("blue", size=(400, 240)).rgb)  # changed: done again
    changed = embed_photos(photos, describer, cache=cache)
    assert detector.seen == 4
    assert not np.allclose(changed.vectors[1], first.vectors[1])


def test_a_cache_of_another_model_rule_or_of_rubbish_is_not_used(photos: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache.npz"
    embed_photos(photos, Describer(FakeDetector(), FakeEmbedder()), cache=cache)
    for embedder, rule in ((FakeEmbedder(fingerprint="fake:2"), "largest"), (FakeEmbedder(), "centre")):
        detector = CountingDetector()
        embed_photos(photos, Describer(detector, embedder), rule, cache)
        assert detector.seen == 3
    cache.write_bytes(b"a damaged cache, reasons.npy")
    detector = CountingDetector()
    embed_photos(photos, Describer(detector, FakeEmbedder()), cache=cache)
    assert detector.seen == 3
    cache.write_bytes(b"rubbish")
    with pytest.raises(UsageError, match="did not write"):
        embed_photos(photos, Describer(detector, FakeEmbedder()), cache=cache)
    with pytest.raises(InputError, match="cannot be read"):
        embed_photos([tmp_path / "none.png"], Describer(FakeDetector(), FakeEmbedder()))


def test_the_face_is_the_largest_or_the_one_in_the_middle() -> None:
    image = Image(np.zeros((200, 200, 3), np.uint8))
    faces = (face_at(0, 0, 90), face_at(80, 80, 40))
    assert choose_face(image, faces, "largest") == 0
    assert choose_face(image, faces, "centre") == 1
    assert choose_face(image, (), "centre") is None
    with pytest.raises(ValueError, match="largest or centre"):
        choose_face(image, faces, "first")
