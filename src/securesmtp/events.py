"""
What a mailer tells while it works: to ``on_event``, and as one line each to the logger ``securesmtp``.

An event is a frozen value without a secret and without the message. Its `str` is the line that is logged, at DEBUG, or
at WARNING where something was refused for the sake of security, or a setting cannot be held to.
"""

from __future__ import annotations

import logging
import signal
from dataclasses import dataclass
from functools import partial as bind
from inspect import currentframe
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from securesmtp._shown import escape
from securesmtp.errors import AuthenticationError, SecureSMTPError, TLSError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from securesmtp._values import Receipt, Reply, TLSInfo

__all__ = [
    "Authenticated",
    "ChunkingRefused",
    "Closed",
    "Connected",
    "Connecting",
    "Event",
    "Failed",
    "FellBack",
    "FewerConnections",
    "Sent",
]

P = ParamSpec("P")
T = TypeVar("T")
# Of characters: more than any line of ours has, and what it shows of a Message-ID, which may have a thousand.
_LINE, _ID = 2000, 200
_LOGGER = logging.getLogger("securesmtp")
# A library prints nothing where the application has not asked for it.
_LOGGER.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Event:
    """
    Something that happened between the mailer and its server.

    Attributes:
        host: The configured server.
        port: The configured port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """Return one line, safe to be logged."""
        return escape(f"{self.host}:{self.port} {self._said()}", _LINE)

    def _said(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True, slots=True)
class Connecting(Event):
    """A new connection is about to be opened."""


@dataclass(frozen=True, slots=True)
class Connected(Event):
    """
    A verified TLS session was opened, and the server has greeted inside it.

    Attributes:
        tls: The evidence.
        elapsed: From the call of connect to the server's capabilities.
    """

    tls: TLSInfo
    elapsed: timedelta

    def _said(self) -> str:
        tls = self.tls
        return f"connected in {self.elapsed.total_seconds():.3f} s: {tls.version} {tls.cipher}, verified by {tls.trust}"


@dataclass(frozen=True, slots=True)
class Authenticated(Event):
    """
    The login went well.

    Attributes:
        mechanism: The SASL mechanism.
        elapsed: What it took.
    """

    mechanism: str
    elapsed: timedelta

    def _said(self) -> str:
        return f"authenticated by {self.mechanism} in {self.elapsed.total_seconds():.3f} s"


@dataclass(frozen=True, slots=True)
class Sent(Event):
    """
    The server took a message.

    Attributes:
        receipt: What `SecureMailer.send` returns.
    """

    receipt: Receipt

    def _said(self) -> str:
        receipt = self.receipt
        people = f"{len(receipt.accepted)} of {len(receipt.recipients)} recipients"
        took = receipt.elapsed.total_seconds()
        return f"sent {_id(receipt.message_id)} for {people}, {receipt.size} octets in {took:.3f} s: {receipt.reply}"


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """
    A try to send was refused or failed, or its outcome is unknown; or `SecureMailer.check` met what would refuse it.

    Attributes:
        error: What `SecureMailer.send` raises; ``message_id``, ``outcome`` and ``stage`` are its attributes.
    """

    error: SecureSMTPError

    def _said(self) -> str:
        error, which = self.error, _id(self.error.message_id)
        return f"failed {which} ({error.outcome}, {type(error).__name__} in {error.stage}): {error.args[0]}"


@dataclass(frozen=True, slots=True)
class FellBack(Event):
    """
    The server cannot take ``pipelining="session"``: from here on it is ``"message"``, and nothing is lost by it.

    Attributes:
        reason: What it did.
    """

    reason: str

    def _said(self) -> str:
        return f'fell back to pipelining="message", since the server cannot take "session": {self.reason}'


@dataclass(frozen=True, slots=True)
class FewerConnections(Event):
    """
    A run of `SecureMailer.send_many` goes on with fewer connections than *max_connections*; no message is lost by it.

    Attributes:
        connections: How many are left.
        reason: What kept a further one from being opened or used.
    """

    connections: int
    reason: str

    def _said(self) -> str:
        return f"goes on with {self.connections} connection(s): {self.reason}"


@dataclass(frozen=True, slots=True)
class ChunkingRefused(Event):
    """
    The server offers CHUNKING and refuses BDAT: that message was refused, the mailer sends the next ones by DATA.

    Attributes:
        reply: How it refused the first BDAT.
    """

    reply: Reply

    def _said(self) -> str:
        return f"uses DATA from now on, since the server offers CHUNKING and refuses BDAT: {self.reply}"


@dataclass(frozen=True, slots=True)
class Closed(Event):
    """
    A connection was closed.

    Attributes:
        reason: Why, in words that do not change: ``"closed by the caller"``, ``"idle"``, ``"message limit"``,
            ``"not usable"`` (closed by the server, or something was said unasked), ``"error"``.
    """

    reason: str

    def _said(self) -> str:
        return f"closed: {self.reason}"


def _id(message_id: str | None) -> str:
    return escape(str(message_id), _ID)


def tell(event: Event, on_event: Callable[[Event], None] | None) -> None:
    """
    Log *event*, and give it to *on_event*, whose errors change nothing of what became of a message.

    What happens meanwhile in this thread is not told: a log handler that mails would mail about its own mails. What
    strikes while *on_event* runs is no error of its own, and is not kept from whoever is to be interrupted.
    """
    grave = isinstance(event, Failed) and isinstance(event.error, TLSError | AuthenticationError)
    grave = grave or isinstance(event, FellBack | FewerConnections | ChunkingRefused)
    level = logging.WARNING if grave else logging.DEBUG
    if (on_event is None and not _LOGGER.isEnabledFor(level)) or _is_telling():
        return
    _LOGGER.log(level, "%s", event)
    if on_event is None:
        return
    try:
        on_event(event)
    except Exception as error:  # the application's own fault, told where it is looked for
        if is_interrupt(error):
            raise
        _LOGGER.exception("on_event raised")


def _is_telling() -> bool:
    """Return whether `tell` was called from inside of itself, or of what `telling_no_more` has returned."""
    # The stack cannot be left wrong by a signal, as a flag can (seen: one Ctrl-C, and a thread was never told again).
    # A name for this very frame would be a cycle, which keeps all that the callers' frames hold.
    frame = currentframe()
    frame = frame and frame.f_back
    frame = frame and frame.f_back
    while frame is not None and frame.f_code not in {tell.__code__, _silently.__code__}:
        frame = frame.f_back
    return frame is not None


def telling_no_more(work: Callable[P, T]) -> Callable[P, T]:
    """Return *work* for another thread: where it is begun while this one tells, it tells nothing either."""
    return bind(_silently, work) if _is_telling() else work


def _silently(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return work(*args, **kwargs)


def is_interrupt(error: BaseException) -> bool:
    """
    Return whether *error* is no answer of what was called: it struck from outside.

    Every exception that is no `Exception` is one (Ctrl-C, ``SystemExit``, gevent's timeouts). Any other is one where a
    signal handler of this process raised it, which its traceback shows (Celery's ``SoftTimeLimitExceeded``).
    """
    if not isinstance(error, Exception):
        return True
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    # A function or method has its code, a callable object that of its class.
    codes = {getattr(each, "__code__", None) or getattr(type(each).__call__, "__code__", None) for each in handlers}
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code not in codes:
        trace = trace.tb_next
    return trace is not None
