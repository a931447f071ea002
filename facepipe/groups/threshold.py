"""How alike groups must be to be joined: measured for the network, and higher where there are more people to be mistaken for."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from facepipe.errors import UsageError
from facepipe.models.registry import find_embedder
from facepipe.models.statistics import load_statistics

#: Of searches for strangers, the share that may find somebody in a gallery of as many people: the record's threshold for that is
#: where groups' threshold starts from.
_RATE = 0.1


def limit_for(fingerprint: str) -> Callable[[int], float]:
    """Return the mean cosine down to which groups are joined, as a function of their number; it does not fall.

    A pile of many people needs a higher one, as a large gallery does: with mini, BCubed precision stays above .97 down to .38 among
    60 people, and down to .56 among 4,281. Errors: UsageError for an embedder that nothing was measured for.
    """
    record = find_embedder(fingerprint)
    statistics = None if record is None else load_statistics(record)
    if record is not None and statistics is not None:
        lower = record.grouping or 0.0
        return lru_cache(maxsize=None)(lambda groups: statistics.threshold(max(1, groups), _RATE) - lower)
    if record is not None and record.threshold is not None:
        threshold = record.threshold
        return lambda groups: threshold
    raise UsageError(f"nothing was measured for the embedder {fingerprint}: give --threshold, a cosine")
