"""What an uncaught error shows: the caller's line and one of this library."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

import securesmtp
from conftest import Mailer, Serve
from scripted import Peer, honest
from securesmtp import (
    AuthenticationError,
    CertificateError,
    ConnectError,
    OutcomeUnknownError,
    SecureMailer,
    SecureSMTPError,
    Stage,
)

LIBRARY = Path(securesmtp.__file__).parent


def _frames(error: BaseException) -> list[str]:
    """Return the function of each frame in the traceback; those of the library have a star."""
    return [
        f"*{frame.name}" if LIBRARY in Path(frame.filename).parents else frame.name
        for frame in traceback.extract_tb(error.__traceback__)
    ]


def _send(mailer: SecureMailer) -> None:
    mailer.send_bytes(b"Subject: x\r\n\r\nx\r\n", mail_from="a@b.example", recipients=["c@d.example"])


def _check(mailer: SecureMailer) -> None:
    mailer.check()


def _wrong_message(mailer: SecureMailer) -> None:
    mailer.send(EmailMessage())


@pytest.mark.parametrize("call", [_send, _check, _wrong_message])
def test_an_error_shows_the_callers_line_and_one_of_the_library(call: Callable[[SecureMailer], None]) -> None:
    """Not the internal frames, which say less than the error's stage."""
    with SecureMailer("127.0.0.1", 1) as mailer, pytest.raises(SecureSMTPError) as caught:
        call(mailer)
    this, *rest = _frames(caught.value)
    assert this.startswith("test_an_error")
    assert rest == [call.__name__, "*public_call"]


def test_causes_stay_without_internal_frames(serve: Serve, mailer: Mailer) -> None:
    """An unknown outcome still has the lost connection as its cause."""

    def cut(peer: Peer, _: bytes) -> bytes:
        peer.cut()
        return b""

    server = serve(honest(replies={"CONTENT": cut}))
    with pytest.raises(OutcomeUnknownError) as caught:
        _send(mailer(server))
    error, chain = caught.value, list[BaseException]()
    while error.__cause__ is not None:
        chain.append(error.__cause__)
        error = error.__cause__  # type: ignore[assignment]
    assert type(chain[0]) is ConnectError
    assert all(not name.startswith("*") for link in chain for name in _frames(link))
    assert (caught.value.stage, caught.value.message_id) == (Stage.CONTENT, None)


def test_openssls_error_stays_as_the_cause(serve: Serve) -> None:
    """Of a refused certificate."""
    with SecureMailer("localhost", serve().port) as mailer, pytest.raises(CertificateError) as caught:
        _send(mailer)
    assert type(caught.value.__cause__).__name__ == "SSLCertVerificationError"
    assert "public_call" in "".join(traceback.format_exception(caught.value))


def test_the_callers_own_callable_keeps_its_frames(serve: Serve, mailer: Mailer) -> None:
    """A bug in it must be visible, so its frames below the library are shown."""

    def broken() -> str:
        other = SecureMailer("127.0.0.1", 1)
        return str(other.check())

    mine = mailer(serve(honest(auth=("me", "right"))), username="me", password=broken)
    with pytest.raises(SecureSMTPError) as caught:
        _send(mine)
    shown = "".join(traceback.format_exception(caught.value))
    assert "in broken" in shown
    assert shown.count("_transport") == 0


def test_a_refused_login_is_short(serve: Serve, mailer: Mailer) -> None:
    """The most common error has three frames."""
    mine = mailer(serve(honest(auth=("me", "right"))), username="me", password="wrong")
    with pytest.raises(AuthenticationError) as caught:
        _send(mine)
    assert len(_frames(caught.value)) == 3
