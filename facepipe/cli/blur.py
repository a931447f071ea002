"""`facepipe blur`: copies of photos and videos in which faces are covered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from facepipe.cli.common import (
    device_option,
    echo,
    gallery_option,
    no_lock_option,
    note,
    progress_bar,
    quiet_option,
    without_sidecars,
)
from facepipe.cli.options import FOLDER, exclude_option, list_options, listed
from facepipe.text import files, plural, printable

if TYPE_CHECKING:
    from facepipe.anonymise import Blurred

#: Photos that are named, of those which are to be looked at.
_MOST_NAMED = 5


@click.command()
@click.argument("photos", nargs=-1, callback=without_sidecars, metavar="PHOTO|FOLDER|VIDEO...")
@click.option("--out", type=FOLDER, required=True, help="Folder for the copies: a new one, or one of an earlier run.")
@click.option(
    "--style",
    type=click.Choice(["solid", "mosaic", "blur"]),
    default="solid",
    show_default=True,
    help="How faces are covered. Of a mosaic or blur a search can still tell more than chance.",
)
@click.option(
    "--keep", multiple=True, metavar="NAME", help="Leave this person uncovered where certain; may be given again."
)
@click.option("--only-unknown", is_flag=True, help="Leave everybody in the gallery uncovered where certain.")
@list_options
@exclude_option
@click.option("--jsonl", is_flag=True, help="Print one JSON record per line, as each photo is done.")
@gallery_option
@no_lock_option
@device_option
@quiet_option
def blur(
    photos: tuple[str, ...],
    out: Path,
    style: str,
    keep: tuple[str, ...],
    only_unknown: bool,
    files_from: IO[bytes] | None,
    separated_by_null: bool,
    exclude: tuple[str, ...],
    jsonl: bool,
    gallery: Path,
    device: str,
    quiet: bool,
) -> int:
    """Write copies of photos and videos in which every face is covered. Of their metadata the date alone goes along.

    What cannot be read is not copied. Run again, it writes only what changed. Exit code 7 when some photos failed.
    """
    from facepipe.cli.process import settle

    settle()
    from facepipe.anonymise import blur as cover
    from facepipe.errors import ExitCode, InputError, UsageError
    from facepipe.gallery.store import GalleryStore
    from facepipe.images import Passing
    from facepipe.records import dumps

    roots = [*photos, *listed(files_from, separated_by_null)]
    if not roots:
        raise UsageError("blur: no photos given; name a folder, or use --files-from")
    passing = Passing(exclude)
    done: list[Blurred] = []
    with ExitStack() as stack:
        known = stack.enter_context(GalleryStore.open(gallery)) if keep or only_unknown else None
        found = cover(
            roots,
            out,
            style=style,  # type: ignore[arg-type]
            keep=keep,
            only_unknown=only_unknown,
            gallery=known,
            device=device,
            passing=passing,
        )
        with progress_bar("covering", None, quiet=quiet or jsonl) as progress:
            for one in found:
                done.append(one)
                progress(1)
                if one.error is not None and not quiet:
                    note(f"facepipe: {one.error}")
                if jsonl:
                    echo(dumps({"schema_version": 1, **asdict(one), "out": None if one.out is None else str(one.out)}))
    if not done:
        passed = f" (passed over: {told})" if (told := passing.told()) else ""
        raise InputError(f"{', '.join(map(printable, roots))}: no photos found{passed}")
    if not jsonl:
        _summary(done, out, passing.told())
    if all(one.error is None for one in done):
        return ExitCode.OK
    return ExitCode.INPUT if all(one.out is None for one in done) else ExitCode.PARTIAL


def _summary(done: Sequence[Blurred], out: Path, passed: str) -> None:
    from facepipe.images import is_video

    copies = [one for one in done if one.out is not None]
    parts = [f"{plural(sum(one.covered for one in copies), 'face')} covered"]
    for count, what in (
        (sum(one.kept for one in copies), "kept"),
        (sum(one.unchanged for one in copies), "unchanged"),
        (len(done) - len(copies), "failed and not copied"),
    ):
        parts += [f"{count:,} {what}"] if count else []
    echo(f"{_files(done)}: {', '.join(parts)}")
    _name("no face was found in", [one for one in copies if not one.covered + one.kept], "look at")
    _name(
        "the first frame or page alone is in",
        [one for one in copies if one.frames > 1 and not is_video(one.path)],
        "of",
    )
    if passed:
        echo(f"passed over: {passed}")
    echo(f"copies: {printable(out)}")


def _files(some: Sequence[Blurred]) -> str:
    from facepipe.images import is_video

    return files(len(some), sum(is_video(one.path) for one in some))


def _name(what: str, copies: Sequence[Blurred], how: str) -> None:
    """Say that something holds for some copies, and for which."""
    if copies:
        names = ", ".join(printable(str(one.out)) for one in copies[:_MOST_NAMED])
        more = f" and {len(copies) - _MOST_NAMED:,} more" if len(copies) > _MOST_NAMED else ""
        echo(f"{what} {_files(copies)}; {how} {names}{more}")
