"""Which videos are found in folders, and which belong to a photo: live photos and motion photos."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.catalog.sources import find_sources
from facepipe.images import Passing, encode_image, find_images, passing, read_image
from facepipe.images.inputs import sources_of
from facepipe.images.live import is_live_movie

from .videos import faces, pan, write_video

COLLINS = faces()[0]
NUMBER = "01234567-89AB-CDEF-0123-456789ABCDEF"
OTHER = "76543210-89AB-CDEF-0123-456789ABCDEF"


def still(path: Path, number: str | None = None) -> Path:
    """Write a photo, perhaps with the number that an iPhone puts into the maker's notes."""
    data = encode_image(next(pan(COLLINS, 1)))
    notes = b"" if number is None else b"Exif\0\0MM\0*Apple iOS\0\0\1MM" + bytes(40) + number.encode() + b"\0"
    segment = b"\xff\xe1" + (2 + len(notes)).to_bytes(2) + notes if notes else b""
    path.write_bytes(data[:2] + segment + data[2:])
    return path


def movie(path: Path, seconds: float, number: str | None = None) -> Path:
    tags = {} if number is None else {"com.apple.quicktime.content.identifier": number}
    return write_video(path, pan(COLLINS, seconds), container={"movflags": "use_metadata_tags"}, metadata=tags)


def sources(root: Path, met: Passing) -> list[str]:
    return sorted(Path(source.name).name for source in find_sources([str(root)], passing=met))


def test_the_movie_of_a_live_photo_is_passed_over_and_counted(tmp_path: Path) -> None:
    still(tmp_path / "IMG_1.JPG", NUMBER)
    movie(tmp_path / "IMG_1.MOV", 7, NUMBER)  # the same number
    still(tmp_path / "IMG_2.HEIC")
    movie(tmp_path / "img_2.mov", 3, NUMBER)  # short; the still has lost its number
    still(tmp_path / "IMG_3.jpg")
    movie(tmp_path / "IMG_3.mp4", 2)
    still(tmp_path / "IMG_4.jpg", NUMBER)
    movie(tmp_path / "IMG_4.MOV", 3, OTHER)  # of another photo
    still(tmp_path / "IMG_5.jpg")
    movie(tmp_path / "IMG_5.MOV", 9)  # a clip that a camera numbered like the photo
    movie(tmp_path / "IMG_6.MOV", 2, NUMBER)  # its still is gone
    met = Passing()
    found = sources(tmp_path, met)
    assert [name for name in found if "jp" not in name.lower() and "heic" not in name.lower()] == [
        "IMG_4.MOV",
        "IMG_5.MOV",
        "IMG_6.MOV",
    ]
    assert met.told() == "3 movies of live photos"
    listed = Passing()
    names = [source.name for source in find_sources([str(path) for path in tmp_path.iterdir()], passing=listed)]
    assert sorted(Path(name).name for name in names) == found
    excluded = Passing(["*.JPG", "*.jpg", "*.HEIC"])
    assert len(sources(tmp_path, excluded)) == 6


def test_videos_are_found_only_where_they_are_asked_for_and_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "b.MP4", "c.webm", "d.ts", "e.mov"):
        (tmp_path / name).write_bytes(b"")
    met = Passing()
    assert sources(tmp_path, met) == ["a.jpg", "b.MP4", "c.webm", "e.mov"]
    assert met.told() == "1 other file"  # a .ts is more often a program
    assert [Path(str(one)).name for one in sources_of(tmp_path)] == ["a.jpg", "b.MP4", "c.webm", "e.mov"]
    monkeypatch.setattr(passing, "is_installed", lambda library: False)
    met = Passing()
    assert sources(tmp_path, met) == ["a.jpg"]
    assert met.told() == "3 videos (pip install 'facepipe[video]' reads them), 1 other file"
    met = Passing()
    assert [path.name for path in find_images([tmp_path], rules=met.rules(str(tmp_path)))] == ["a.jpg"]
    assert met.told() == "3 videos (not looked at here), 1 other file"  # the extra would not help
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr("g.mov", b"")
    met = Passing()
    assert sources(tmp_path / "f.zip", met) == []
    assert met.told() == "1 video (not looked at here)"


@given(st.binary(max_size=200))
def test_what_is_no_movie_belongs_to_no_photo(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.mov"
    path.write_bytes(b"\0\0\0\x80moov" + data)
    is_live_movie(str(path), str(path))
    assert not is_live_movie(str(path.with_name("none.mov")), str(path))


def test_of_a_motion_photo_the_still_is_read(tmp_path: Path) -> None:
    """Google's and Samsung's phones append the movie to the JPEG."""
    plain = still(tmp_path / "plain.jpg")
    clip = write_video(tmp_path / "clip.mp4", pan(COLLINS, 1))
    motion = tmp_path / "PXL_1.MP.jpg"
    motion.write_bytes(plain.read_bytes() + clip.read_bytes())
    assert np.array_equal(read_image(motion).rgb, read_image(plain).rgb)
    motion.write_bytes(plain.read_bytes() + b"\0\0\0\0MotionPhoto_Data" + clip.read_bytes() + b"SEFH")
    assert np.array_equal(read_image(motion).rgb, read_image(plain).rgb)
