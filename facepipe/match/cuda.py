"""Exact search on a graphics processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facepipe.match.exact import no_hits
from facepipe.types import Float32, Int64

if TYPE_CHECKING:
    import torch


#: From so many people on, exact search moves to the graphics processor. Below, two CPU cores take less than 0.2 ms a face.
CUDA_PEOPLE = 50_000


#: Probes in one pass of `TorchIndex`.
_PROBES = 1024


#: People who are copied to the device at a time.
_COPY = 65_536


class TorchIndex:
    """Exact inner products on a device of torch, for graphics processors: FAISS's wheel searches on the CPU only.

    The templates stay on the device in float32. Their products with the probes are made a block of people at a time, so that a call
    needs `budget` bytes besides, whatever the gallery's size; when even that is not free, fewer probes are taken at a time.
    """

    def __init__(self, templates: Float32, device: torch.device, budget: int = 1 << 29) -> None:
        """Copy templates, float32 (p, d), to the device; torch.OutOfMemoryError when they do not fit."""
        import torch

        from facepipe.models.transfer import to_device

        self._templates = torch.empty(templates.shape, dtype=torch.float32, device=device)
        for start in range(0, len(templates), _COPY):
            # A copy: a gallery's arrays are read-only and may be mapped files, and torch takes neither.
            block = np.array(templates[start : start + _COPY], np.float32)
            self._templates[start : start + len(block)] = to_device(block, device)
        # Three times: the products, and what the sorting needs.
        self._block = max(1, budget // (3 * 4 * _PROBES))

    def search(self, vectors: Float32, k: int) -> tuple[Float32, Int64]:
        """See `Index.search`; of people who are equally similar the one with the lower row comes first."""
        from facepipe.models.transfer import in_parts

        scores, rows = no_hits(len(vectors), k)
        found = min(k, len(self._templates))
        if found and len(vectors):
            parts = in_parts(lambda start, stop: self._best(vectors[start:stop], found), len(vectors), _PROBES)
            scores[:, :found], rows[:, :found] = (np.concatenate(same) for same in zip(*parts, strict=True))
        return scores, rows

    def _best(self, vectors: Float32, k: int) -> tuple[Float32, Int64]:
        import torch

        from facepipe.models.transfer import to_device, to_host

        with torch.inference_mode():
            probes = to_device(np.require(vectors, np.float32, ("C", "W")), self._templates.device)
            values = probes.new_full((len(vectors), 0), 0.0)
            rows = values.long()
            for start in range(0, len(self._templates), self._block):
                products = probes @ self._templates[start : start + self._block].T
                best, place = products.topk(min(k, products.shape[1]), dim=1)
                values, rows = torch.cat([values, best], dim=1), torch.cat([rows, place + start], dim=1)
                values, kept = values.topk(min(k, values.shape[1]), dim=1)
                rows = rows.gather(1, kept)
            scores, people = to_host(values, rows)
        order = np.lexsort((people, -scores), axis=1)
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(people, order, axis=1)


def cuda_index(templates: Float32, device: torch.device) -> TorchIndex | None:
    """Return exact search on a graphics processor where that pays: many people, and room for them in half of its free memory."""
    import torch

    if device.type != "cuda" or len(templates) < CUDA_PEOPLE:
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return TorchIndex(templates, device) if templates.nbytes <= free // 2 else None
