"""From EmailMessage to envelope and content, as the server receives them."""

from __future__ import annotations

import pickle
import re
from email import message_from_bytes, message_from_string, policy
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import formataddr
from typing import cast

import pytest

from conftest import Mailer, Serve
from scripted import honest
from securesmtp import (
    AddressError,
    ConfigurationError,
    Envelope,
    MessageError,
    Outcome,
    SecureMailer,
    Stage,
)
from securesmtp.testing import MailServer


def _mail(**fields: str) -> EmailMessage:
    mail = EmailMessage()
    for name, value in {"From": "me@example.org", "To": "you@example.org", **fields}.items():
        mail[name.replace("_", "-")] = value
    mail.set_content("x\n")
    return mail


@pytest.mark.parametrize(
    ("mail", "mail_from", "recipients"),
    [
        pytest.param(_mail(), "me@example.org", ["you@example.org"], id="from-to"),
        pytest.param(_mail(Sender="s@example.org"), "s@example.org", ["you@example.org"], id="sender"),
        pytest.param(
            _mail(Cc="b@example.org, you@example.org", Bcc="c@example.org"),
            "me@example.org", ["you@example.org", "b@example.org", "c@example.org"], id="each-once",
        ),
        pytest.param(
            _mail(Resent_From="r@example.org", Resent_To="t@example.org", Bcc="c@example.org"),
            "r@example.org", ["t@example.org"], id="resent",
        ),
        pytest.param(_mail(Cc="Team: b@example.org, c@example.org;, Nobody:;"), "me@example.org",
                     ["you@example.org", "b@example.org", "c@example.org"], id="groups"),
        pytest.param(_mail(Cc="x@bücher.example"), "me@example.org",
                     ["you@example.org", "x@xn--bcher-kva.example"], id="idn"),
    ],
)  # fmt: skip
def test_the_envelope_comes_from_the_header(
    serve: Serve, mailer: Mailer, mail: EmailMessage, mail_from: str, recipients: list[str]
) -> None:
    """By the documented rule; Bcc and non-ASCII domains are never transmitted."""
    server = serve()
    mailer(server).send(mail)
    wire = server.secret
    assert re.findall(rb"MAIL FROM:<(.*?)>", wire) == [mail_from.encode()]
    assert re.findall(rb"RCPT TO:<(.*?)>", wire) == [address.encode() for address in recipients]
    assert b"Bcc" not in wire
    assert wire.isascii()


@pytest.mark.parametrize(
    ("mail", "error", "match"),
    [
        pytest.param(_mail(From="a@b.example, c@d.example"), MessageError, "2 addresses", id="two-authors"),
        pytest.param(_mail(To="", From="me@example.org"), MessageError, "no recipient", id="nobody"),
        pytest.param(_mail(From=""), MessageError, "no From", id="no-from"),
        pytest.param(_mail(To="not an address"), AddressError, "not a list", id="no-address"),
        pytest.param(_mail(To="a@x.example; b@x.example"), AddressError, "commas", id="semicolon"),
        pytest.param(_mail(To="a@x.example <b@x.example>"), AddressError, "commas", id="two-in-one"),
        pytest.param(message_from_string("To: a@b\nBcc : c@d\n\n", policy=policy.default), MessageError,
                     "not a header field", id="broken"),
        pytest.param(MIMEText("x"), MessageError, "no From", id="old-api"),
        pytest.param("From: x", MessageError, r"is a str.*send_bytes", id="str"),
        pytest.param(None, MessageError, r"is a NoneType.*set_content\(\).*return None", id="none"),
        pytest.param(("a@b.example", "c@d.example"), MessageError, "is a tuple", id="tuple"),
        pytest.param(message_from_string("Resent-To: a@b\nResent-To: c@d\n\n", policy=policy.default), MessageError,
                     "resent more than once", id="resent-twice"),
    ],
)  # fmt: skip
def test_a_message_without_an_envelope_is_refused(mail: EmailMessage, error: type[Exception], match: str) -> None:
    """No connection is opened: the port is closed."""
    with SecureMailer("localhost", 1) as mine, pytest.raises(error, match=match):
        mine.send(mail)


@pytest.mark.parametrize(
    ("mail_from", "recipients", "refused"),
    [
        pytest.param("me", ["you@example.org"], "me", id="sender"),
        pytest.param("me@example.org", ["you@example.org", "Eve <eve@example.org>"], "Eve <eve@example.org>", id="one"),
        pytest.param("me", ["you"], "you", id="both"),
        pytest.param("me@example.org", [b"you@example.org"], None, id="no-str"),
        pytest.param(None, None, None, id="a-field"),
    ],
)
def test_an_address_error_says_whose_address_it_is(
    mail_from: str | None, recipients: list[str] | None, refused: str | None
) -> None:
    """A program can tell its own wrong sender from a wrong recipient; recipients are checked first."""
    with SecureMailer("localhost", 1) as mine, pytest.raises(AddressError) as caught:
        mine.send(_mail(From="me;you@example.org"), mail_from=mail_from, recipients=recipients)
    assert caught.value.address == refused
    assert pickle.loads(pickle.dumps(caught.value)).address == refused  # noqa: S301 -- our own


@pytest.mark.parametrize("kind", ["send", "send_bytes", "send_many"])
def test_a_null_reverse_path_is_sent(serve: Serve, mailer: Mailer, kind: str) -> None:
    """As for automatic replies (RFC 3834 §3.3, RFC 8098 §3). The Message-ID has the domain of From."""
    server, mail = serve(), _mail(Auto_Submitted="auto-replied")
    mine, to = mailer(server), ["you@example.org"]
    if kind == "send":
        receipt = mine.send(mail, mail_from="")
        assert receipt.message_id is not None
        assert receipt.message_id.endswith("@example.org>")
    elif kind == "send_bytes":
        receipt = mine.send_bytes(mail.as_bytes(), mail_from="", recipients=to)
    else:
        (result,) = mine.send_many([Envelope("", to, mail)])
        assert result.receipt is not None
        receipt = result.receipt
    assert receipt.mail_from == ""
    assert re.findall(rb"MAIL FROM:(<.*?>)", server.secret) == [b"<>"]


def test_the_test_server_accepts_the_null_reverse_path() -> None:
    """A program's automatic replies can be tested."""
    with MailServer() as server:
        server.mailer().send(_mail(), mail_from="")
        assert [received.mail_from for received in server.messages] == [""]


def test_an_address_object_is_an_address(serve: Serve, mailer: Mailer) -> None:
    """Its mailbox is in the envelope; the display name is not."""
    server = serve()
    receipt = mailer(server).send(
        _mail(), mail_from=Address("Me", "a..b", "example.org"), recipients=[Address("You", "y", "bücher.example")]
    )
    assert (receipt.mail_from, receipt.accepted) == ('"a..b"@example.org', ("y@bücher.example",))
    assert b'MAIL FROM:<"a..b"@example.org>' in server.secret
    assert b"RCPT TO:<y@xn--bcher-kva.example>" in server.secret


def test_older_message_classes_are_sent(serve: Serve, mailer: Mailer) -> None:
    """Each arrives with its text, and none of them is changed."""
    mixed = MIMEMultipart()
    mixed["From"], mixed["To"] = "Jörg <me@example.org>", formataddr(("Müller, J", "you@example.org"))
    mixed["Subject"], mixed["Bcc"] = cast("str", Header("Grüße", "utf-8")), "c@example.org"
    mixed.attach(MIMEText("Grüße\n", "plain", "utf-8"))
    before = mixed.as_bytes()
    parsed = message_from_bytes(_mail(Subject="Grüße").as_bytes())
    server = serve()
    with mailer(server) as mine:
        receipt = mine.send(mixed)
        results = list(mine.send_many([parsed, Envelope("a@example.org", ["b@example.org"], mixed)]))
    assert receipt.accepted == ("you@example.org", "c@example.org")
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 2
    assert mixed.as_bytes() == before
    for accepted in server.accepted:
        arrived = message_from_bytes(accepted.content, policy=policy.default)
        assert arrived["Subject"] == "Grüße"
        assert b"Bcc" not in accepted.content
    first = message_from_bytes(server.accepted[0].content, policy=policy.default)
    assert [(a.display_name, a.addr_spec) for a in first["From"].addresses] == [("Jörg", "me@example.org")]
    assert [(a.display_name, a.addr_spec) for a in first["To"].addresses] == [("Müller, J", "you@example.org")]
    (body,) = first.iter_parts()
    assert body.get_content() == "Grüße\n"


def test_one_message_is_not_an_iterable_of_messages() -> None:
    """A Message is iterable too: its field names would be taken for messages."""
    with SecureMailer("localhost", 1) as mine, pytest.raises(ConfigurationError, match="iterable of messages"):
        mine.send_many(MIMEText("x"))  # type: ignore[arg-type]  # the mistake under test


def test_recipients_that_are_one_string_are_refused() -> None:
    """It would be taken letter by letter."""
    with SecureMailer("localhost", 1) as mine, pytest.raises(ConfigurationError, match="list"):
        mine.send(_mail(), recipients="you@example.org")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("Subject", "=?utf-8?q?a=0d=0aBcc=3a_evil@x?=", id="encoded-crlf"),
        pytest.param("Subject", "A 😀 subject=?UTF-8?Q?=0A?=Bcc: injected@example", id="encoded-lf"),
        pytest.param("X\r\nBcc", "v", id="name"),
        pytest.param("X: y\r\nBcc", "v", id="name-and-value"),
    ],
)
def test_no_header_line_is_injected(serve: Serve, mailer: Mailer, name: str, value: str) -> None:
    """A value is refused, or encoded so that it makes no line of its own (MSG-03)."""
    server = serve()
    mail = _mail()
    try:
        mail[name] = value
        mailer(server).send(mail)
    except (ValueError, MessageError):
        return
    (accepted,) = server.accepted
    arrived = message_from_bytes(accepted.content, policy=policy.default)
    assert {key.lower() for key in arrived.keys()} <= {  # noqa: SIM118 -- a message iterates otherwise
        "from", "to", "subject", "date", "message-id", "mime-version", "content-type", "content-transfer-encoding",
        "=?utf-8?q?x=0d=0abcc?=", "=?utf-8?q?x=3a_y=0d=0abcc?=",
    }  # fmt: skip


def test_content_is_encoded_for_a_server_without_8bitmime(serve: Serve, mailer: Mailer) -> None:
    """An object is encoded again, raw bytes are refused before MAIL (EXT-02)."""
    server = serve(honest(extensions=()))
    mail = _mail()
    mail.set_content("ä\n", cte="8bit")
    mine = mailer(server)
    mine.send(mail)
    (accepted,) = server.accepted
    assert accepted.content.isascii()
    assert message_from_bytes(accepted.content, policy=policy.default).get_content().strip() == "ä"
    with pytest.raises(MessageError, match="8BITMIME") as caught:
        mine.send_bytes("\n ä".encode(), mail_from="a@b.example", recipients=["c@d.example"])
    assert (caught.value.stage, caught.value.outcome) == (Stage.MAIL, Outcome.NOT_SENT)


def test_8bit_content_is_declared(serve: Serve, mailer: Mailer) -> None:
    """MAIL has BODY=8BITMIME (RFC 6152), and SIZE is exact."""
    server = serve(honest(extensions=("8BITMIME", "SIZE 1000")))
    raw = "\r\nä\r\n".encode()
    mailer(server).send_bytes(raw, mail_from="a@b.example", recipients=["c@d.example"])
    assert b"MAIL FROM:<a@b.example> SIZE=%d BODY=8BITMIME\r\n" % len(raw) in server.secret


def test_a_message_over_the_servers_size_is_refused_before_mail(serve: Serve, mailer: Mailer) -> None:
    """The content is not uploaded (RFC 1870 §6.1, EXT-01)."""
    server = serve(honest(extensions=("SIZE 10",)))
    with pytest.raises(MessageError, match="accepts at most 10"):
        mailer(server).send(_mail())
    assert b"MAIL" not in server.secret


def test_smtputf8_is_used_if_needed_and_offered(serve: Serve, mailer: Mailer) -> None:
    """A non-ASCII local part is sent as UTF-8, or refused before MAIL (EXT-03)."""
    mail = _mail(Cc="jürgen@example.org", Subject="Grüße")
    server = serve(honest(extensions=("8BITMIME", "SMTPUTF8")))
    mailer(server).send(mail)
    assert b"BODY=8BITMIME SMTPUTF8\r\n" in server.secret
    assert "RCPT TO:<jürgen@example.org>\r\n".encode() in server.secret
    plain = serve(honest(extensions=("8BITMIME",)))
    with pytest.raises(MessageError, match="SMTPUTF8"):
        mailer(plain).send(mail)
    assert b"MAIL" not in plain.secret


def test_the_callers_message_is_not_changed(serve: Serve, mailer: Mailer) -> None:
    """Not even the boundaries of its parts are filled in."""
    mail = _mail(Bcc="c@example.org")
    mail.add_attachment(b"x", maintype="a", subtype="b")
    before = list(mail.items()), [list(part.items()) for part in mail.iter_parts()]
    mailer(serve()).send(mail)
    assert before == (list(mail.items()), [list(part.items()) for part in mail.iter_parts()])
