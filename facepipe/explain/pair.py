"""Why two photos show one person, or two: the pixels of each that make it similar to the other."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from facepipe.embed.alignment import align
from facepipe.explain import drawing
from facepipe.explain.maps import for_many, grid, layers_of, map_pictures, maps_of
from facepipe.explain.reasons import two_figures
from facepipe.explain.story import detection
from facepipe.explain.values import Explanation
from facepipe.explain.writing import write
from facepipe.images.inputs import Source, as_image
from facepipe.models.registry import get_record
from facepipe.outputs.draw import draw_faces
from facepipe.records import SCHEMA_VERSION, Record, face_record, readable, rounded
from facepipe.single import Verification, describer_for
from facepipe.types import Float32, Image, UInt8


def explain_pair(
    a: Source,
    b: Source,
    found: Verification,
    *,
    model: str = "mini",
    out: str | PathLike[str] | None = None,
    device: str = "auto",
    min_face: float = 40,
    min_score: float = 0.4,
    max_side: int | None = 1280,
    second_chance: bool = True,
) -> Explanation:
    """Explain what `facepipe.verify` said of two photos; everything but `found` and `out` as it was called.

    out: file to write, .html, .png or .json. Errors: as `facepipe.verify`; OutputError.
    """
    describer = describer_for(model, device, min_face, min_score, max_side, second_chance, True)
    network, embedder = layers_of(get_record(model)), describer.embedder
    many = for_many(embedder, network, device)
    images = [as_image(source, max_side=max_side or None) for source in (a, b)]
    faces = (found.first, found.second)
    photos = list(describer.detector.detect(images))
    chips = [align(p.larger or p.image, [face], embedder.template)[0] for p, face in zip(photos, faces, strict=True)]
    vectors = [embedder.embed(chip[None]).vectors[0] for chip in chips]
    sides: Record = {}
    pictures: dict[str, UInt8] = {}
    maps: dict[str, Float32] = {}
    for place, side in enumerate("ab"):
        seen, face, chip = photos[place], faces[place], chips[place]
        found_here, shown = detection(describer.detector, seen, face)
        made = maps_of(many, network, chip, {"person": vectors[1 - place]})
        photo = drawing.reduced(seen.image)
        shown |= {"photo": draw_faces(photo, [face_record(face)]), "chip": chip}
        shown |= map_pictures(made, chip, seen.larger or seen.image, face, embedder.template)
        sides[side] = {
            "detect": found_here,
            "face": face_record(face),
            "maps": {name: grid(one) for name, one in made.items()},
        }
        pictures |= {f"{side}-{name}": picture for name, picture in shown.items()}
        maps |= {f"{side}-{name}": one for name, one in made.items()}
    missing = [] if network is not None else [f"{model} does not run in torch, so no gradients are taken"]
    facts = _facts(found, images, sides, missing)
    explanation = Explanation(facts["sentence"], facts, pictures, maps)
    if out is not None:
        write(out, explanation)
    return explanation


def _facts(found: Verification, images: Sequence[Image], sides: Record, missing: list[str]) -> Record:
    """Return the document; sides: what each photo adds to `pair`."""
    kind, more = ("The same person", "more") if found.same else ("Different people", "less")
    value, bound = two_figures(found.similarity, found.threshold)
    return {
        "schema_version": SCHEMA_VERSION,
        "path": readable(images[0].path),
        "other": readable(images[1].path),
        "model": found.model,
        "sentence": f"{kind}, because the two faces are {more} similar ({value}) than the threshold for two photos ({bound}).",
        "pair": {
            "same": found.same,
            **{name: rounded(getattr(found, name), 4) for name in ("similarity", "threshold", "probability")},
            **sides,
        },
        "missing": missing,
    }
