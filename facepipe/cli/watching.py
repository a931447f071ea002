"""What `facepipe identify` does with videos: how far it is, crops of faces, and a copy with frames and names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facepipe.embed.clips import Seen
    from facepipe.images.video import Frame
    from facepipe.records import Record
    from facepipe.types import Float32, UInt8


class Watched:
    """Follows the videos that a recognizer looks at, one after the other."""

    def __init__(self, progress: Callable[[float], object]) -> None:
        """progress: moves a bar on by a part of a file."""
        self._progress = progress
        self._share = 0.0
        #: Time, track and box of each face; the frames' times.
        self._boxes: list[tuple[float, int, Float32]] = []
        self._times: list[float] = []

    def add(self, path: Path, seen: Seen) -> None:
        """Take what a chunk of a video's frames brought, but no pixels and no embeddings."""
        for time, photo, numbers in seen.frames:
            self._times.append(time)
            self._boxes += [(time, number, face.box) for number, face in zip(numbers, photo.faces, strict=True)]
        if seen.share is not None:
            self._progress(seen.share - self._share)
            self._share = seen.share

    def rest(self) -> float:
        """Return which part of the file that is done was not told yet, and go on to the next one."""
        rest, self._share, self._boxes, self._times = 1.0 - self._share, 0.0, [], []
        return rest

    def write(self, path: str, record: Record, annotate: Path | None, crops: Path | None, max_side: int | None) -> None:
        """Write the crops of a video's faces, and the copy of it: a file, or one in a folder."""
        from facepipe.errors import UsageError
        from facepipe.images import is_video
        from facepipe.images.video_writer import VIDEO_OUTPUTS
        from facepipe.outputs.names import output_stem
        from facepipe.outputs.owned import claim_folder
        from facepipe.text import printable

        if crops is not None:
            claim_folder(crops)
            _write_crops(path, record, crops, max_side)
        if annotate is not None:
            if annotate.suffix.lower() not in VIDEO_OUTPUTS:
                if is_video(annotate.name):
                    raise UsageError(
                        f"{printable(annotate)}: copies of videos are {', '.join(VIDEO_OUTPUTS)}, or lie in a folder"
                    )
                claim_folder(annotate)
                annotate /= f"{output_stem(path)}.mp4"
            self._write_copy(path, record, annotate)

    def _write_copy(self, path: str, record: Record, target: Path) -> None:
        import numpy as np

        from facepipe.cli.process import cores
        from facepipe.images.video_writer import box_at, redraw_video
        from facepipe.outputs.draw import draw_predictions

        # A face is shown for half of the time to the frame before and after those in which it was found, and not where it was missed.
        room = (self._times[-1] - self._times[0]) / max(1, len(self._times) - 1) / 2 if self._times else 0.0
        known = [
            [(times, np.stack(boxes)) for times, boxes in mine]
            for mine in runs_of(self._boxes, self._times, len(record["faces"]), 2.0 * room)
        ]

        def draw(frame: Frame) -> UInt8:
            faces = []
            for face, mine in zip(record["faces"], known, strict=True):
                boxes = (box_at(times, boxes, frame.time, room) for times, boxes in mine)
                if (box := next((box for box in boxes if box is not None), None)) is not None:
                    faces.append({**face, "box": box.tolist(), "landmarks": []})
            return draw_predictions(frame.image, {**record, "faces": faces})

        redraw_video(Path(path), target, draw, threads=cores())


def runs_of(
    found: Sequence[tuple[float, int, Float32]], frames: Sequence[float], tracks: int, pause: float
) -> list[list[tuple[list[float], list[Float32]]]]:
    """Return of each track the times and boxes of frames in a row in which it was found.

    found: time, track and box of each face. frames: times of all that were looked at. pause: seconds between them; so long a box of
    the last one holds, since nobody looked after it.
    """
    places = {time: place for place, time in enumerate(frames)}
    runs: list[list[tuple[list[float], list[Float32]]]] = [[] for _ in range(tracks)]
    for time, number, box in found:
        mine = runs[number]
        if not mine or places[time] - places[mine[-1][0][-1]] > 1:
            mine.append(([], []))
        mine[-1][0].append(time)
        mine[-1][1].append(box)
    for mine in runs:
        if mine and mine[-1][0][-1] == frames[-1]:
            mine[-1][0].append(frames[-1] + pause + 1e-3)
            mine[-1][1].append(mine[-1][1][-1])
    return runs


def _write_crops(path: str, record: Record, folder: Path, max_side: int | None) -> None:
    from facepipe.embed.clips import frame_at
    from facepipe.images import write_image
    from facepipe.outputs.draw import crop_face, crop_names

    faces = zip(crop_names(path, record), record["faces"], record["tracks"], strict=True)
    for name, face, track in faces:
        image = frame_at(Path(path), path, track["best_frame"], max_side=max_side)
        write_image(folder / name, crop_face(image, face))
