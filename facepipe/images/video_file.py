"""Opening videos: which files are taken for one, and what none of them may do.

A video is a local file of a container and a codec that are listed here. It is given to ffmpeg as an open file, with the demuxer that
its beginning asks for: playlists are never followed, and whatever a file names, other files or addresses, is not opened.
"""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from facepipe.errors import ImageError, InputError, LibraryError
from facepipe.images.containers import FileWindow, Window, boxes
from facepipe.images.formats import CONTAINERS, PICTURES
from facepipe.images.reading import limit_of, max_pixels, open_at_once
from facepipe.text import no_such, printable

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

DEFAULT_MAX_SECONDS = 3600
#: 8K. A decoder keeps up to 16 earlier frames: 1 GB.
_MOST_PIXELS = 8192 * 4352

#: What describes a MOV's frames, one by one or as so many of one size, and what is packed and may hold any number of them.
_TABLES = re.compile(rb"stsz....(?!\x00{4})....(....)|trun.(..).(....)|(cmov)", re.DOTALL)
#: Sound that is not compressed: its samples are all of one length, and ffmpeg does not list them.
_PLAIN_SOUND = re.compile(rb"stts....\x00\x00\x00\x01....\x00\x00\x00\x01", re.DOTALL)
#: Frames that a MOV may have, 37 hours of 60 a second; ffmpeg takes 70 bytes for each before anything is decoded.
_MOST_SAMPLES = 8_000_000
#: Bytes of the boxes with such tables: 20 for each frame of 14 hours.
_LONGEST_TABLES = 64 << 20
_PLAYLIST = (
    rb"(?i)(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(#EXTM3U|ffconcat\b|file\s|v=0\s|https?:|rt[ms]p:|rtsptext"
    rb"|\[(playlist|reference|default)\]|<(MPD|SMIL|ASX|playlist|SmoothStreamingMedia)\b)"
)
#: Decoders that are used, of the 500 that there are.
_DECODERS = (
    *(
        "libdav1d",
        "av1",
        "dvvideo",
        "flv",
        "h263",
        "h263p",
        "h264",
        "hevc",
        "mjpeg",
        "mpeg1video",
        "mpeg2video",
        "mpeg4",
    ),
    *("msmpeg4v1", "msmpeg4v2", "msmpeg4", "prores", "rawvideo", "svq3", "theora", "vc1", "vp6", "vp6f", "vp8", "vp9"),
    *("wmv1", "wmv2", "wmv3"),
)


class Clock:
    """The time of a processor that a file takes, while it runs."""

    def __init__(self) -> None:
        self.limit = limit_of("FACEPIPE_MAX_VIDEO_SECONDS", DEFAULT_MAX_SECONDS, "seconds")
        self._left = float(self.limit)
        self._since = time.thread_time()

    def run(self) -> None:
        """Go on, perhaps in another thread than before."""
        self._since = time.thread_time()

    def pause(self) -> None:
        """Count no more until `run`."""
        self._left -= time.thread_time() - self._since

    def is_over(self) -> bool:
        """Say whether the file has had its time."""
        return time.thread_time() - self._since > self._left


class VideoFile:
    """A file as ffmpeg sees it: something to read, without a name, that ends when its time is over."""

    def __init__(self, source: Path | BinaryIO, name: str) -> None:
        """Open it. Errors: InputError."""
        self.clock = Clock()
        self._own = isinstance(source, Path)
        self._file = _opened(source, name) if isinstance(source, Path) else source

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Errors: OSError, TimeoutError."""
        if self.clock.is_over():
            raise TimeoutError("its time is over")
        return self._file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(place, whence)

    def tell(self) -> int:
        """Return where it is."""
        return self._file.tell()

    def window(self) -> Window:
        """Return what can be looked at as bytes."""
        try:
            return FileWindow(self._file)
        except OSError:  # it is in memory
            self._file.seek(0)
            data = self._file.read()
            self._file.seek(0)
            return data

    def close(self) -> None:
        """Close what was opened here."""
        if self._own:
            self._file.close()


def _opened(path: Path, name: str) -> BinaryIO:
    try:
        file = open(path, "rb", opener=open_at_once)  # noqa: SIM115
    except FileNotFoundError as error:
        raise InputError(no_such(name)) from error
    except IsADirectoryError as error:
        raise InputError(f"{printable(name)}: is a folder; name a video in it or use `facepipe batch`") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{printable(name)}: cannot be read ({reason}); check its permissions") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"{printable(name)}: is a pipe or a device; a video must be a file: save it first")
    return file


def open_container(file: VideoFile, name: str) -> InputContainer:
    """Return the file's streams. Errors: LibraryError without PyAV, ImageError when it is no video that is read."""
    try:
        import av
    except ImportError as error:
        raise LibraryError(
            f"{printable(name)}: videos need PyAV, which cannot be loaded ({error}): pip install av, or facepipe with its "
            "extra [video]"
        ) from error
    kind = _container_of(file, name)
    if kind == "mov":
        _require_sound_tables(file.window(), name)
    try:
        return av.open(
            file,
            "r",
            format=kind,
            options={"max_pixels": str(most_pixels())},
            container_options={
                "codec_whitelist": ",".join(_DECODERS),
                "protocol_whitelist": "none",
                "max_streams": "64",
            },
            metadata_errors="replace",
            io_open=_refuse,
        )
    except MemoryError as error:
        raise ImageError(f"{printable(name)}: needs more memory than is available; convert it to MP4") from error
    except Exception as error:
        raise damaged(name, reason_of(error)) from error


def _container_of(file: VideoFile, name: str) -> str:
    """Return the demuxer for what a file begins with. Errors: ImageError."""
    try:
        head = file.read(4096)
        file.seek(0)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{printable(name)}: cannot be read ({error}); a video must be a file: save it first"
        ) from error
    if re.match(_PLAYLIST, head, re.DOTALL):
        raise ImageError(
            f"{printable(name)}: is a playlist; what it names, files or addresses, is not opened: name the video itself"
        )
    if re.match(PICTURES, head, re.DOTALL):
        raise ImageError(f"{printable(name)}: is a photo and not a video; give it the suffix of a photo")
    for beginning, kind in CONTAINERS:
        if re.match(beginning, head, re.DOTALL):
            return kind
    raise ImageError(
        f"{printable(name)}: {'cannot be read as a video; convert it to MP4' if head else 'is empty; copy it again'}"
    )


def _require_sound_tables(file: Window, name: str) -> None:
    """Raise ImageError for a MOV or MP4 without an index, or with one that would fill the memory.

    A few bytes can say that there are millions of frames of the same size, and ffmpeg makes its own list of all of them.
    """
    kinds, samples = set(), 0
    for kind, start, end in boxes(file, 0, len(file)):
        kinds.add(kind)
        if kind in {b"mdat", b"free", b"skip"}:
            continue
        data = file[start : min(end, start + _LONGEST_TABLES)]
        counts = []
        for size, flags, run, packed in _TABLES.findall(data):
            listed = run and flags[1] & 15  # each frame of the run is described
            counts.append(_MOST_SAMPLES + 1 if packed else 0 if listed else int.from_bytes(size or run))
        plain = sum(1 for _ in _PLAIN_SOUND.finditer(data))
        samples += sum(sorted(counts, reverse=True)[plain:])
        if samples > _MOST_SAMPLES or end - start > _LONGEST_TABLES:
            raise ImageError(
                f"{printable(name)}: says that it has more frames than can be read; convert it to MP4 again"
            )
    if not kinds & {b"moov", b"moof"}:
        raise damaged(name, "its index is missing, as of a recording that was not ended")


def _refuse(url: str, flags: int, options: dict[str, Any]) -> BinaryIO:
    """Open nothing: what a container names beside itself."""
    raise PermissionError(f"it names another file, {printable(url)}")


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """Return the stream of pictures that a player shows. Errors: ImageError."""
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    streams = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not streams and container.streams.audio:
        raise ImageError(f"{printable(name)}: holds sound and no video; leave it out")
    if not streams:
        raise damaged(name, "it holds no video")
    known = [
        stream
        for stream in streams
        if stream.codec_context is not None and stream.codec_context.codec.name in _DECODERS
    ]
    if not known:
        raise ImageError(f"{printable(name)}: its video's codec is not read; convert it to H.264 in MP4")
    largest = max(stream.width * stream.height for stream in known)
    if largest > (limit := most_pixels()):
        raise ImageError(f"{printable(name)}: a frame has {largest:,} pixels, the limit is {limit:,}; make it smaller")
    best = container.streams.best("video")
    return next((stream for stream in known if best is not None and stream.index == best.index), known[0])


def most_pixels() -> int:
    """Return how many pixels a frame may have."""
    return min(_MOST_PIXELS, max_pixels())


def damaged(name: str, reason: str) -> ImageError:
    """Return the error of a video of which nothing can be read."""
    return ImageError(f"{printable(name)}: the video is damaged or was cut off ({printable(reason)}); copy it again")


def reason_of(error: BaseException) -> str:
    """Return what ffmpeg or the system says of an error."""
    reason = getattr(error, "strerror", None) or str(error)
    return printable(reason.splitlines()[0]) if reason else type(error).__name__
