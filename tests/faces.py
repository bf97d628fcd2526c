"""
The three faces of the mailer, `sync`, `asyncio` and `trio`, as one class: what is true of one is tested of all.

A test marked `faces` runs with each of them. The async mailers run in an event loop in a thread of its own; `InLoop`
has the methods of `SecureMailer` and calls them there. A test without the mark gets a `SecureMailer`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial as bind
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from securesmtp import AsyncSecureMailer, SecureMailer

if TYPE_CHECKING:
    from securesmtp import AsyncResults, Receipt, SendResult

Face = Literal["sync", "asyncio", "trio"]
Backend = Literal["asyncio", "trio"]
FACES: tuple[Face, ...] = ("sync", "asyncio", "trio")
BACKENDS: tuple[Backend, ...] = ("asyncio", "trio")


class Faces:
    """Makes mailers; starts an event loop of each kind when the first mailer needs it."""

    def __init__(self, stack: ExitStack) -> None:
        """Stop the loops when *stack* ends."""
        self._stack = stack
        self._portals: dict[Face, BlockingPortal] = {}

    def maker(self, face: Face) -> Callable[..., SecureMailer]:
        """Return the class of *face*: it takes the arguments of `SecureMailer` and has its methods."""
        if face == "sync":
            return SecureMailer
        if face not in self._portals:
            # Like the threads in which `send_many` sends, which some tests recognise by their name.
            portal = start_blocking_portal(face, name=f"securesmtp {face}")
            self._portals[face] = self._stack.enter_context(portal)
        return cast("Callable[..., SecureMailer]", bind(InLoop, self._portals[face]))


class InLoop:
    """An `AsyncSecureMailer` with the methods of `SecureMailer`, each called in the event loop of another thread."""

    def __init__(self, portal: BlockingPortal, *arguments: Any, **options: Any) -> None:
        """Make the mailer."""
        self.mailer: Any = AsyncSecureMailer(*arguments, **options)
        self._portal = portal

    @classmethod
    def around(cls, portal: BlockingPortal, mailer: object) -> Self:
        """Return *mailer*, which has the methods of an `AsyncSecureMailer`, with those of a `SecureMailer`."""
        made = cls.__new__(cls)
        made.mailer, made._portal = mailer, portal
        return made

    def __enter__(self) -> Self:
        """Return the mailer."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute that both mailers have; some can be read in the mailer's loop only."""
        return self._portal.call(getattr, self.mailer, name)

    def send(self, *arguments: Any, **options: Any) -> Receipt:
        """Await the method of the same name."""
        receipt: Receipt = self._portal.call(bind(self.mailer.send, *arguments, **options))
        return receipt

    def send_bytes(self, *arguments: Any, **options: Any) -> Receipt:
        """Await the method of the same name."""
        receipt: Receipt = self._portal.call(bind(self.mailer.send_bytes, *arguments, **options))
        return receipt

    def check(self) -> Any:
        """Await the method of the same name."""
        return self._portal.call(self.mailer.check)

    def close(self, **options: Any) -> tuple[SendResult, ...]:
        """Await the method of the same name."""
        results: tuple[SendResult, ...] = self._portal.call(bind(self.mailer.close, **options))
        return results

    def send_many(self, messages: Iterable[Any], **options: Any) -> Results:
        """Return an iterator over the results, which are awaited one by one."""
        return Results(self._portal, self._portal.call(bind(self.mailer.send_many, messages, **options)))


class Results:
    """The results of `AsyncSecureMailer.send_many` as an iterator."""

    def __init__(self, portal: BlockingPortal, results: AsyncResults) -> None:
        """Iterate over *results* in the loop of *portal*."""
        self._portal, self._results = portal, results

    def __iter__(self) -> Self:
        """Return the iterator."""
        return self

    def __next__(self) -> SendResult:
        """Wait for the next result."""
        try:
            return self._portal.call(self._results.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the run."""
        self._portal.call(self._results.aclose)


def faces_of(mark: pytest.Mark) -> tuple[Face, ...]:
    """Return the faces with which a test runs that has this mark."""
    return ("sync",) if mark.kwargs.get("threads_only") else FACES


def face_of(item: pytest.Item) -> Face:
    """Return the face with which this test runs."""
    callspec = getattr(item, "callspec", None)
    face: Face = "sync" if callspec is None else callspec.params.get("face", "sync")
    return face


def sample(items: Iterable[pytest.Item], *, everything: bool) -> Iterator[tuple[pytest.Item, bool]]:
    """
    Yield those of *items* that a default run leaves out, and whether `pytest -m exhaustive` leaves them out too.

    Of each async face, a default run tries one case of a file in ``sample[0]``, an exhaustive one another in
    ``sample[1]``: arguments of the mark. asyncio and trio take different cases. With *everything*, no case is left out.
    """
    seen = Counter[tuple[object, ...]]()
    for item in items:
        mark, face = item.get_closest_marker("faces"), face_of(item)
        if mark is None or face == "sync" or everything:
            continue
        is_exhaustive = item.get_closest_marker("exhaustive") is not None
        strides, family = mark.kwargs.get("sample", (1, 1)), (item.path, face, is_exhaustive)
        number, seen[family] = seen[family] + BACKENDS.index(face) * (strides[0] // 2), seen[family] + 1
        if is_exhaustive or number % strides[0]:
            yield item, bool(number % strides[1])
