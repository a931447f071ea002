"""Videos made from real photos: tracks, identity switches and names, frames a CPU second, memory of a long one, the whole command.

Each video moves photos of real people over a background, so it is known who is where in each frame. Scenes: pan, zoom, cuts between
people, two people who cross, a face that changes to another photo of the same person, and all of that encoded otherwise (turned, at a
variable rate, HEVC, AV1, cut off, corrupted). Half of the people are enrolled from three photos; the videos show their other photos.
Measures are those of Bernardin and Stiefelhagen 2008, "Evaluating multiple object tracking performance: the CLEAR MOT metrics": a
switch is a person whose track changes without a cut; mixed is a track that has faces of several people.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from facepipe.pipeline import Recognizer
    from facepipe.types import Described, Float32, UInt8

SIZE, RATE = (960, 540), 10
#: A person in a frame: name, the shot, and the rectangle of the photo.
Shown = tuple[str, int, tuple[int, int, int, int]]
Frames = Iterator[tuple["UInt8", list[Shown]]]


@dataclass
class Truth:
    """Who is where: by frame number, filled while the video is written."""

    frames: list[list[Shown]] = field(default_factory=list)


class Stage:
    """Makes scenes of people's photos."""

    def __init__(self, people: dict[str, list[Path]], seed: int) -> None:
        self.people, self.rng = people, np.random.default_rng(seed)
        self.shots = 0

    def backdrop(self) -> UInt8:
        """A blurred field of random colours, unlike that of the shot before."""
        import cv2

        small = self.rng.integers(0, 256, (4, 7, 3), dtype=np.uint8)
        self.shots += 1
        return np.asarray(cv2.resize(small, SIZE, interpolation=cv2.INTER_CUBIC), np.uint8)

    def photo(self, person: str, height: int, number: int | None = None) -> UInt8:
        """One of a person's photos, so high."""
        from facepipe.images import read_image

        paths = self.people[person]
        import cv2

        rgb = read_image(paths[int(self.rng.integers(len(paths))) if number is None else number]).rgb
        size = (round(rgb.shape[1] * height / rgb.shape[0]), height)
        return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)

    def somebody(self, count: int = 1) -> list[str]:
        return [str(name) for name in self.rng.choice(list(self.people), count, replace=False)]

    def pan(self, seconds: float = 5.0) -> Frames:
        (person,) = self.somebody()
        photo, back, shot = self.photo(person, 380), self.backdrop(), self.shots
        for share in _shares(seconds):
            yield _placed(back, [(photo, person, shot, -0.1 + 0.8 * share, 0.2)])

    def zoom(self, seconds: float = 5.0) -> Frames:
        (person,) = self.somebody()
        back, shot, number = self.backdrop(), 0, int(self.rng.integers(3))
        shot = self.shots
        for share in _shares(seconds):
            yield _placed(
                back, [(self.photo(person, round(160 + 340 * share), number), person, shot, 0.3 - 0.1 * share, 0.05)]
            )

    def cuts(self, shots: int = 4) -> Frames:
        for _ in range(shots):
            yield from self.pan(3.0)

    def crossing(self, seconds: float = 6.0) -> Frames:
        one, other = self.somebody(2)
        photos, back, shot = [self.photo(one, 300), self.photo(other, 300)], self.backdrop(), self.shots
        for share in _shares(seconds):
            yield _placed(
                back, [(photos[1], other, shot, 0.75 - 0.75 * share, 0.4), (photos[0], one, shot, 0.75 * share, 0.02)]
            )

    def changing(self, seconds: float = 6.0) -> Frames:
        (person,) = self.somebody()
        back, shot = self.backdrop(), self.shots
        photos = [self.photo(person, 360, number % len(self.people[person])) for number in range(3)]
        for share in _shares(seconds):
            yield _placed(back, [(photos[min(2, int(3 * share))], person, shot, 0.2 + 0.2 * share, 0.1)])


def _shares(seconds: float) -> Iterator[float]:
    count = round(seconds * RATE)
    return (number / (count - 1) for number in range(count))


def _placed(back: UInt8, photos: Sequence[tuple[UInt8, str, int, float, float]]) -> tuple[UInt8, list[Shown]]:
    """Lay photos over a backdrop; what is covered by a later one is not shown."""
    picture, shown = back.copy(), []
    for rgb, person, shot, x, y in photos:
        left, top = round(x * SIZE[0]), round(y * SIZE[1])
        tall, wide = int(rgb.shape[0]), int(rgb.shape[1])
        x1, y1, x2, y2 = max(0, left), max(0, top), min(SIZE[0], left + wide), min(SIZE[1], top + tall)
        picture[y1:y2, x1:x2] = rgb[y1 - top : y2 - top, x1 - left : x2 - left]
        shown.append((person, shot, (x1, y1, x2, y2)))
    return picture, shown


def write(
    path: Path, frames: Frames, *, codec: str = "libx264", turn: int = 0, uneven: bool = False, crf: str = "23"
) -> list[tuple[float, list[Shown]]]:
    """Write a video; return who is where at which time. turn: frames are stored turned, and the file says so."""
    import av

    truth, clock = [], 0.0
    quiet = {"libx265": {"x265-params": "log-level=none"}, "libsvtav1": {"preset": "10"}}.get(codec, {})
    rng = np.random.default_rng(1)
    with av.open(path, "w") as out:
        stream: Any = None
        for rgb, shown in frames:
            stored = np.ascontiguousarray(np.rot90(rgb, turn // 90))
            if stream is None:
                stream = out.add_stream(codec, rate=RATE, options={"crf": crf, **quiet})
                stream.width, stream.height, stream.pix_fmt = stored.shape[1], stored.shape[0], "yuv420p"
                stream.codec_context.time_base = Fraction(1, 1000)
                if turn:
                    stream.set_display_rotation(-turn)
            frame = av.VideoFrame.from_ndarray(stored)
            frame.time_base, frame.pts = Fraction(1, 1000), round(clock * 1000)
            truth.append((clock, shown))
            clock += float(rng.uniform(0.3, 2.2)) / RATE if uneven else 1 / RATE
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return truth


@dataclass
class Looked:
    """A video that was looked at. frames: time, faces, look. truth: who is where at which time."""

    kind: str
    frames: list[tuple[float, Described, Float32]]
    truth: list[tuple[float, list[Shown]]]

    def shown_at(self, at: float) -> list[Shown]:
        return min(self.truth, key=lambda one: abs(one[0] - at))[1]


def look(
    recognizer: Recognizer, kind: str, path: Path, truth: list[tuple[float, list[Shown]]]
) -> tuple[Looked, str | None]:
    """Describe the frames of a video as the program does, and keep all; return also what is damaged."""
    from facepipe.embed.tracks import look_of
    from facepipe.images.video import open_video

    frames = []
    with open_video(path, str(path), max_side=1280) as video:
        for frame in video.frames():
            (photo,) = recognizer.describer.describe([frame.image])
            frames.append((frame.time, photo, look_of(frame.image)))
        return Looked(kind, frames, truth), video.damage


def measure(recognizer: Recognizer, looked: Looked, enrolled: set[str]) -> Counter[str]:
    """Return what the tracks of a video came to."""
    from facepipe.embed.tracks import Tracker

    tracker = Tracker("clip")
    owners: dict[int, Counter[str]] = defaultdict(Counter)
    last: dict[tuple[str, int], int] = {}
    counts: Counter[str] = Counter()
    for at, photo, looks in looked.frames:
        numbers, shown = tracker.add(photo, at, looks), looked.shown_at(at)
        counts["shown"] += len(shown)
        order = np.argsort([-face.quality.size for face in photo.faces])
        met: set[tuple[str, int]] = set()
        for place in order.tolist():
            number, face = numbers[place], photo.faces[place]
            x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
            whose = [one for one in reversed(shown) if one[2][0] <= x <= one[2][2] and one[2][1] <= y <= one[2][3]]
            if not whose or whose[0][:2] in met:  # somebody in the background of a photo
                counts["others"] += 1
                continue
            person, shot, _ = whose[0]
            met.add((person, shot))
            counts["found"] += 1
            owners[number][person] += 1
            counts["switches"] += last.setdefault((person, shot), number) != number
            last[person, shot] = number
    counts["shots"] = len({(person, shot) for _, shown in looked.truth for person, shot, _ in shown})
    counts["tracks"] = len(owners)
    counts["mixed"] = sum(len(owner) > 1 for owner in owners.values())
    if looked.frames:
        described = tracker.described()
        (result,) = recognizer.decide([described])
        for number, prediction in enumerate(result.predictions):
            if number not in owners:
                continue
            person = owners[number].most_common(1)[0][0]
            name = prediction.person if str(prediction.status) == "known" else None
            expected = person if person in enrolled else None
            counts["right" if name == expected else "missed" if name is None else "wrong"] += 1
    return counts


COLUMNS = ("videos", "shown", "found", "others", "shots", "tracks", "switches", "mixed", "right", "missed", "wrong")


def table(rows: dict[str, Counter[str]]) -> None:
    width = max(map(len, rows)) + 2
    print(" " * width + "".join(f"{name:>9}" for name in COLUMNS))
    for kind, counts in rows.items():
        print(f"{kind:{width}}" + "".join(f"{counts[name]:9}" for name in COLUMNS))


def tracks(options: argparse.Namespace, root: Path) -> None:
    """Make the videos, look at them, and say what the tracks are worth; then for other thresholds."""
    from facepipe.api import Gallery
    from facepipe.embed import tracks as linking
    from facepipe.pipeline import Recognizer

    folders = sorted(path for path in (options.faces / "people").iterdir() if path.is_dir())
    probes = {folder.name: sorted(folder.glob("probe-*"))[:3] for folder in folders}
    enrolled = {folder.name for folder in folders[::2]}
    with Gallery(root / "gallery") as gallery:
        for name in sorted(enrolled):
            list(gallery.enroll(sorted((options.faces / "people" / name).glob("enroll-*")), name=name))
        recognizer = Recognizer(gallery)
    stage = Stage(probes, options.seed)
    kinds: dict[str, tuple[Callable[[], Frames], dict[str, Any]]] = {
        "pan": (stage.pan, {}),
        "zoom": (stage.zoom, {}),
        "cuts": (stage.cuts, {}),
        "crossing": (stage.crossing, {}),
        "changing": (stage.changing, {}),
        "cuts, turned": (stage.cuts, {"turn": 90}),
        "cuts, uneven": (stage.cuts, {"uneven": True}),
        "cuts, HEVC": (stage.cuts, {"codec": "libx265"}),
        "cuts, AV1": (stage.cuts, {"codec": "libsvtav1"}),
        "crossing, poor": (stage.crossing, {"crf": "40"}),
        "cuts, cut off": (stage.cuts, {}),
        "cuts, corrupted": (stage.cuts, {}),
    }
    rows: dict[str, Counter[str]] = {}
    all_looked: list[Looked] = []
    for kind, (scene, how) in kinds.items():
        rows[kind] = Counter()
        for _ in range(options.videos):
            path = root / "clip.mkv"
            truth = write(path, scene(), **how)
            if "cut off" in kind or "corrupted" in kind:
                data = bytearray(path.read_bytes())
                middle = len(data) // 2
                if "cut off" in kind:
                    del data[middle:]
                else:
                    data[middle : middle + 300] = bytes(value ^ 0x55 for value in data[middle : middle + 300])
                path.write_bytes(data)
            looked, damage = look(recognizer, kind, path, truth)
            if ("cut off" in kind or "corrupted" in kind) and damage is None:
                rows[kind]["undamaged"] += 1
            all_looked.append(looked)
            rows[kind] += measure(recognizer, looked, enrolled) + Counter(videos=1)
    table(rows)
    if not options.thresholds:
        return
    for name, values in (
        ("SAME", (0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7)),
        ("NEAR", (-0.2, 0.0, 0.1, 0.2, 0.3, 0.4)),
        ("OVERLAP", (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)),
        ("CUT", (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)),
        ("MISSED", (0, 1, 2, 3, 5, 10)),
    ):
        usual = getattr(linking, name)
        print(f"\n{name}, {usual} as it is:")
        sums = {}
        for value in values:
            setattr(linking, name, value)
            sums[str(value)] = sum(
                (measure(recognizer, one, enrolled) + Counter(videos=1) for one in all_looked), Counter()
            )
        setattr(linking, name, usual)
        table(sums)


def speed(options: argparse.Namespace, root: Path) -> None:
    """Say what the whole command takes for 60 s of 1080p at 25 frames a second."""
    import av
    import cv2

    folders = sorted(path for path in (options.faces / "people").iterdir() if path.is_dir())
    stage = Stage({folder.name: sorted(folder.glob("probe-*"))[:3] for folder in folders}, options.seed)
    path = root / "hd.mp4"
    with av.open(path, "w") as out:
        stream: Any = out.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        noise = np.random.default_rng(0)
        for _ in range(4):
            for rgb, _ in stage.crossing(15.0 * 25 / RATE):
                large = cv2.resize(rgb, (1920, 1080), interpolation=cv2.INTER_LINEAR)
                large = cv2.add(large, noise.integers(0, 6, (1080, 1920, 1), dtype=np.uint8).repeat(3, 2))
                out.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(large, np.uint8))))
        out.mux(stream.encode())
    print(f"60 s of 1080p, {path.stat().st_size / 1e6:.0f} MB:")
    for extra in ([], ["--keyframes"], ["--every-seconds", "5"]):
        used, wall, _ = run(["identify", str(path), "--gallery", str(root / "gallery"), "--jsonl", *extra])
        print(f"  identify {' '.join(extra) or '(a frame a second)'}: {used:.1f} s of a CPU, {wall:.1f} s", flush=True)


def memory(options: argparse.Namespace, root: Path) -> None:
    """Say how much memory a scan takes of a short and of a long video."""
    folders = sorted(path for path in (options.faces / "people").iterdir() if path.is_dir())
    for minutes in (2.0, 60.0 * options.hours):
        stage = Stage({folder.name: sorted(folder.glob("probe-*"))[:3] for folder in folders}, options.seed)
        path = root / "long.mkv"

        def scenes(stage: Stage = stage, minutes: float = minutes) -> Frames:
            for number in range(round(minutes * 60 / 6)):
                for place, frame in enumerate(stage.crossing(6.0) if number % 2 else stage.pan(6.0)):
                    if place % 5 == 0:
                        yield frame

        write_slow(path, scenes())
        every = ["--every-seconds", str(options.every)]
        used, _, peak = run(["scan", str(path), "--catalog", str(root / f"{minutes}.catalog"), "--quiet", *every])
        rate = minutes * 60 / options.every / used
        print(
            f"scan of {minutes:.0f} min: {peak / 1024:.0f} MB, {rate:.1f} frames a CPU second, {used:.0f} s of a CPU",
            flush=True,
        )


def write_slow(path: Path, frames: Frames) -> None:
    """Write two frames a second."""
    import av

    with av.open(path, "w") as out:
        stream: Any = out.add_stream("libx264", rate=2, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for rgb, _ in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb)))
        out.mux(stream.encode())


def run(arguments: list[str]) -> tuple[float, float, float]:
    """Run the command; return its CPU seconds, its seconds, and its peak of memory in KB."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "facepipe", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, process.returncode
    assert isinstance(usage, resource.struct_rusage)
    return usage.ru_utime + usage.ru_stime, time.monotonic() - started, usage.ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, help="folder with people/NAME/enroll-*.jpg and probe-*.jpg")
    parser.add_argument("--videos", type=int, default=10, help="of each kind")
    parser.add_argument("--thresholds", action="store_true", help="measure the tracks with other thresholds, too")
    parser.add_argument("--hours", type=float, default=2.0, help="of the long video; 0: none")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between the frames of the long video")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["tracks", "speed", "memory"])
    options = parser.parse_args()
    from scripts.benchlib import limit_threads, machine

    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        if options.only in (None, "tracks", "speed"):
            import torch  # noqa: F401

            limit_threads()
            if options.only == "speed":
                options.videos = 0
            tracks(options, Path(folder))
        if options.only in (None, "speed"):
            speed(options, Path(folder))
        if options.only in (None, "memory") and options.hours:
            memory(options, Path(folder))


if __name__ == "__main__":
    main()
