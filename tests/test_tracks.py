"""Faces of frames become tracks: who is who from frame to frame, and what a track is."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from facepipe.embed.tracks import MISSED, NEAR, Tracker, assign, is_cut, link, look_of, weight_of
from facepipe.types import Described, Embeddings, Face, Float32, Image
from tests.fakes import face_at

LOOK = np.full(64, 1 / 64, np.float32)
OTHER = np.eye(1, 64, dtype=np.float32)[0]
PEOPLE = np.eye(8, dtype=np.float32)


def unit(vector: NDArray[np.floating]) -> Float32:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def frame(*seen: tuple[int, float], noise: float = 0.0, seed: int = 0, faces: tuple[Face, ...] = ()) -> Described:
    """Build a frame in which people, by number, are seen at these places."""
    rng = np.random.default_rng(seed)
    vectors = [unit(PEOPLE[person] + noise * unit(rng.normal(size=8))) for person, _ in seen]
    found = faces or tuple(face_at(x, 50, 100) for _, x in seen)
    return Described(
        "clip.mp4", (1920, 1080), found, Embeddings(np.array(vectors, np.float32).reshape(-1, 8), "fake:1")
    )


def numbers(*frames: Described, cuts: tuple[int, ...] = ()) -> list[list[int]]:
    """Return the track of each face of each frame; cuts: before these frames."""
    tracker = Tracker()
    return [tracker.add(seen, float(time), OTHER if time in cuts else LOOK) for time, seen in enumerate(frames)]


def usable(face: Face, value: float) -> Face:
    return replace(face, quality=replace(face.quality, usable=value))


def test_no_frame_and_no_face_is_no_track() -> None:
    assert link([]).faces == ()
    assert numbers(frame(), frame()) == [[], []]


def test_a_person_who_walks_is_one_track() -> None:
    assert numbers(*(frame((0, 300.0 * time)) for time in range(5))) == [[0]] * 5


def test_two_people_who_cross_are_not_swapped() -> None:
    seen = [frame((0, 100 * time), (1, 600 - 100 * time), noise=0.5, seed=time) for time in range(7)]
    assert numbers(*seen) == [[0, 1]] * 7


def test_two_people_who_change_places_between_two_frames_are_not_swapped() -> None:
    assert numbers(frame((0, 0), (1, 500)), frame((0, 500), (1, 0))) == [[0, 1], [0, 1]]


def test_somebody_else_at_the_same_place_is_another_track() -> None:
    assert numbers(frame((0, 0)), frame((1, 0))) == [[0], [1]]


def test_a_face_too_poor_to_tell_is_followed_by_its_place() -> None:
    poor = frame((1, 10), faces=(usable(face_at(10, 50, 100), 0.2),))
    assert numbers(frame((0, 0)), poor, frame((0, 20))) == [[0], [0], [0]]
    far = frame((1, 700), faces=(usable(face_at(700, 50, 100), 0.2),))
    assert numbers(frame((0, 0)), far) == [[0], [1]]


@pytest.mark.parametrize(("missed", "tracks"), [(1, 1), (MISSED, 1), (MISSED + 1, 2)])
def test_missed_frames_do_not_end_a_track_until_they_are_many(missed: int, tracks: int) -> None:
    assert len({n for found in numbers(frame((0, 0)), *[frame()] * missed, frame((0, 0))) for n in found}) == tracks


def test_a_cut_ends_a_track() -> None:
    assert numbers(frame((0, 0)), frame((0, 0)), cuts=(1,)) == [[0], [1]]


def test_a_face_between_two_tracks_goes_to_the_more_similar_one_and_takes_nobody_s_place() -> None:
    first = frame((0, 0), (1, 500))
    between = replace(frame((0, 0)), embeddings=Embeddings(unit(PEOPLE[0] * 1.0 + PEOPLE[1] * 0.8)[None], "fake:1"))
    assert numbers(first, between, first) == [[0, 1], [0], [0, 1]]


def test_a_good_link_is_not_given_up_for_two_bad_ones() -> None:
    cosines = np.array([[0.9, 0.46], [0.47, -np.inf]], np.float32)
    assert assign(cosines, np.zeros_like(cosines)) == [(0, 0)]


@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_of_all_ways_to_link_the_one_most_alike_is_taken(rows: int, columns: int, seed: int, impossible: float) -> None:
    rng = np.random.default_rng(seed)
    cosines = rng.uniform(NEAR, 1, (rows, columns)).astype(np.float32)
    cosines[rng.uniform(size=cosines.shape) < impossible] = -np.inf
    gains = np.where(np.isfinite(cosines), cosines - np.float32(NEAR) + np.float32(1e-3), 0.0)
    wide = np.hstack([gains, np.zeros((rows, rows))])  # a face may begin a track of its own
    best = max(
        (sum(wide[row, column] for row, column in enumerate(way)) for way in permutations(range(columns + rows), rows)),
        default=0.0,
    )
    linked = assign(cosines, np.zeros_like(cosines))
    assert len({row for row, _ in linked}) == len({column for _, column in linked}) == len(linked)
    assert sum(gains[link] for link in linked) == pytest.approx(best, abs=1e-5)


def test_a_track_has_the_span_and_the_best_frame_and_the_weighted_mean_of_its_vectors() -> None:
    faces = [usable(face_at(place, 50, 100), value) for place, value in ((0, 0.5), (5, 0.9), (9, 0.7))]
    vectors = [unit(PEOPLE[0] + 0.3 * PEOPLE[number + 1]) for number in range(3)]
    seen = [
        (3.0 + time, replace(frame((0, 0), faces=(face,)), embeddings=Embeddings(vector[None], "fake:1")), LOOK)
        for time, (face, vector) in enumerate(zip(faces, vectors, strict=True))
    ]
    (track,) = (found := link(seen, "clip.mp4")).faces
    assert track.span is not None
    assert (track.span.start, track.span.end, track.span.best, track.span.frames) == (3.0, 5.0, 4.0, 3)
    assert track.box.tolist() == faces[1].box.tolist()
    mean = unit(np.average(vectors, axis=0, weights=[weight_of(face) for face in faces]))
    np.testing.assert_allclose(found.embeddings.vectors[0], mean, atol=1e-6)
    assert found.size == (1920, 1080)


def test_of_equally_good_frames_the_larger_face_is_the_best() -> None:
    seen = [frame((0, 0), faces=(face_at(0, 0, side),)) for side in (100.0, 140.0, 120.0)]
    span = link((float(time), one, LOOK) for time, one in enumerate(seen)).faces[0].span
    assert span is not None
    assert span.best == 1.0


scenes = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 7), st.integers(0, 1800)), max_size=4, unique_by=lambda seen: seen[0]),
        st.booleans(),
    ),
    max_size=12,
)


@given(scenes, st.integers(0, 11), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_every_face_is_in_one_track_and_going_on_changes_nothing(
    scene: list[tuple[list[tuple[int, int]], bool]], stop: int, seed: int
) -> None:
    """Stopped after any frame and continued from the state, the tracks are those of a run that was not stopped."""
    frames = [
        (
            float(time),
            frame(*((person, float(x)) for person, x in people), noise=0.6, seed=seed + time),
            OTHER if other else LOOK,
        )
        for time, (people, other) in enumerate(scene)
    ]
    whole, told = Tracker(), []
    for time, seen, look in frames:
        told.append(whole.add(seen, time, look))
        assert len(set(told[-1])) == len(told[-1])  # one track once in a frame
    tracks = whole.described().faces
    counts = np.bincount([number for found in told for number in found], minlength=len(tracks)).tolist()
    assert [track.span.frames if track.span else 0 for track in tracks] == counts
    first = Tracker()
    for time, seen, look in frames[:stop]:
        first.add(seen, time, look)
    second = Tracker("", first.state)
    assert [second.add(seen, time, look) for time, seen, look in frames[stop:]] == told[stop:]
    assert [track.span for track in second.described().faces] == [track.span for track in tracks]
    assert second.described().embeddings.vectors.tobytes() == whole.described().embeddings.vectors.tobytes()


def test_cuts_are_told_by_colours() -> None:
    rng = np.random.default_rng(1)
    meadow = Image(np.clip(rng.normal((70, 140, 60), 25, (180, 320, 3)), 0, 255).astype(np.uint8))
    moved = Image(np.ascontiguousarray(np.roll(meadow.rgb, 60, axis=1)))
    night = Image(np.clip(rng.normal((20, 20, 60), 20, (180, 320, 3)), 0, 255).astype(np.uint8))
    assert not is_cut(look_of(meadow), look_of(moved))
    assert is_cut(look_of(meadow), look_of(night))
