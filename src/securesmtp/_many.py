"""Many jobs on some threads: begun in order, told in order, and never far ahead of who listens."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")


def in_order(jobs: Iterable[Callable[[], T]], workers: int) -> Iterator[T]:
    """
    Yield what each of *jobs* returns, in their order, done by so many *workers*.

    The next job is taken from the iterable only when there are fewer than twice as many begun as there are workers.
    What the iterable raises is raised when everything that was begun has been told. Who stops listening waits for the
    jobs that are under way, up to one a worker; those that were not begun are dropped.
    """
    begun: deque[Future[T]] = deque()
    failure: Exception | None = None
    with ThreadPoolExecutor(workers, "securesmtp") as executor:
        try:
            source = iter(jobs)
            while True:
                try:
                    job = next(source)
                except StopIteration:
                    break
                except Exception as error:  # noqa: BLE001 -- raised below, when nothing of what was begun is lost
                    failure = error
                    break
                begun.append(executor.submit(job))
                while begun and (len(begun) >= 2 * workers or begun[0].done()):
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
    if failure is not None:
        raise failure
