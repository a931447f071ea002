"""`facepipe gallery`: looks after the enrolled people. Each verb loads when it is called."""

from __future__ import annotations

import click

from facepipe.cli import LazyGroup

VERBS: dict[str, tuple[str, str, str]] = {
    "list": ("facepipe.cli.gallery_people", "list_people", "List the people."),
    "show": ("facepipe.cli.gallery_people", "show", "Show a person's faces, as a table or a contact sheet."),
    "rename": ("facepipe.cli.gallery_people", "rename", "Give a person another name."),
    "merge": ("facepipe.cli.gallery_people", "merge", "Make one person of several."),
    "split": ("facepipe.cli.gallery_people", "split", "Move some of a person's faces to another person."),
    "remove": ("facepipe.cli.gallery_people", "remove", "Remove a person, or some faces."),
    "stats": ("facepipe.cli.gallery_people", "stats", "Count people, faces and bytes."),
}


class GalleryGroup(LazyGroup):
    """The verbs of `facepipe gallery`."""

    table = VERBS


@click.group(cls=GalleryGroup)
def gallery() -> None:
    """Look after the enrolled people."""
