"""
What a mailer does except waiting: deadlines, receipts, reports, events, and what an error says of its message.

Each mailer has one `Core`. A mailer that waits in another way, for tasks instead of threads, uses the same one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from securesmtp._activity import Activity
from securesmtp._options import TLSPolicy, seconds
from securesmtp._protocol.delivery import Attempt, deliver, round_trips
from securesmtp._protocol.failures import is_used_up
from securesmtp._protocol.proxy import proxy_secrets
from securesmtp._protocol.redaction import Memory, Redactor
from securesmtp._protocol.sasl import known_secrets
from securesmtp._report import ServerReport, Stats
from securesmtp._submissions import load
from securesmtp._transport.deadline import Deadline
from securesmtp._transport.process import current_process
from securesmtp._transport.slots import closed_error
from securesmtp._transport.tls import build_context
from securesmtp._values import Receipt, Stage, describe_id
from securesmtp.errors import AuthenticationError, ConfigurationError, MessageError, SecureSMTPError
from securesmtp.events import Failed, LongLines, Sent, emit, is_observed

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._protocol.dialogue import Session
    from securesmtp._protocol.effects import Dialogue
    from securesmtp._protocol.exchange import Exchange
    from securesmtp._protocol.message import Submission
    from securesmtp._protocol.transaction import Partial
    from securesmtp._sending import Checkout, Sending
    from securesmtp._settings import Settings
    from securesmtp._transport.connection import Connection
    from securesmtp._transport.slot import Slot
    from securesmtp._transport.slots import Slots
    from securesmtp.events import Event

P = ParamSpec("P")
T = TypeVar("T")
# What a send does on its connection: with the account of it, its slot and the open session.
Action: TypeAlias = "Callable[[Exchange, Slot[Any], Session], Dialogue[T]]"


class Core:
    """
    The part of a mailer that does not wait.

    Attributes:
        settings: Its arguments.
        on_event: The caller's function for events.
        memory: The secrets of all connections, which no reply may show: a server can repeat on one connection what it
            received on another.
        context: The TLS context, if the caller chose the roots; otherwise the first connection builds it.
        is_closed: Whether it refuses to send.
        last_login_was_lost: Whether the server accepted the last login and then asked for one at each MAIL.
    """

    def __init__(self, settings: Settings, on_event: Callable[[Event], None] | None) -> None:
        """
        Check what can be checked without the network.

        Raises:
            ConfigurationError: *on_event* cannot be called, or a file of the policy cannot be used.
        """
        if on_event is not None and not callable(on_event):
            message = f"on_event is a {type(on_event).__name__}, which cannot be called"
            raise ConfigurationError(message)
        load()
        self.settings = settings
        self.on_event = on_event
        self.memory = Memory()
        # Before the first login: the server may know the password from another process.
        Redactor(self.memory).add((*known_secrets(settings.login), *proxy_secrets(settings.proxy)), b"")
        # A wrong file of the caller's is reported now. Loading certifi's roots (24 to 47 ms) can wait for a message.
        self.context = build_context(settings.policy) if settings.policy != TLSPolicy() else None
        self.is_closed = False
        # By process: a child of a fork continues none of its parent's sends.
        self._activities: dict[tuple[int, int], Activity] = {}
        self.last_login_was_lost = False

    def refuse_if_closed(self) -> None:
        """
        Check that the mailer is open.

        Raises:
            ConfigurationError: It is closed.
        """
        if self.is_closed:
            raise closed_error()

    @property
    def activity(self) -> Activity:
        """The sends of this process."""
        process = current_process()
        return self._activities.get(process) or self._activities.setdefault(process, Activity())

    def stats(self, slots: Slots[Any] | None, waiting: int) -> Stats:
        """Return what the mailer does, with its *slots* if it has any; so many sends are *waiting*."""
        each, activity = () if slots is None else tuple(slots), self.activity
        return Stats(
            open=sum(slot.is_connected for slot in each),
            busy=sum(not slot.is_free for slot in each),
            under_way=len(activity.under_way),
            waiting=waiting,
            accepted=activity.counts["ACCEPTED"],
            refused=activity.counts["REFUSED"],
            not_sent=activity.counts["NOT_SENT"],
            unknown=activity.counts["UNKNOWN"],
            connects=0 if slots is None else slots.connects,
            logins=0 if slots is None else slots.logins,
        )

    def build(self, function: Callable[P, Submission], *args: P.args, **kwargs: P.kwargs) -> Submission:
        """
        Return the message that *function* makes, signed if the mailer signs.

        Raises:
            MessageError: It has more recipients than the caller allows, or cannot be signed.
        """
        submission = function(*args, **kwargs)
        self.check_recipients(submission)
        return self.sign(submission)

    def check_recipients(self, submission: Submission) -> None:
        """
        Check how many recipients *submission* has.

        Raises:
            MessageError: More than the caller allows; its content is closed.
        """
        most, found = self.settings.max_recipients, len(submission.recipients)
        if most is not None and found > most:
            submission.content.close()
            message = f"the message has {found} recipients, and the mailer allows {most} (max_recipients)"
            raise MessageError(message, hint="send it to fewer at a time, or make a mailer that allows more")

    def sign(self, submission: Submission) -> Submission:
        """
        Return *submission* with the mailer's signature, if the mailer signs.

        Raises:
            MessageError: It cannot be signed; its content is closed.
        """
        signer = self.settings.sign
        if signer is None:
            return submission
        # Loaded with the signer.
        from securesmtp.signing._dkim import sign_submission

        return sign_submission(signer, submission)

    def start_deadline(self, deadline: float | None) -> Deadline | None:
        """Return the deadline of a send that begins now, in *deadline* seconds if given, else in the mailer's."""
        limit = self.settings.deadline if deadline is None else seconds("deadline", deadline)
        return None if limit is None else Deadline("deadline", limit)

    def action(self, sending: Sending, submission: Submission, checkout: Checkout, partial: Partial) -> Action[Receipt]:
        """Return what to do on a connection to send one message."""

        def action(_: Exchange, slot: Slot[Any], session: Session) -> Dialogue[Receipt]:
            checkout.session = session
            slot.messages_left -= 1
            attempt = Attempt()
            sending.progress = session, submission, attempt
            delivery = yield from deliver(session, submission, partial, self.settings.pipelining, attempt)
            return sending.accept(session, submission, delivery)

        return action

    def sends_again(self, sending: Sending, error: SecureSMTPError) -> bool:
        """
        Return whether the message that met *error* is sent once more, over another connection; begin that try.

        Either its connection has lost its login, or has carried as many messages as the server allows. The second comes
        to an end, because it is never the case for a new connection.
        """
        if sending.progress is None:
            return False
        session, _, _ = sending.progress
        is_login_lost = not sending.is_second_login and self.can_log_in_again(session, error)
        if not is_login_lost and not is_used_up(session.transactions, error):
            return False
        sending.progress, sending.is_second_login = None, sending.is_second_login or is_login_lost
        return True

    def can_log_in_again(self, session: Session, error: object) -> bool:
        """
        Return whether a message that met *error* is tried once more over a new connection, with a new login.

        Another server may answer there. But if the last login was lost too, one retry of one message has shown that
        another is no better.
        """
        return self._has_lost_login(error) and (session.transactions > 1 or not self.last_login_was_lost)

    def report_receipt(self, sending: Sending, receipt: Receipt) -> Receipt:
        """Return the *receipt* of an accepted message, and emit its events."""
        self.last_login_was_lost = False
        if is_observed(self.on_event):
            self._emit_once(sending, Sent(self.settings.host, self.settings.port, receipt))
        # Last: after an interrupt in it, the message has its event.
        if sending.submission is not None and (longest := sending.submission.content.longest_line):
            self.emit(LongLines(self.settings.host, self.settings.port, receipt.message_id, longest))
        return receipt

    def conclude(self, sending: Sending, end: Receipt | BaseException) -> None:
        """Emit the event of the *end* of a message, and add to an error where it happened and to which message."""
        try:
            if isinstance(end, Receipt):
                self.report_receipt(sending, end)
            elif isinstance(end, SecureSMTPError):
                self.record_error(sending, end)
        except BaseException as interrupt:
            self.record_interrupt(sending, interrupt)
            raise
        if not isinstance(end, Receipt):
            self.record_interrupt(sending, end)

    def record_error(self, sending: Sending, error: SecureSMTPError) -> None:
        """Add to *error*, which ended a send, where it happened and to which message, and emit its event."""
        if sending.is_second_login and isinstance(error, AuthenticationError):
            self.last_login_was_lost = self._has_lost_login(error)
        sending.error, sending.is_reported = error, True
        self.annotate(error, sending.message_id)
        self.emit(sending.failure(self.settings.host, self.settings.port, error))

    def record_interrupt(self, sending: Sending, interrupt: BaseException) -> None:
        """
        Add to *interrupt* what became of the message: as its cause, in a note and in an event.

        An error of ours says it by itself.
        """
        if isinstance(interrupt, SecureSMTPError):
            return
        error = sending.error_after(interrupt)
        sending.error = error
        self.annotate(error, sending.message_id)
        # The interrupt's own cause is kept if our error has none.
        error.__cause__ = error.__cause__ or interrupt.__cause__
        interrupt.__cause__ = error
        which = f"{'the message ' * (error.message_id is not None)}{describe_id(error.message_id, 200)}"
        interrupt.add_note(f"securesmtp: {which} ({error.outcome}): {error.args[0]}")
        host, port = self.settings.host, self.settings.port
        self._emit_once(
            sending, Sent(host, port, error.receipt) if error.receipt else sending.failure(host, port, error)
        )

    def report_error(self, error: SecureSMTPError) -> None:
        """Add to *error*, which a check has found, where it happened, and emit its event."""
        self.annotate(error, None)
        self.emit(Failed(self.settings.host, self.settings.port, error))

    def annotate(self, error: SecureSMTPError, message_id: str | None) -> None:
        """Add to *error* where it happened and to which message."""
        error.host, error.port, error.message_id = self.settings.host, self.settings.port, message_id
        if self._has_lost_login(error):
            error.args = (f'the login was lost: "{error.reply}"',)
            error.hint = "the server accepted the login, and then asked for one: if it goes on, ask who runs the server"

    def emit(self, event: Event) -> None:
        """Log *event*, and pass it to the caller's function."""
        emit(event, self.on_event)

    def report(self, connection: Connection, session: Session, refusal: AuthenticationError | None) -> ServerReport:
        """Return what `check` has found; *refusal* is how the login was refused, if it was."""
        settings, plaintext = self.settings, session.plaintext_capabilities
        return ServerReport(
            host=settings.host,
            port=settings.port,
            addresses=connection.channel.addresses,
            address=connection.channel.address,
            tls=session.tls,
            days_left=(session.tls.not_after - datetime.now(UTC)).days,
            before_tls=None if plaintext is None else dict(plaintext.keywords),
            after_tls=dict(session.capabilities.keywords),
            mechanisms=session.capabilities.auth,
            mechanism=None if session.choice is None else session.choice.name,
            passed_over={} if session.choice is None else session.choice.passed_over,
            size=session.capabilities.size,
            limits=dict(session.capabilities.limits),
            round_trips=round_trips(session, settings.pipelining),
            login=None if settings.login is None else refusal is None,
            login_error=refusal,
        )

    def _emit_once(self, sending: Sending, event: Event) -> None:
        # Marked first: if an interrupt strikes in on_event, it is not called again.
        if not sending.is_reported:
            sending.is_reported = True
            self.emit(event)

    def _has_lost_login(self, error: object) -> bool:
        """Return whether the server asks for a login over a connection that has one (530 to MAIL, RFC 4954 §6)."""
        return self.settings.login is not None and isinstance(error, AuthenticationError) and error.stage is Stage.MAIL
