"""`facepipe review`: name the groups of a pile in a browser."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import click

from facepipe.cli.catalogs import catalog_argument, the_catalog
from facepipe.cli.common import echo, gallery_option, note
from facepipe.cli.process import settle
from facepipe.text import printable


@click.command()
@catalog_argument
@gallery_option
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port on this machine; default: any that is free."
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in this machine's browser as well.")
def review(catalog: Path | None, gallery: Path, port: int, open_browser: bool) -> None:
    """Name the groups of faces of CATALOG on a web page, which is for this machine alone.

    Prints the page's address, and serves it until Ctrl+C. Every answer is kept when the page shows it.
    """
    from facepipe.errors import LibraryError, OutputError

    settle()
    try:
        import starlette.applications  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise LibraryError(
            f"review needs starlette and uvicorn, which cannot be loaded ({error}): pip install starlette uvicorn, or facepipe with "
            "its extra [web]"
        ) from error
    path = the_catalog(catalog)
    from facepipe.groups.album import Album
    from facepipe.groups.store import groups_path
    from facepipe.review.running import run

    with Album(path, gallery) as groups:
        len(groups.pile)  # what cannot be read is said before there is a page
        if groups.asked is not None:
            note(
                f"facepipe: groups are joined down to {groups.asked:g}, as cluster --threshold asked; cluster without it ends that"
            )
    if not groups_path(path).exists() and not os.access(path.absolute().parent, os.W_OK):
        raise OutputError(
            f"{printable(path)}: its folder cannot be written, and answers are kept there; copy the catalog elsewhere"
        )
    with contextlib.ExitStack() as stack:

        def ready(address: str) -> None:
            echo(address)
            note("Open this address in a browser. Ctrl+C ends it; every answer is kept when the page shows it.")
            if open_browser:
                stack.enter_context(_opened(address))

        run(functools.partial(Album, path, gallery), str(path), port=port, ready=ready)


@contextlib.contextmanager
def _opened(address: str) -> Iterator[None]:
    """Open the address in the browser by way of a private file: the command that starts it can be read by everybody here."""
    import tempfile
    import webbrowser

    with tempfile.TemporaryDirectory(prefix="facepipe-") as folder:
        page = Path(folder, "review.html")
        page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={address}">', encoding="ascii")
        webbrowser.open(page.as_uri())
        yield
