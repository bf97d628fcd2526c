"""SecureMailer against scripted servers with real TLS, in both modes."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from conftest import Mailer, Positions, Serve
from scripted import Mode, Peer, honest
from securesmtp import (
    AddressError,
    AuthenticationError,
    CertificateError,
    ConfigurationError,
    ConnectError,
    DataRefusedError,
    DeadlineExceededError,
    DowngradeError,
    MessageError,
    Outcome,
    OutcomeUnknownError,
    Password,
    ProtocolError,
    RecipientsRefusedError,
    SecureMailer,
    SecureSMTPError,
    SenderRefusedError,
    TLSPolicy,
    WrongTLSModeError,
)

PLAINTEXT = re.compile(rb"EHLO [!-~]+\r\n(STARTTLS\r\n)?")


def test_a_message_arrives_in_both_modes(serve: Serve, mailer: Mailer, message: EmailMessage, mode: Mode) -> None:
    """The server accepts the message for To and Bcc, without a Bcc field, and the receipt agrees."""
    server = serve(honest(mode, auth=("me", "pässwörd")))
    receipt = mailer(server, tls=mode, username="me", password=lambda: "pässwörd").send(message)
    (accepted,) = server.accepted
    arrived = message_from_bytes(accepted.content, policy=policy.default)
    assert arrived["Subject"] == "Grüße"
    assert arrived["Bcc"] is None
    assert arrived["Message-ID"] == receipt.message_id
    assert arrived.get_content().splitlines() == ["Hello", ".leading dot"]
    assert receipt.accepted == ("you@example.org", "blind@example.org")
    assert receipt.refused == ()
    assert receipt.reply.code == 250
    assert receipt.tls.version == "TLSv1.3"
    assert receipt.size == len(accepted.content)
    assert message["Date"] is None
    assert server.plain == b"" if mode == "implicit" else PLAINTEXT.fullmatch(server.plain)


def test_the_connection_is_kept_for_the_next_message(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Two messages go over one connection, and a third over a new one when the server has closed it."""
    server = serve()
    mine = mailer(server)
    mine.send(message)
    mine.send(message)
    assert len(server.connections) == 1
    assert len(server.accepted) == 2


@pytest.mark.parametrize(
    ("replies", "error", "outcome"),
    [
        pytest.param({"GREETING": b"554 no\r\n"}, ConnectError, Outcome.NOT_SENT, id="greeting"),
        pytest.param({"MAIL": b"550 5.1.0 no\r\n"}, SenderRefusedError, Outcome.REFUSED, id="mail"),
        pytest.param({"MAIL": b"530 login\r\n"}, AuthenticationError, Outcome.NOT_SENT, id="login-wanted"),
        pytest.param({"MAIL": b"354 go\r\n"}, ProtocolError, Outcome.NOT_SENT, id="out-of-step"),
        pytest.param({"MAIL": b"421 bye\r\n"}, ConnectError, Outcome.NOT_SENT, id="421"),
        pytest.param({"RCPT": b"550 5.1.1 no\r\n"}, RecipientsRefusedError, Outcome.REFUSED, id="rcpt"),
        pytest.param({"DATA": b"451 later\r\n"}, DataRefusedError, Outcome.REFUSED, id="data"),
        pytest.param({"CONTENT": b"554 spam\r\n"}, DataRefusedError, Outcome.REFUSED, id="content"),
        pytest.param({"CONTENT": b"251 what\r\n"}, OutcomeUnknownError, Outcome.UNKNOWN, id="content-out-of-step"),
        pytest.param({"CONTENT": b"250 ok\n"}, OutcomeUnknownError, Outcome.UNKNOWN, id="content-bare-lf"),
    ],
)
def test_a_refusal_is_an_error_with_its_outcome(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve,
    mailer: Mailer,
    message: EmailMessage,
    replies: dict[str, bytes],
    error: type[SecureSMTPError],
    outcome: Outcome,
) -> None:
    """The refusal at each step has its own error class, which has the outcome and can be pickled."""
    server = serve(honest(replies=replies))
    with pytest.raises(error) as caught:
        mailer(server).send(message)
    told: SecureSMTPError = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 -- our own
    assert type(told) is error
    assert (told.outcome, told.host, told.port) == (outcome, "localhost", server.port)
    assert str(told) == str(caught.value)


def test_partial_allow_sends_to_the_others(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """With partial="allow" the receipt says who was refused."""

    def rcpt(peer: Peer, line: bytes) -> bytes:
        return b"550 5.1.1 no\r\n" if b"<you@" in line else b"250 ok\r\n"

    receipt = mailer(serve(honest(replies={"RCPT": rcpt}))).send(message, partial="allow")
    assert receipt.refused == ("you@example.org",)
    assert receipt.accepted == ("blind@example.org",)


def test_starttls_that_is_not_offered_is_a_downgrade(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Without STARTTLS only EHLO is written."""

    def stripped(peer: Peer) -> None:
        peer.send(b"220 mx.test\r\n")
        peer.expect(b"EHLO")
        peer.send(b"250-mx.test\r\n250 AUTH PLAIN\r\n")
        peer.sleep_until_peer_closes()

    server = serve(stripped)
    with pytest.raises(DowngradeError, match="does not offer STARTTLS"):
        mailer(server, tls="starttls", username="me", password="secret").send(message)
    server.joined()
    assert PLAINTEXT.fullmatch(server.plain)


def test_a_forged_line_after_the_220_is_refused(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Bytes that follow the 220 to STARTTLS in plaintext end the session."""

    def injects(peer: Peer) -> None:
        peer.send(b"220 mx.test\r\n")
        peer.expect(b"EHLO")
        peer.send(b"250-mx.test\r\n250 STARTTLS\r\n")
        peer.expect(b"STARTTLS")
        peer.send(b"220 go\r\n250-INJECTED\r\n")
        peer.sleep_until_peer_closes()

    server = serve(injects)
    with pytest.raises(DowngradeError, match="plaintext between"):
        mailer(server, tls="starttls").send(message)
    server.joined()
    assert PLAINTEXT.fullmatch(server.plain)


def test_a_plaintext_server_on_an_implicit_port_is_recognised(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """The error names the other mode."""

    def plaintext(peer: Peer) -> None:
        peer.send(b"220 mx.test\r\n")
        peer.sleep_until_peer_closes()

    with pytest.raises(WrongTLSModeError, match='tls="starttls"'):
        mailer(serve(plaintext)).send(message)


def test_an_untrusted_certificate_is_refused(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """None of certifi's roots has signed the test server's certificate."""
    with pytest.raises(CertificateError, match="ca_file"):
        mailer(serve(), policy=TLSPolicy()).send(message)


def test_a_refused_login_is_not_tried_again(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """One AUTH, no other mechanism, and the password nowhere in the error."""
    server = serve(honest(auth=("me", "right")))
    with pytest.raises(AuthenticationError) as caught:
        mailer(server, username="me", password="wrong-password").send(message)
    assert server.secret.count(b"AUTH") == 1
    assert "wrong-password" not in str(caught.value)


def test_login_is_used_where_plain_is_not_allowed(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """The caller's mechanisms are a hard filter."""
    server = serve(honest(auth=("me", "right")))
    mailer(server, auth=Password("me", "right", ["LOGIN"])).send(message)
    assert b"AUTH LOGIN\r\n" in server.secret


def test_the_outcome_is_unknown_when_the_final_reply_never_comes(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """A deadline that passes after the end of the content does not say whether the message was accepted."""

    def silent(peer: Peer, content: bytes) -> bytes:
        peer.sleep_until_peer_closes()
        return b"250 late\r\n"

    with pytest.raises(OutcomeUnknownError) as caught:
        mailer(serve(honest(replies={"CONTENT": silent}))).send(message, deadline=0.5)
    assert isinstance(caught.value.__cause__, DeadlineExceededError)
    assert caught.value.message_id


@pytest.mark.faces("cuts at every byte", sample=(4, 4))
def test_the_outcome_is_true_wherever_the_connection_is_cut(
    serve: Serve, mailer: Mailer, positions: Positions, message: EmailMessage, mode: Mode
) -> None:
    """Cut at the bytes that the server reads: the outcome agrees with what the server accepted."""
    del message["Bcc"]
    message["Message-ID"] = "<a@b>"
    whole = serve(honest(mode))
    with mailer(whole, tls=mode) as mine:
        mine.send(message)
        # QUIT is not part of it.
        octets = len(whole.plain + whole.secret)
    for count in positions(octets):
        server = serve(honest(mode), cut_after_read=count)
        try:
            mailer(server, tls=mode).send(message)
            outcome = Outcome.ACCEPTED
        except SecureSMTPError as error:
            outcome = error.outcome
        server.joined()
        if outcome is not Outcome.UNKNOWN:
            assert (outcome is Outcome.ACCEPTED) == bool(server.accepted)


def test_send_bytes_changes_nothing_but_bare_lf(serve: Serve, mailer: Mailer) -> None:
    """Bytes and files arrive as they are, except that LF becomes CRLF."""
    server = serve()
    mine = mailer(server)
    raw = b"Subject: x\n\n.dot\n..\n" + b"y" * 998 + b"\nend"
    for data in (raw, io.BytesIO(raw)):
        mine.send_bytes(data, mail_from="a@example.org", recipients=["b@example.org"])
    expected = raw.replace(b"\n", b"\r\n") + b"\r\n"
    assert [accepted.content for accepted in server.accepted] == [expected, expected]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        pytest.param(b"Subject: x\n\na\rb", "line 3 has a CR", id="bare-cr"),
        pytest.param(b"Subject: x\n\n\n\0", "line 4 has a NUL", id="nul"),
        pytest.param(b"Subject: x\n\n" + b"y" * 999, "line 3 is longer", id="long"),
        pytest.param(b"Subject: x\n\n" + b"y" * 999 + b"\n" + b"z" * 2000, "line 3 is longer", id="long-and-more"),
        pytest.param(b"Subject: x\n\nend\r", "line 3 has a CR", id="cr-at-the-end"),
        pytest.param(b"Subject: x\nBcc: y@example.org\n\n", "line 2 is a Bcc", id="bcc"),
        pytest.param(b"no header", "line 1 is neither", id="no-header"),
        pytest.param(b"Subject: \xff\n\n", "line 1 of the header is not UTF-8", id="latin-1-header"),
    ],
)
def test_bytes_that_cannot_be_sent_are_refused_with_their_line(data: bytes, match: str) -> None:
    """No connection is opened: the port is closed."""
    with SecureMailer("localhost", 1) as mine, pytest.raises(MessageError, match=match):
        mine.send_bytes(data, mail_from="a@example.org", recipients=["b@example.org"])


@pytest.mark.parametrize(
    "address",
    ["", "a", "a@", "@b", "a b@c", "a@b> SIZE=1", "a@b\r\nRSET", "<a@b>", "x <a@b>", "a@b, c@d", "a@b\0", "a\u2028@b",
     "@r:a@b", "(c)a@b", '"x@evil> y"@good', "a@[1.2.3]", "a@-b", "x" * 253 + "@b", "a@" + "b" * 300, "a@b。c"],
)  # fmt: skip
def test_an_invalid_address_is_refused(address: str) -> None:
    """No connection is opened, and no address is repaired."""
    with SecureMailer("localhost", 1) as mine, pytest.raises(AddressError):
        mine.send_bytes(b"\n", mail_from="a@example.org", recipients=[address])


@pytest.mark.parametrize(
    "options",
    [
        {"port": 0}, {"port": 70000}, {"tls": "none"}, {"username": "me"}, {"password": "x"}, {"timeout": -1},
        {"host": "☃.example"}, {"host": "a b"}, {"host": "h:25"}, {"host": ""}, {"deadline": 0},
        {"local_hostname": "x y"}, {"ca_file": "nowhere.pem"}, {"username": "", "password": "x"},
        {"username": "me", "password": "a\0b"},
    ],
)  # fmt: skip
def test_a_wrong_argument_is_refused_by_the_constructor(options: dict[str, object]) -> None:
    """A mistake is found before the first message."""
    with pytest.raises(ConfigurationError):
        SecureMailer(**{"host": "localhost", **options})  # type: ignore[arg-type]


def test_a_closed_mailer_refuses_to_send(message: EmailMessage) -> None:
    """`send_many` refuses at the call, not message by message."""
    mine = SecureMailer("localhost", 1)
    mine.close()
    uses: list[Callable[[], object]] = [lambda: mine.send(message), lambda: mine.send_many([message]), mine.check]
    for use in uses:
        with pytest.raises(ConfigurationError, match="closed"):
            use()
