"""What `facepipe identify` does with videos: how far it is, crops of faces, and a copy with frames and names."""

from __future__ import annotations

from collections.abc import Callable
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
        from facepipe.images.video_writer import VIDEO_OUTPUTS
        from facepipe.outputs.names import output_stem
        from facepipe.outputs.owned import claim_folder

        if crops is not None:
            claim_folder(crops)
            _write_crops(path, record, crops, max_side)
        if annotate is not None:
            if annotate.suffix.lower() not in VIDEO_OUTPUTS:
                claim_folder(annotate)
                annotate /= f"{output_stem(path)}.mp4"
            self._write_copy(path, record, annotate)

    def _write_copy(self, path: str, record: Record, target: Path) -> None:
        import numpy as np

        from facepipe.cli.process import cores
        from facepipe.images.video_writer import box_at, redraw_video
        from facepipe.outputs.draw import draw_predictions

        found: list[tuple[list[float], list[Float32]]] = [([], []) for _ in record["faces"]]
        for time, number, box in self._boxes:
            found[number][0].append(time)
            found[number][1].append(box)
        known = [(times, np.stack(boxes)) for times, boxes in found]
        # A face is shown for half of the time to the frame before and after those in which it was found.
        room = (self._times[-1] - self._times[0]) / max(1, len(self._times) - 1) / 2 if self._times else 0.0

        def draw(frame: Frame) -> UInt8:
            faces = []
            for face, (times, boxes) in zip(record["faces"], known, strict=True):
                box = box_at(times, boxes, frame.time, room)
                if box is not None:
                    faces.append({**face, "box": box.tolist(), "landmarks": []})
            return draw_predictions(frame.image, {**record, "faces": faces})

        redraw_video(Path(path), target, draw, threads=cores())


def _write_crops(path: str, record: Record, folder: Path, max_side: int | None) -> None:
    from facepipe.embed.clips import frame_at
    from facepipe.images import write_image
    from facepipe.outputs.draw import crop_face, crop_names

    faces = zip(crop_names(path, record), record["faces"], record["tracks"], strict=True)
    for name, face, track in faces:
        image = frame_at(Path(path), path, track["best_frame"], max_side=max_side)
        write_image(folder / name, crop_face(image, face))
