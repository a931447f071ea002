"""The people's templates in a collection of a Milvus server: it proposes who is near a face, and knows no names.

    id 0     the note: of which state of which gallery the rows are
    id 1 ..  a person's id in the gallery, and the person's template

Every read is consistent with what was written before it, by whichever process (Milvus' level "Strong").
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from facepipe.errors import GalleryServerError, LibraryError, UsageError
from facepipe.text import printable
from facepipe.types import Float32, Int64

#: In the environment: "user:password" or an API key. It is never stored.
TOKEN = "FACEPIPE_MILVUS_TOKEN"
#: Milvus gives no more results for a probe.
MOST = 16_384
_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
#: How many rows Milvus' graph looks at besides: fewer miss people who are near nobody else.
_LEAST_EF = 1000
#: Rows in one message, and results: well below the 64 MB that a message may have.
_ROWS = 2000
_RESULTS = 500_000


class MilvusPeople:
    """One collection. GalleryServerError from every call when the server does not answer or refuses."""

    def __init__(self, uri: str, collection: str) -> None:
        """Connect. Errors: GalleryServerError; LibraryError without pymilvus; UsageError for a URI that does not belong here."""
        require_uri(uri)
        if os.environ.get("FACEPIPE_OFFLINE", "") not in {"", "0"}:
            raise GalleryServerError(f"FACEPIPE_OFFLINE is set: the vector database at {uri} is not asked")
        try:
            import pymilvus
        except ImportError as error:
            raise LibraryError(
                f"the vector database at {uri} needs pymilvus, which cannot be loaded ({error}): pip install pymilvus, or facepipe "
                "with its extra [milvus]"
            ) from error
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it prints what it also raises
        self.uri, self._name = uri, collection
        self._library = pymilvus
        with self._answers():
            self._client = pymilvus.MilvusClient(uri, token=os.environ.get(TOKEN, ""), timeout=_CONNECT_SECONDS)

    @contextlib.contextmanager
    def _answers(self) -> Iterator[None]:
        import grpc

        try:
            yield
        except (self._library.MilvusException, grpc.RpcError, ValueError) as error:
            text = str(error.code() if isinstance(error, grpc.RpcError) else getattr(error, "message", error)).strip()
            raise GalleryServerError(
                f"{self.uri}: the vector database does not answer ({printable(text.partition(chr(10))[0])[:200]}): start it, or give "
                f"its token in {TOKEN}"
            ) from error

    def create(self, dim: int) -> None:
        """Make the collection, empty, for vectors of length `dim`; one that is there goes."""
        kind = self._library.DataType
        self.destroy()
        with self._answers():
            schema = self._client.create_schema(auto_id=False, enable_dynamic_field=True)
            schema.add_field("id", kind.INT64, is_primary=True)
            schema.add_field("vector", kind.FLOAT_VECTOR, dim=dim)
            index = self._client.prepare_index_params()
            index.add_index("vector", index_type="HNSW", metric_type="IP", params={"M": 32, "efConstruction": 200})
            self._client.create_collection(
                self._name, schema=schema, index_params=index, consistency_level="Strong", timeout=_SECONDS
            )

    def destroy(self) -> None:
        """Drop the collection, if there is one."""
        with self._answers():
            if self._client.has_collection(self._name, timeout=_SECONDS):
                self._client.drop_collection(self._name, timeout=_SECONDS)

    def note(self) -> dict[str, Any] | None:
        """Return what `write_note` stored; None without a collection, or when what is there is no note."""
        with self._answers():
            if not self._client.has_collection(self._name, timeout=_SECONDS):
                return None
            rows = self._client.get(self._name, ids=[0], output_fields=["note"], timeout=_SECONDS)
        try:
            found = json.loads(rows[0]["note"])
        except (LookupError, TypeError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write_note(self, note: dict[str, Any], dim: int) -> None:
        """Store a note; its row has a vector like every other."""
        vector = np.zeros(dim, np.float32)
        vector[0] = 1.0
        with self._answers():
            self._client.upsert(self._name, [{"id": 0, "vector": vector, "note": json.dumps(note)}], timeout=_SECONDS)

    def put(self, person_ids: Sequence[int], templates: Float32) -> None:
        """Store people's templates, float32 (n, d), in the place of those that were there."""
        rows = [{"id": person, "vector": row} for person, row in zip(person_ids, templates, strict=True)]
        with self._answers():
            for start in range(0, len(rows), _ROWS):
                self._client.upsert(self._name, rows[start : start + _ROWS], timeout=_SECONDS)

    def drop(self, person_ids: Sequence[int]) -> None:
        """Delete people."""
        with self._answers():
            for start in range(0, len(person_ids), _ROWS):
                self._client.delete(self._name, ids=list(person_ids[start : start + _ROWS]), timeout=_SECONDS)

    def flush(self) -> None:
        """Let the server store and index what it was given."""
        with self._answers():
            self._client.flush(self._name, timeout=_SECONDS)

    def compact(self) -> None:
        """Ask the server to let go of the bytes of what was deleted; it does so in its own time."""
        with self._answers():
            self._client.compact(self._name, timeout=_SECONDS)

    def count(self) -> int:
        """Return how many people are there."""
        with self._answers():
            rows = self._client.query(self._name, filter="id > 0", output_fields=["count(*)"], timeout=_SECONDS)
        return int(rows[0]["count(*)"])

    def propose(self, vectors: Float32, wanted: int) -> Int64:
        """Return ids of the people nearest to vectors, float32 (n, d): int64 (n, wanted), -1 where there are fewer."""
        wanted = min(wanted, MOST)
        found = np.full((len(vectors), wanted), -1, np.int64)
        step = max(1, _RESULTS // max(1, wanted))
        ef = min(_LEAST_EF + 2 * wanted, 2 * MOST)
        for start in range(0, len(vectors), step):
            with self._answers():
                hits = self._client.search(
                    self._name,
                    data=list(vectors[start : start + step]),
                    anns_field="vector",
                    limit=wanted,
                    search_params={"params": {"ef": ef}},
                    timeout=_SECONDS,
                )
            for row, hit in zip(found[start : start + step], hits, strict=True):
                ids = np.asarray(hit.ids, np.int64)[:wanted]
                row[: len(ids)] = ids
        return found


def require_uri(uri: str) -> None:
    """UsageError for what is not the address of a server, or has a password in it: it lies in the gallery for all to read."""
    try:
        parts = urlsplit(uri)
        sound = uri.isascii() and uri.isprintable() and len(uri) <= 500 and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.scheme not in {"http", "https"} or parts.query or parts.fragment:
        raise UsageError(
            f"{printable(uri)[:100]}: not the address of a Milvus server: give http://HOST:PORT or https://HOST:PORT"
        )
    if "@" in parts.netloc:
        raise UsageError(
            f"the address of the vector database holds a password, which would lie in the gallery: give it in {TOKEN}"
        )
