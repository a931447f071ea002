"""What the commands that look at photos share: their options, lists of photos, and the recognizer that these build."""

from __future__ import annotations

import codecs
import functools
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from facepipe.cli.common import FiniteRange, PlacePath, device_option, gallery_option, model_option, note
from facepipe.cli.process import settle
from facepipe.errors import InputError

if TYPE_CHECKING:
    from facepipe.catalog.ray_scan import RayScan
    from facepipe.embed.describer import Describer
    from facepipe.pipeline import Recognizer
    from facepipe.types import Sampling

_F = TypeVar("_F", bound=Callable[..., Any])
FOLDER = PlacePath(file_okay=False)


def _stack(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def detect_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--min-face`, `--min-score`, `--max-side`, `--second-chance`, `--device`, given to the command as `looking`."""

    @functools.wraps(command)
    def called(**values: Any) -> Any:
        settle()
        looking = Looking(**{name: values.pop(name) for name in Looking.__dataclass_fields__})
        return command(looking=looking, **values)

    return _stack(
        click.option(
            "--min-face",
            type=click.IntRange(min=12),
            default=40,
            show_default=True,
            envvar="FACEPIPE_MIN_FACE",
            help="Smallest face, in pixels; see README, Limits, for pictures larger than --max-side.",
        ),
        click.option(
            "--min-score",
            type=FiniteRange(0.0, 1.0),
            default=0.4,
            show_default=True,
            envvar="FACEPIPE_MIN_SCORE",
            help="Lowest score of a face. Below 0.7 there are covered and blurred faces, and some that are not faces.",
        ),
        click.option(
            "--second-chance/--no-second-chance",
            default=True,
            show_default=True,
            help="Where nothing certain is found, search the photo turned, with a border, and brightened.",
        ),
        click.option(
            "--max-side",
            type=click.IntRange(min=0),
            default=1280,
            show_default=True,
            envvar="FACEPIPE_MAX_SIDE",
            help="Reduce larger pictures to this many pixels for the search, crowds up to four times as large; 0: never.",
        ),
        device_option,
    )(called)


def video_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--every-seconds` and `--keyframes`, given to the command as `sampling`."""

    @functools.wraps(command)
    def called(every_seconds: float, keyframes: bool, **values: Any) -> Any:
        from facepipe.types import Sampling

        return command(sampling=Sampling(every_seconds, keyframes), **values)

    return _stack(
        click.option(
            "--every-seconds",
            type=FiniteRange(0.01, 86400.0),
            default=1.0,
            show_default=True,
            envvar="FACEPIPE_EVERY_SECONDS",
            help="Of videos, look at a frame for each so many seconds.",
        ),
        click.option(
            "--keyframes",
            is_flag=True,
            envvar="FACEPIPE_KEYFRAMES",
            help="Of videos, look only at frames that stand alone in the file: faster, and they may lie seconds apart.",
        ),
    )(called)


def decision_options(command: _F) -> _F:
    """`--gallery`, `--model`, `--threshold`, `--margin`, `--top-k`, `--repeat`: how to compare and decide."""
    return _stack(
        gallery_option,
        model_option,
        click.option(
            "--threshold",
            type=FiniteRange(-1.0, 1.0),
            default=None,
            envvar="FACEPIPE_THRESHOLD",
            help="Cosine at which a face counts as known; default: the gallery's calibration, or the model's record.",
        ),
        click.option(
            "--margin",
            type=FiniteRange(0.0, 2.0),
            default=None,
            envvar="FACEPIPE_MARGIN",
            help="How far the best person must lead the second; closer is ambiguous.",
        ),
        click.option(
            "--top-k",
            type=click.IntRange(min=1),
            default=3,
            show_default=True,
            envvar="FACEPIPE_TOP_K",
            help="Candidates shown for each face.",
        ),
        click.option(
            "--repeat",
            is_flag=True,
            envvar="FACEPIPE_REPEAT",
            help="Let one person be named more than once in a photo (collages, mirrors).",
        ),
    )(command)


def csv_raw_option(command: _F) -> _F:
    """`--csv-raw`: text in CSV as it is."""
    return click.option(
        "--csv-raw",
        is_flag=True,
        help="Write names and paths in CSV as they are, also where a spreadsheet takes them for formulas.",
    )(command)


def exclude_option(command: _F) -> _F:
    """`--exclude`: what folders and archives are not searched for."""
    return click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Pass over files and folders, with patterns as in a .gitignore file; may be given again. A file .facepipeignore "
        "in a folder holds such patterns too.",
    )(command)


def face_option(command: _F) -> _F:
    """`--face N`: which face of a photo."""
    return click.option(
        "--face",
        "number",
        type=click.IntRange(min=1),
        metavar="NUMBER",
        help="The face of this number, as the tables of detect and identify and the pictures of detect --annotate show it.",
    )(command)


def explain_option(command: _F) -> _F:
    """`--explain [FILE]`: an explanation of the answer."""
    return click.option(
        "--explain",
        type=PlacePath(dir_okay=False),
        is_flag=False,
        flag_value="explain.html",
        metavar="[FILE]",
        help="Write why: .html, .png or .json; explain.html where no file is named (then the option stands last).",
    )(command)


def list_options(command: _F) -> _F:
    """`--files-from` and `-0`: a list of photos; read it with `listed`."""
    command = click.option(
        "-0", "--null", "separated_by_null", is_flag=True, help="Names in --files-from end with NUL (find -print0)."
    )(command)
    return click.option(
        "--files-from",
        type=click.File("rb"),
        help="Read the names of photos and folders from a file, one per line; - is stdin.",
    )(command)


def shard_option(command: _F) -> _F:
    """`--shard K/N`: a text; parse it with `facepipe.catalog.shards.Shard`."""
    return click.option(
        "--shard",
        metavar="K/N",
        default="1/1",
        help="Look at the K-th of N parts of the photos, for N machines or jobs; facepipe catalog merge joins their catalogs.",
    )(command)


def ray_option(command: _F) -> _F:
    """`--ray ADDRESS|auto|local`: see `on_ray`."""
    return click.option(
        "--ray",
        metavar="ADDRESS|auto|local",
        default=None,
        envvar="FACEPIPE_RAY",
        help="Scan photos on a Ray cluster that runs, with --workers workers; local: start one on this machine for this scan.",
    )(command)


def on_ray(address: str | None, device: str, workers: int | None) -> AbstractContextManager[RayScan | None]:
    """Return the cluster to scan on, None without one."""
    if address is None:
        return nullcontext()
    from facepipe.catalog.ray_scan import RayScan

    return RayScan(address, _load_on_worker, device, workers, lambda line: note(f"facepipe: {line}"))


def _load_on_worker(facts: Mapping[str, Any], device: str) -> Describer:
    from facepipe.cli.allocator import share_arenas

    settle()
    share_arenas()
    from facepipe.loading import load_like

    return load_like(facts, device)


def listed(file: IO[bytes] | None, separated_by_null: bool) -> list[str]:
    """Return the names in a list; bytes that are not text stay as they are, as in every file name.

    InputError for a list in UTF-16, as Windows' editors write it, and for NULs where lines are expected.
    """
    if file is None:
        return []
    data = file.read()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError("--files-from: the list is in UTF-16; save it as UTF-8")
    if b"\0" in data and not separated_by_null:
        raise InputError(
            "--files-from: the list has NULs: names that end with NUL, as find -print0 writes them, need -0; a list in UTF-16 has to "
            "be saved as UTF-8"
        )
    names = data.removeprefix(codecs.BOM_UTF8).split(b"\0" if separated_by_null else b"\n")
    return [os.fsdecode(name if separated_by_null else name.rstrip(b"\r")) for name in names if name.strip()]


def picture_options(place: PlacePath, help: str) -> Callable[[_F], _F]:
    """`--annotate` and `--crops`: pictures of what was found. place, help: of `--annotate`."""
    return _stack(
        click.option("--annotate", type=place, help=help),
        click.option("--crops", type=FOLDER, help="Write each face as a picture into this folder."),
    )


@dataclass(frozen=True, slots=True)
class Looking:
    """The options of `detect_options`."""

    min_face: int = 40
    min_score: float = 0.4
    max_side: int = 1280
    second_chance: bool = True
    device: str = "auto"

    @property
    def read_side(self) -> int | None:
        """How far a picture may be reduced while it is decoded: None, not at all."""
        return self.max_side or None


@dataclass(frozen=True, slots=True)
class Deciding:
    """The options of `decision_options`."""

    gallery: Path
    model: str | None
    threshold: float | None
    margin: float | None
    top_k: int
    repeat: bool


def recognition_options(command: _F) -> Callable[..., Any]:
    """`detect_options` and `decision_options`, given to the command as `looking` and `deciding`."""

    @functools.wraps(command)
    def called(**values: Any) -> Any:
        deciding = Deciding(**{name: values.pop(name) for name in Deciding.__dataclass_fields__})
        return command(deciding=deciding, **values)

    return decision_options(detect_options(called))


#: Up to so many photos are done sooner by the engines that start without torch.
FEW = 8


def load_recognizer(
    looking: Looking, deciding: Deciding, sampling: Sampling, photos: int, *, late: bool = False
) -> Recognizer:
    """Open the gallery and load everything that answers "who is this?"; late: the networks only when they are needed."""
    from facepipe.gallery.store import GalleryStore
    from facepipe.pipeline import Recognizer

    chosen = {name: value for name, value in asdict(deciding).items() if name != "gallery"}
    with GalleryStore.open(deciding.gallery) as gallery:
        return Recognizer(
            gallery, **asdict(looking), **asdict(sampling), **chosen, quick=photos <= FEW, late=late, tell=note
        )


def load_without_gallery(looking: Looking, deciding: Deciding, sampling: Sampling, *, late: bool) -> Recognizer:
    """Load what answers while nobody is enrolled: every face is unknown; late: the networks only when they are needed."""
    from facepipe.loading import detect_options as detection
    from facepipe.loading import load_describer, load_nobody
    from facepipe.models.registry import DEFAULT_EMBEDDER
    from facepipe.pipeline import Recognizer

    facts = asdict(looking)
    describer = load_describer(deciding.model or DEFAULT_EMBEDDER, facts.pop("device"), detection(**facts), late=late)
    describer.sampling = sampling
    chosen = {name: value for name, value in asdict(deciding).items() if name not in {"gallery", "model"}}
    return Recognizer.of_steps(load_nobody(deciding.model, describer, **chosen))
