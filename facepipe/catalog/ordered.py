"""A function over a stream on several threads: bounded, in order, pulled by its consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def ordered_map(
    function: Callable[[_In], _Out],
    items: Iterable[_In],
    workers: int,
    ahead: int,
    initializer: Callable[[], object] | None = None,
) -> Iterator[_Out]:
    """Yield function(item) in the order of the items, computed on `workers` threads.

    At most `workers + ahead` results exist that were not yielded: a slow consumer slows the producers down. The items are drawn
    in the consumer's thread. An exception of the function is raised where its result would have been yielded. When the
    consumer stops early, what has not begun is dropped.
    """
    pending: deque[Future[_Out]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="facepipe", initializer=initializer) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= workers + ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
