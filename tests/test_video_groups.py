"""The faces of videos in a pile: who is seen at one time is not one person, and the review page shows the best frame."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from facepipe.catalog.catalog import Catalog
from facepipe.errors import InputError
from facepipe.groups.pile import Pile, read_pile
from facepipe.groups.shown import CatalogPhoto, PhotoFace
from facepipe.groups.thumbnails import thumbnail_of
from facepipe.review.pictures import picture, thumbnails
from facepipe.review.shown import photo_json
from tests.batch_fixtures import paint
from tests.video_fixtures import describer, paint_video


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory) -> Pile:
    folder = tmp_path_factory.mktemp("pile")
    paths = [paint(folder / "a.png", "red", "blue"), paint_video(folder / "clip.mkv"), paint(folder / "z.png", "red")]
    with Catalog(folder / "c.catalog", write=True) as catalog:
        catalog.scan(paths, describer())
        return read_pile(catalog)


def test_two_faces_share_a_moment_exactly_when_they_are_seen_at_one_time(pile: Pile) -> None:
    spans = [pile.face(row).span for row in range(len(pile))]
    assert [span and (span.start, span.end) for span in spans] == [None, None, (0, 2), (2, 3), (8, 8), (9, 9), None]
    pairs = {(a, b) for a in range(7) for b in range(a) if pile.at_once(a) & pile.at_once(b)}
    assert pairs == {(1, 0), (3, 2)}


def shown(pile: Pile) -> CatalogPhoto:
    rows = range(2, 6)
    faces = [
        PhotoFace(pile.key(row), pile.box(row), 1.0, None, None, None, None, None, pile.spans[row]) for row in rows
    ]
    return CatalogPhoto(pile.contents[1], pile.paths[1], 640, 480, None, tuple(faces))


def colour(jpeg: bytes) -> list[int]:
    """Return the colour in the middle of a picture."""
    rgb = np.asarray(PIL.Image.open(io.BytesIO(jpeg)))
    return [int(value) for value in rgb[rgb.shape[0] // 2, rgb.shape[1] // 2]]


def test_the_page_shows_the_best_frame_of_a_track(pile: Pile) -> None:
    video = shown(pile)
    assert [face["seen"] for face in photo_json(video)["faces"]] == ["0:00–0:02", "0:02–0:03", "0:08", "0:09"]
    red, blue, _, green = thumbnails(video, [0, 1, 2, 3])
    assert colour(red)[0] > 200 and colour(blue)[2] > 200 and colour(green)[1] > 200
    assert colour(picture(video, 300, 1))[2] > 200
    assert PIL.Image.open(io.BytesIO(picture(video, 300, 1, whole=True))).size == (300, 225)
    assert colour(thumbnail_of(pile, pile.key(3)) or b"")[2] > 200


def test_a_video_that_is_another_now_is_not_shown(pile: Pile) -> None:
    path = Path(pile.paths[1])
    before = path.read_bytes()
    path.write_bytes(before + b"\0")
    with pytest.raises(InputError, match="is another video now"):
        picture(shown(pile), 300, 1)
    assert thumbnails(shown(pile), [0]) == [b""] and thumbnail_of(pile, pile.key(2)) is None
    path.write_bytes(before)
