"""The journal: who did what and when. Append-only, without names: those of people who were not erased are added on reading.

`identify` is in it only when the gallery's owner asked for that.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from facepipe.gallery.people import find_person
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


def log_identified(database: Database, names: Mapping[str, int], others: int) -> None:
    """Log who was recognised, how often, and how many faces were not. The gallery's generation stays as it is."""
    with database.append("identify"):
        for name, count in names.items():
            person_id = find_person(database, name)
            if person_id is not None:
                database.log("identify", person_id, faces=count)
        if others:
            database.log("identify", None, unknown=others)


def log_results(folder: Path, results: Sequence[Recognized]) -> None:
    """Log who was recognised in photos, in the gallery that lies in `folder` and is not open; see `log_identified`."""
    people = [prediction.person for result in results for prediction in result.predictions]
    database = Database.open(folder)
    try:
        log_identified(database, Counter(name for name in people if name is not None), people.count(None))
    finally:
        database.close()


def journal_lines(database: Database) -> Iterator[str]:
    """Yield the journal as JSON lines, oldest first, with the names of people who were not erased, as they are called now.

    The name before a rename is kept nowhere: an erase could not take it out of an entry.
    """
    with database.read() as connection:
        names = {
            row[0]: database.codec.open_text(row[1])
            for row in connection.execute("SELECT person_id, name FROM subject").fetchall()
        }
        rows = connection.execute("SELECT id, at, actor, action, person_id, details, digest FROM journal ORDER BY id")
        for row_id, at, who, action, person_id, details, digest in rows.fetchall():
            facts = json.loads(details)
            if "into" in facts:
                facts["into_person"] = names.get(facts["into"])
            entry = {
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
            yield json.dumps(entry, ensure_ascii=False)
