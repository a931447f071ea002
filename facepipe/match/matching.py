"""Step 3: the faces of many photos are compared with everybody in the gallery at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facepipe.match.matcher import Matcher
from facepipe.types import Described, Embeddings, Matched, Policy


def match(matcher: Matcher, photos: Sequence[Described], policy: Policy) -> list[Matched]:
    """Find the people who are most similar to each face; the faces of all photos are searched together.

    Errors: GalleryModelError when the embeddings come from another network than the gallery's.
    """
    if not photos:
        return []
    # One more candidate than is shown: the margin needs a rival, and an assignment needs somebody to fall back on.
    crowd = max(len(photo.faces) for photo in photos) if policy.exclusive else 1
    vectors = np.concatenate([photo.embeddings.vectors for photo in photos])
    found = matcher.search(Embeddings(vectors, photos[0].embeddings.fingerprint), max(policy.top_k, crowd) + 1)
    candidates = iter(found)
    return [Matched(photo, tuple(next(candidates) for _ in photo.faces)) for photo in photos]
