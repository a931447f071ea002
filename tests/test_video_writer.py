"""Copies of videos with something drawn into them: frames, times, sound, what stays behind, and what a failure leaves."""

from __future__ import annotations

import stat
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facepipe.cli.watching import runs_of
from facepipe.errors import ImageError, OutputError, UsageError
from facepipe.files.guard import is_ours
from facepipe.images.video import Frame, open_video
from facepipe.images.video_writer import VIDEO_OUTPUTS, Written, box_at, redraw_video
from facepipe.types import UInt8

from .test_video import STAMPS, difference
from .videos import corrupted, faces, pan, still, write_video

COLLINS = faces()[0]


def unchanged(frame: Frame) -> UInt8:
    return frame.image.rgb


def crossed(frame: Frame) -> UInt8:
    """Return a frame with a red square in its upper left corner."""
    drawn = frame.image.rgb.copy()
    drawn[:40, :40] = (255, 0, 0)
    return drawn


def frames_of(path: Path) -> list[Frame]:
    with open_video(path, path.name, every_seconds=0.0) as video:
        return list(video.frames())


@pytest.mark.parametrize("suffix", VIDEO_OUTPUTS)
def test_a_copy_has_all_frames_at_their_times_upright(tmp_path: Path, suffix: str) -> None:
    source = write_video(tmp_path / "phone.mp4", pan(COLLINS, 3), turn=-90, sound=True)
    told: list[tuple[float, float | None]] = []
    written = redraw_video(source, tmp_path / f"copy{suffix}", crossed, on_frame=lambda *at: told.append(at))
    assert written == Written(30, None, True)
    before, after = frames_of(source), frames_of(tmp_path / f"copy{suffix}")
    assert [round(frame.time, 2) for frame in after] == [round(frame.time, 2) for frame in before]
    assert [at for at, _ in told] == [frame.time for frame in before]
    for old, new in zip(before, after, strict=True):
        assert new.image.size == old.image.size == (240, 320)
        assert difference(new.image.rgb[44:], old.image.rgb[44:]) < 5
        assert difference(new.image.rgb[4:36, 4:36], crossed(old)[4:36, 4:36]) < 5
    with av.open(str(tmp_path / f"copy{suffix}")) as container:
        assert next(container.decode(video=0)).rotation == 0
        assert container.streams.video[0].codec_context.name == "h264"
        sound = list(container.decode(audio=0))
        assert abs(sum(frame.samples for frame in sound) / 16000 - 3) < 0.2


def test_variable_rates_odd_sizes_and_wide_pixels_stay(tmp_path: Path) -> None:
    source = write_video(
        tmp_path / "a.mkv", still(COLLINS, 1, (321, 241)), times=STAMPS, pixels="yuv444p", pixel_shape=Fraction(3, 2)
    )
    written = redraw_video(source, tmp_path / "b.mp4", unchanged)
    assert written == Written(len(STAMPS), None, False)
    copy = frames_of(tmp_path / "b.mp4")
    assert [round(frame.time, 2) for frame in copy] == STAMPS
    assert copy[0].image.size == (482, 242)


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (20, 40, 250), (128, 128, 128)])
@pytest.mark.parametrize("size", [(320, 240), (1280, 720)])
def test_colours_stay(tmp_path: Path, colour: tuple[int, int, int], size: tuple[int, int]) -> None:
    picture = np.full((size[1], size[0], 3), colour, np.uint8)
    source = write_video(tmp_path / "a.mp4", [next(pan(COLLINS, 1, size))] * 2)
    redraw_video(source, tmp_path / "b.mp4", lambda frame: picture)
    assert difference(frames_of(tmp_path / "b.mp4")[0].image.rgb, picture) < 4


def test_where_and_with_what_it_was_filmed_stays_behind_and_when_does_not(tmp_path: Path) -> None:
    source = tmp_path / "phone.mov"
    with av.open(str(source), "w", options={"movflags": "use_metadata_tags"}) as out:
        out.metadata.update(
            {"location": "+48.8583+002.2944/", "location-eng": "+48.8583+002.2944/", "make": "Phone", "title": "Anna"}
            | {"creation_time": "2019-05-04T08:11:12Z"}
        )
        out.set_chapters([{"id": 1, "start": 0, "end": 1, "time_base": Fraction(1), "metadata": {"title": "Anna's"}}])
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.metadata["handler_name"] = "Anna's camera"
        for rgb in pan(COLLINS, 1):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb)))
        out.mux(stream.encode(None))
    assert b"48.8583" in source.read_bytes()
    assert b"Anna" in source.read_bytes()
    for suffix in VIDEO_OUTPUTS:
        redraw_video(source, tmp_path / f"copy{suffix}", unchanged)
        data = (tmp_path / f"copy{suffix}").read_bytes()
        assert not [word for word in (b"48.8583", b"Anna", b"Phone") if word in data]
        with av.open(str(tmp_path / f"copy{suffix}")) as copy:
            assert copy.metadata["creation_time"].startswith("2019-05-04T08:11:12")


def test_sound_may_be_left_out_and_is_where_it_does_not_fit(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", pan(COLLINS, 1), sound=True, sound_codec="pcm_s16le")
    assert not redraw_video(source, tmp_path / "b.mp4", unchanged).sound
    assert redraw_video(source, tmp_path / "b.mkv", unchanged).sound
    assert not redraw_video(source, tmp_path / "c.mkv", unchanged, sound=False).sound
    with av.open(str(tmp_path / "c.mkv")) as container:
        assert not container.streams.audio


def test_a_copy_is_written_whole_or_not_at_all_and_over_nothing(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", pan(COLLINS, 1))
    with pytest.raises(UsageError, match="facepipe did not write it"):
        redraw_video(source, source, unchanged)
    copy = tmp_path / "copy.mp4"
    redraw_video(source, copy, unchanged)
    first = copy.read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600

    def stopped(frame: Frame) -> UInt8:
        if frame.time > 0.5:
            raise KeyboardInterrupt
        return frame.image.rgb

    with pytest.raises(KeyboardInterrupt):
        redraw_video(source, copy, stopped)
    assert copy.read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "copy.mp4"]
    assert is_ours(copy)
    redraw_video(source, copy, crossed)  # its own, which may be replaced
    assert copy.read_bytes() != first
    with pytest.raises(OutputError, match="unknown video suffix"):
        redraw_video(source, tmp_path / "copy.gif", unchanged)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ImageError):
        redraw_video(tmp_path / "text.mp4", tmp_path / "x.mp4", unchanged)
    assert not (tmp_path / "x.mp4").exists()


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    link = tmp_path / "full.mp4"
    link.symlink_to(full)
    source = write_video(tmp_path / "a.mp4", pan(COLLINS, 1))
    with pytest.raises(OutputError, match="cannot be written") as error:
        redraw_video(source, link, unchanged)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", VIDEO_OUTPUTS)
def test_a_long_copy_is_known_as_facepipes_own(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 240, 320, 3), np.uint8)
    source = write_video(tmp_path / "a.mp4", list(noise))
    redraw_video(source, tmp_path / f"b{suffix}", unchanged)
    assert (tmp_path / f"b{suffix}").stat().st_size > 1 << 20
    assert is_ours(tmp_path / f"b{suffix}")


def test_damage_is_told(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", pan(COLLINS, 20), options={"g": "20"})
    written = redraw_video(corrupted(source, 0.5), tmp_path / "b.mp4", unchanged)
    assert written.damage is not None
    assert 150 < written.frames < 200


@given(arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)), st.floats(-1, 6))
def test_a_box_between_two_times_lies_between_the_two_boxes(boxes: np.ndarray, time: float) -> None:
    box = box_at([0.0, 2.0, 5.0], boxes, time, 0.5)
    if not -0.5 <= time <= 5.5:
        assert box is None
        return
    assert box is not None
    near = boxes[:2] if time <= 2 else boxes[1:]
    assert (box >= near.min(0) - 1e-3).all()
    assert (box <= near.max(0) + 1e-3).all()
    for known, at in zip(boxes, (0.0, 2.0, 5.0), strict=True):
        exact = box_at([0.0, 2.0, 5.0], boxes, at, 0.0)
        assert exact is not None
        assert np.allclose(exact, known)


def test_a_box_is_drawn_where_the_face_was_found_and_to_the_end() -> None:
    frames = [0.0, 1.0, 2.0, 3.0, 4.0]
    box = np.array([0, 0, 9, 9], np.float32)
    found = [
        (0.0, 0, box),
        (1.0, 0, box),
        (3.0, 0, box),
        (4.0, 0, box),
        (1.0, 1, box),
    ]  # in frame 2 somebody hides the first
    runs = runs_of(found, frames, 2, 1.0)

    def shown(track: int, time: float) -> bool:
        return any(box_at(times, np.stack(boxes), time, 0.5) is not None for times, boxes in runs[track])

    times = (0.0, 0.7, 1.4, 1.6, 2.0, 2.4, 2.6, 3.5, 4.9, 6.0)
    assert [time for time in times if shown(0, time)] == [0.0, 0.7, 1.4, 2.6, 3.5, 4.9]
    assert [time for time in times if shown(1, time)] == [0.7, 1.4]
