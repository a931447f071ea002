"""Settings of the whole process that belong to the program which imports facepipe: changed while they are needed, then put back."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock


class Borrowed:
    """A context in which some settings of the process are others; several threads may be in it at once.

    The first that comes changes them and the last that goes puts them back: what a thread put back while another still works
    would change under that one's hands.
    """

    def __init__(self, change: Callable[[], Callable[[], None]]) -> None:
        """change: changes the settings, and returns what puts them back."""
        self._change = change
        self._lock = Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._put_back = self._change()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._put_back()
