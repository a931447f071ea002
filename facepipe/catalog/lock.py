"""Keeps a second writer from a catalog, and lets everybody read it meanwhile.

SQLite's own exclusive lock would keep readers out as well. This one is an `flock` on a file beside the catalog, never on the catalog
itself: closing a second descriptor of a database drops SQLite's locks. The kernel drops it when its holder dies, even by `kill -9`.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from facepipe.errors import InputError
from facepipe.files.atomic import as_output_error
from facepipe.text import printable

SUFFIX = "-lock"


#: So long a lock is asked for again: `is_written` holds it for a moment.
_MOMENT = 0.2


def is_written(catalog: Path) -> bool:
    """Say whether a process is writing to a catalog; where the file system has no locks, nobody knows, and it is no."""
    try:
        descriptor = os.open(catalog.with_name(catalog.name + SUFFIX), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


class CatalogLock:
    """The right to write a catalog, until it is closed or its process ends. held: False where the file system has no such locks."""

    def __init__(self, catalog: Path) -> None:
        """Take it. Errors: InputError when another process has it, OutputError when the system refuses."""
        self._path = catalog.with_name(catalog.name + SUFFIX)
        self.held = True
        until = time.monotonic() + _MOMENT
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            with as_output_error(self._path):
                self._descriptor = os.open(self._path, flags, 0o600)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(self._descriptor)
                if time.monotonic() < until:
                    time.sleep(_MOMENT / 10)
                    continue
                raise InputError(
                    f"{printable(catalog)}: another process is writing to this catalog; wait for it, or choose another one"
                ) from error
            except OSError:  # ENOSYS, ENOLCK, EOPNOTSUPP: a network drive; SQLite's own locks have to do
                self.held = False
                return
            # Whoever had it before removes the file as the last thing: a lock on a file that is gone keeps nobody out.
            if self._is_there():
                return
            os.close(self._descriptor)

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(self._path.lstat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Give it back, and leave no file behind."""
        if self._descriptor < 0:
            return
        if self.held and self._is_there():
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1
