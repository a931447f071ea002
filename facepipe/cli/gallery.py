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
    "not": ("facepipe.cli.gallery_care", "not_person", "Say that a face is not this person."),
    "audit": ("facepipe.cli.gallery_care", "audit", "Find doubtful faces, mixed-up labels, people who look alike."),
    "check": ("facepipe.cli.gallery_care", "check", "Verify everything, and repair what can be repaired."),
    "salvage": ("facepipe.cli.gallery_care", "salvage", "Copy what is intact out of a damaged gallery into a new one."),
    "compact": ("facepipe.cli.gallery_care", "compact", "Free unused disk space."),
    "index": ("facepipe.cli.gallery_care", "index", "Choose exact or approximate search, and measure what it misses."),
    "reembed": ("facepipe.cli.gallery_care", "reembed", "Move the gallery to another network."),
    "erase": ("facepipe.cli.gallery_safe", "erase", "Erase a person without a trace."),
    "seal": ("facepipe.cli.gallery_safe", "seal", "Encrypt the gallery, or change its key."),
    "unseal": ("facepipe.cli.gallery_safe", "unseal", "Remove the encryption."),
    "log": ("facepipe.cli.gallery_safe", "log", "Show who did what and when."),
    "export": ("facepipe.cli.gallery_safe", "export_file", "Write the gallery to one file."),
    "import": ("facepipe.cli.gallery_safe", "import_file", "Add the faces of an exported file."),
    "stats": ("facepipe.cli.gallery_people", "stats", "Count people, faces and bytes."),
}


class GalleryGroup(LazyGroup):
    """The verbs of `facepipe gallery`."""

    table = VERBS


@click.group(cls=GalleryGroup)
def gallery() -> None:
    """Look after the enrolled people."""
