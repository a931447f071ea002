"""What `facepipe identify` does with videos: how far it is, crops of faces, and a copy with frames and names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facepipe.embed.clips import Seen
    from facepipe.records import Record


class Watched:
    """Follows the videos that a recognizer looks at, one after the other."""

    def __init__(self, progress: Callable[[float], object]) -> None:
        """progress: moves a bar on by a part of a file."""
        self._progress = progress
        self._share = 0.0
        self._seen: list[Seen] = []

    def add(self, path: Path, seen: Seen) -> None:
        """Take what a chunk of a video's frames brought, but no pixels."""
        from dataclasses import replace

        self._seen.append(replace(seen, best={}))
        if seen.share is not None:
            self._progress(seen.share - self._share)
            self._share = seen.share

    def rest(self) -> float:
        """Return which part of the file that is done was not told yet, and go on to the next one."""
        rest, self._share, self._seen = 1.0 - self._share, 0.0, []
        return rest

    def write(self, path: str, record: Record, annotate: Path | None, crops: Path | None, max_side: int | None) -> None:
        """Write the crops of a video's faces, and the copy of it."""
        from facepipe.embed.clips import frame_at
        from facepipe.images import write_image
        from facepipe.outputs.draw import crop_face, crop_names
        from facepipe.outputs.owned import claim_folder

        if crops is not None:
            claim_folder(crops)
            faces = zip(crop_names(path, record), record["faces"], record["tracks"], strict=True)
            for name, face, track in faces:
                image = frame_at(Path(path), path, track["best_frame"], max_side=max_side)
                write_image(crops / name, crop_face(image, face))
