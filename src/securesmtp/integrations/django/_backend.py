"""The email backend."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from django.core.mail.backends.base import BaseEmailBackend

from securesmtp import ConfigurationError, Outcome, SecureMailer, SecureSMTPError, SendResult, Stage
from securesmtp.integrations.django._mailers import MAILERS
from securesmtp.integrations.django._messages import prepare, set_result, to_envelope
from securesmtp.integrations.django._settings import OPTIONS, SETTINGS, Configuration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.core.mail import EmailMessage

    from securesmtp import Envelope, ServerReport


_LOGGER = logging.getLogger("securesmtp")
# Whether this thread is logging a failure: a log handler that sends mail must not report its own failures without end.
_IS_LOGGING = ContextVar("_IS_LOGGING", default=False)


class EmailBackend(BaseEmailBackend):
    """
    Sends Django's messages over verified TLS, or not at all.

    The arguments are those of Django's own SMTP backend, which its settings give, and the keys of ``SECURESMTP`` or
    ``OPTIONS``: *auth*, *ca_file*, *connect*, *deadline*, *local_hostname*, *max_connect_failures*, *max_connections*,
    *max_idle*, *max_messages*, *max_recipients*, *on_event*, *pipelining*, *policy*, *proxy*, *rate*, *sign*,
    *source_address* and *window* as for `SecureMailer`, and *partial* as for `SecureMailer.send`.

    All backends with equal settings share one mailer, which keeps its connections until the process ends.

    After `send_messages`, `get_result` returns what became of a message.
    """

    # As Django's own has them: subclasses and health checks set them after it was made.
    host: Any
    port: Any
    username: Any
    password: Any
    use_tls: Any
    use_ssl: Any
    timeout: Any
    ssl_keyfile: Any
    ssl_certfile: Any

    def __init__(  # noqa: PLR0913, PLR0917 -- as Django's own, in its order
        self,
        host: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: Any = None,  # noqa: ANN401 -- as `SecureMailer` takes it
        use_tls: bool | None = None,  # noqa: FBT001 -- as Django's own
        fail_silently: bool = False,  # noqa: FBT001, FBT002 -- the same
        use_ssl: bool | None = None,  # noqa: FBT001 -- the same
        timeout: Any = None,  # noqa: ANN401 -- as `SecureMailer` takes it
        ssl_keyfile: str | None = None,
        ssl_certfile: str | None = None,
        **kwargs: Any,  # noqa: ANN401 -- the options, `alias` (Django 6.1), and what Django refuses
    ) -> None:
        """
        Take the arguments, and the settings for those that are None.

        Raises:
            ImproperlyConfigured: An option is unknown, or both modes are on.
        """
        options = {name: kwargs.pop(name) for name in OPTIONS & kwargs.keys()}
        super().__init__(**kwargs)
        self.fail_silently = fail_silently
        self.connection: SecureMailer | None = None
        values = {
            "host": host,
            "port": port,
            "username": username,
            "password": password,
            "use_tls": use_tls,
            "use_ssl": use_ssl,
            "timeout": timeout,
            "ssl_keyfile": ssl_keyfile,
            "ssl_certfile": ssl_certfile,
        }
        given = frozenset(name for name, value in values.items() if value is not None)
        self._configuration = Configuration(kwargs.get("alias"), options, given)
        self._configuration.add_defaults()
        for name, value in values.items():
            setattr(self, name, value if value is not None else self._configuration.default(name))
        if self._configuration.alias is not None and self.host is None:
            raise self._configuration.error("OPTIONS must define 'host'.")
        if self.use_tls and self.use_ssl:
            raise self._configuration.exclusive()

    def open(self) -> bool | None:
        """
        Connect and log in, over a connection of its own, to find out whether a message could be sent.

        It is not necessary before `send_messages`. Messages are sent over the connections of the process.

        Returns:
            True, or False if it was called before; None if it failed and *fail_silently* is on.

        Raises:
            ImproperlyConfigured: The settings are wrong.
            SecureSMTPError: There is no verified session, or the login was refused.
        """
        if self.connection is not None:
            return False
        with self.use_mailer() as mailer:
            try:
                error = mailer.check().login_error
                if error is not None:
                    raise error
            except SecureSMTPError as error:
                if self._must_raise(error):
                    raise
                return None
            self.connection = mailer
        return True

    def close(self) -> None:
        """Undo `open`. The connections of the process stay open, for the next message."""
        self.connection = None

    def check(self) -> ServerReport:
        """
        Return what `SecureMailer.check` finds out about the server.

        Raises:
            ImproperlyConfigured: The settings are wrong.
            SecureSMTPError: There is no verified session.
        """
        with self.use_mailer() as mailer:
            return mailer.check()

    def validate(self) -> None:
        """
        Check everything that can be checked without the network.

        Raises:
            ImproperlyConfigured: The settings are wrong.
        """
        with self.use_mailer():
            pass

    def send_messages(self, email_messages: Iterable[EmailMessage]) -> int:
        """
        Send the messages, several at a time, and return how many the server accepted.

        After an error, no other message is begun. Those that were being sent meanwhile are finished; `get_result` says
        what became of each. With *fail_silently*, errors of the server and the network are only there and in the log,
        and the other messages are sent.

        Raises:
            ImproperlyConfigured: The settings are wrong.
            SecureSMTPError: The first error; also with *fail_silently* if a message is wrong.
            ValueError: A header has a line break.
        """
        messages = list(email_messages or ())
        for message in messages:
            set_result(message, None)
        messages = [message for message in messages if message.recipients()]
        if not messages:
            return 0
        with self.use_mailer() as mailer:
            if len(messages) == 1:
                return self._send_one(mailer, messages[0])
            return self._send_many(mailer, messages)

    def _send_one(self, mailer: SecureMailer, message: EmailMessage) -> int:
        content, mail_from, recipients = prepare(message)
        try:
            receipt = mailer.send(content, mail_from=mail_from, recipients=recipients, partial=self._partial)
        except SecureSMTPError as error:
            set_result(message, _result(error))
            if self._must_raise(error):
                raise
            return 0
        except BaseException as interrupt:
            # Such as the time limit of a web server's worker.
            if isinstance(interrupt.__cause__, SecureSMTPError):
                set_result(message, _result(interrupt.__cause__))
            raise
        set_result(message, SendResult(0, receipt.message_id, Outcome.ACCEPTED, receipt))
        return 1

    def _send_many(self, mailer: SecureMailer, messages: list[EmailMessage]) -> int:
        failures: list[Exception] = []
        sent = 0

        def envelopes() -> Iterator[Envelope]:
            for message in messages:
                if failures:
                    return
                yield to_envelope(message)

        results = mailer.send_many(envelopes(), partial=self._partial)
        try:
            for result in results:
                set_result(messages[result.index], result)
                sent += result.receipt is not None
                if result.error is not None and self._must_raise(result.error):
                    failures.append(result.error)
        finally:
            # After an interrupt: the messages that were being sent are finished.
            for result in results:
                set_result(messages[result.index], result)
        if failures:
            raise failures[0]
        return sent

    @property
    def _partial(self) -> Any:  # noqa: ANN401 -- the mailer checks it
        return self._configuration.options.get("partial") or "raise"

    def _must_raise(self, error: Exception) -> bool:
        """Return whether to raise *error*: with *fail_silently*, only a mistake of the program; another is logged."""
        if not self.fail_silently or not isinstance(error, SecureSMTPError):
            return True
        # A message that this server cannot take is a `ConfigurationError` of a later stage.
        if isinstance(error, ConfigurationError) and error.stage is Stage.CONFIGURATION:
            return True
        _log(error)
        return False

    @contextmanager
    def use_mailer(self) -> Iterator[SecureMailer]:
        """
        Lend the mailer of the process for these settings, as they are now; do not close it.

        Raises:
            ImproperlyConfigured: The settings are wrong.
        """
        arguments = self._configuration.arguments({name: getattr(self, name) for name in SETTINGS})
        with ExitStack() as stack:
            try:
                mailer = stack.enter_context(MAILERS.use(arguments))
            except ConfigurationError as error:
                raise self._configuration.wrapped(error) from error
            yield mailer


def _result(error: SecureSMTPError) -> SendResult:
    return SendResult(0, error.message_id, error.outcome, error.receipt, error)


def _log(error: SecureSMTPError) -> None:
    if not _IS_LOGGING.get():
        token = _IS_LOGGING.set(True)
        try:
            _LOGGER.warning("failed silently, %s, %s: %s", error.outcome, error.message_id, error)
        finally:
            _IS_LOGGING.reset(token)
