"""Never run: mypy and pyright read it as a user's program, so that a public type that changes is noticed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage, Message
from email.mime.multipart import MIMEMultipart
from pathlib import Path
from typing import Any, assert_type

import securesmtp
from securesmtp import (
    DSN,
    AddressError,
    AddressWarning,
    AsyncSecureMailer,
    Certificate,
    CertificateError,
    CertificateReason,
    DeadlineExceededError,
    DeliverBy,
    Envelope,
    Event,
    External,
    OAuth2,
    Outcome,
    OutcomeUnknownError,
    Password,
    Receipt,
    Recipient,
    RecipientsRefusedError,
    Reply,
    Secret,
    SecureMailer,
    SecureSMTPError,
    SendResult,
    ServerReport,
    Stage,
    Stats,
    Timeouts,
    TLSInfo,
    TLSMode,
    TLSPolicy,
    Window,
    compose,
    events,
    validate_address,
)
from securesmtp.credentials import from_command, from_file, from_keyring
from securesmtp.testing import (
    FAULTS,
    AsyncRecordingMailer,
    Attachment,
    MailServer,
    Received,
    RecordingMailer,
)


def get_password() -> str:
    """Fetch it."""
    return "from a keyring"


def get_secret() -> Secret:
    """Fetch it."""
    return Secret("from a file")


def on_event(event: Event) -> None:
    """Look at what comes."""
    match event:
        case events.Sent(receipt=receipt):
            assert_type(receipt, Receipt)
        case events.Failed(error=error):
            assert_type(error, SecureSMTPError)
        case events.Connected(tls=tls, elapsed=elapsed):
            assert_type((tls, elapsed), tuple[TLSInfo, timedelta])
        case events.Authenticated(mechanism=text) | events.Closed(reason=text) | events.FellBack(reason=text):
            assert_type(text, str)
        case events.FewerConnections(connections=number, reason=text):
            assert_type((number, text), tuple[int, str])
        case events.ChunkingRefused(reply=reply):
            assert_type(reply, Reply)
        case events.LongLines(message_id=message_id, longest=number):
            assert_type((message_id, number), tuple[str | None, int])
        case events.Connecting(host=host):
            assert_type(host, str)
        case _:
            assert_type(event.port, int)


plain: SecureMailer = SecureMailer("smtp.example.com")
SecureMailer("smtp.example.com", 2465, tls="implicit", username="me", password="secret", ca_file="ca.pem", timeout=5)
SecureMailer("smtp.example.com", tls=TLSMode.STARTTLS, username="me", password=get_password, timeout=Timeouts.rfc5321())
SecureMailer("smtp.example.com", auth=External("me"), policy=TLSPolicy(client_cert="me.pem"))
SecureMailer("smtp.example.com", auth=Password("me", get_secret, mechanisms=["PLAIN"]), deadline=2.5)
SecureMailer("smtp.example.com", auth=OAuth2("me", get_secret, mechanisms=["XOAUTH2"], on_refused=get_password))
SecureMailer("smtp.example.com", pipelining="off")
SecureMailer("smtp.example.com", pipelining="session", window=Window(messages=16, octets=1000))
SecureMailer("smtp.example.com", pipelining="all")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
SecureMailer(
    "smtp.example.com",
    max_connections=8,
    max_messages=50,
    max_idle=30.5,
    max_connect_failures=3,
    on_event=on_event,
    rate=2.5,
    max_recipients=9,
)
SecureMailer(
    "smtp.example.com",
    policy=TLSPolicy(ca_data=b"...", extra_ca_file=Path("ca.pem"), pins=("sha256/...",), minimum_version="TLSv1.3"),
    local_hostname="app.example.com",
    source_address=("127.0.0.1", 0),
)
SecureMailer("smtp.example.com", 587, tls=None)
assert_type(SecureMailer.from_url("smtps://me:secret@smtp.example.com"), SecureMailer)
assert_type(SecureMailer.from_url(Secret("smtps://smtp.example.com"), deadline=5, on_event=on_event), SecureMailer)
SecureMailer.from_url("smtps://smtp.example.com", username="me", password=from_file(Path("secret")))
assert_type(SecureMailer.from_env(), SecureMailer)
assert_type(SecureMailer.from_env("MAIL_", password=from_keyring("smtp", "me", timeout=5)), SecureMailer)
assert_type(AsyncSecureMailer.from_env(password=from_command(["pass", "smtp"], timeout=5)), AsyncSecureMailer)
assert_type(AsyncSecureMailer.from_url("smtps://smtp.example.com", username="me", password="x"), AsyncSecureMailer)
SecureMailer.from_env(verify=False)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
SecureMailer.from_url("smtps://h", port=465)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
from_command("pass show smtp")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
# Each of these must not pass for right: the ignore is an error by itself when it is not needed.
SecureMailer("smtp.example.com", tls="none")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
SecureMailer("smtp.example.com", verify=False)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
SecureMailer("smtp.example.com", 465, "implicit")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]

with plain as entered:
    assert_type(entered, SecureMailer)
    receipt = entered.send(EmailMessage(), mail_from="a@b.example", recipients=("c@d.example",), partial="allow")
    assert_type(receipt, Receipt)
    entered.send(EmailMessage(), partial="some")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert_type(
        entered.send_bytes(io.BytesIO(), mail_from="a@b.example", recipients=["c@d.example"], deadline=3), Receipt
    )
    entered.send(MIMEMultipart(), mail_from="", recipients=[Address("You", "you", "d.example"), "c@d.example"])
    entered.send(Message(), mail_from=Address("Me", "me", "b.example"))
    entered.send("text")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    entered.send_many([MIMEMultipart(), Envelope("", [Address("You", "you", "d.example")], MIMEMultipart())])
    entered.send_bytes("text", mail_from="a", recipients=[])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert_type(receipt.message_id, str | None)
    assert_type(receipt.recipients, tuple[Recipient, ...])
    assert_type(receipt.accepted, tuple[str, ...])
    assert_type(receipt.reply, Reply)
    assert_type(receipt.reply.enhanced, str | None)
    assert_type(receipt.tls, TLSInfo)
    assert_type(receipt.tls.not_after, datetime)
    assert_type(receipt.elapsed, timedelta)
    receipt.size = 1  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]

    assert_type(receipt.replies, tuple[Reply, ...])
    assert_type(receipt.as_dict(), dict[str, Any])
    assert_type(Receipt.from_dict({}), Receipt)
    assert_type(SecureSMTPError.from_dict({}), SecureSMTPError)
    assert_type(receipt.recipients[0].retryable, bool)
    assert_type(receipt.tls.chain, tuple[Certificate, ...])
    assert_type(receipt.tls.chain[0].names, tuple[str, ...])
    assert_type(receipt.tls.chain[0].not_after, datetime)
    assert_type(receipt.dsn_left_out, bool)
    entered.send(EmailMessage(), dsn=DSN(notify="never", required=False))
    entered.send_bytes(b"", mail_from="", recipients=[], dsn=DSN(notify={"success", "delay"}, ret="headers", envid="7"))
    Envelope("", [], b"", dsn=DSN(notify={"c@d.example": "never", "e@f.example": ["failure"]}, orcpt=True))
    DSN(notify={"always"})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    DSN(notify="success,failure")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    DSN(ret="hdrs")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    entered.send(EmailMessage(), dsn={"notify": "never"})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert_type(DSN.from_dict({}), DSN)
    entered.send(EmailMessage(), require_tls=True)
    entered.send_bytes(b"", mail_from="", recipients=[], require_tls=True, binary=True)
    Envelope("", [], b"", require_tls=True, binary=True, priority=3, hold=timedelta(hours=1))
    Envelope("", [], b"", hold=datetime.now(UTC), deliver_by=DeliverBy(timedelta(1), if_late="return", trace=True))
    assert_type(DeliverBy.from_dict({}), DeliverBy)
    entered.send(EmailMessage(), require_tls="yes")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Envelope("", [], b"", hold=60)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    DeliverBy(60)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    DeliverBy(timedelta(1), if_late="R")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    envelope = Envelope("a@b.example", ["c@d.example"], b"")
    for result in entered.send_many([EmailMessage(), envelope], partial="allow", deadline=5):
        assert_type(result, SendResult)
        assert_type((result.index, result.message_id, result.outcome), tuple[int, str | None, Outcome])
        assert_type(result.receipt, Receipt | None)
        assert_type(result.error, Exception | None)
        assert_type(result.retryable, bool)
    entered.send_many(["text"])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    report = entered.check()
    assert_type(report, ServerReport)
    assert_type(report.only_before_tls, frozenset[str])
    assert_type((report.login, report.login_error), tuple[bool | None, Exception | None])
    assert_type((report.tls, report.days_left), tuple[TLSInfo, int])
    assert_type((report.before_tls, report.after_tls), tuple[Mapping[str, str] | None, Mapping[str, str]])
    assert_type(report.limits, Mapping[str, int])
    assert_type(entered.stats(), Stats)
    assert_type((entered.stats().open, entered.stats().unknown), tuple[int, int])

try:
    assert_type(plain.close(abort=True), tuple[SendResult, ...])
    assert_type(plain.close(timeout=2.5), tuple[SendResult, ...])
except OutcomeUnknownError as unknown:
    assert_type(unknown.recipients, tuple[Recipient, ...])
except RecipientsRefusedError as refused:
    assert_type(refused.recipients, tuple[Recipient, ...])
except AddressError as wrong:
    assert_type(wrong.address, str | None)
except CertificateError as certificate:
    assert_type(certificate.reason, CertificateReason)
except DeadlineExceededError as late:
    assert_type(late.limit, str)
except SecureSMTPError as error:
    assert_type(error.outcome, Outcome)
    assert_type(error.stage, Stage)
    assert_type(error.reply, Reply | None)
    assert_type(error.retryable, bool)
    assert_type(error.hint, str | None)
    assert_type(error.receipt, Receipt | None)
    assert_type(error.url, str)
    assert_type(error.message_id, str | None)

bob = Address("Bob", "bob", "example.net")
composed = compose(
    sender=("Ada", "ada@example.org"),
    to=["bob@example.net", ("Bob", "bob@example.net"), bob],
    cc="bob@example.net",
    bcc=bob,
    reply_to=("Bob", "bob@example.net"),
    subject="Hello",
    text="Hi",
    html="<p>Hi",
    inline={"logo": "logo.png", "paper": ("paper.png", b"", "image/png")},
    attachments=[Path("a.pdf"), ("b.pdf", b""), ("c", b"", "text/csv")],
    calendar=b"",
    unsubscribe=("mailto:a@b.example", "https://b.example"),
    headers={"X-Order": "42"},
    automatic=True,
    max_size=25_000_000,
)
assert_type(composed, EmailMessage)
compose(
    sender="a@b.example", to="c@d.example", subject="", text="", attachments="a.pdf", unsubscribe="https://b.example"
)
compose(sender=7, subject="")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
assert issubclass(AddressWarning, UserWarning)

assert_type(validate_address("a@b.example"), str)
assert_type(validate_address(Address("Me", "me", "b.example")), str)
validate_address(None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
assert_type(Secret("x").reveal(), str)
with MailServer("starttls", login=("me", "secret")) as server:
    assert_type(server.messages, list[Received])
    assert_type((server.url, server.env(), server.login), tuple[str, dict[str, str], tuple[str, str] | None])
    assert_type((server.mailer(), server.async_mailer()), tuple[SecureMailer, AsyncSecureMailer])
    arrived = server.assert_sent(to="ada@example.org", count=1)
    assert_type((arrived.message, arrived.text, arrived.html), tuple[EmailMessage, str | None, str | None])
    assert_type(arrived.attachments, tuple[Attachment, ...])
    server.fault = "full"
    server.fault = "nonsense"  # type: ignore[assignment] # pyright: ignore[reportAttributeAccessIssue]
with RecordingMailer.from_env(timeout=1) as recorder:
    assert_type(recorder.wait_for(1), list[Received])
    program: SecureMailer = recorder
    assert_type(RecordingMailer(fault="greylists", refuse=["a@b.example"], deadline=5), RecordingMailer)
async_program: AsyncSecureMailer = AsyncRecordingMailer("localhost", fault="silent", max_connections=1)
assert_type(FAULTS["full"].outcome, Outcome)
assert_type(securesmtp.__all__, list[str])
