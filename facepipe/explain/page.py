"""An explanation as one HTML page without a script: it opens from disk and loads nothing."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from facepipe.explain import reasons
from facepipe.explain.values import Explanation
from facepipe.files.guard import MARK
from facepipe.images import encode_image
from facepipe.outputs.html import style_hash
from facepipe.outputs.table import percent
from facepipe.text import plural, printable
from facepipe.types import UInt8

#: Pictures of few colours or of cells, which JPEG would blur.
_EXACT = ("vector", "template", "level")
_FIRST, _MIDDLE, _LAST = "Edges and strokes", "Parts", "The whole face"


def page(made: Explanation) -> str:
    """Return the page of an explanation of a face, or of two photos."""
    facts = made.facts
    css = "".join(
        resources.files(package).joinpath("page.css").read_text("utf-8")
        for package in ("facepipe.outputs", "facepipe.explain")
    )
    pair = "pair" in facts
    parts = (
        _pair(made)
        if pair
        else [_detect(made), _embed(made), _match(made), _predict(made), _pixels(made), _against(made)]
    )
    if facts["missing"]:
        parts.append(_section("What is missing", _list(facts["missing"])))
    title = "Why these are one person, or two" if pair else "Why this name"
    where = (
        f"{_safe(facts['path'])} and {_safe(facts['other'])}"
        if pair
        else f"{_safe(facts['path'])}, face {facts['face']} of {facts['faces']}"
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash(css)}'; base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><meta name="generator" content="{MARK}"><meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title><style>{css}</style></head>
<body><main class="wrap"><section class="intro"><h1>{title}</h1>
<p class="meta"><span>{where}</span><span>model {_safe(facts["model"])}</span></p>
<p class="sentence">{_safe(made.sentence)}</p></section>
{"".join(parts)}</main>
<footer class="wrap"><p>Made by facepipe on this computer; this page loads nothing from anywhere. It holds pictures of faces:
share it as you would share the photos. A map shows what the network's answer hangs on, not who somebody is.</p></footer>
</body></html>
"""


def _safe(text: object) -> str:
    """Return text for HTML, with escapes for what nobody can see."""
    return html.escape(printable(str(text)))


def _section(title: str, body: str, step: int | None = None) -> str:
    number = "" if step is None else f'<span class="step">{step}</span>'
    return f'<section class="part"><h2>{number}{title}</h2>{body}</section>\n'


def _list(lines: Sequence[str]) -> str:
    return '<ul class="plain">' + "".join(f"<li>{_safe(line)}</li>" for line in lines) + "</ul>"


def _figure(pictures: Mapping[str, UInt8], name: str, caption: str, *, empty: str | None = None) -> str:
    """Return a picture with its caption, which is HTML; nothing without the picture, or `empty` in its place."""
    picture = pictures.get(name)
    if picture is None:
        return (
            ""
            if empty is None
            else f'<figure><span class="none">{empty}</span><figcaption>{caption}</figcaption></figure>'
        )
    kind = "PNG" if name in _EXACT else "JPEG"
    data = base64.b64encode(encode_image(picture, kind, quality=84)).decode()
    height, width = picture.shape[:2]
    style = ' class="cells"' if name in _EXACT else ""
    return (
        f'<figure><img{style} alt="" width="{width}" height="{height}" src="data:image/{kind.lower()};base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _row(*figures: str) -> str:
    return f'<div class="row-of">{"".join(figures)}</div>'


def _detect(made: Explanation) -> str:
    facts, pictures = made.facts["detect"], made.pictures
    return _section("Detect: where is the face?", _detection(facts, pictures, made.facts["answer"]), 1)


def _detection(facts: Mapping[str, Any], pictures: Mapping[str, UInt8], face: Mapping[str, Any]) -> str:
    lines = []
    how = [f"turned by {facts['turn']} degrees"] * bool(facts["turn"]) + ["brightened"] * facts["enhanced"]
    how += ["given a border"] * facts["border"]
    if how:
        lines.append(f"It was found in the photo {' and '.join(how)}.")
    if facts["closer"]:
        lines.append("The face is small: it was looked at in the photo's own pixels.")
    if facts["windows"] is not None:
        share = facts["searched"] / max(1, facts["windows"])
        lines.append(
            f"The edge map left {facts['searched']:,} of {facts['windows']:,} windows to search ({100 * share:.0f} %)."
        )
        first, second, third = facts["kept"]
        lines.append(f"The first network kept {plural(first, 'window')}, the second {second:,}, the third {third:,}.")
    if facts["level"]:
        lines.append(
            f"The first network was surest at a pyramid level of {100 * facts['level']:.1f} % of the photo's size, where the face is "
            f"{facts['level'] * face['quality']['size']:.0f} pixels wide; its windows have 12."
        )
    if len(facts["looks"]) == 4:
        first, own, mirrored, larger = (f"{score:.3f}" for score in facts["looks"])
        lines.append(
            f"Its score was {first} at first; looked at again {own} in its own box, {mirrored} mirrored, {larger} a little larger."
        )
    limit = facts["limit"]
    if facts["faults"]:
        lines.append(f"It would not be enrolled: {'; '.join(facts['faults'])}.")
    elif limit is None:
        lines.append("Nothing limits its quality.")
    else:
        lines.append(f"What limits its quality most is {reasons.figure(limit['figure'], limit['value'])}.")
    quality = face["quality"]
    figures = ", ".join(reasons.figure(name, value) for name, value in quality.items() if value is not None)
    lines.append(f"Score {face['score']:.3f}; {figures}.")
    boxes = 'kept by the <b class="k1">first</b>, <b class="k2">second</b> and <b class="k3">third</b> network'
    return _list(lines) + _row(
        _figure(
            pictures, "photo", "the photo, its faces and their landmarks; of several, this one has the white frame"
        ),
        _figure(pictures, "edges", "its edges: where a face can be at all"),
        _figure(pictures, "boxes", boxes),
        _figure(pictures, "level", "what the first network saw: its window in the pyramid level"),
        _figure(pictures, "face", "the face"),
    )


def _embed(made: Explanation) -> str:
    facts, pictures = made.facts["embed"], made.pictures
    aligned = f"the aligned face ({facts['template']}), all that the network sees"
    body = _row(
        _figure(pictures, "chip", aligned),
        _figure(pictures, "vector", f"its vector: {facts['dim']} numbers, blue below zero, orange above"),
        _figure(pictures, "template", "the template of the most similar person: the mean of the enrolled vectors"),
    )
    for depth, layer in enumerate(facts["layers"] or ()):
        height, width = layer["size"]
        what = _FIRST if depth == 0 else _LAST if depth == len(facts["layers"]) - 1 else _MIDDLE
        body += f"<h3>{what}: layer {_safe(layer['name'])}, {layer['of']} channels of {width} x {height}</h3>"
        strips = []
        for channel in layer["channels"]:
            usual = "" if channel["usual"] is None else f", enrolled faces {channel['usual']:.2f}"
            caption = f"channel {channel['channel']}: at most {channel['peak']:.2f} here{usual}"
            strips.append(_figure(pictures, f"layer-{depth}-{channel['channel']}", caption))
        body += f'<div class="strips">{"".join(strips)}</div>'
    if facts["layers"]:
        hint = (
            "Of each layer the channels that this face excites most beyond what enrolled faces do: where it does, and the parts of "
            "enrolled faces that excite the same channel most."
        )
        body = f'<p class="hint">{hint}</p>' + body
    return _section("Embed: what does the network make of it?", body, 2)


def _match(made: Explanation) -> str:
    facts, pictures = made.facts["match"], made.pictures
    body = ""
    for one in facts["candidates"]:
        body += f"<h3><bdi>{_safe(one['person'])}</bdi> {one['similarity']:.3f}, {_together(one['photos'])}</h3>"
        figures = []
        for which in ("nearest", "farthest"):
            if one[which] is not None:
                caption = f"{which}: {one[which]['similarity']:.3f}, {_safe(one[which]['photo'])}"
                figures.append(_figure(pictures, f"face-{one[which]['face']}", caption, empty="no chip, no photo"))
        body += _row(*([_figure(pictures, "face", "this face")] if one is facts["candidates"][0] else []), *figures)
    if "usual" in facts:
        body += _spread(made)
    return _section(f"Match: who of {plural(facts['people'], 'person', 'people')} is similar?", body, 3)


def _together(photos: int) -> str:
    return "1 photo" if photos == 1 else f"{photos:,} photos together"


def _spread(made: Explanation) -> str:
    """Return the distributions of similarities to the best person, with this face's marked."""
    usual, answer = made.facts["match"]["usual"], made.facts["answer"]
    left, right = usual["edges"][0], usual["edges"][-1]

    def x(value: float) -> float:
        return float(20 + 720 * (min(max(value, left), right) - left) / (right - left))

    def line(value: float, kind: str, top: int, bottom: int = 110) -> str:
        return f'<line class="{kind}" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{top}" y2="{bottom}"/>'

    most = max([*usual["others"], 1])
    bars = [
        f'<rect class="s-others" x="{x(edge):.1f}" width="11" y="{110 - 64 * count / most:.1f}" height="{64 * count / most:.1f}"/>'
        for edge, count in zip(usual["edges"], usual["others"], strict=False)
        if count
    ]
    marks = [line(value, "s-own", 90) for value in usual["own"] or ()]
    marks += [line(value, "s-strangers", 60) for value in (usual["strangers"] or {}).values()]
    marks += [line(answer["threshold"], "s-limit", 30), line(answer["similarity"], "s-me", 22)]
    ticks = "".join(f'<text x="{x(v / 5):.1f}" y="128" text-anchor="middle">{v / 5:.1f}</text>' for v in range(-2, 6))
    me = f'<text class="me" x="{x(answer["similarity"]):.1f}" y="15" text-anchor="middle">this face {answer["similarity"]:.2f}</text>'
    chart = f'<svg class="spread" viewBox="0 0 760 136" role="img" aria-label="similarities">{"".join(bars)}{"".join(marks)}'
    chart += f'<line class="s-axis" x1="20" x2="740" y1="110" y2="110"/>{ticks}{me}</svg>'
    notes = ["Grey bars: everybody else's enrolled photos, compared with this person. Dashed: the threshold."]
    if usual["own"]:
        notes.append("Green: this person's own photos, each compared with the others.")
    else:
        notes.append("The person has a single photo, so that nothing is known of how similar their photos are.")
    if usual["strangers"]:
        shares = ", ".join(
            f"{percent(float(rate)) if float(rate) >= 0.01 else '0.1 %'} {value:.2f}"
            for rate, value in usual["strangers"].items()
        )
        people = plural(made.facts["match"]["people"], "person", "people")
        notes.append(
            f"Blue: of strangers, these shares reach as much with the nearest of {people}, as the model was measured: {shares}."
        )
    return f"<h3>How similar is usual</h3>{chart}{_list(notes)}"


def _predict(made: Explanation) -> str:
    facts, answer = made.facts["predict"], made.facts["answer"]
    sure = (
        ""
        if facts["probability"] is None
        else f" The probability that the most similar person is right is {_safe(percent(facts['probability']))}."
    )
    body = f"<p>{_safe(made.sentence)}{sure}</p><h3>What would change the answer</h3>"
    body += _list([facts["turns"], facts["hangs_on"]])
    rows = [(f"without {one['photo']}", one) for one in facts["without"]] + [
        (f"a {name} copy", one) for name, one in facts["copies"].items()
    ]
    cells = []
    for what, one in rows:
        said = "no face found" if one["status"] is None else one["person"] or one["status"]
        same = (one["status"], one["person"]) == (answer["status"], answer["person"])
        figures = "" if one["similarity"] is None else f"{one['similarity']:.3f} / {one['threshold']:.3f}"
        mark = "" if same else ' class="t-ambiguous"'
        cells.append(f"<tr><td>{_safe(what)}</td><td{mark}>{_safe(said)}</td><td>{figures}</td></tr>")
    head = "<tr><th>changed</th><th>answer</th><th>similarity / threshold</th></tr>"
    return _section("Predict: is it somebody?", f"{body}<table>{head}{''.join(cells)}</table>", 4)


def _pixels(made: Explanation) -> str:
    facts = made.facts["saliency"]
    if facts["for"] is None:
        return ""
    body = maps(made.pictures, "", facts["for"], facts["rather_than"])
    return _section("Which pixels?", body)


def maps(pictures: Mapping[str, UInt8], prefix: str, person: str, rather: str | None) -> str:
    """Return the maps of a face as figures; prefix: of their names."""
    red = '<b class="pos">Red</b> raises it, <b class="neg">blue</b> lowers it.'
    hint = (
        f"Parts of the face are covered, grey and blurred, in three sizes; what is lost of the similarity is theirs. {red} "
        "docs/explain.md says how well such maps do."
    )
    name, other = _safe(person), _safe(rather)
    figures = [
        _figure(pictures, f"{prefix}map-person", f"similar to {name}"),
        _figure(pictures, f"{prefix}photo-person", f"similar to {name}, in the photo"),
        _figure(pictures, f"{prefix}map-rather", f"{name} rather than {other}"),
        _figure(pictures, f"{prefix}photo-rather", f"{name} rather than {other}, in the photo"),
        _figure(pictures, f"{prefix}map-gradient", f"similar to {name}, by gradients, on a scale of its own"),
    ]
    return f'<p class="hint">{hint}</p>{_row(*figures)}'


def _against(made: Explanation) -> str:
    facts = made.facts["against"]
    return (
        ""
        if facts is None
        else _section(f"Why not <bdi>{_safe(facts['person'])}</bdi>?", f"<p>{_safe(facts['sentence'])}</p>")
    )


def _pair(made: Explanation) -> list[str]:
    """Return the sections about two photos."""
    facts, pictures = made.facts, made.pictures
    parts = []
    for side, path in (("a", facts["path"]), ("b", facts["other"])):
        mine = {
            name.removeprefix(f"{side}-"): picture for name, picture in pictures.items() if name.startswith(f"{side}-")
        }
        body = _detection(facts["pair"][side]["detect"], mine, facts["pair"][side]["face"])
        body += f"<h3>Which pixels make it similar to the other photo</h3>{maps(mine, '', 'the other photo', None)}"
        parts.append(_section(_safe(path), body))
    return parts
