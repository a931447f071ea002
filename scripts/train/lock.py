"""One run at a time in a folder: a second one is told who is at work there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from facepipe.errors import OutputError, UsageError

LOCK_NAME = ".lock"


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made if it is not there; it is free again when the process ends, whatever its end.

    Raises UsageError while another process (or another holder in this one) has it, OutputError when it cannot be written.
    """
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open(path, folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        with suppress(OSError):  # only an empty folder goes
            folder.rmdir()


def _open(path: Path, folder: Path) -> int:
    """Return the locked file's descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 20, 0).decode() or "unknown"
            os.close(descriptor)
            raise UsageError(f"{folder}: in use by pid {pid}; wait for it, or choose another --out") from None
        # Its holder may have removed it between the two calls: then this lock is of a file that nobody else sees.
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)
