"""check(): a report about the server, over the same connection code as a send, without a message."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from conftest import Mailer, Serve
from scripted import Mode, honest
from securesmtp import AuthenticationError, CertificateError, DowngradeError, SecureMailer


def test_the_report_describes_the_server(serve: Serve, mailer: Mailer, mode: Mode) -> None:
    """Addresses, TLS with its chain, extensions, and whether the login works; no MAIL is sent."""
    offers = ("SIZE 1000", "PIPELINING", "LIMITS MAILMAX=5 RCPTMAX=7 RCPTDOMAINMAX=x")
    server = serve(honest(mode, extensions=offers, auth=("me", "secret")))
    report = mailer(server, tls=mode, username="me", password="secret").check()
    assert (report.host, report.port) == ("localhost", server.port)
    assert report.address == "127.0.0.1"
    assert report.address in report.addresses
    assert report.tls.mode == mode
    leaf, *_, root = report.tls.chain
    assert leaf.sha256 == report.tls.peer_sha256
    assert "localhost" in leaf.names
    assert root.subject == root.issuer == leaf.issuer
    assert leaf.not_before < datetime.now(UTC) < leaf.not_after == report.tls.not_after
    assert 0 < report.days_left == (leaf.not_after - datetime.now(UTC)).days
    assert dict(report.after_tls) == {"SIZE": "1000", "PIPELINING": "", "LIMITS": "MAILMAX=5 RCPTMAX=7 RCPTDOMAINMAX=x"}
    assert report.round_trips == 2
    assert (report.size, dict(report.limits)) == (1000, {"MAILMAX": 5, "RCPTMAX": 7})
    assert (report.mechanisms, report.mechanism) == (("PLAIN", "LOGIN"), "PLAIN")
    assert (report.login, report.login_error) == (True, None)
    server.joined()
    assert server.secret.endswith(b"QUIT\r\n")
    assert b"MAIL" not in server.secret


def test_capabilities_before_and_inside_tls_are_compared(serve: Serve, mailer: Mailer) -> None:
    """The report has the keywords that only one of them has; with implicit TLS there is nothing to compare."""
    server = serve(honest("starttls", extensions=("SIZE",), auth=("me", "secret")))
    report = mailer(server, tls="starttls").check()
    assert report.before_tls is not None
    assert set(report.before_tls) == {"SIZE", "STARTTLS"}
    assert (report.only_before_tls, report.only_after_tls) == (frozenset({"STARTTLS"}), frozenset())
    assert report.login is None
    assert report.mechanism is None
    report = mailer(serve()).check()
    assert (report.before_tls, report.only_before_tls, report.only_after_tls) == (None, frozenset(), frozenset())


def test_a_refused_login_is_in_the_report(serve: Serve, mailer: Mailer) -> None:
    """As a result, not as an exception; with the error that a send would raise."""
    server = serve(honest(auth=("me", "right")))
    report = mailer(server, username="me", password="wrong").check()
    assert report.login is False
    assert isinstance(report.login_error, AuthenticationError)
    assert (report.login_error.host, report.login_error.port) == ("localhost", server.port)
    assert report.mechanism == "PLAIN"


def test_without_verified_tls_check_raises_as_a_send_does(serve: Serve, mailer: Mailer) -> None:
    """There is nothing to report."""
    server = serve(honest("starttls", replies={"EHLO": b"250 mx.test\r\n"}))
    with pytest.raises(DowngradeError) as caught:
        mailer(server, tls="starttls").check()
    assert (caught.value.host, caught.value.port) == ("localhost", server.port)
    with SecureMailer("localhost", serve().port) as untrusting, pytest.raises(CertificateError):
        untrusting.check()


def test_check_needs_no_free_connection(serve: Serve, mailer: Mailer) -> None:
    """It opens one of its own and leaves the pool unchanged."""
    server = serve()
    mine = mailer(server, max_connections=1)
    mine.send_bytes(b"\n", mail_from="a@b.example", recipients=["c@d.example"])
    mine.check()
    mine.send_bytes(b"\n", mail_from="a@b.example", recipients=["c@d.example"])
    assert [len(log.accepted) for log in server.connections] == [2, 0]
