"""A message for a task queue: its bytes, its envelope and its key, as JSON."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, fields
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, cast

from securesmtp._envelope import Envelope, extensions_of
from securesmtp._options import seconds
from securesmtp._protocol.extensions import Extensions
from securesmtp._protocol.scanner import MAX_LINE
from securesmtp._protocol.seven_bit import make_seven_bit
from securesmtp._shown import quote
from securesmtp._submissions import check_key, from_any, given_key
from securesmtp._submissions import digest as compute_digest
from securesmtp._tracebacks import hide_internal_frames
from securesmtp.errors import LedgerError, MessageError
from securesmtp.ledger import Item

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime, timedelta
    from email.message import Message

    from securesmtp._protocol.dsn import DSN
    from securesmtp._protocol.extensions import DeliverBy
    from securesmtp._values import SendResult
    from securesmtp.ledger import Ledger

# Seconds.
_LEAST = 0.001
_DIGEST = re.compile("[0-9a-f]{64}")


def other_content(key: str, whose: str) -> MessageError:
    """Return the error of a message whose *key* is that of another one."""
    message = f"not sent: its key {quote(key, allow_at=True)} is that of {whose}, with other content"
    return MessageError(message, hint="give each message a key of its own, and a changed message a new one")


class Sender(Protocol):
    """What sends: a `SecureMailer`, or an object with its `send_many`."""

    def send_many(
        self,
        messages: Iterable[Message | Envelope],
        *,
        partial: Literal["raise", "allow"] = "raise",
        deadline: float | None = None,
        ledger: Ledger | None = None,
    ) -> Iterator[SendResult]:
        """Send each of *messages*, and yield the result of each, in order."""


@dataclass(frozen=True, slots=True)
class QueuedMessage(Envelope):
    """
    A message that waits in a task queue: an `Envelope` that can be written as JSON, and is sent once.

    `prepare` makes it, `as_dict` returns it for the queue, and `from_dict` makes it again in the worker, where `send`
    sends it. It can also be one of the messages of `SecureMailer.send_many`. Its repr shows its key alone.

    Attributes:
        mail_from: The sender (reverse-path); ``""`` is the null one.
        recipients: The recipients (forward-paths).
        content: The bytes of the message, with Date and Message-ID.
        key: Its name in the ledger.
        digest: What the ledger recognises the message by: see `securesmtp.ledger.Item`.
        message_id: Its Message-ID; None if raw bytes have none.
        dsn: The delivery status notifications to ask for. The digest depends neither on them nor on what follows.
        require_tls: As for `SecureMailer.send`.
        binary: As for `SecureMailer.send_bytes`.
        deliver_by: As for `Envelope`; it counts from when the message is sent.
        priority: As for `Envelope`.
        hold: As for `Envelope`; a `datetime.timedelta` counts from when the message is sent.
    """

    mail_from: str = field(repr=False)
    recipients: tuple[str, ...] = field(repr=False)
    content: bytes = field(repr=False)
    key: str
    digest: str = field(repr=False)
    message_id: str | None = field(repr=False)
    dsn: DSN | None = field(default=None, repr=False, kw_only=True)
    require_tls: bool = field(default=False, repr=False, kw_only=True)
    binary: bool = field(default=False, repr=False, kw_only=True)
    deliver_by: DeliverBy | None = field(default=None, repr=False, kw_only=True)
    priority: int | None = field(default=None, repr=False, kw_only=True)
    hold: timedelta | datetime | None = field(default=None, repr=False, kw_only=True)

    @classmethod
    @hide_internal_frames
    def prepare(
        cls,
        message: Message | Envelope,
        ledger: Ledger,
        *,
        key: str | None = None,
        **options: Any,  # noqa: ANN401 -- each ledger has its own
    ) -> Self:
        """
        Make the bytes of *message*, and enter it in the ledger, where it is prepared until a worker claims it.

        A message that is lost on its way to a worker stays prepared (`securesmtp.ledger.State`). Prepare it again with
        the same key as often as you like: it keeps its Message-ID, and is sent once.

        Args:
            message: As for `SecureMailer.send_many`.
            ledger: The one that the worker uses.
            key: Your name for the message, the same whenever you prepare it again; by default `Envelope.key`, or a
                Message-ID of yours.
            options: Passed on to the ledger's ``prepare``, such as the *connection* of a database.

        Raises:
            LedgerError: The ledger cannot be read or written.
            MessageError: The message cannot be sent as it is, it has no key, or its key is that of another message.
            SecureSMTPError: As for `SecureMailer.send`, for a message that cannot be sent.
        """
        name = given_key(message) if key is None else check_key(key)
        # In 7-bit form: the worker's mailer may sign it, and the server of the worker is not known here.
        submission = make_seven_bit(from_any(message))
        try:
            name = check_key(submission.content.message_id) if name is None else name
            item = Item(name, compute_digest(submission), submission.content.message_id)
            (entry,) = ledger.prepare([item], **options)
            if entry.digest != item.digest:
                raise other_content(name, f"another message, which is {entry.state}")
            if entry.message_id != item.message_id:
                # It was prepared before, or by two programs at the same time: all tries have one Message-ID.
                submission.content.close()
                submission = make_seven_bit(from_any(message, entry.message_id))
            if entry.message_id != submission.content.message_id:
                text = f"an earlier try has given it the Message-ID {quote(entry.message_id, allow_at=True)}"
                raise MessageError(text, hint="set that one: it cannot be changed in a message that is signed")
            forward = tuple(mailbox.encoded.decode() for mailbox in submission.recipients)
            content = submission.content.whole_chunk()
            mail_from, asked = submission.mail_from.encoded.decode(), _attributes(submission.extensions)
            return cls(mail_from, forward, content, name, item.digest, entry.message_id, **asked)
        finally:
            submission.content.close()

    @hide_internal_frames
    def send(
        self, mailer: Sender, ledger: Ledger, *, deadline: float, partial: Literal["raise", "allow"] = "raise"
    ) -> SendResult:
        """
        Send it, unless the ledger says that it must not be sent, and return what became of it.

        The result is that of `SecureMailer.send_many`. If another worker is sending the message at this moment, nothing
        is sent, the outcome is `Outcome.UNKNOWN`, and the ledger's entry is claimed. If the ledger cannot be written
        afterwards, the result is true all the same, but the ledger counts the message as unknown.

        An exception from outside, such as the time limit of a task queue, is raised when the message is fully sent or
        cannot be sent any more: the ledger then has its end.

        Args:
            mailer: A `SecureMailer`, a `Failover`, or another object with their ``send_many``.
            ledger: The one that the message was entered in.
            deadline: Seconds for all tries together, also at several servers.
            partial: As for `SecureMailer.send`.

        Raises:
            ConfigurationError: An argument is wrong.
            LedgerError: The ledger cannot be read; nothing was sent.
        """
        bounded = cast("Ledger", Bounded(ledger, deadline))
        results = mailer.send_many([self], partial=partial, deadline=deadline, ledger=bounded)
        try:
            return next(results)
        finally:
            # Waits for a message that is being sent. What the ledger raises last, the result says, or is true anyway.
            with suppress(LedgerError):
                deque(results, maxlen=0)

    def as_dict(self) -> dict[str, Any]:
        """Return every attribute by name, in types that ``json.dumps`` accepts; *content* is in Base64."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        content, asked = b64encode(self.content).decode("ascii"), extensions_of(self).as_dict()
        return {**data, "recipients": list(self.recipients), "content": content, **asked}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """
        Return the message that `as_dict` was called on.

        Raises:
            ValueError: *data* is not a result of `as_dict`.
        """
        with suppress(LookupError, TypeError, ValueError, MessageError):
            mail_from, key, digest, recipients = (data[name] for name in ("mail_from", "key", "digest", "recipients"))
            content, message_id = b64decode(data["content"], validate=True), data["message_id"]
            # An earlier version has not written it.
            asked = _attributes(Extensions.from_dict(data))
            texts = (mail_from, check_key(key), digest, *recipients, *(() if message_id is None else (message_id,)))
            # Addresses and content are checked when it is sent; the others go into a ledger and a result as they are.
            is_ours = isinstance(recipients, list) and all(isinstance(text, str) for text in texts)
            if is_ours and _DIGEST.fullmatch(digest) and (message_id is None or _is_shown(message_id)):
                return cls(mail_from, tuple(recipients), content, key, digest, message_id, **asked)
        message = "cannot make a QueuedMessage from this data"
        raise ValueError(message)


def _attributes(extensions: Extensions) -> dict[str, Any]:
    return {each.name: getattr(extensions, each.name) for each in fields(extensions)}


def _is_shown(message_id: str) -> bool:
    return 0 < len(message_id) <= MAX_LINE and message_id.isprintable()


class Bounded:
    """
    A ledger as the runs of one message see it: they end after so many seconds, whatever is tried again.

    Several runs follow one another if there are several servers; each claims the message once more.
    """

    def __init__(self, ledger: Ledger, deadline: float) -> None:
        """
        Let the time of *deadline* seconds begin.

        Raises:
            ConfigurationError: *deadline* is no number of seconds.
        """
        self._ledger, self._until = ledger, monotonic() + seconds("deadline", deadline)

    @property
    def is_late(self) -> bool:
        """Whether the time is up: no other server gets the message."""
        return monotonic() >= self._until

    @property
    def longest_send(self) -> float:
        """How long a send may take that begins now; never 0, which no deadline can be."""
        return min(self._ledger.longest_send, max(self._until - monotonic(), _LEAST))

    def __getattr__(self, name: str) -> object:
        """Return what else the ledger has."""
        return getattr(self._ledger, name)
