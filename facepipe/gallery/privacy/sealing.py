"""Sealing: everything that is stored is encrypted, or stored plain again."""

from __future__ import annotations

import os

from facepipe.errors import UsageError
from facepipe.gallery.privacy.erasing import scrub
from facepipe.gallery.storage.codec import Codec, SealedCodec, Secret, wrap_key
from facepipe.gallery.storage.database import Database


def seal(database: Database, secret: Secret) -> None:
    """Seal the gallery with a new data key under `secret`: a plain one for the first time, a sealed one anew (rotation).

    One transaction: it is sealed with the old key or with the new one, never with both. InputError for a short passphrase,
    UsageError where a vector database holds the people's vectors.
    """
    secret.require_strong()
    if (uri := database.server()) is not None:
        raise UsageError(
            f"{database.folder}: its vectors lie in the vector database at {uri}, outside any seal: "
            "take them back first with facepipe gallery index --kind exact"
        )
    data_key = os.urandom(32)
    _recode(database, SealedCodec(data_key), wrap_key(secret, data_key))


def unseal(database: Database) -> None:
    """Store names, vectors and chips as they are again."""
    _recode(database, Codec(), None)


def _recode(database: Database, new: Codec, record: str | None) -> None:
    with database.lock("seal"):
        database.recode("seal", new, record, scrub="seal")
        scrub(database)
