"""Object stores for tests: fsspec's own in memory, and one that speaks S3 on this machine."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from facepipe.catalog import remote

#: What a client of S3 needs besides the endpoint. Few tries: the tests do not wait for a server that is to fail.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIATESTING",
    "AWS_SECRET_ACCESS_KEY": "hush/hush",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "2",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def forget() -> None:
    """Let go of clients and of what was named, as another process would."""
    remote._store.cache_clear()
    remote._named.clear()
    remote._failed.clear()


@contextmanager
def memory_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Let memory:// be a store, an empty one; yield its file system."""
    import fsspec

    store = fsspec.filesystem("memory")
    store.store.clear()
    monkeypatch.setitem(remote.STORES, "memory", "fsspec")
    forget()
    yield store
    store.store.clear()
    forget()


@contextmanager
def s3_server() -> Iterator[str]:
    """Run a server; yield its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@contextmanager
def http_server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Run a server that answers every request in one way; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let s3:// be at this address, for this process and those that it starts."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    forget()


def upload(folder: Path, place: str) -> None:
    """Copy a folder to a place such as s3://bucket/prefix; the bucket is made."""
    protocol, _, path = place.partition("://")
    store = remote._store(protocol)
    store.makedirs(path.partition("/")[0], exist_ok=True)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            store.pipe_file(f"{path}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def is_below(path: Path, folder: Path) -> bool:
    """Say whether a path lies in a folder, and not by a link out of it."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
