"""The command line: the only place that prints or exits. Each command loads when it is called, not before."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from facepipe import __version__
from facepipe.cli.common import exit_code_of, fill_streams, protect_stdout
from facepipe.errors import InputError

#: Command name -> (module, attribute, one-line help). The help stands here so that `--help` imports no command.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "enroll": ("facepipe.cli.enroll", "enroll", "Put people into the gallery."),
    "identify": ("facepipe.cli.identify", "identify", "Say who is in pictures."),
    "batch": ("facepipe.cli.batch", "batch", "Name the people in many photos; continues where it was stopped."),
    "scan": ("facepipe.cli.scan", "scan", "Find the faces in many photos; needs nobody enrolled."),
    "cluster": ("facepipe.cli.cluster", "cluster", "Group the faces of a pile by person."),
    "review": ("facepipe.cli.review", "review", "Name the groups of a pile's faces on a web page of this machine."),
    "name": ("facepipe.cli.name", "name", "Say who a group is: its best faces are enrolled."),
    "find": ("facepipe.cli.find", "find", "Print the photos that show these people together."),
    "catalog": ("facepipe.cli.catalog", "catalog", "Join the catalogs of a scan that several machines shared."),
    "explain": ("facepipe.cli.explain", "explain", "Say why a face gets its name, step by step."),
    "verify": ("facepipe.cli.verify", "verify", "Say whether two photos show the same person."),
    "detect": ("facepipe.cli.detect", "detect", "Find faces: boxes, landmarks, quality, edges."),
    "blur": ("facepipe.cli.blur", "blur", "Write copies of photos and videos in which faces are covered."),
    "regions": (
        "facepipe.cli.regions",
        "regions",
        "Read and write face regions: who is where, in photos and sidecars of other programs.",
    ),
    "gallery": ("facepipe.cli.gallery", "gallery", "Look after the enrolled people: list, rename, audit, erase."),
    "models": ("facepipe.cli.models", "models", "Show the networks, fetch more, register your own."),
    "evaluate": ("facepipe.cli.evaluate", "evaluate", "Measure error rates on your own labelled photos."),
    "calibrate": (
        "facepipe.cli.calibrate",
        "calibrate",
        "Choose the gallery's threshold for a wanted false positive rate.",
    ),
    "demo": ("facepipe.cli.demo", "demo", "See the four steps at work on two portraits."),
    "doctor": ("facepipe.cli.doctor", "doctor", "Show what is installed here, and whether it works."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when called (click's documentation, "Lazily Loading Subcommands")."""

    #: What it offers; a subclass has a table of its own.
    table = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which a newcomer needs them."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in self.table:
            return None
        module, attribute, _ = self.table[cmd_name]
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in self.table.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "FACEPIPE"})
@click.version_option(__version__, prog_name="facepipe")
def cli() -> None:
    """Find faces, name the people you enrolled, and say when a face belongs to nobody you enrolled.

    \b
    facepipe enroll people/            folders named like the people in them
    facepipe identify photo.jpg        who is in this picture?
    facepipe batch photos/ --out results.jsonl
    """
    try:
        os.getcwd()  # noqa: PTH109
    except OSError as error:
        raise InputError("the current folder is not there any more; change to another one") from error


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with the code that the error tree (`facepipe.errors`) asks for."""
    fill_streams()
    with protect_stdout():
        code = exit_code_of(lambda: cli.main(args=argv, prog_name="facepipe", standalone_mode=False))
    sys.exit(code)
