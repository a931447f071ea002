"""What all commands share: options, the two consoles, and the one handler that turns errors into exit codes."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from facepipe.errors import ExitCode, FacepipeError, InputError, UsageError
from facepipe.text import is_url_like, no_such, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from facepipe.catalog.remote import Photo

#: Of a path that the system refuses so much is shown.
_LONGEST_SHOWN = 200
#: Commands that read a photo from standard input, and those that read photos of object stores.
_TAKE_STDIN = ("identify", "detect", "verify", "explain")
_READ_STORES = frozenset({"batch", "scan", *_TAKE_STDIN})
_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")

#: Where the answer goes; `protect_stdout` points it at the real stdout.
_answer: IO[str] | None = None


class AnswerLostError(Exception):
    """Stdout does not take the answer: its reader has gone (head, true), or the disk behind it is full.

    No OSError, so that click does not turn it into exit code 1, which means "different people" to `verify`.
    """


class _Answer(io.TextIOWrapper):
    """Stdout as a text file that reports what it cannot write as AnswerLostError."""

    def write(self, text: str, /) -> int:
        """Write, or raise AnswerLostError."""
        try:
            return super().write(text)
        except OSError as error:
            raise AnswerLostError(error.errno, error.strerror) from error

    def flush(self) -> None:
        """Flush, or raise AnswerLostError."""
        try:
            super().flush()
        except OSError as error:
            raise AnswerLostError(error.errno, error.strerror) from error


class _NoText(io.TextIOWrapper):
    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """Return nothing: `input` takes that for the end."""
        return ""


class _NoInput(io.RawIOBase):
    """Standard input where the caller closed it: nobody answers a question, and reading it is an error."""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Errors: InputError."""
        raise InputError("standard input is closed; pipe something into it, or name a file")


def fill_streams() -> None:
    """Open the null device where a standard stream was closed, so that no file of a gallery takes its descriptor; keep saying so."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free
            if descriptor == 0:
                sys.stdin = _NoText(io.BufferedReader(_NoInput()), "utf-8")


@contextlib.contextmanager
def protect_stdout() -> Iterator[None]:
    """Keep stdout for the answer alone: native libraries that print to descriptor 1 are sent to stderr."""
    global _answer  # noqa: PLW0603
    if sys.stdout is None:  # closed by the caller: the answer goes nowhere
        with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123
            _answer = sys.stdout = nowhere
            yield
            _answer = sys.stdout = None
        return
    try:
        sys.stdout.flush()
        saved = os.dup(1)
    except (OSError, ValueError):  # a stdout without a descriptor: nothing to protect
        yield
        return
    python_stdout = sys.stdout
    try:
        os.dup2(2, 1)
        _answer = _Answer(
            io.BufferedWriter(io.FileIO(saved, "wb")), encoding="utf-8", errors="surrogateescape", newline="\n"
        )
        sys.stdout = _answer
        yield
    finally:
        sys.stdout = python_stdout
        os.dup2(saved, 1)
        if _answer is not None:
            _answer.close()
        _answer = None


def _give_up_answer() -> None:
    """Let what stdout did not take go to nowhere, so that closing it succeeds."""
    if isinstance(_answer, _Answer):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, _answer.fileno())
        os.close(devnull)


class FiniteRange(click.FloatRange):
    """A number in a range; unlike click's own it takes no nan, which is in every range and above no threshold."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or fail with click's usage error."""
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return super().convert(value, param, ctx)


def echo(text: str = "", *, exact: bool = False) -> None:
    """Write lines of the answer to stdout; what a terminal would act on, or cannot be seen, appears as JSON's escapes.

    exact: every character as it is, unless stdout is a terminal.
    """
    file = _answer or sys.stdout
    if not (exact and not file.isatty()):
        text = "\n".join(map(printable, text.split("\n")))
    click.echo(text, file=file)


def answer_file() -> IO[str]:
    """Return where the answer goes, for what is not lines of text."""
    return _answer or sys.stdout


def note(text: str) -> None:
    """Write one line that is not the answer to stderr, with escapes for what a terminal would act on.

    Where it cannot be written the exit code has to say it.
    """
    with contextlib.suppress(OSError):
        click.echo(printable(text), err=True)


class PlacePath(click.Path):
    """A file or folder as `Path`; empty text is refused: it would be this folder, where a variable of the shell was not set."""

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(path_type=Path, file_okay=file_okay, dir_okay=dir_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        if value == "":
            self.fail("is empty; name a file or folder, . for this one", param, ctx)
        return super().convert(without_url(value), param, ctx)


def without_url(path: _T) -> _T:
    """Return a path. Errors: UsageError for a URL, where files alone are read and written."""
    if is_url_like(str(path)) and not os.path.lexists(str(path)):
        raise UsageError(no_such(str(path)))
    return path


class _Stdin:
    """Standard input as a picture's file; opened when it is read."""

    name = "-"

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes. Errors: InputError when there is no standard input."""
        return sys.stdin.buffer.read(size)


def opened(path: str) -> str | _Stdin | Photo:
    """Return what reads a photo that is not a file: standard input for `-`, an object for its URL; else the path.

    Errors: UsageError for other URLs.
    """
    from facepipe.catalog import remote

    return _Stdin() if path == "-" else remote.Photo(path) if remote.is_url(path) else without_url(path)


def without_sidecars(context: click.Context, parameter: click.Parameter, paths: tuple[Any, ...]) -> tuple[Any, ...]:
    """Leave out what `photos/*` brings along: sidecars, and raw photos beside their JPEG; where nothing else was named, nothing.

    Errors: UsageError for `-` where files are named alone.
    """
    from facepipe.catalog.remote import is_url
    from facepipe.images.passing import beside

    if context.info_name not in _TAKE_STDIN and "-" in map(str, paths) and not os.path.lexists("-"):
        raise UsageError(
            f"{context.info_name}: -, standard input, is read by {', '.join(_TAKE_STDIN)} alone; save the photo as a file, "
            "and name that"
        )
    for path in map(str, paths):
        if not (is_url(path) and context.info_name in _READ_STORES):
            without_url(path)
    twice = beside(map(str, paths))
    kept = tuple(
        path
        for path in paths
        if os.path.isdir(path) or not (str(path).lower().endswith(".xmp") or str(path) in twice)  # noqa: PTH112
    )
    return kept or paths


def cell(text: object, style: str = "") -> Text:
    """Return a table's cell that shows a text as it is: no markup, nothing that a terminal would act on."""
    from rich.text import Text

    return Text(printable(str(text)), style)


def out_console() -> Console:
    """rich's console on stdout, for tables; into a pipe no line is folded to a width that nobody chose."""
    from rich.console import Console

    console = Console(file=_answer or sys.stdout)
    if not console.is_terminal:
        console.width = 10_000
    return console


def err_console() -> Console:
    """rich's console on stderr, for progress."""
    from rich.console import Console

    return Console(stderr=True)


@contextlib.contextmanager
def progress_bar(what: str, total: int | None, *, quiet: bool) -> Iterator[Callable[[float], object]]:
    """Show a progress bar on a terminal's stderr; yield what moves it on by a count, or a part of one. total: None: not known."""
    console = err_console()
    if quiet or not console.is_terminal:
        yield lambda count: None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def exit_code_of(call: Callable[[], object]) -> int:
    """Run `call`; print a planned error as one line on stderr and return its exit code."""
    try:
        result = call()
        if _answer is not None:
            _answer.flush()
        fonts = sys.modules.get("facepipe.images.fonts")
        if fonts is not None and (line := fonts.lacking()) is not None:
            note(f"facepipe: {line}")
    except AnswerLostError as error:
        _give_up_answer()
        if error.args[0] == errno.EPIPE:  # head or less has seen enough
            return ExitCode.READER_GONE
        note(f"facepipe: the answer cannot be written ({error.args[1]}); send it somewhere else")
        return ExitCode.INPUT
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            note(
                "facepipe: there is no terminal to ask on; see the command's --help for what answers before it is asked"
            )
            return ExitCode.USAGE
        note("facepipe: interrupted")
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)  # may repeat what a shell's pattern found
        for line in shown.getvalue().splitlines():
            note(line)
        return error.exit_code
    except FacepipeError as error:
        note(f"facepipe: {error}")
        return error.exit_code
    except UnicodeEncodeError as error:
        note(
            f"facepipe: {error.object[:_LONGEST_SHOWN]}: cannot be the name of a file in this locale ({error.encoding}); "
            "set PYTHONUTF8=1, or LC_ALL to a locale with UTF-8"
        )
        return ExitCode.INPUT
    except (ImportError, OSError) as error:
        from facepipe.cli.libraries import library_error

        planned = library_error(error)
        if planned is None:
            if not isinstance(error, OSError) or not isinstance(error.filename, (str, bytes)):
                raise
            named = os.fsdecode(error.filename)
            short = named if len(named) <= _LONGEST_SHOWN else f"{named[:_LONGEST_SHOWN]}..."
            note(f"facepipe: {short}: {error.strerror}; check the path and its permissions")
            return ExitCode.INPUT
        note(f"facepipe: {planned}")
        return planned.exit_code
    except KeyboardInterrupt:
        note("facepipe: interrupted")
        return ExitCode.INTERRUPTED
    return result if isinstance(result, int) else ExitCode.OK


def gallery_option(command: _F) -> _F:
    """`--gallery DIR`: the gallery's folder."""
    return click.option(
        "--gallery",
        type=PlacePath(file_okay=False),
        default=Path("gallery"),
        show_default=True,
        envvar="FACEPIPE_GALLERY",
        help="Folder of the gallery.",
    )(command)


def no_lock_option(command: _F) -> _F:
    """`--no-lock`: read a gallery that lies where nothing can be locked."""

    def without_locks(_: click.Context, __: click.Parameter, wanted: bool) -> None:
        if wanted:
            os.environ["FACEPIPE_NO_LOCK"] = "1"

    return click.option(
        "--no-lock",
        is_flag=True,
        expose_value=False,
        callback=without_locks,
        help="Read the gallery without locks, on a network drive that has none; nobody may write it meanwhile.",
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
