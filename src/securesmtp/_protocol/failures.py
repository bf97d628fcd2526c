"""The errors that a reply, a lost connection or an interrupt becomes for a message."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from securesmtp._protocol.hints import refusal_hint
from securesmtp._protocol.replies import (
    is_closing,
    is_end_of_messages,
    is_refusal,
    is_temporary,
    is_too_many_connections,
)
from securesmtp._values import Outcome, Stage
from securesmtp.errors import (
    ConnectError,
    DataRefusedError,
    MessageError,
    OutcomeUnknownError,
    ProtocolError,
    RecipientsRefusedError,
    RefusedError,
    SecureSMTPError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securesmtp._protocol.wire import RawReply
    from securesmtp._values import Recipient, Reply

E = TypeVar("E", bound=SecureSMTPError)
R = TypeVar("R", bound=RefusedError)
# The attribute that `keep_session` sets. No error class declares it, because it is not for callers.
_SESSION_USABLE = "_session_usable"


def keep_session(error: E) -> E:
    """
    Mark *error* as one that leaves the session usable, and return it.

    Call this only if every reply that was due has been read and belongs to its command. It has no effect on 421, after
    which the server closes (RFC 5321 §3.8), and on errors that are neither refusals nor about the message itself.
    """
    usable = isinstance(error, RefusedError) and error.reply is not None and not is_closing(error.reply.code)
    setattr(error, _SESSION_USABLE, usable or isinstance(error, MessageError))
    return error


def end_session(error: SecureSMTPError) -> None:
    """Take the mark of `keep_session` from *error*."""
    setattr(error, _SESSION_USABLE, False)


def is_session_usable(error: BaseException) -> bool:
    """Return whether *error* ends only its message: on a connection that is still open, the session can go on."""
    return getattr(error, _SESSION_USABLE, False) is True


def refusal_error(kind: type[R], stage: Stage, reply: Reply, what: str = "refused") -> R:
    """Return the error for a 4xx or 5xx reply."""
    message = f'{what}: "{reply}"'
    return kind(message, stage=stage, reply=reply, retryable=is_temporary(reply.code), hint=refusal_hint(reply))


def recipients_error(recipients: Sequence[Recipient], *, allow_some: bool) -> RecipientsRefusedError | None:
    """Return the error if a refused recipient, or with *allow_some* only all of them, forbids the content."""
    refused = [each for each in recipients if not each.accepted]
    if not refused or (allow_some and len(refused) < len(recipients)):
        return None
    what = f"{len(refused)} of {len(recipients)} recipients refused"
    error = refusal_error(RecipientsRefusedError, Stage.RCPT, refused[0].reply, what)
    # No content was sent, so the recipients that the server accepted did not get the message either.
    error.recipients = tuple(replace(each, accepted=False) for each in recipients)
    error.hint = "error.recipients has the reply for each recipient"
    if len(refused) < len(recipients):
        error.hint += '; partial="allow" delivers to the others'
    error.retryable = all(each.retryable for each in refused)
    return error


def server_closing_error(reply: Reply, stage: Stage) -> ConnectError:
    """Return the error for a server that closes the session (RFC 5321 §3.8)."""
    message = f'the server closes the session: "{reply}"'
    return ConnectError(message, stage=stage, reply=reply, retryable=is_temporary(reply.code))


def early_reply_error(raw: RawReply) -> SecureSMTPError:
    """Return the error for a reply that came before the content was fully sent: the server cannot have accepted it."""
    reply = raw.reply()
    if is_refusal(reply.code):
        # The connection is closing, but the replies to what was sent before still belong to their commands.
        return keep_session(refusal_error(DataRefusedError, Stage.CONTENT, reply))
    message = f'the server replied "{reply}" before the content was fully sent'
    return ProtocolError(message, stage=Stage.CONTENT, reply=reply)


def outcome_unknown_error(error: SecureSMTPError) -> OutcomeUnknownError:
    """Return the error for a message whose content was fully sent and got no reply because of *error*."""
    message = f"the content was fully sent, and then: {error.args[0]}. The message may have been delivered"
    hint = "before you send it again, look in the server's log for its Message-ID"
    if error.hint:
        hint += f"; {error.hint}"
    return OutcomeUnknownError(message, stage=Stage.CONTENT, hint=hint)


def not_sent_error(error: SecureSMTPError) -> ConnectError:
    """Return the error for a message that was not sent because *error* ended the connection."""
    message = f"not sent, because of an earlier message on the same connection: {error.args[0]}"
    return ConnectError(message, stage=Stage.MAIL, reply=error.reply, retryable=True)


def interrupt_error(interrupt: BaseException, stage: Stage) -> ConnectError:
    """Return the error for a message whose connection the exception *interrupt* ended, such as KeyboardInterrupt."""
    error = ConnectError(f"the send was interrupted by {type(interrupt).__name__}", stage=stage, retryable=True)
    error.interrupted = True
    return error


def find_interrupt(error: BaseException) -> ConnectError | None:
    """Return the `interrupt_error` that a dialogue turned into *error*, or None if no interrupt led to it."""
    cause: BaseException | None = error
    # Errors that are not ours belong to the caller, and so does what they have for a cause.
    while isinstance(cause, SecureSMTPError):
        if isinstance(cause, ConnectError) and cause.interrupted:
            return cause
        cause = cause.__cause__
    return None


def is_used_up(transactions: int, error: object) -> bool:
    """
    Return whether a connection has carried enough, so that *error* says nothing about the message.

    It is about the last of so many *transactions*, or came when EHLO was asked again after them.
    """
    if not isinstance(error, SecureSMTPError) or error.outcome is Outcome.UNKNOWN:
        return False
    if error.stage is Stage.EHLO:
        # With an open session, only `delivery` asks for it.
        return transactions > 0 and is_end_of_session(error)
    return error.reply is not None and transactions > 1 and is_end_of_messages(error.stage, error.reply)


def is_end_of_session(error: SecureSMTPError) -> bool:
    """Return whether the server has ended the session with *error*, and not because of too many connections."""
    is_limit = error.reply is not None and is_too_many_connections(error.reply)
    return isinstance(error, ConnectError | ProtocolError) and find_interrupt(error) is None and not is_limit
