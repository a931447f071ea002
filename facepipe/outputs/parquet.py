"""Results as Parquet: the rows and columns of the CSV (`csvfile.COLUMNS`), typed.

Schema version 1, recorded in the file's metadata as `facepipe_schema_version` and in the last column:

- path, error, status, person, damage, model: string; width, height, face, frames, schema_version: int32
- box (x1 y1 x2 y2), score, similarity, probability, threshold, figures of quality, landmarks, times of videos: double
- candidates: list of struct {person: string, similarity: double}, best first

Null means that there is none: a photo without a face has one row in which face and all that follows is null.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from facepipe.files.atomic import atomic_path
from facepipe.outputs.csvfile import COLUMNS, face_rows
from facepipe.records import SCHEMA_VERSION, Record

#: Rows held in memory before they are written as one row group.
_GROUP = 20_000


def write_parquet(path: str | os.PathLike[str], records: Iterable[Record]) -> None:
    """Write photos as one Parquet file, whole or not at all, in bounded memory, in place of any file of this name.

    Raises OutputError when the system refuses.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    candidate = pa.struct([("person", pa.string()), ("similarity", pa.float64())])
    types = {"text": pa.string(), "integer": pa.int32(), "number": pa.float64(), "candidates": pa.list_(candidate)}
    columns = [(name, types[kind]) for name, kind in COLUMNS.items()]
    schema = pa.schema(columns, metadata={"facepipe_schema_version": str(SCHEMA_VERSION)})
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        rows: list[Record] = []
        for record in records:
            rows.extend(face_rows(record))
            if len(rows) >= _GROUP:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows.clear()
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
