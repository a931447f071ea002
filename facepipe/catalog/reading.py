"""What a catalog knows, read out: faces and vectors, results, failures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from facepipe.catalog.packing import unpack
from facepipe.catalog.store import Store
from facepipe.errors import InputError
from facepipe.records import Record, dumps, readable
from facepipe.text import printable
from facepipe.types import Described, Failed

_PRESENT = "pass >= ? AND NOT vanished"
_RESULT = f"{_PRESENT} AND record != ''"


class Reader(Store):
    """A catalog as those see it who only read. `_pass`: the photos that this pass met are in it."""

    _pass: int

    @property
    def model(self) -> str:
        """Fingerprint of the embedder that made the vectors."""
        return str(self._facts().get("model", ""))

    def __len__(self) -> int:
        """Return the number of photos that the last scan met."""
        return int(self._first(f"SELECT count(*) FROM photo WHERE {_PRESENT}", self._pass)[0])  # type: ignore[index]

    def photos(self) -> Iterator[Described | Failed]:
        """Yield the photos that the last scan met, in the order of the input, without their pixels.

        Errors: InputError when vectors were not kept, or are damaged.
        """
        model = self.model
        query = f"""
            SELECT name, reason, data FROM photo LEFT JOIN description USING (content) WHERE {_PRESENT} ORDER BY position"""
        for name, reason, data in self._rows(query, self._pass):
            path = os.fsdecode(name)
            photo = Failed(path, reason) if reason is not None else unpack(data, path, model)
            if photo is None:
                why = "was scanned with --no-keep-embeddings" if data is None else "is damaged in it"
                raise InputError(
                    f"{printable(self.path)}: {printable(path)} {why}; run the batch again with --keep-embeddings"
                )
            yield photo

    def records(self) -> Iterator[Record]:
        """Yield the results in the order of the input, then those of photos that vanished since they were scanned, marked."""
        return map(json.loads, self.lines())

    def lines(self) -> Iterator[str]:
        """Yield the records, each as one line of JSON."""
        for (record,) in self._rows(f"SELECT record FROM photo WHERE {_RESULT} ORDER BY position", self._pass):
            yield record
        query = "SELECT record FROM photo WHERE vanished AND record != '' ORDER BY pass, position"
        for (record,) in self._rows(query):
            fields = json.loads(record)
            fields["error"] = f"{fields['path']}: vanished: an earlier run found it, and it does not exist now"
            yield dumps(fields)

    def records_with_thumbnails(self) -> Iterator[tuple[Record, list[bytes]]]:
        """Yield the records in the order of the input, each with the thumbnails of its faces, if they were kept."""
        query = f"SELECT content, record FROM photo WHERE {_RESULT} ORDER BY position"
        for content, record in self._rows(query, self._pass):
            rows = self._rows("SELECT jpeg FROM thumbnail WHERE content = ? ORDER BY number", content)
            yield json.loads(record), [jpeg for (jpeg,) in rows]

    def failures(self) -> Iterator[tuple[str, str]]:
        """Yield (path, reason) of the photos that cannot be used, in the order of the input."""
        query = f"SELECT name, reason FROM photo WHERE {_PRESENT} AND reason IS NOT NULL ORDER BY position"
        for name, reason in self._rows(query, self._pass):
            yield readable(os.fsdecode(name)), readable(reason)

    def decided(self, name: str) -> tuple[str, Record] | None:
        """Return content and record of a photo that the pass met and that is decided."""
        row = self._first(
            f"SELECT content, record FROM photo WHERE name = ? AND {_RESULT}", os.fsencode(name), self._pass
        )
        return None if row is None else (row[0], json.loads(row[1]))

    def earlier(self) -> int:
        """Return how many photos the last whole pass met, and a run that was stopped since; vanished ones are not counted."""
        query = "SELECT count(*) FROM photo WHERE NOT vanished AND stamp != '' AND pass >= ?"
        return int(self._first(query, self._finished())[0])  # type: ignore[index]

    def earlier_has(self, name: str) -> bool:
        """Say whether the photo of this name is one of these, or of those that had vanished."""
        query = "SELECT 1 FROM photo WHERE name = ? AND stamp != '' AND (vanished OR pass >= ?)"
        return self._first(query, os.fsencode(name), self._finished()) is not None

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self._state("facts") or "{}")
        return facts

    def _finished(self) -> int:
        return int(self._state("finished") or 0)
