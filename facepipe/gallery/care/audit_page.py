"""The audit as one HTML page without scripts: chips side by side, largest doubts first, and the command that corrects each."""

from __future__ import annotations

import base64
import html
from pathlib import Path

import numpy as np

from facepipe.files.guard import MARK, own_path
from facepipe.gallery.arrays.snapshot import GallerySnapshot
from facepipe.gallery.care.audit import AuditReport, Doubt
from facepipe.gallery.care.contact_sheet import face_picture
from facepipe.gallery.names import gallery_command
from facepipe.gallery.people import faces_of
from facepipe.gallery.storage.database import Database
from facepipe.images import encode_image
from facepipe.text import printable
from facepipe.types import Float32

_STYLE = """
:root { color-scheme: light dark; --line: #ddd; --soft: #5c6068; --plate: #f1f1ef; --bad: #a00000 }
@media (prefers-color-scheme: dark) { :root { --line: #333842; --soft: #a3a9b5; --plate: #23272f; --bad: #ff8a80 } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; background: Canvas }
table { border-collapse: collapse; width: 100% } td { padding: .9rem 1rem .7rem 0; text-align: left; vertical-align: top }
tr { border-top: 1px solid var(--line) } td.faces { white-space: nowrap; width: 1% } td.number { color: var(--soft); width: 1% }
img, .none { width: 120px; height: 120px; border-radius: 8px; display: block; object-fit: cover }
.none { background: var(--plate); color: var(--soft); display: grid; place-items: center; font-size: 12px }
figure { display: inline-block; margin: 0 .6rem 0 0; vertical-align: top; white-space: normal; width: 120px }
figcaption { font-size: 12px; color: var(--soft); overflow-wrap: anywhere }
code { background: var(--plate); padding: .15rem .4rem; border-radius: 4px; display: inline-block; margin-top: .4rem }
code { overflow-wrap: anywhere }
.bad { color: var(--bad) }
@media (max-width: 46rem) {
  .doubts td { display: block; width: auto !important; padding: .3rem 0 } .doubts tr { display: block; padding: .5rem 0 }
  td.number { display: none !important } figure, img, .none { width: 29vw } img, .none { height: 29vw }
}
"""


def write_page(
    path: Path, database: Database, snapshot: GallerySnapshot, report: AuditReport, limit: int = 100
) -> None:
    """Write the page with the first `limit` doubts. It shows faces: only its owner may read it."""
    rows = [_doubt_row(database, snapshot, number, doubt) for number, doubt in enumerate(report.doubts[:limit], 1)]
    alike = [
        f"<tr><td>{_escape(a.first)}</td><td>{_escape(a.second)}</td><td>{a.similarity:.2f}</td></tr>"
        for a in report.alike[:limit]
    ]
    few = [f"<tr><td>{_escape(name)}</td><td>{count}</td></tr>" for name, count in report.few[:limit]]
    test = report.leave_one_out
    body = f"""<h1>Audit of {_escape(str(database.folder))}</h1>
<p>{report.people} people, {report.faces} faces, threshold {report.threshold:.2f}.
Leave-one-out: of {test.faces} faces {test.right} are recognised, {test.wrong} are taken for somebody else,
{test.unknown} are not recognised.</p>
<h2>Doubtful faces ({len(report.doubts)})</h2>
<p>From left to right: the face in doubt, the most typical face of its person, the nearest face of the other person.</p>
<table class="doubts">{"".join(rows)}</table>
<h2>People who look alike ({len(report.alike)})</h2><table>{"".join(alike)}</table>
<h2>People with few photos ({len(report.few)})</h2><table>{"".join(few)}</table>"""
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="{MARK}"><title>Gallery audit</title>'
    )
    page = f'<!doctype html><html lang="en">{head}<style>{_STYLE}</style>{body}</html>\n'
    with own_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _escape(text: str) -> str:
    """Return text for HTML, with escapes for what nobody can see."""
    return html.escape(printable(text))


def _figure(database: Database, person: str, face_id: int | None, caption: str) -> str:
    """Return a face with its caption."""
    record = next((face for face in faces_of(database, person) if face.id == face_id), None) if person else None
    picture = None if record is None else face_picture(database, record)
    shown = '<span class="none">no chip, no photo</span>'
    if picture is not None:
        shown = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(encode_image(picture)).decode()}">'
    return f"<figure>{shown}<figcaption>{_escape(caption)}</figcaption></figure>"


def _nearest(snapshot: GallerySnapshot, person: str, vector: Float32, without: int) -> int | None:
    """Return the face of a person that is nearest to a vector, None when the person has no other."""
    rows = snapshot.faces_of(snapshot.persons.index(person))
    rows = rows[snapshot.face_ids[rows] != without]
    return int(snapshot.face_ids[rows[np.argmax(snapshot.vectors[rows] @ vector)]]) if len(rows) else None


def _doubt_row(database: Database, snapshot: GallerySnapshot, number: int, doubt: Doubt) -> str:
    face, person, other = doubt.face_id, doubt.person, doubt.other_person
    figures = _figure(database, person, face, f"face {face} of {person}")
    typical = _nearest(snapshot, person, snapshot.templates[snapshot.persons.index(person)], face)
    figures += _figure(database, person, typical, person)
    if other:
        (vector,) = snapshot.vectors[snapshot.face_ids == face]
        figures += _figure(database, other, _nearest(snapshot, other, vector, face), other)
    own = "its only face" if doubt.own is None else f"like {person} {doubt.own:.2f}"
    rival = f"like {other} {doubt.other:.2f}" if other else "like nobody else"
    command = gallery_command(database.folder, "remove", person, "--face", face)
    if doubt.mislabelled:
        command = gallery_command(database.folder, "split", person, face, "--into", other)
    mark = ' class="bad"' if doubt.mislabelled else ""
    return (
        f'<tr><td class="number">{number}</td><td class="faces">{figures}</td>'
        f"<td><b{mark}>{_escape(own)}, {_escape(rival)}</b>"
        f"<br><code>{_escape(command)}</code>"
        f"<br>or, if it is correct: <code>{_escape(gallery_command(database.folder, 'audit', '--keep', face))}</code></td></tr>\n"
    )
