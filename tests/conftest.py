"""Fixtures for all tests: a CA, TLS contexts, scripted servers, mailers; and how much of a family each run tries."""

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
from hypothesis import settings

from audit import audit
from leaks import Watch
from scripted import Mode, Script, ScriptedServer, honest
from securesmtp import SecureMailer

Serve = Callable[..., ScriptedServer]
Mailer = Callable[..., SecureMailer]
Positions = Callable[[int], list[int]]


# pyproject.toml selects "sampled", `nox -s exhaustive` "complete". No deadline: a busy machine is not a failure.
settings.register_profile("sampled", deadline=None, max_examples=100)
settings.register_profile("complete", deadline=None, max_examples=300)


def thorough(fast: int, complete: int) -> list[object]:
    """Return two amounts of work as parameters: for every run, and for `pytest -m exhaustive`."""
    return [pytest.param(fast, id="sampled"), pytest.param(complete, id="complete", marks=pytest.mark.exhaustive)]


def examples(complete: int) -> int:
    """Return how many examples a property tries: a third of *complete*; all with `--hypothesis-profile=complete`."""
    return complete * settings().max_examples // 300


def unmeasured() -> dict[str, str]:
    """Return the environment of a child process in which coverage does not start."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """Make the CA that the mailers trust."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the CA as PEM."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def server_tls(ca: trustme.CA) -> ssl.SSLContext:
    """Make the TLS context of a server with a valid certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(params=["implicit", "starttls"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Run the test in both TLS modes."""
    chosen: Mode = request.param
    return chosen


@pytest.fixture(params=thorough(13, 1))
def positions(request: pytest.FixtureRequest) -> Positions:
    """Choose where to cut a session of so many octets: at every 13th octet and the last, or at every octet."""
    stride: int = request.param
    return lambda octets: sorted({*range(0, octets, stride), octets - 1})


@pytest.fixture(params=thorough(3, 1))
def stride(request: pytest.FixtureRequest) -> int:
    """Choose how many cases of a family to try: every third, or all."""
    chosen: int = request.param
    return chosen


@pytest.fixture
def serve(server_tls: ssl.SSLContext) -> Iterator[Serve]:
    """Start scripted servers that stop at the end of the test, and audit what their clients wrote."""
    with ExitStack() as stack:

        def start(*scripts: Script, **options: object) -> ScriptedServer:
            options.setdefault("tls", server_tls)
            server = ScriptedServer(*scripts or (honest(),), **options)  # type: ignore[arg-type]
            # Registered first, so it runs last: when the server has stopped.
            stack.callback(audit, server)
            return stack.enter_context(server)

        yield start


@pytest.fixture
def mailer(ca_file: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Mailer]:
    """Make mailers for scripted servers; fail if anything they raise, return or log has a password."""
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
    """Return a message with a Bcc, a non-ASCII subject and a line that starts with a dot."""
    made = EmailMessage()
    made["From"] = "me@example.org"
    made["To"] = "you@example.org"
    made["Bcc"] = "blind@example.org"
    made["Subject"] = "Grüße"
    made.set_content("Hello\n.leading dot\n")
    return made
