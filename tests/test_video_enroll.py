"""Enrolling a video: the best and most different frames of the one person in it, and what is said where there is no such person."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import facepipe
from facepipe.gallery.enrolment.filmed import MOST, _different, _Shot
from facepipe.gallery.people import people
from tests.fakes import face_at
from tests.test_tracks import unit
from tests.videos import crossing, cut_off, faces, pan, still, write_video, zoom


def enrolled(folder: Path, clip: Path, name: str = "Eileen", **options: Any) -> list[tuple[str, str]]:
    with facepipe.Gallery(folder) as gallery:
        return [
            (str(outcome.status), outcome.reason)
            for outcome in gallery.enroll(str(clip), name=name, quick=True, **options)
        ]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    collins, _ = faces()
    size = (640, 480)
    frames = chain(
        pan(collins, 3, size), zoom(collins, 3, size), still(np.ascontiguousarray(collins[:, ::-1]), 2, size)
    )
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", frames)


def test_different_frames_of_the_person_are_enrolled_and_found_again(clip: Path, tmp_path: Path) -> None:
    outcomes = enrolled(tmp_path / "g", clip)
    assert 1 <= len(outcomes) <= MOST
    assert {status for status, _ in outcomes} == {"enrolled"}
    again = enrolled(tmp_path / "g", clip)
    assert {status for status, _ in again} == {"already"}
    with facepipe.Gallery(tmp_path / "g") as gallery:
        recognizer = facepipe.Recognizer(gallery, quick=True)
        (video,) = recognizer(str(clip))
        assert {face.person for face in video.predictions} == {"Eileen"}
        (person,) = people(gallery.database)
        assert person.faces == len(outcomes)


def test_several_people_are_said_and_one_can_be_chosen(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "two.mp4", crossing(6, (960, 480)))
    ((status, reason),) = enrolled(tmp_path / "g", clip)
    assert status == "ambiguous" and "2 people are seen in it" in reason
    outcomes = enrolled(tmp_path / "g", clip, faces=1)
    assert outcomes[0][0] == "enrolled"


def test_a_video_without_anybody_and_one_that_cannot_be_read(clip: Path, tmp_path: Path) -> None:
    nobody = write_video(tmp_path / "nobody.mp4", iter([np.full((240, 320, 3), 90, np.uint8)] * 20))
    assert enrolled(tmp_path / "g", nobody) == [("no-face", "no face found in it")]
    assert enrolled(tmp_path / "g", cut_off(clip, 0.01))[0][0] == "unreadable"
    small = write_video(tmp_path / "small.mp4", pan(faces()[0], 3, (160, 120)))
    ((status, reason),) = enrolled(tmp_path / "g", small)
    assert status in {"poor", "no-face"} and reason


def test_tables_and_folders_of_people_may_hold_videos(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text(f"path,name\n{clip},Eileen\n")
    (tmp_path / "people" / "Grace").mkdir(parents=True)
    write_video(tmp_path / "people" / "Grace" / "clip.mp4", pan(faces()[1], 3, (640, 480)))
    with facepipe.Gallery(tmp_path / "g") as gallery:
        outcomes = [
            outcome
            for place in ("people.csv", "people")
            for outcome in gallery.enroll(str(tmp_path / place), quick=True)
        ]
        assert {(outcome.person, str(outcome.status)) for outcome in outcomes} == {
            ("Eileen", "enrolled"),
            ("Grace", "enrolled"),
        }
        assert outcomes[0].path.startswith(f"{clip}#t=")
        recognizer = facepipe.Recognizer(gallery, quick=True)
        (video,) = recognizer(tmp_path / "people")  # a folder of one video
        assert [face.person for face in video.predictions] == ["Grace"]


def test_the_best_frame_and_different_ones_but_neither_odd_nor_alike() -> None:
    base = np.eye(16, dtype=np.float32)
    vectors = [unit(base[0] + share * base[1 + number % 8]) for number, share in enumerate((0.0, 0.1, *[0.6] * 7))]
    shots = [_Shot(float(time), face_at(0, 0, 100, 0.9), vector) for time, vector in enumerate(vectors)]
    shots[4] = replace(shots[4], face=face_at(0, 0, 100, 0.99))
    odd = _Shot(99.0, face_at(0, 0, 100, 0.95), base[15])
    chosen = [shot.time for shot in _different([*shots, odd], 0.36, 0.94)]
    assert 4.0 in chosen and len(chosen) == MOST and chosen == sorted(chosen)
    assert 99.0 not in chosen and not {0.0, 1.0} <= set(chosen)
