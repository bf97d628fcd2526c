"""What every test may use: a CA of this run, server contexts, and honest servers."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.message import EmailMessage
from pathlib import Path

import pytest
import trustme

from audit import audit
from leaks import Watch
from scripted import Mode, Script, ScriptedServer, honest
from securesmtp import SecureMailer

Serve = Callable[..., ScriptedServer]
Mailer = Callable[..., SecureMailer]
Positions = Callable[[int], list[int]]


def thorough(fast: int, complete: int) -> list[object]:
    """Return two amounts of work as parameters: the one of each run, and the one of `pytest -m exhaustive`."""
    return [pytest.param(fast, id="sampled"), pytest.param(complete, id="complete", marks=pytest.mark.exhaustive)]


def unmeasured() -> dict[str, str]:
    """Return the environment for a child process that coverage does not measure, nor import its own modules into."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """Make the CA that the tests' mailers trust."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the CA as PEM."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def server_tls(ca: trustme.CA) -> ssl.SSLContext:
    """Make the context of a server that is what it says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(params=["implicit", "starttls"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Run the test in both modes."""
    chosen: Mode = request.param
    return chosen


@pytest.fixture(params=thorough(7, 1))
def positions(request: pytest.FixtureRequest) -> Positions:
    """Choose where a session of so many octets is cut: at every seventh octet and at the last, or at every octet."""
    step: int = request.param
    return lambda octets: sorted({*range(0, octets, step), octets - 1})


@pytest.fixture
def serve(server_tls: ssl.SSLContext) -> Iterator[Serve]:
    """Start scripted servers that end with the test, and audit what their clients wrote."""
    with ExitStack() as stack:

        def start(*scripts: Script, **options: object) -> ScriptedServer:
            options.setdefault("tls", server_tls)
            server = ScriptedServer(*scripts or (honest(),), **options)  # type: ignore[arg-type]
            # Called when the server has stopped: last in, first out.
            stack.callback(audit, server)
            return stack.enter_context(server)

        yield start


@pytest.fixture
def mailer(ca_file: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Mailer]:
    """Make mailers for scripted servers; they are closed with the test, and what they raise and log has no password."""
    caplog.set_level(logging.DEBUG)
    with ExitStack() as stack:

        def make(server: ScriptedServer, **options: object) -> SecureMailer:
            if "policy" not in options:
                options.setdefault("ca_file", ca_file)
            options.setdefault("timeout", 5)
            watch = Watch(options)
            made = SecureMailer("localhost", server.port, **options)  # type: ignore[arg-type]
            made._submit = watch.watching()(made._submit)  # type: ignore[method-assign]
            made._core.report_receipt = watch.receipt(made._core.report_receipt)  # type: ignore[method-assign]
            made.check = watch.report(made.check)  # type: ignore[method-assign]
            made.send_many = watch.results(made.send_many)  # type: ignore[method-assign]
            stack.callback(lambda: watch.search(caplog.text))
            return stack.enter_context(made)

        yield make


@pytest.fixture
def message() -> EmailMessage:
    """Write a mail."""
    mail = EmailMessage()
    mail["From"] = "me@example.org"
    mail["To"] = "you@example.org"
    mail["Bcc"] = "blind@example.org"
    mail["Subject"] = "Grüße"
    mail.set_content("Hello\n.leading dot\n")
    return mail
