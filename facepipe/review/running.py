"""Runs the review page's server on this machine alone, until it is interrupted."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable

import uvicorn

from facepipe.errors import GalleryLockedError, UsageError
from facepipe.groups.album import Album
from facepipe.review.calls import Calls
from facepipe.review.guard import new_token
from facepipe.review.server import Review

#: Seconds between two looks at whether a scan has found more faces.
_EVERY = 3.0


def run(open: Callable[[], Album], catalog: str, *, port: int = 0, ready: Callable[[str], object]) -> None:
    """Serve the page until SIGINT or SIGTERM. open: opens the groups, called in each thread and process that needs them.

    port: 0 takes any that is free. ready: is given the address to open, when it can be.
    Errors: UsageError when the port is taken; what `open` raises.
    """
    listener = listen(port)
    with contextlib.closing(listener):
        port, token = listener.getsockname()[1], new_token()
        grouping, ended = threading.Event(), threading.Event()
        review = Review(lambda: Calls(open(), catalog, grouping.is_set), token, port)
        server = uvicorn.Server(config_of(review))
        follower = threading.Thread(target=_follow, args=(open, grouping, ended), name="refresh", daemon=True)
        follower.start()
        try:
            ready(f"http://127.0.0.1:{port}/#token={token}")
            with contextlib.suppress(KeyboardInterrupt):  # Ctrl+C is how it ends
                server.run([listener])
        finally:
            ended.set()
            follower.join(timeout=10)


def config_of(review: Review) -> uvicorn.Config:
    """Return how the server runs: it logs nothing, since addresses and names are nobody's business, and says nothing of itself."""
    return uvicorn.Config(
        review.app,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=75,  # longer than the page waits between two looks, so that no connection ends under a request
        http="h11",
        ws="none",
    )


def listen(port: int) -> socket.socket:
    """Return a socket that takes connections from this machine."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)  # who opens the address at once is served as soon as the server runs
    except OSError as error:
        listener.close()
        raise UsageError(f"--port {port}: cannot be listened on ({error.strerror}); choose another one") from error
    return listener


def _follow(open: Callable[[], Album], grouping: threading.Event, ended: threading.Event) -> None:
    """Group the faces that a running scan finds, as they come. grouping: it does just now."""
    with open() as groups:
        seen, took = -1, 0.0
        while not ended.is_set():
            if (photos := groups.progress().photos) != seen:
                begun = time.monotonic()
                grouping.set()
                _group(open, ended)
                grouping.clear()
                seen, took = photos, time.monotonic() - begun
            ended.wait(max(_EVERY, 5 * took))


def _group(open: Callable[[], Album], ended: threading.Event) -> None:
    """Group new faces in a process of its own, so that answers are not kept waiting for the interpreter's lock."""
    process = multiprocessing.get_context("spawn").Process(target=_refresh, args=(open,), name="grouping", daemon=True)
    process.start()
    while process.is_alive() and not ended.is_set():
        process.join(0.2)
    process.terminate()
    process.join()


def _refresh(open: Callable[[], Album]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C ends the server, which ends this
    with open() as groups, contextlib.suppress(GalleryLockedError):  # somebody writes a lot: the next look does it
        groups.refresh(keep=True)
