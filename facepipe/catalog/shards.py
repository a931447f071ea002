"""Part of a scan for each of several machines: which photos of the input are whose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from facepipe.errors import UsageError
from facepipe.text import printable

_T = TypeVar("_T")

#: Photos in a row that go to one shard: a multiple of what the networks take at a time, on the CPU and on CUDA. So each shard makes
#: the same chunks as one run of everything, and with them the same last digits.
BLOCK = 48


@dataclass(frozen=True, slots=True)
class Shard:
    """The `number`-th, from 1, of `of` parts of an input: blocks of photos are dealt out in turn."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ValueError(f"Shard: expected 1 <= number <= of, got {self.number} of {self.of}")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return what a text such as 3/8 says. UsageError for another one."""
        number, _, of = text.partition("/")
        try:
            return cls(int(number), int(of))
        except ValueError as error:
            raise UsageError(
                f"--shard {printable(text)}: expected K/N with K from 1 to N, as 3/8 for the third of eight parts"
            ) from error

    def has(self, position: int) -> bool:
        """Say whether the photo at this place of the input, from 0, is in this part."""
        return position // BLOCK % self.of == self.number - 1

    def share(self, photos: Iterable[_T]) -> Iterator[tuple[int, _T]]:
        """Yield those of all photos of the input that are in this part, with their places in the input."""
        return ((position, photo) for position, photo in enumerate(photos) if self.has(position))

    def count(self, photos: int) -> int:
        """Return how many of so many photos are in this part."""
        blocks, rest = divmod(photos, BLOCK)
        whole, left = divmod(blocks, self.of)
        mine = whole + (self.number <= left)
        return mine * BLOCK + (rest if self.number == left + 1 else 0)


#: Everything is one part.
WHOLE = Shard(1, 1)
