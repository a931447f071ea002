"""What a name needs in a gallery, by what its own photos say about its people."""

from __future__ import annotations

from dataclasses import dataclass

from facepipe.gallery.store import GalleryStore
from facepipe.models.registry import find_embedder
from facepipe.predict.policy import policy_for
from facepipe.predict.population import adapt, alike

#: By so much more than usual a name must need before it is told.
_TOLD = 0.02


@dataclass(frozen=True, slots=True)
class Needs:
    """What a name needs in a gallery whose people look alike to the network: cosines; usual: what the model's record asks for.

    alike: names of people whose enrolled photos are too close to tell them apart by, closest first.
    """

    threshold: float
    margin: float
    usual_threshold: float
    usual_margin: float
    alike: tuple[tuple[str, str], ...]

    def told(self) -> str | None:
        """Say so in a line; None when these people need little more than others."""
        if max(self.threshold - self.usual_threshold, self.margin - self.usual_margin) < _TOLD:
            return None
        return (
            f"these people look alike to the network: a name needs a similarity of {self.threshold:.2f} and a lead of "
            f"{self.margin:.2f} (usually {self.usual_threshold:.2f} and {self.usual_margin:.2f})"
        )


def needs_of(gallery: GalleryStore) -> Needs | None:
    """Return what names need in a gallery, by its own photos; None where these say nothing, or a calibration holds instead."""
    record = find_embedder(gallery.fingerprint)
    if record is None or gallery.calibration() is not None:
        return None
    snapshot = gallery.snapshot()
    trials = gallery.own_trials(snapshot)
    usual = policy_for(record, len(snapshot.persons))
    if trials is None:
        return None
    policy = adapt(usual, trials)
    pairs = [(snapshot.persons[one], snapshot.persons[other]) for one, other in alike(policy, trials)]
    return Needs(policy.threshold, policy.margin, usual.threshold, usual.margin, tuple(pairs))
