"""Which pixels speak for somebody: the maps of both methods, drawn over the chip and over the photo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import cv2
import numpy as np

from facepipe.embed.embedder import load_embedder
from facepipe.explain import drawing
from facepipe.explain.saliency import cover, on_photo, strength
from facepipe.models.registry import ModelRecord
from facepipe.records import rounded
from facepipe.types import Embedder, Face, Float32, Image, UInt8

if TYPE_CHECKING:
    from facepipe.explain.layers import Layers

#: Numbers along each side of a map in the JSON.
_GRID = 28


def layers_of(record: ModelRecord | None) -> Layers | None:
    """Return a record's network with its layers in sight; None for one that does not run in torch, and without a record."""
    if record is None or record.network not in ("mini", "inception-resnet-v1"):
        return None
    from facepipe.explain.layers import Layers

    return Layers(record)


def for_many(embedder: Embedder, network: Layers | None, device: str) -> Embedder:
    """Return what embeds hundreds of copies: the answer's network in torch, twice as fast there, or the embedder itself."""
    return embedder if network is None else load_embedder(network.name, device)


def maps_of(
    embedder: Embedder, network: Layers | None, chip: UInt8, directions: Mapping[str, Float32]
) -> dict[str, Float32]:
    """Return a map by occlusion for each direction, and `gradient` for the first where the network's layers are in sight."""
    covered = cover(embedder, chip)
    maps = {name: covered.map_of(direction) for name, direction in directions.items()}
    if network is not None:
        maps["gradient"] = network.gradient_map(chip, next(iter(directions.values())))
    return maps


def map_pictures(maps: Mapping[str, Float32], chip: UInt8, image: Image, face: Face, template: str) -> dict[str, UInt8]:
    """Return the maps over the chip and over the photo around the face; those by occlusion share one scale of colours."""
    pictures = {}
    rows, columns = drawing.around(image.rgb, face, image.scale)
    for name, found in maps.items():
        full = (
            strength([found])
            if name == "gradient"
            else strength([one for key, one in maps.items() if key != "gradient"])
        )
        pictures[f"map-{name}"] = drawing.heat(drawing.enlarged(chip, 224), cv2.resize(found, (224, 224)), full)  # type: ignore[arg-type]
        if name != "gradient":
            part = image.rgb[rows, columns]
            placed = on_photo(found, image, face, template)[rows, columns]
            shown = drawing.heat(part, placed, full)
            pictures[f"photo-{name}"] = drawing.enlarged(np.where(np.abs(placed)[..., None] > 0, shown, part), 320)
    return pictures


def grid(found: Float32) -> list[list[float | None]]:
    """Return a map as rows of numbers, `_GRID` along each side."""
    small = cv2.resize(found, (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    return [[rounded(value, 4) for value in row] for row in small.tolist()]
