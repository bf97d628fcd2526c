"""
Events: what a mailer reports while it works, to ``on_event`` and as one line each to the logger ``securesmtp``.

An event is a frozen value that holds neither a secret nor the message's content. Its `str` is the line that is logged:
at WARNING if TLS or the login failed, if a server of a `Failover` is down or up again, if the mailer must do without a
setting or an extension, or if a message has long lines; otherwise at DEBUG.
"""

# More than half of the lines are docstrings of public classes, so the file is longer than 300.
from __future__ import annotations

import logging
import signal
from dataclasses import dataclass
from functools import partial as bind
from inspect import currentframe
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from securesmtp._shown import escape
from securesmtp._values import describe_id
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
    "LongLines",
    "Sent",
    "ServerDown",
    "ServerUp",
]

P = ParamSpec("P")
T = TypeVar("T")
# Characters of a log line; the lines of this library are shorter.
_MAX_LINE = 2000
# Characters of a Message-ID in a log line.
_MAX_ID = 200
# No function of these packages is a signal handler.
_NO_HANDLERS = {"securesmtp", "ssl"}
_LOGGER = logging.getLogger("securesmtp")
# Without a handler, Python would print warnings to stderr although the application did not configure logging.
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
        """Return one line that is safe to log."""
        return escape(f"{self.host}:{self.port} {self._describe()}", _MAX_LINE)

    def _describe(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True, slots=True)
class Connecting(Event):
    """A new connection is about to be opened."""


@dataclass(frozen=True, slots=True)
class Connected(Event):
    """
    A verified TLS session is open, and the server has listed its capabilities inside it.

    Attributes:
        tls: How the session was verified.
        elapsed: Time from the start of the connection attempt to the server's capabilities.
    """

    tls: TLSInfo
    elapsed: timedelta

    def _describe(self) -> str:
        tls = self.tls
        return f"connected in {self.elapsed.total_seconds():.3f} s: {tls.version} {tls.cipher}, verified by {tls.trust}"


@dataclass(frozen=True, slots=True)
class Authenticated(Event):
    """
    The server accepted the login.

    Attributes:
        mechanism: The SASL mechanism.
        elapsed: Duration of the login.
    """

    mechanism: str
    elapsed: timedelta

    def _describe(self) -> str:
        return f"authenticated by {self.mechanism} in {self.elapsed.total_seconds():.3f} s"


@dataclass(frozen=True, slots=True)
class Sent(Event):
    """
    The server accepted a message.

    Attributes:
        receipt: The receipt that `SecureMailer.send` returns.
    """

    receipt: Receipt

    def _describe(self) -> str:
        receipt = self.receipt
        people = f"{len(receipt.accepted)} of {len(receipt.recipients)} recipients"
        took = receipt.elapsed.total_seconds()
        return f"sent {_id(receipt.message_id)} for {people}, {receipt.size} bytes in {took:.3f} s: {receipt.reply}"


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """
    A send was refused, failed or has an unknown outcome; or `SecureMailer.check` found that a send would fail.

    Attributes:
        error: The error that `SecureMailer.send` raises, with ``message_id``, ``outcome`` and ``stage``.
        elapsed: Time from the call to the error; None if `SecureMailer.check` found it.
        tls: How the TLS session that was to carry the message was verified; None if there was none.
        recipients: Number of recipients; None if the message was not built yet, and for a check.
        size: Bytes of the message, as in `Receipt.size`; None if the message was not built yet, and for a check.
    """

    error: SecureSMTPError
    elapsed: timedelta | None = None
    tls: TLSInfo | None = None
    recipients: int | None = None
    size: int | None = None

    def _describe(self) -> str:
        error, kind = self.error, f"{type(self.error).__name__} in {self.error.stage}"
        if self.elapsed is None:
            return f"failed the check ({kind}): {error.args[0]}"
        return f"failed {_id(error.message_id)} ({error.outcome}, {kind}): {error.args[0]}"


@dataclass(frozen=True, slots=True)
class FellBack(Event):
    """
    The server does not support ``pipelining="session"``, so the mailer uses ``"message"`` from now on.

    No message is lost by this.

    Attributes:
        reason: What the server did.
    """

    reason: str

    def _describe(self) -> str:
        return f'fell back to pipelining="message", because the server does not support "session": {self.reason}'


@dataclass(frozen=True, slots=True)
class FewerConnections(Event):
    """
    A run of `SecureMailer.send_many` continues with fewer connections than *max_connections*.

    No message is lost by this.

    Attributes:
        connections: Number of connections left.
        reason: Why another connection could not be opened or used.
    """

    connections: int
    reason: str

    def _describe(self) -> str:
        return f"continues with {self.connections} connection(s): {self.reason}"


@dataclass(frozen=True, slots=True)
class ServerDown(Event):
    """
    A server of a `Failover` has failed: the next one gets the messages.

    Attributes:
        rest: Seconds after which one message tries it again.
        reason: How it has failed.
    """

    rest: float
    reason: str

    def _describe(self) -> str:
        return f"is down, and not used for {self.rest:g} s: {self.reason}"


@dataclass(frozen=True, slots=True)
class ServerUp(Event):
    """A server of a `Failover` that was down has replied to a message: it is used again."""

    def _describe(self) -> str:
        return "is up again"


@dataclass(frozen=True, slots=True)
class ChunkingRefused(Event):
    """
    The server offers CHUNKING but refused BDAT; the mailer sends later messages with DATA.

    The message that used BDAT was refused.

    Attributes:
        reply: The reply to the first BDAT.
    """

    reply: Reply

    def _describe(self) -> str:
        return f"uses DATA from now on, because the server offers CHUNKING but refused BDAT: {self.reply}"


@dataclass(frozen=True, slots=True)
class LongLines(Event):
    """
    The server accepted a message with lines of more than 900 bytes, which some servers break without a word.

    Haraka breaks them at 990. `SecureMailer.send` encodes the parts of a message with such lines; bytes, signed parts
    and attached messages are sent as they are.

    Attributes:
        message_id: The Message-ID of the message; None if it has none.
        longest: Bytes of its longest line, without the line end.
    """

    message_id: str | None
    longest: int

    def _describe(self) -> str:
        return f"accepted {_id(self.message_id)} with lines of up to {self.longest} bytes: some servers break them"


@dataclass(frozen=True, slots=True)
class Closed(Event):
    """
    A connection was closed.

    Attributes:
        reason: Why; one of these constant texts: ``"closed by the caller"``, ``"idle"``, ``"message limit"``,
            ``"not usable"`` (closed by the server, or it sent an unsolicited reply, or its event loop is closed),
            ``"error"``.
    """

    reason: str

    def _describe(self) -> str:
        return f"closed: {self.reason}"


_WARNINGS = FellBack | FewerConnections | ChunkingRefused | LongLines | ServerDown | ServerUp


def _id(message_id: str | None) -> str:
    return describe_id(message_id, _MAX_ID)


def emit(event: Event, on_event: Callable[[Event], None] | None) -> None:
    """
    Log *event* and pass it to *on_event*. An error of *on_event* is logged and changes no outcome.

    Events that occur in this thread meanwhile are dropped: a log handler that sends mail would otherwise report its own
    mail. An interrupt that arrives while *on_event* runs (Ctrl-C, a task's time limit) is raised.
    """
    is_warning = isinstance(event, Failed) and isinstance(event.error, TLSError | AuthenticationError)
    is_warning = is_warning or isinstance(event, _WARNINGS)
    level = logging.WARNING if is_warning else logging.DEBUG
    if (on_event is None and not _LOGGER.isEnabledFor(level)) or _is_emitting():
        return
    _LOGGER.log(level, "%s", event)
    if on_event is None:
        return
    try:
        on_event(event)
    except Exception as error:  # the application's own bug
        if is_interrupt(error):
            raise
        _LOGGER.exception("on_event raised")


def is_observed(on_event: Callable[[Event], None] | None) -> bool:
    """Return whether anyone would see an event that is logged at DEBUG: most programs listen to none."""
    return on_event is not None or _LOGGER.isEnabledFor(logging.DEBUG)


def _is_emitting() -> bool:
    """Return whether the calling `emit` runs inside another `emit`, or inside an action that was muted."""
    # A flag could stay set after a signal (seen: after one Ctrl-C a thread was silent forever); the stack cannot.
    # No variable may refer to this function's own frame: that cycle would keep the callers' frames, and the message.
    frame = currentframe()
    frame = frame and frame.f_back
    frame = frame and frame.f_back
    while frame is not None and frame.f_code not in {emit.__code__, _run_muted.__code__}:
        frame = frame.f_back
    return frame is not None


def mute_if_emitting(action: Callable[P, T]) -> Callable[P, T]:
    """Return *action* for another thread; if the calling thread is emitting an event, *action* emits none."""
    return bind(_run_muted, action) if _is_emitting() else action


def _run_muted(action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return action(*args, **kwargs)


def is_interrupt(error: BaseException) -> bool:
    """
    Return whether *error* came from outside the code that raised it, such as Ctrl-C or a task's time limit.

    True for every exception that is not an `Exception` (``KeyboardInterrupt``, ``SystemExit``, gevent's timeouts), and
    for one whose traceback contains a signal handler of this process (Celery's ``SoftTimeLimitExceeded``).
    """
    if not isinstance(error, Exception):
        return True
    raised_in, trace = set[object](), error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] not in _NO_HANDLERS:
            raised_in.add(trace.tb_frame.f_code)
        trace = trace.tb_next
    if not raised_in:
        # To read all handlers takes 0.1 ms, and errors such as `BlockingIOError` come with each message (measured).
        return False
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    # The code of a function or method; of a callable object, the code of its class's `__call__`.
    codes = {getattr(each, "__code__", None) or getattr(type(each).__call__, "__code__", None) for each in handlers}
    return not raised_in.isdisjoint(codes)
