"""Reading videos: which frames are seen, how they are turned, what is refused, and what damage does."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.errors import ImageError, InputError, LibraryError, UsageError
from facepipe.images import VIDEO_SUFFIXES, encode_image, is_video
from facepipe.images.video import Frame, open_video
from facepipe.types import UInt8

from .videos import RATE, corrupted, cut_off, faces, pan, still, write_video

COLLINS = faces()[0]


def read(path: Path, **options: object) -> tuple[list[Frame], str | None]:
    with open_video(path, path.name, **options) as video:  # type: ignore[arg-type]
        return list(video.frames()), video.damage


def times(path: Path, **options: object) -> list[float]:
    return [round(frame.time, 2) for frame in read(path, **options)[0]]


def difference(one: UInt8, other: UInt8) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def panned(folder: Path) -> Path:
    """Twenty seconds, ten frames a second, a keyframe every two seconds."""
    return write_video(folder / "panned.mp4", pan(COLLINS, 20), options={"g": "20", "sc_threshold": "0"})


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("b.mov", "libx265", "yuv420p"),
        ("c.mkv", "libx264", "yuv444p"),
        ("d.webm", "libvpx-vp9", "yuv420p"),
        ("e.mp4", "libsvtav1", "yuv420p"),
        ("f.avi", "mpeg4", "yuv420p"),
        ("g.mts", "libx264", "yuv420p"),
        ("h.3gp", "libx264", "yuv420p"),
        ("i.mov", "libx265", "yuv420p10le"),
        ("j.webm", "libvpx", "yuv420p"),
        ("k.mov", "mjpeg", "yuvj420p"),
    ],
)
def test_each_container_and_codec(folder: Path, name: str, codec: str, pixels: str) -> None:
    shown = list(pan(COLLINS, 3))
    path = write_video(
        folder / name,
        shown,
        codec=codec,
        pixels=pixels,
        format="mpegts" if name.endswith("mts") else None,
        sound=codec == "libx264",
    )
    frames, damage = read(path, every_seconds=0.5)
    assert damage is None
    assert len(frames) in range(5, 8)
    for frame in frames:
        assert frame.image.size == (320, 240)
        assert frame.image.path == name
        nearest = min(range(30), key=lambda number: difference(frame.image.rgb, shown[number]))
        assert abs(nearest - frame.time * RATE) <= 3  # the sound may begin first
        assert difference(frame.image.rgb, shown[nearest]) < 8


def test_frames_are_those_that_are_shown_at_the_times(panned: Path) -> None:
    assert times(panned) == [float(second) for second in range(20)]
    near = times(panned, every_seconds=2.5)
    assert near == [0.0, 2.0, 4.0, 7.5, 10.0, 12.0, 14.0, 17.5]  # keyframes where they are near: they cost least
    assert times(panned, every_seconds=0) == [number / RATE for number in range(200)]
    assert times(panned, every_seconds=1000.0) == [0.0]


def test_keyframes_alone(panned: Path) -> None:
    assert times(panned, keyframes=True, every_seconds=0.0) == [2.0 * number for number in range(10)]
    assert times(panned, keyframes=True, every_seconds=5.0) == [0.0, 4.0, 8.0, 14.0, 18.0]


STAMPS = [0, 0.1, 0.5, 3.2, 3.3, 7, 7.1, 7.2, 9, 12]


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv", "vfr-plain.mkv"])
def test_with_a_variable_rate_what_is_shown_long_is_seen(folder: Path, name: str) -> None:
    path = write_video(
        folder / name, still(COLLINS, 1), times=STAMPS, options={"bf": "0"} if "plain" in name else {"b_strategy": "0"}
    )
    seen = times(path)
    assert {0.0, 0.5, 7.2, 9.0, 12.0} <= set(seen)  # each is shown for more than a second
    assert len(seen) < len(STAMPS)
    assert times(path, every_seconds=0) == STAMPS


@pytest.mark.parametrize(
    "options", [{}, {"every_seconds": 0.7}, {"every_seconds": 0.0}, {"keyframes": True}, {"every_seconds": 3.0}]
)
@pytest.mark.parametrize("source", ["panned", "vfr.mkv", "reordered.mts"])
def test_a_reading_that_was_stopped_goes_on_with_the_same_frames(
    folder: Path, panned: Path, source: str, options: dict[str, float]
) -> None:
    path = panned if source == "panned" else folder / source
    if not path.exists():
        stamps = STAMPS if source == "vfr.mkv" else None
        write_video(
            path,
            pan(COLLINS, 1 if stamps else 12),
            times=stamps,
            format=None if stamps else "mpegts",
            options={"g": "15"},
        )
    with open_video(path, "all", **options) as video:  # type: ignore[arg-type]
        whole = list(video.frames())
    for number in range(2, len(whole), max(1, len(whole) // 6)):
        with open_video(path, "rest", start=whole[number - 1].time, **options) as video:  # type: ignore[arg-type]
            rest = list(video.frames())
        assert [frame.time for frame in rest] == [frame.time for frame in whole[number:]]
        assert all(np.array_equal(a.image.rgb, b.image.rgb) for a, b in zip(rest, whole[number:], strict=True))


@given(st.floats(0.05, 50), st.floats(0, 1e5))
def test_the_next_time_depends_on_the_last_one_alone_and_is_later(every: float, at: float) -> None:
    from facepipe.images.video import following

    wanted = following(at, every)
    assert at < wanted <= at + 1.5 * every + 1e-6
    assert abs(wanted / every - round(wanted / every)) < 1e-6


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_frames_are_turned_as_players_show_them(folder: Path, turn: int, mirror: bool) -> None:
    shown = next(pan(COLLINS, 1))
    path = write_video(folder / f"turned{turn}{mirror}.mp4", still(COLLINS, 0.3), turn=turn, mirror=mirror)
    with av.open(str(path)) as container:
        degrees = next(container.decode(video=0)).rotation
    if not mirror:
        assert degrees % 360 == turn % 360
    expected = np.rot90(shown, turn // 90)
    expected = expected[:, ::-1] if mirror else expected
    with open_video(path, "turned") as video:
        frame = next(video.frames())
    assert video.size == frame.image.size == (expected.shape[1], expected.shape[0])
    assert difference(frame.image.rgb, np.ascontiguousarray(expected)) < 4


def test_frames_are_reduced_as_photos_are_and_can_be_enlarged(panned: Path) -> None:
    frame = read(panned, max_side=100)[0][3]
    assert frame.image.rgb.shape == (75, 100, 3)
    assert frame.image.size == (320, 240)
    assert frame.image.enlarge is not None
    full = frame.image.enlarge(1000)
    assert full.rgb.shape == (240, 320, 3)
    assert full.enlarge is None
    assert difference(full.rgb, list(pan(COLLINS, 20))[30]) < 4


def test_frames_go_when_nobody_holds_them_without_the_collector(panned: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        with open_video(panned, "clip.mp4", every_seconds=0.0) as video:
            held = [sum(type(one) is av.VideoFrame for one in gc.get_objects()) for _ in video.frames()]
    finally:
        gc.enable()
    assert len(held) > 100 and max(held) < 10


def test_pixels_that_are_not_square_are_widened(folder: Path) -> None:
    path = write_video(folder / "wide.mp4", still(COLLINS, 0.3), pixel_shape=Fraction(3, 2))
    frame = read(path)[0][0]
    assert frame.image.size == (480, 240)
    assert frame.image.rgb.shape == (240, 480, 3)
    turned = write_video(folder / "tall.mp4", still(COLLINS, 0.3), pixel_shape=Fraction(3, 2), turn=-90)
    assert read(turned, max_side=240)[0][0].image.size == (240, 480)


def test_interlaced_frames_have_no_combs(folder: Path) -> None:
    """Every second row is from another time; a person who moves has two outlines."""
    picture = next(pan(COLLINS, 1))
    woven = picture.copy()
    woven[1::2] = np.roll(picture, 24, axis=1)[1::2]
    path = write_video(folder / "woven.mp4", [woven] * 5, options={"x264-params": "tff=1:interlaced=1", "qp": "10"})
    seen = read(path)[0][0].image.rgb
    assert difference(seen, picture) < difference(woven, picture) / 2


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_of_a_video_that_was_cut_off_the_beginning_is_read(folder: Path, suffix: str) -> None:
    whole = write_video(
        folder / f"long.{suffix}",
        pan(COLLINS, 20),
        options={"g": "20"},
        container={"movflags": "faststart"} if suffix == "mp4" else None,
    )
    frames, damage = read(cut_off(whole, 0.6))
    assert 7 <= frames[-1].time <= 13
    assert damage is not None
    assert damage.startswith("cut off from")
    assert abs(float(damage.split()[3]) - frames[-1].time) < 2


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mts"])
def test_reading_goes_on_after_damage_and_says_where_it_was(folder: Path, suffix: str) -> None:
    whole = write_video(
        folder / f"bad.{suffix}", pan(COLLINS, 20), options={"g": "20"}, format="mpegts" if suffix == "mts" else None
    )
    shown = list(pan(COLLINS, 20))
    frames, damage = read(corrupted(whole, 0.5), every_seconds=0.0)
    assert damage is not None
    begin, end = (float(word) for word in damage.replace("damaged from", "").replace("to", "").split()[:2])
    assert 7 < begin < end < 13
    assert frames[-1].time > 19
    assert all(difference(frame.image.rgb, shown[round(frame.time * RATE)]) < 8 for frame in frames)


def test_a_recording_without_its_index_is_one_line(folder: Path) -> None:
    whole = write_video(folder / "phone.mp4", pan(COLLINS, 5))
    with pytest.raises(ImageError, match="its index is missing") as error:
        read(cut_off(whole, 0.9))
    assert "\n" not in str(error.value)


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\n{url}\n",
    "hls-bom": "\ufeff#EXTM3U\n#EXTINF:9,\n{url}\n",
    "concat": "ffconcat version 1.0\nfile {url}\n",
    "concat-plain": "file '{url}'\n",
    "dash": '<?xml version="1.0"?>\n<!-- a -->\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "asx": '<asx version="3.0"><entry><ref href="{url}"/></entry></asx>',
    "pls": "[playlist]\nFile1={url}\n",
    "smooth": "<SmoothStreamingMedia/>",
    "redirect": "[Reference]\nRef1={url}\n",
    "address": "{url}\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", ["mp4", "m3u8"])
def test_playlists_are_refused_whatever_they_are_called(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"list.{suffix}"
    path.write_text(PLAYLISTS[kind].format(url="http://127.0.0.1:9/a.ts"))
    with pytest.raises(ImageError, match="is a playlist"):
        read(path)


def test_what_is_no_video_is_one_line(tmp_path: Path, folder: Path, panned: Path) -> None:
    song = tmp_path / "song.mp4"
    with av.open(str(song), "w") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        sound.sample_rate = 16000
        out.mux(stream.encode(sound))
        out.mux(stream.encode(None))
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "index.mp4").write_bytes(b"\0\0\0\x08moov")
    (tmp_path / "photo.mp4").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, said in {
        "song.mp4": "holds sound and no video",
        "empty.mp4": "is empty",
        "text.mp4": "cannot be read as a video",
        "index.mp4": "is damaged",
        "photo.mp4": "is a photo and not a video",
        "pipe.mp4": "is a pipe or a device",
        ".": "is a folder",
        "none.mp4": "no such file",
    }.items():
        with pytest.raises(InputError, match=said) as error:
            open_video(tmp_path / name, name)
        assert "\n" not in str(error.value)
    with open_video(io.BytesIO(panned.read_bytes()), "archive.zip!a.mp4") as video:
        assert len(list(video.frames())) == 20


def test_sound_that_begins_on_the_way_does_no_harm(folder: Path) -> None:
    """Parts of a broadcast that were put together."""
    silent = write_video(folder / "silent.mts", pan(COLLINS, 3), format="mpegts")
    both = write_video(folder / "both.mts", pan(COLLINS, 3), format="mpegts", sound=True)
    joined = folder / "joined.mts"
    joined.write_bytes(silent.read_bytes() + both.read_bytes())
    frames, _ = read(joined, every_seconds=0.5)
    assert len(frames) >= 8
    assert frames[-1].time > 4


def test_the_cover_of_music_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "album.mkv"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=16000, layout="mono")
        out.add_attachment("cover.jpg", "image/jpeg", encode_image(next(pan(COLLINS, 1))))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    with pytest.raises(ImageError, match="holds sound and no video"):
        read(path)


def test_frames_that_are_too_large_are_refused(panned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEPIPE_MAX_PIXELS", "50000")
    with pytest.raises(ImageError, match="a frame has 76,800 pixels, the limit is 50,000"):
        read(panned)


def of_one_size(data: bytes, count: int, box: bytes) -> bytes:
    """Return an MP4 that says it has so many frames, all of the same size."""
    changed = bytearray(data)
    many = count.to_bytes(4)
    sizes, chunks, lengths = (changed.index(kind) + 4 for kind in (b"stsz", b"stsc", b"stts"))
    changed[sizes + 4 : sizes + 12] = (1).to_bytes(4) + many
    changed[chunks + 12 : chunks + 16] = many
    changed[lengths + 8 : lengths + 12] = many
    return bytes(changed).replace(b"minf", box)


@pytest.mark.parametrize("box", [b"minf", b"udta", b"wave"])
def test_an_index_that_would_fill_the_memory_is_refused(panned: Path, box: bytes) -> None:
    with pytest.raises(ImageError, match="more frames than can be read"):
        open_video(io.BytesIO(of_one_size(panned.read_bytes(), 20_000_000, box)), "bomb.mp4")


def test_plain_sound_is_no_such_index(tmp_path: Path) -> None:
    """Its samples are numbers of two bytes, 48,000 a second: three minutes have more than the limit allows frames."""
    path = write_video(
        tmp_path / "plain.mov", still(COLLINS, 1), sound=True, sound_codec="pcm_s16le", sound_seconds=200
    )
    assert len(read(path)[0]) >= 1


def test_a_fragment_that_would_fill_the_memory_is_refused(folder: Path) -> None:
    path = write_video(
        folder / "fragments.mp4",
        pan(COLLINS, 4),
        container={"movflags": "frag_keyframe+empty_moov+default_base_moof"},
        options={"g": "10"},
    )
    assert len(read(path)[0]) == 4
    data = bytearray(path.read_bytes())
    run = data.index(b"trun")
    data[run + 4 : run + 12] = b"\0\0\0\0" + (50_000_000).to_bytes(4)
    with pytest.raises(ImageError, match="more frames than can be read"):
        open_video(io.BytesIO(data), "bomb.mp4")


def test_what_other_files_a_video_names_is_not_opened(tmp_path: Path, panned: Path) -> None:
    """An Alias in the box `dref` says that the frames lie in another file."""
    data = bytearray(panned.read_bytes())
    place = data.index(b"dref")
    end = place - 4 + int.from_bytes(data[place - 4 : place])
    other = tmp_path / "other.mp4"
    other.write_bytes(panned.read_bytes())
    names = str(other).replace("/", ":").encode()
    alias = bytes(150) + b"\0\2" + len(names).to_bytes(2) + names + b"\0" * (len(names) % 2) + b"\xff\xff\0\0"
    entry = (12 + len(alias)).to_bytes(4) + b"alis" + b"\0\0\0\0" + alias
    box = b"dref" + bytes(4) + (1).to_bytes(4) + entry
    data[place - 4 : end] = (4 + len(box)).to_bytes(4) + box
    grown = len(box) + 4 - (end - place + 4)
    for kind in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        start = data.index(kind) - 4
        data[start : start + 4] = (int.from_bytes(data[start : start + 4]) + grown).to_bytes(4)
    frames = data.index(b"mdat") + 4
    data[frames : frames + 5000] = bytes(5000)
    naming = tmp_path / "naming.mov"
    naming.write_bytes(data)
    with av.open(str(naming), container_options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
        assert len(list(container.decode(video=0))) == 200  # a player that follows it
    with pytest.raises(ImageError, match="is damaged"):
        read(naming)


def test_a_file_has_a_limited_time(panned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [0.0]

    def clock() -> float:
        passed[0] += 0.02
        return passed[0]

    monkeypatch.setenv("FACEPIPE_MAX_VIDEO_SECONDS", "2")
    monkeypatch.setattr(time, "thread_time", clock)
    frames, damage = read(panned)
    assert 1 < len(frames) < 20
    assert damage is not None
    assert damage.startswith("takes more than 2 s of a processor; not read from")
    monkeypatch.setenv("FACEPIPE_MAX_VIDEO_SECONDS", "soon")
    with pytest.raises(UsageError, match="FACEPIPE_MAX_VIDEO_SECONDS"):
        read(panned)


def test_without_pyav_the_extra_is_named(panned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(LibraryError, match=r"pip install av, or facepipe with its extra \[video\]"):
        read(panned)


def test_nothing_is_printed_and_pyav_waits_for_a_video(
    folder: Path, panned: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    read(corrupted(panned, 0.5), every_seconds=0.0)
    assert capfd.readouterr() == ("", "")
    code = "import sys, facepipe, facepipe.images.video; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_of_videos() -> None:
    assert is_video("a.MOV")
    assert is_video("b.ts")
    assert ".ts" not in VIDEO_SUFFIXES  # in folders those are programs
    assert not is_video("a.jpg")
    assert not is_video("mov")
