"""What all commands share: options, the two consoles, and the one handler that turns errors into exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from facepipe.errors import ExitCode, FacepipeError

if TYPE_CHECKING:
    from rich.console import Console

_F = TypeVar("_F", bound=Callable[..., Any])

#: Where the answer goes; `protect_stdout` points it at the real stdout.
_answer: IO[str] | None = None


@contextlib.contextmanager
def protect_stdout() -> Iterator[None]:
    """Keep stdout for the answer alone: native libraries that print to descriptor 1 are sent to stderr."""
    global _answer  # noqa: PLW0603
    try:
        sys.stdout.flush()
        saved = os.dup(1)
    except (OSError, ValueError):  # no stdout at all: nothing to protect
        yield
        return
    python_stdout = sys.stdout
    try:
        os.dup2(2, 1)
        _answer = os.fdopen(saved, "w", encoding="utf-8", errors="surrogateescape", newline="\n")
        sys.stdout = _answer
        yield
    finally:
        sys.stdout = python_stdout
        try:
            if _answer is not None:
                _answer.flush()
        except BrokenPipeError:  # the reader (head, less) has gone; there is nobody left to tell
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, saved)
            os.close(devnull)
        os.dup2(saved, 1)
        if _answer is not None:
            _answer.close()
        _answer = None


def echo(text: str = "") -> None:
    """Write one line of the answer to stdout."""
    click.echo(text, file=_answer or sys.stdout)


def note(text: str) -> None:
    """Write one line that is not the answer to stderr."""
    click.echo(text, err=True)


def out_console() -> Console:
    """rich's console on stdout, for tables."""
    from rich.console import Console

    return Console(file=_answer or sys.stdout)


def err_console() -> Console:
    """rich's console on stderr, for progress."""
    from rich.console import Console

    return Console(stderr=True)


def exit_code_of(call: Callable[[], object]) -> int:
    """Run `call`; print a planned error as one line on stderr and return its exit code."""
    try:
        result = call()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        note("facepipe: interrupted")
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except FacepipeError as error:
        note(f"facepipe: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        note("facepipe: interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return ExitCode.OK
    return result if isinstance(result, int) else ExitCode.OK


def gallery_option(command: _F) -> _F:
    """`--gallery DIR`: the gallery's folder."""
    return click.option(
        "--gallery",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("gallery"),
        show_default=True,
        envvar="FACEPIPE_GALLERY",
        help="Folder of the gallery.",
    )(command)


def model_option(command: _F) -> _F:
    """`--model NAME`: the embedder."""
    return click.option(
        "--model",
        default=None,
        envvar="FACEPIPE_MODEL",
        metavar="NAME",
        help="Embedder; default: the gallery's own, or mini for a new gallery.",
    )(command)


def device_option(command: _F) -> _F:
    """`--device auto|cpu|cuda[:N]`."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        envvar="FACEPIPE_DEVICE",
        metavar="auto|cpu|cuda[:N]",
        help="Where the networks run.",
    )(command)


def quiet_option(command: _F) -> _F:
    """`--quiet`: nothing on stderr but errors."""
    return click.option(
        "-q", "--quiet", is_flag=True, envvar="FACEPIPE_QUIET", help="Print nothing but the answer and errors."
    )(command)


def json_option(command: _F) -> _F:
    """`--json`: one JSON document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)
