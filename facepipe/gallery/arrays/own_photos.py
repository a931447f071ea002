"""What searching a gallery with its own photos gives (see `predict.population`): derived, and stored where it takes longer."""

from __future__ import annotations

import contextlib
from dataclasses import asdict

from facepipe.errors import GalleryError
from facepipe.gallery.arrays.derived import TRIALS_NAME, UnusableError, read_derived, write_derived
from facepipe.gallery.arrays.snapshot import SMALL, GallerySnapshot
from facepipe.gallery.storage.database import Database
from facepipe.predict.population import OwnTrials, own_trials


def load_own_trials(database: Database, snapshot: GallerySnapshot) -> OwnTrials | None:
    """Return what the gallery's own photos gave at a snapshot's generation, None where they say nothing.

    Of a large gallery it is stored; a disk that cannot be written, or another process that writes, only makes it slower.
    """
    large = len(snapshot.vectors) >= SMALL
    if large:
        with contextlib.suppress(UnusableError, TypeError, ValueError), database.read():
            facts, arrays = read_derived(database, TRIALS_NAME)
            if facts["generation"] == snapshot.generation:
                return OwnTrials(**arrays)
    trials = own_trials(snapshot.vectors, snapshot.owners, snapshot.templates)
    if large and trials is not None and database.writable:
        with contextlib.suppress(GalleryError), database.lock("write trials", timeout=0.0):
            write_derived(database, TRIALS_NAME, snapshot.generation, asdict(trials))
    return trials
