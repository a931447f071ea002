"""Groups as files: one HTML page without scripts, or a folder of pictures for each group. They show faces: for their owner alone."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from facepipe.errors import UsageError
from facepipe.files.atomic import atomic_file, remove_file
from facepipe.files.guard import MARK, own_path, require_outside
from facepipe.groups.values import Group
from facepipe.images import OUTPUT_MARK
from facepipe.outputs.table import percent
from facepipe.text import plural, printable

if TYPE_CHECKING:
    from facepipe.groups.groups import Groups

#: Faces of a group on the page, and in a folder.
_FACES, _CROPS = 24, 1000
#: In the folder of pictures: which of them an earlier run wrote.
_LIST = ".facepipe-groups"
_STYLE = """
:root { color-scheme: light dark; --line: #ddd; --soft: #5c6068; --plate: #f1f1ef }
@media (prefers-color-scheme: dark) { :root { --line: #333842; --soft: #a3a9b5; --plate: #23272f } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; background: Canvas }
section { border-top: 1px solid var(--line); padding: .9rem 0 }
h2 { font-size: 1rem; margin: 0 } p { color: var(--soft); margin: 0 0 .5rem }
div { display: flex; flex-wrap: wrap; gap: .4rem } img, .none { width: 84px; height: 84px; border-radius: 8px; object-fit: cover }
.none { background: var(--plate); display: inline-block } code { background: var(--plate); padding: .1rem .4rem; border-radius: 4px }
"""


def write_page(path: Path, groups: Groups, table: Sequence[Group]) -> None:
    """Write the page. Errors: UsageError when the file is not facepipe's, OutputError."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f'<meta name="generator" content="{MARK}"><title>Groups of faces</title>'
    )
    with own_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(
            f'<!doctype html><html lang="en">{head}<style>{_STYLE}</style><h1>{plural(len(table), "group")}</h1>\n'
        )
        for group in table:
            file.write(_section(groups, group))
        file.write("</html>\n")


def _section(groups: Groups, group: Group) -> str:
    """Return a group as HTML."""
    who = "" if group.suggestion is None else f"maybe {group.suggestion[0]}, {percent(group.suggestion[1])}; "
    dates = " to ".join(dict.fromkeys(date[:10] for date in (group.first, group.last) if date is not None))
    same = f"perhaps the same as {', '.join(str(other) for other, _ in group.alike)}; " if group.alike else ""
    about = f"{who}{same}{plural(group.size, 'face')} in {plural(group.photos, 'photo')}{f', {dates}' if dates else ''}"
    pictures = []
    for face in groups.faces(group.id, 0, _FACES):
        jpeg = groups.thumbnail(face.key) if face.status != "out" else None
        name = html.escape(f"{printable(face.path)}, face {face.key.number + 1}", quote=True)
        if jpeg is not None:
            data = base64.b64encode(jpeg).decode()
            pictures.append(f'<img loading="lazy" alt="{name}" title="{name}" src="data:image/jpeg;base64,{data}">')
        elif face.status != "out":
            pictures.append(f'<span class="none" title="{name}"></span>')
    text = html.escape(printable(about))
    command = f"<code>facepipe name {group.id} NAME</code>"
    return f"<section><h2>Group {group.id}</h2><p>{text}; {command}</p><div>{''.join(pictures)}</div></section>\n"


def require_folder(folder: Path, gallery: Path) -> None:
    """UsageError unless pictures may be written into a folder: it is new, empty, or an earlier run wrote it."""
    require_outside(gallery, folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _LIST).is_file():
        raise UsageError(
            f"{printable(folder)}: holds what facepipe cluster did not write; choose a new or empty folder"
        )


def write_crops(folder: Path, groups: Groups, table: Sequence[Group]) -> None:
    """Write the faces of each group as pictures into a folder of its own; those of an earlier run go. Errors: OutputError."""
    before = _listed(folder)
    wanted = {}
    for group in table:
        for place, face in enumerate(groups.faces(group.id, 0, _CROPS), 1):
            if face.status != "out":
                wanted[f"group-{group.id:04}/{place:04}.jpg"] = face.key
    with atomic_file(folder / _LIST) as file:  # both, until those of before are gone
        file.write(json.dumps(sorted({*before, *wanted})).encode())
    with atomic_file(folder / OUTPUT_MARK) as file:
        file.write(b"Written by facepipe cluster; a batch does not search this folder for photos.\n")
    for name in before:
        if name not in wanted and not (folder / name).parent.is_symlink():
            remove_file(folder / name)
    for name, key in wanted.items():
        if (jpeg := groups.thumbnail(key)) is not None:
            with atomic_file(folder / name) as file:
                file.write(jpeg)
    for parent in {(folder / name).parent for name in before}:
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
    with atomic_file(folder / _LIST) as file:
        file.write(json.dumps(sorted(wanted)).encode())


def _listed(folder: Path) -> list[str]:
    """Return the pictures that an earlier run wrote; names of no other form count."""
    try:
        names = json.loads((folder / _LIST).read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [name for name in names if isinstance(name, str) and _is_ours(name)] if isinstance(names, list) else []


def _is_ours(name: str) -> bool:
    group, _, picture = name.partition("/")
    return group.removeprefix("group-").isdecimal() and picture.removesuffix(".jpg").isdecimal()
