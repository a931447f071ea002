"""The writer's lock: one process writes at a time, and a process that waits in vain is told which one holds it.

Neither SQLite's own lock nor filelock's can say who holds it, for what and since when. This one is an `flock` on the file
`lock`: the kernel drops it when its holder dies, even by `kill -9`, and its text says who holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from facepipe.errors import GalleryAccessError, GalleryLockedError
from facepipe.gallery.storage.disk import open_own_file

LOCK_NAME = "lock"
#: Seconds to wait for another process.
LOCK_TIMEOUT = 60.0


class WriterLock:
    """The lock of one gallery folder, re-entrant within its owner. Readers do not need it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = False

    @contextlib.contextmanager
    def hold(self, action: str, timeout: float) -> Iterator[None]:
        """Hold the lock, after waiting up to `timeout` seconds for it; `action` (a verb, no names) is what others are told.

        GalleryLockedError says which process holds it, what it does and since when.
        """
        if self._held:
            yield
            return
        path = self._folder / LOCK_NAME
        try:
            # A gallery may come from somebody else: no link is followed.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise GalleryAccessError(
                f"{self._folder}: cannot be written ({error.strerror}): give write permission"
            ) from error
        try:
            self._wait(descriptor, path, timeout)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "action": action, "since": since}
            # Advice for others, not state: a full disk must not turn it into an error.
            with contextlib.suppress(OSError):
                text = json.dumps(holder).encode()
                os.pwrite(descriptor, text, 0)
                os.ftruncate(descriptor, len(text))
            self._held = True
            yield
        finally:
            self._held = False
            os.close(descriptor)

    def _wait(self, descriptor: int, path: Path, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        pause = 0.001
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise GalleryLockedError(
                        f"{self._folder}: locked for {timeout:g} s by {describe_holder(path)}: "
                        "wait until it is done, or end that process, and try again"
                    ) from None
            except OSError as error:  # ENOSYS, ENOLCK, EOPNOTSUPP: a network drive
                raise GalleryAccessError(
                    f"{self._folder}: this file system has no locks ({error.strerror}), without which a gallery is not written: move "
                    "it to a local disk; facepipe identify --no-lock, and list, show and export, read it where it is"
                ) from error
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)


def read_note(path: Path) -> bytes:
    """Return what a small file of a gallery says; no more than a note may have, whatever its size. Raises OSError."""
    with open_own_file(path) as file:
        return file.read(4096)


def describe_holder(path: Path) -> str:
    """Return who holds the lock, in words: process, action, since when."""
    try:
        holder = json.loads(read_note(path))
        return f"process {holder['pid']} on {holder['host']} ({holder['action']}, since {holder['since']})"
    except (OSError, ValueError, KeyError):
        return "another process"
