"""One mailer for the process: opened, shared, forked, closed."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import django
import pytest
from django.core import mail
from django.utils.log import AdminEmailHandler

from conftest import Serve, unmeasured
from integrations.django.conftest import HAS_MAILERS, Configure
from integrations.django.test_sending import backend_that_is_silent, default_connection, path, refuse, result_of, to
from scripted import Peer, honest
from securesmtp import (
    AuthenticationError,
    ConnectError,
    MessageError,
    Outcome,
    SecureMailer,
    SecureSMTPError,
)
from securesmtp.integrations.django import _mailers, close_mailers, get_result
from securesmtp.integrations.django._mailers import MAILERS

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_open_tries_the_login(serve: Serve, configure: Configure) -> None:
    """True for new, False for open; the messages are sent over the process's connection (PITFALLS-1 D3)."""
    server = serve(honest(auth=("me", "secret")))
    configure(server, username="me", password="secret")
    backend = default_connection()
    assert (backend.connection, backend.open(), backend.open()) == (None, True, False)
    assert backend.connection is not None
    assert backend.send_messages([to()]) == 1
    backend.close()
    assert backend.connection is None
    backend.close()
    with default_connection() as other:
        assert other.send_messages([to(), to(1)]) == 2
    assert len(server.accepted) == 3
    # It closes no connection of another thread's send.
    assert backend.send_messages([to()]) == 1


@pytest.mark.parametrize("silent", [False, True])
def test_open_fails_as_a_send_would(
    serve: Serve,
    configure: Configure,
    silent: bool,  # noqa: FBT001 -- a parameter
) -> None:
    """A refused login, and no server: an error, or None."""
    server = serve(honest(auth=("me", "secret")))
    for options, error in (
        ({"username": "me", "password": "wrong"}, AuthenticationError),
        # No program listens on port 1 of loopback.
        ({"port": 1}, ConnectError),
    ):
        configure(server, **options)
        backend = default_connection()
        backend.fail_silently = silent
        if silent:
            assert backend.open() is None
        else:
            with pytest.raises(error):
                backend.open()
            with pytest.raises(error), backend:
                pytest.fail("the block was entered")
        assert backend.connection is None


def test_a_health_check_may_set_the_timeout(serve: Serve, configure: Configure) -> None:
    """As django-health-check does: a silent server ends it soon (PITFALLS-1 D3)."""
    server = serve(lambda peer: peer.sleep_until_peer_closes())
    configure(server)
    backend = default_connection()
    backend.timeout = 0.2
    with pytest.raises(SecureSMTPError) as caught:
        backend.open()
    assert isinstance(caught.value, OSError)
    backend.close()


# Each kind of error, with the way in which a server or the caller causes it (PITFALLS-1 D13).
SILENT: dict[str, tuple[Any, dict[str, Any]]] = {
    "refused": (refuse(0), {}),
    "refused content": (honest(replies={"CONTENT": b"554 5.6.0 no\r\n"}), {}),
    "too large for this server": (honest(extensions=("SIZE 10",)), {}),
    "the login": (honest(auth=("me", "other")), {"username": "me", "password": "secret"}),
    "no server": (None, {"port": 1}),
    "TLS": (honest("starttls", replies={"STARTTLS": b"454 no\r\n"}), {"use_ssl": False, "use_tls": True}),
    "unknown": (honest(replies={"CONTENT": b"nonsense\r\n"}), {}),
    "protocol": (honest(replies={"EHLO": b"nonsense\r\n"}), {}),
}


@pytest.mark.parametrize("name", SILENT)
def test_silence_leaves_the_error_on_the_message(
    serve: Serve, configure: Configure, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It counts as not sent, and is logged once; without silence, the same error is raised."""
    script, options = SILENT[name]
    configure(serve(*[script] * (script is not None)), **options)
    message = to()
    assert backend_that_is_silent([message]) == 0
    error = result_of(message).error
    assert isinstance(error, SecureSMTPError)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert sum(line.startswith(f"failed silently, {error.outcome}, ") for line in warnings) == 1
    with pytest.raises(type(error)):
        to().send()


def test_silence_does_not_hide_a_message_that_cannot_be_sent(serve: Serve, configure: Configure) -> None:
    """It is the program's mistake: no server could take it."""
    server = serve()
    configure(server)
    message = to()
    message.body = "a NUL: \0"
    with pytest.raises(MessageError):
        backend_that_is_silent([message])
    with pytest.raises(MessageError):
        backend_that_is_silent([to(1), message])
    assert len(server.accepted) == 1


def test_an_administrators_message_that_fails_is_not_reported_by_another(
    serve: Serve, configure: Configure, override: Any, style: str
) -> None:
    """A handler that sends what is logged would otherwise send without end."""
    server = serve(refuse(0))
    configure(server)
    override(ADMINS=["you0@example.net"] if django.VERSION >= (6, 0) else [("Ada", "you0@example.net")])
    root = logging.getLogger()
    before = root.handlers[:]
    handler = AdminEmailHandler()
    handler.setLevel(logging.WARNING)
    root.addHandler(handler)
    try:
        logging.getLogger("shop").warning("something happened")
    except SecureSMTPError:
        # Django 6.1 with MAILERS has no silence here.
        pass
    finally:
        root.handlers = before
    # Its own, and with `fail_silently` the one about its failure.
    assert server.secret.count(b"RCPT TO") == (1 if HAS_MAILERS and style == "MAILERS" else 2)


def test_little_used_mailers_are_closed(
    serve: Serve, configure_email: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each customer has a login: the number of connections does not grow with them."""
    monkeypatch.setattr(_mailers, "_MOST", 3)
    server = serve(connections=20)
    configure_email(server)
    for number in range(10):
        assert mail.get_connection(local_hostname=f"h{number}.example").send_messages([to()]) == 1
    # The first seven got QUIT.
    for log in server.connections[:7]:
        assert log.done.wait(10)
    assert [log.done.is_set() for log in server.connections] == [True] * 7 + [False] * 3
    # The last is kept: its connection is used again.
    assert mail.get_connection(local_hostname="h9.example").send_messages([to()]) == 1
    assert len(server.connections) == 10


def test_a_mailer_in_use_is_not_closed(
    serve: Serve, configure_email: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by others, whatever their number, and not by `close_mailers` before it has waited."""
    monkeypatch.setattr(_mailers, "_MOST", 1)
    held, go = threading.Event(), threading.Event()

    def content(peer: Peer, data: bytes) -> bytes:
        held.set()
        assert go.wait(20)
        return b"250 2.0.0 queued\r\n"

    slow, fast = serve(honest(replies={"CONTENT": content})), serve()
    configure_email(slow)
    message = to()
    sender = threading.Thread(target=message.send)
    sender.start()
    assert held.wait(20)
    configure_email(fast)
    for number in range(3):
        assert mail.get_connection(local_hostname=f"h{number}.example").send_messages([to()]) == 1
    closer = threading.Thread(target=close_mailers)
    closer.start()
    go.set()
    sender.join(20)
    closer.join(20)
    assert result_of(message).outcome is Outcome.ACCEPTED


def test_the_end_does_not_wait_for_ever(serve: Serve, configure: Configure) -> None:
    """A send that goes on is ended, and says what became of its message."""
    held, ended = threading.Event(), threading.Event()

    def content(peer: Peer, data: bytes) -> bytes:
        held.set()
        assert ended.wait(20)
        return b"250 2.0.0 queued\r\n"

    configure(serve(honest(replies={"CONTENT": content})))
    message, caught = to(), []

    def send() -> None:
        try:
            message.send()
        except SecureSMTPError as error:
            caught.append(error.outcome)

    sender = threading.Thread(target=send)
    sender.start()
    assert held.wait(20)
    MAILERS.close(wait=0.05)
    sender.join(20)
    ended.set()
    assert caught == [Outcome.UNKNOWN]
    assert result_of(message).outcome is Outcome.UNKNOWN


def test_an_interrupt_before_the_send_leaves_no_outcome(
    serve: Serve, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known of the message, because nothing was begun."""

    def strikes(*_: object, **__: object) -> None:
        raise SystemExit

    configure(serve())
    monkeypatch.setattr(SecureMailer, "send", strikes)
    message = to(0)
    with pytest.raises(SystemExit):
        default_connection().send_messages([message])
    assert get_result(message) is None


@pytest.mark.parametrize("count", [1, 12], ids=["one", "many"])
def test_an_interrupt_leaves_the_outcome_on_the_message(serve: Serve, configure: Configure, count: int) -> None:
    """A web server's worker ends a request by SystemExit in a signal handler (PITFALLS-1 D4)."""
    interrupted, replies = threading.Event(), itertools.count()

    def interrupt(number: int, frame: object) -> None:
        interrupted.set()
        raise SystemExit(number)

    def content(peer: Peer, data: bytes) -> bytes:
        if next(replies) == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
        assert interrupted.wait(20)
        return b"250 2.0.0 queued\r\n"

    server = serve(honest(replies={"CONTENT": content}))
    configure(server)
    messages = [to(number) for number in range(count)]
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(SystemExit):
            default_connection().send_messages(messages)
    finally:
        signal.signal(signal.SIGUSR1, before)
    close_mailers()
    server.joined()
    arrived = {path(each.recipients[0]) for each in server.accepted}
    for message in messages:
        result = get_result(message)
        known = {Outcome.ACCEPTED, Outcome.UNKNOWN} if message.to[0] in arrived else {None, Outcome.NOT_SENT}
        assert (None if result is None else result.outcome) in known


@FORKS
def test_a_child_sends_although_its_parent_held_the_lock(serve: Serve, configure: Configure) -> None:
    """As the workers of a web server do; the parent's connection goes on (PITFALLS-1 D1)."""
    server = serve()
    configure(server)
    assert to(0).send() == 1
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with MAILERS._changed:
            locked.set()
            release.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(20)
    child = os.fork()
    if child == 0:  # pragma: no cover -- in another process
        # It ends if it waits for a lock.
        signal.alarm(20)
        try:
            os._exit(0 if to(1).send() == 1 else 2)
        finally:
            os._exit(3)
    release.set()
    holder.join()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert to(2).send() == 1
    assert (len(server.accepted), len(server.connections)) == (3, 2)


def test_a_child_waits_for_no_send_of_its_parent(ca_file: Path) -> None:
    """Its end would take five seconds more. The send may also go on in the child."""
    mailers = _mailers.Mailers()
    with mailers.use({"host": "localhost", "ca_file": ca_file}) as mailer:
        mailers.renew()
        closer = threading.Thread(target=mailers.close, args=(30,))
        closer.start()
        closer.join(15)
        assert not closer.is_alive()
        assert mailer._core.is_closed
    with mailers.use({"host": "localhost", "ca_file": ca_file}) as other:
        assert other is not mailer


def test_at_the_end_of_the_process_the_server_gets_quit(serve: Serve, ca_file: Path) -> None:
    """A program that only sends: no warning, no handler of its own."""
    server = serve()
    program = f"""
import warnings
warnings.filterwarnings("ignore", "The EMAIL_|get_connection|Django 2028")
from django.conf import settings
settings.configure(
    EMAIL_BACKEND="securesmtp.integrations.django.EmailBackend", EMAIL_HOST="localhost", EMAIL_PORT={server.port},
    EMAIL_USE_SSL=True, SECURESMTP={{"ca_file": {str(ca_file)!r}}},
)
from django.core.mail import send_mail
assert send_mail("Hello", "Text", "me@example.org", ["you@example.net"]) == 1
"""
    options = ["-W", "error", "-c", program]
    done = subprocess.run(
        [sys.executable, *options], capture_output=True, text=True, timeout=60, check=False, env=unmeasured()
    )
    assert (done.returncode, done.stderr) == (0, "")
    server.joined()
    assert server.secret.endswith(b"QUIT\r\n")


def test_importing_the_backend_does_not_configure_django() -> None:
    """A settings module may import its classes; and nothing else imports Django."""
    program = (
        "import sys, securesmtp; securesmtp.SecureMailer('localhost'); assert 'django' not in sys.modules\n"
        "import securesmtp.integrations.django\n"
        "from django.conf import settings\n"
        "assert not settings.configured"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=unmeasured())
