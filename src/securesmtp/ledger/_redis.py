"""
A ledger in Redis: the weakest of the three, because Redis may forget.

How it works:

- Each method runs one Lua script, which Redis runs alone. Each may run twice with the same effect, because redis-py
  repeats a command whose reply was lost: one's own claim is a yes, and so is one's own verdict.
- Each reply begins with a random word of its call. If a signal interrupts a call at the wrong moment, its reply is
  still in the connection when that is used again.
- No key expires. The name of each has the prefix in braces, so that all are in one slot of a cluster.
- The ledger has a random identity, which a process remembers, and the order of its entries is a key of its own. So
  some of what Redis forgets is noticed: then nothing is sent.
- Times come from Redis' clock, in milliseconds since 1970. A state that depends on them is computed when it is read.
"""

from __future__ import annotations

import warnings
from datetime import timedelta
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Literal, Self

from securesmtp._options import seconds
from securesmtp._secret import Secret
from securesmtp._shown import quote
from securesmtp._tracebacks import hide_internal_frames
from securesmtp.errors import ConfigurationError
from securesmtp.ledger import _redis_scripts as scripts
from securesmtp.ledger._protocol import State
from securesmtp.ledger._redis_client import Client
from securesmtp.ledger._rules import (
    check_resend,
    closed,
    not_unknown,
    outcomes_unknown,
    result_to_text,
    states_before,
    to_entry,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from types import TracebackType

    from securesmtp._values import SendResult
    from securesmtp.ledger._protocol import Entry, Item

# Entries that `entries` reads at once: Redis does nothing else meanwhile.
_PAGE = 500
_VERSION = "1"
_GONE = (
    "Redis has lost its data, or they were deleted",
    "restore them; otherwise find out in the server's log what was sent, and begin a ledger with another prefix",
)
_LOST = "restore the data; with maxmemory, Redis must have maxmemory-policy noeviction"
_UNREADABLE = "a later version of securesmtp may have written it: install that"


class RedisLedger:
    """
    A ledger in Redis; see `Ledger` for its methods. Any thread may use it, and the child of a fork.

    Redis may forget: what it evicts, what it had not written to its disk, what a replica had not got yet when it took
    over. A message that is forgotten is sent again. If its settings allow it to forget, there is a ``RuntimeWarning``.
    Prefer a ledger in PostgreSQL if you have one.

    Attributes:
        longest_send: Seconds after which a claim without an end counts as unknown.
    """

    @hide_internal_frames
    def __init__(
        self,
        url: str | Secret,
        *,
        prefix: str = "securesmtp",
        longest_send: float = 3600.0,
        resend: Collection[Literal["unknown", "refused"]] = (),
    ) -> None:
        """
        Make the ledger; it connects when it is first used.

        Args:
            url: ``redis://user:password@host:6379/0``; ``rediss://…`` for TLS, which is always verified, with
                ``?ssl_ca_certs=/path/ca.pem`` for a private CA; or ``unix:///path``. It may be a server of a cluster.
            prefix: What the names of all keys begin with, in braces: one ledger has one prefix.
            longest_send: Seconds that no send takes longer than: an upper bound of the mailer's *deadline*. A claim
                without an end that is older counts as unknown.
            resend: What may be sent again although it may arrive twice (``"unknown"``) or was refused for good
                (``"refused"``).

        Raises:
            ConfigurationError: An argument is wrong. No error shows a password.
        """
        # First, because an error report shows these variables.
        hidden = url if isinstance(url, Secret) else Secret(url)
        del url
        self.longest_send: float = seconds("longest_send", longest_send)
        chosen = check_resend(resend)
        self._resend = ["1" if name in chosen else "0" for name in ("refused", "unknown")]
        self._name = _braced(prefix)
        self._client = Client(hidden)
        # As the process has first seen it; a fork's child knows it too.
        self._identity: str | None = None
        self._closed = False

    def close(self) -> None:
        """
        Close the connections; one that is in use, when its call ends.

        What is claimed stays so; every other method raises `LedgerError` from now on.
        """
        self._closed = True
        self._client.drop_idle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def prepare(self, items: Sequence[Item]) -> Sequence[Entry]:
        """
        Add those of *items* whose key is new, as `State.PREPARED`; return the entry of each as it is now.

        Raises:
            LedgerError: Nothing was written, unless only the reply of Redis was lost.
        """
        return self._advance({}, items, "")

    def claim(self, items: Sequence[Item], token: str) -> Sequence[Entry]:
        """
        Prepare each of *items*, and claim those that may be sent; return the entry of each as it is now.

        Raises:
            LedgerError: Nothing was claimed, unless only the reply of Redis was lost.
        """
        return self._advance({}, items, token)

    def finish(self, ends: Mapping[str, SendResult], token: str) -> None:
        """
        Write how the sends of the entries with these keys ended. An entry that *token* does not own is not changed.

        Raises:
            LedgerError: Nothing was written, or it is not known; the entries may stay claimed.
        """
        self.advance(ends, (), token)

    def advance(self, ends: Mapping[str, SendResult], items: Sequence[Item], token: str) -> Sequence[Entry]:
        """
        Do what `finish` does with *ends*, then what `claim` does with *items*, in one step.

        Raises:
            LedgerError: Nothing was claimed or written, or it is not known; the entries may stay claimed.
        """
        with outcomes_unknown():
            return self._advance(ends, items, token)

    def _advance(self, ends: Mapping[str, SendResult], items: Sequence[Item], token: str) -> Sequence[Entry]:
        arguments = [self._open(), self._longest, token, *self._resend, str(len(ends))]
        for key, result in ends.items():
            retryable = "1" if result.retryable else "0"
            arguments += [key, State(result.outcome.value), result_to_text(result), retryable]
        for item in items:
            # A mark, because it may be missing.
            arguments += [item.key, item.digest, "" if item.message_id is None else f"={item.message_id}"]
        keys = [item.key for item in items]
        return self._entries(keys, self._call(scripts.ADVANCE, [*ends, *keys], arguments))

    def look_up(self, key: str) -> Entry | None:
        """
        Return the entry of *key*; None if there is none.

        Raises:
            LedgerError: Redis cannot be read.
        """
        return next(iter(self._read([key])), None)

    def entries(self, *states: State) -> Iterator[Entry]:
        """
        Yield the entries that are in one of *states*, or all, in the order in which they were added.

        Raises:
            LedgerError: Redis cannot be read.
        """
        last = "0"
        while True:
            (found,) = self._call(scripts.LIST, [], [self._identity or "", last, str(_PAGE)])
            for entry in self._read([_text(key) for key in found[::2]]):
                if not states or entry.state in states:
                    yield entry
            if len(found) < 2 * _PAGE:
                return
            last = _text(found[-1])

    def reconcile(self, key: str, state: State) -> Entry:
        """
        Write the verdict of a person, or of the server's log, on an unknown message, and return its entry.

        Args:
            key: Its key.
            state: `State.ACCEPTED` (it arrived) or `State.NOT_SENT` (it did not: it may be sent again).

        Raises:
            ConfigurationError: *state* is no verdict.
            LedgerError: It is not unknown, or there is no such key.
        """
        allowed = states_before(state)
        arguments = [self._open(), self._longest, key, state, token_hex(16), *allowed]
        (entry,) = self._entries([key], self._call(scripts.RECONCILE, [key], arguments))
        return entry

    @property
    def _longest(self) -> str:
        return str(int(self.longest_send * 1000))

    def _open(self) -> str:
        """Return the identity of the ledger, which is made if there is none."""
        if self._identity is None:
            identity, version = self._call(scripts.OPEN, [], [token_hex(16)])
            if _text(version) != _VERSION:
                raise self._client.failed("a later version of securesmtp has written it", "install that version")
            self._identity = _text(identity)
            self._warn()
        return self._identity

    def _warn(self) -> None:
        memory, disk = self._client.info("memory"), self._client.info("persistence")
        policy = memory.get("maxmemory_policy", "unknown")
        doubts = []
        # None of its keys expires, so the policies that evict only such keys are as good.
        if policy != "noeviction" and not str(policy).startswith("volatile-"):
            doubts.append(f"its maxmemory-policy is {quote(policy)}, not 'noeviction'")
        if disk.get("aof_enabled") != 1:
            doubts.append("it does not write each change to its disk (appendonly is not on)")
        if doubts:
            text = f"Redis at {self._client.place} may forget what was sent, which is then sent again"
            # At the caller of `prepare` or `claim`, the first calls.
            warnings.warn(f"{text}: {' and '.join(doubts)}", RuntimeWarning, stacklevel=5)

    def _call(self, script: str, keys: Sequence[str], arguments: Sequence[str]) -> list[Any]:
        """Return what *script* replies about the entries of *keys*."""
        if self._closed:
            raise closed(f"in Redis at {self._client.place}")
        names = [f"{self._name}:ledger", f"{self._name}:order", *(f"{self._name}:entry:{key}" for key in keys)]
        for _ in range(2):
            call = token_hex(8)
            try:
                reply = self._client.run(script, names, [call, *arguments])
            finally:
                if self._closed:
                    self._client.drop_idle()
            if isinstance(reply, list) and reply and reply[0] == call.encode():
                return self._judged(_text(reply[1]), reply[2:], keys)
            # The reply to a call that was interrupted. This one was not lost, but it may as well be repeated.
            self._client.drop_idle()
        raise self._client.failed("its replies are those to other commands", None, retryable=True)

    def _judged(self, word: str, rest: list[Any], keys: Sequence[str]) -> list[Any]:
        if word == "gone":
            raise self._client.failed(*_GONE)
        if word == "lost":
            raise self._client.failed(f"Redis has removed the entry {quote(_text(rest[0]), allow_at=True)}", _LOST)
        if word == "denied":
            raise not_unknown(keys[0], State(_text(rest[0])) if rest else None)
        return rest

    def _read(self, keys: Sequence[str]) -> list[Entry]:
        return self._entries(keys, self._call(scripts.READ, keys, [self._identity or "", self._longest, *keys]))

    def _entries(self, keys: Sequence[str], rows: Sequence[Any]) -> list[Entry]:
        return [self._entry(key, row) for key, row in zip(keys, rows, strict=True) if row is not None]

    def _entry(self, key: str, row: Sequence[bytes | None]) -> Entry:
        digest, message_id, state, changed, token, result = (None if value is None else _text(value) for value in row)
        try:
            age = timedelta(milliseconds=int(changed or ""))
            return to_entry(key, digest or "", message_id, state or "", age, token, result)
        except ValueError as error:
            raise self._client.failed("an entry cannot be read", _UNREADABLE) from error


def _braced(prefix: object) -> str:
    """Return what the names of all keys begin with: Redis Cluster looks at what is in the first braces."""
    if not isinstance(prefix, str) or not prefix or {"{", "}"} & set(prefix):
        raise ConfigurationError(f"prefix is {quote(prefix)}, not a text without braces")
    return f"{{{prefix}}}"


def _text(value: bytes) -> str:
    return value.decode()
