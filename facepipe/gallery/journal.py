"""The journal: who did what and when. Append-only, without names: those of people who were not erased are added on reading.

`identify` is in it only when the gallery's owner asked for that.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from facepipe.gallery.people import find_person, names_by_id
from facepipe.gallery.storage.database import Database
from facepipe.types import Recognized

_IDENTIFY = "log_identify"


def set_identify_log(database: Database, on: bool) -> None:
    """Log identifications from now on, or no longer."""
    with database.write("log"):
        database.set_meta(_IDENTIFY, "on" if on else None)
        database.log("log-identify", state="on" if on else "off")


def logs_identify(database: Database) -> bool:
    """Whether identifications are logged."""
    return database.get_meta(_IDENTIFY) is not None


def log_results(folder: Path, results: Sequence[Recognized]) -> None:
    """Log who was recognised in photos, how often, and how many faces were not, in the gallery of `folder`, which is not open.

    The gallery's generation stays as it is.
    """
    people = Counter(prediction.person for result in results for prediction in result.predictions)
    unknown = people.pop(None, 0)
    with closing(Database.open(folder)) as database, database.append("identify"):
        for name, count in people.items():
            person_id = find_person(database, str(name))
            if person_id is not None:
                database.log("identify", person_id, faces=count)
        if unknown:
            database.log("identify", None, unknown=unknown)


def journal_entries(database: Database) -> Iterator[dict[str, Any]]:
    """Yield the journal, oldest first, with the names of people who were not erased, as they are called now.

    The name before a rename is kept nowhere: an erase could not take it out of an entry.
    """
    with database.read() as connection:
        names = names_by_id(database, "subject")
        rows = connection.execute("SELECT id, at, actor, action, person_id, details, digest FROM journal ORDER BY id")
        for row_id, at, who, action, person_id, details, digest in rows.fetchall():
            facts = json.loads(details)
            if "into" in facts:
                facts["into_person"] = names.get(facts["into"])
            yield {
                **facts,  # first: entries of old have a detail "person", whether all of the person went
                "schema_version": 1,
                "id": row_id,
                "at": at,
                "actor": who,
                "action": action,
                "person_id": person_id,
                "person": names.get(person_id),
                "digest": digest.hex(),
            }
