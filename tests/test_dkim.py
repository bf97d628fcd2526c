"""Messages that a mailer signs with DKIM, over each way to send them."""

from __future__ import annotations

import io
import json
import pickle
import re
import sys
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from conftest import Mailer, Serve
from dkim_verifiers import ed25519_pem, records, rsa_pem, signer, verify_with_dkimpy
from faces import InLoop
from leaks import shown
from memory_ledger import MemoryLedger
from scripted import honest
from securesmtp import (
    AsyncFailover,
    ConfigurationError,
    Envelope,
    Failover,
    MessageError,
    Outcome,
    QueuedMessage,
    Secret,
    SecureMailer,
)
from securesmtp.signing import DKIM, DKIM_HEADERS, DNSRecord
from securesmtp.testing import RecordingMailer

pytestmark = pytest.mark.faces("DKIM", sample=(3, 2))

Send = Callable[[SecureMailer, EmailMessage], object]
TO = ["you@example.org", "blind@example.org"]


def _many(mailer: SecureMailer, content: EmailMessage | Envelope, **options: Any) -> None:
    (result,) = mailer.send_many([content], **options)
    assert result.outcome is Outcome.ACCEPTED, result.error


def _many_as_it_is(mailer: SecureMailer, message: EmailMessage) -> None:
    _many(mailer, message)


def _queue(mailer: SecureMailer, message: EmailMessage) -> None:
    ledger = MemoryLedger()
    written = json.dumps(QueuedMessage.prepare(Envelope("me@example.org", TO, message, key="1"), ledger).as_dict())
    result = QueuedMessage.from_dict(json.loads(written)).send(mailer, ledger, deadline=20)
    assert result.outcome is Outcome.ACCEPTED, result.error


def _bytes(message: EmailMessage) -> bytes:
    with RecordingMailer() as mailer:
        _queue(mailer, message)
        return mailer.messages[0].content


WAYS: dict[str, Send] = {
    "send": lambda mailer, message: mailer.send(message),
    "send_many": _many_as_it_is,
    "ledger": lambda mailer, message: _many(
        mailer, Envelope("me@example.org", TO, message, key="1"), ledger=MemoryLedger()
    ),
    "bytes": lambda mailer, message: mailer.send_bytes(_bytes(message), mail_from="me@example.org", recipients=TO),
    "file": lambda mailer, message: mailer.send_bytes(
        io.BytesIO(_bytes(message)), mail_from="me@example.org", recipients=TO
    ),
    "queue": _queue,
}
EXTENSIONS = {"DATA": ("PIPELINING", "8BITMIME"), "BDAT": ("PIPELINING", "8BITMIME", "CHUNKING"), "7-bit": ("SIZE",)}


def _is_valid(content: bytes, *signers: DKIM) -> bool:
    results = verify_with_dkimpy(content, records(*signers))
    return len(results) > 0 and all(results)


@pytest.mark.parametrize("extensions", EXTENSIONS)
@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_send_signs(serve: Serve, mailer: Mailer, message: EmailMessage, way: str, extensions: str) -> None:
    """In 7-bit form also where 8BITMIME is offered, with Date and Message-ID, and with the size that is announced."""
    message.set_content("8-bit ü and more\n.dot\n" * 40, cte="8bit")
    server, dkim = serve(honest(extensions=EXTENSIONS[extensions])), signer(ed25519=True)
    WAYS[way](mailer(server, sign=dkim), message)
    (accepted,) = server.accepted
    assert accepted.content.isascii()
    assert accepted.content.count(b"DKIM-Signature:") == 2
    assert b"\r\nDate: " in accepted.content
    assert b"\r\nMessage-ID: " in accepted.content
    assert b"\nBcc:" not in accepted.content
    assert verify_with_dkimpy(accepted.content, records(dkim)) == [True, True]
    assert b"BODY=8BITMIME" not in server.secret
    if extensions == "7-bit":
        assert b" SIZE=%d\r\n" % len(accepted.content) in server.secret


def test_a_change_of_any_part_is_found(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """So the test above can fail."""
    server, dkim = serve(honest()), signer()
    mailer(server, sign=dkim).send(message)
    content = server.accepted[0].content
    assert _is_valid(content, dkim)
    for before, after in ((b"To: you", b"To: her"), (b"\r\n\r\n", b"\r\n\r\nx"), (b"From: ", b"From: x@y.z\r\nFrom: ")):
        assert before in content
        assert not _is_valid(content.replace(before, after, 1), dkim)


@pytest.mark.parametrize("pipelining", ["off", "message", "session"])
def test_many_messages_are_signed_each(serve: Serve, mailer: Mailer, pipelining: str) -> None:
    """Over one connection, also where they overlap."""
    server, dkim = serve(honest(), overlaps=pipelining == "session"), signer()
    messages = []
    for number in range(20):
        made = EmailMessage()
        made["From"], made["To"], made["Subject"] = "me@example.org", f"{number}@example.org", f"ü {number}"
        made.set_content(f"Grüße {number}\n" * number)
        messages.append(made)
    mine = mailer(server, sign=dkim, pipelining=pipelining, max_connections=1)
    assert all(result.outcome is Outcome.ACCEPTED for result in mine.send_many(messages))
    assert len(server.accepted) == 20
    assert all(_is_valid(each.content, dkim) for each in server.accepted)


def test_a_large_file_is_streamed(serve: Serve, mailer: Mailer, tmp_path: Path) -> None:
    """It is on the disk, not in memory, and the signature is before it."""
    path, dkim, server = tmp_path / "large.eml", signer(), serve(honest())
    path.write_bytes(b"From: me@example.org\nSubject: x\n\n" + b"line with  blanks \n" * 60_000)
    with path.open("rb") as file:
        receipt = mailer(server, sign=dkim).send_bytes(file, mail_from="me@example.org", recipients=TO)
    content = server.accepted[0].content
    assert receipt.size == len(content)
    assert content.startswith(b"DKIM-Signature: v=1; a=rsa-sha256;")
    assert _is_valid(content, dkim)


@pytest.mark.parametrize("way", ["send", "bytes", "send_many"])
def test_failover_signs_for_each_server(serve: Serve, mailer: Mailer, message: EmailMessage, way: str) -> None:
    """With the signer of the mailer that sends: each may sign other fields, or for another domain."""
    down = serve(honest(replies={"GREETING": b"421 busy\r\n"}))
    up, dkim = serve(honest()), signer("second.example.org", headers=("From",))
    first, second = mailer(down, sign=signer()), mailer(up, sign=dkim)
    if isinstance(first, SecureMailer):
        over: Any = Failover([first, second])
    else:
        mailers = [cast("Any", each).mailer for each in (first, second)]
        over = InLoop.around(cast("Any", first)._portal, AsyncFailover(mailers))
    WAYS[way](over, message)
    content = up.accepted[0].content
    assert content.count(b"DKIM-Signature") == 1
    assert re.search(rb"\r\n h=from:from;", content)
    assert _is_valid(content, dkim)


def test_failover_sends_unsigned_where_a_mailer_does_not_sign(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """One that signs nothing sends the message as it is."""
    down, up = serve(honest(replies={"GREETING": b"421 busy\r\n"})), serve(honest())
    first, second = mailer(down, sign=signer()), mailer(up)
    if isinstance(first, SecureMailer):
        over: Any = Failover([first, second])
    else:
        mailers = [cast("Any", each).mailer for each in (first, second)]
        over = InLoop.around(cast("Any", first)._portal, AsyncFailover(mailers))
    over.send(message)
    assert b"DKIM-Signature" not in up.accepted[0].content


def test_a_ledger_recognises_what_is_signed_anew(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Raw bytes too, whose signature is another one in each run."""
    ledger, server = MemoryLedger(), serve(honest())
    contents: list[EmailMessage | bytes] = [message, b"From: me@example.org\r\nSubject: y\r\n\r\nx\r\n"]
    for dkim in (signer(), signer("other.example.org"), None):
        envelopes = [Envelope("me@example.org", TO, each, key=str(key)) for key, each in enumerate(contents)]
        results = list(mailer(server, sign=dkim).send_many(envelopes, ledger=ledger))
        assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 2
    assert len(server.accepted) == 2


def test_the_recording_mailer_signs(message: EmailMessage) -> None:
    """So a program's tests see the field."""
    dkim = signer()
    with RecordingMailer(sign=dkim) as mailer:
        mailer.send(message)
        assert _is_valid(mailer.messages[0].content, dkim)


@pytest.mark.parametrize("content", [b"From: a@b.c\n\n\xc3\xa4\n", b"To: a@b.c\n\nx\n"], ids=["8-bit", "no From"])
def test_bytes_that_cannot_be_signed_are_not_sent(serve: Serve, mailer: Mailer, content: bytes) -> None:
    """Before a connection is opened for them by `SecureMailer`, and without a command for them by all."""
    server, dkim = serve(honest()), signer()
    mine = mailer(server, sign=dkim)
    with pytest.raises(MessageError, match=r"non-ASCII|no From") as caught:
        mine.send_bytes(content, mail_from="me@example.org", recipients=TO)
    assert caught.value.outcome is Outcome.NOT_SENT
    (result,) = mine.send_many([Envelope("me@example.org", TO, content)])
    assert isinstance(result.error, MessageError)
    assert b"MAIL FROM" not in server.secret


def test_an_attached_message_that_is_eight_bit_is_refused(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """It may not be encoded (RFC 2046 §5.2.1), and 8-bit mail is not signed."""
    inner = EmailMessage()
    inner.set_content("ü", cte="8bit")
    message.add_attachment(inner)
    with pytest.raises(MessageError, match="non-ASCII") as caught:
        mailer(serve(honest()), sign=signer()).send(message)
    assert "octet-stream" in str(caught.value.hint)


def test_a_header_in_utf8_is_signed_as_it_is(serve: Serve, mailer: Mailer) -> None:
    """RFC 8616 §5: with SMTPUTF8, and a body that is ASCII."""
    message = EmailMessage()
    message["From"], message["To"] = "me@example.org", "jürgen@example.org"
    message.set_content("Grüße, und noch ein Satz", cte="8bit")
    server, dkim = serve(honest(extensions=("8BITMIME", "SMTPUTF8"))), signer()
    mailer(server, sign=dkim).send(message)
    content = server.accepted[0].content
    assert "To: jürgen@example.org".encode() in content
    assert content.partition(b"\r\n\r\n")[2].isascii()
    assert _is_valid(content, dkim)


def test_a_signed_message_is_never_written_again(serve: Serve, mailer: Mailer) -> None:
    """Not even for a server that offers SMTPUTF8 without 8BITMIME, against RFC 6531 §3.1."""
    message = EmailMessage()
    message["From"], message["To"] = "me@example.org", "jürgen@example.org"
    server = serve(honest(extensions=("SMTPUTF8",)))
    with pytest.raises(MessageError, match="does not offer 8BITMIME"):
        mailer(server, sign=signer()).send(message)


def test_fields_that_a_provider_replaces_can_be_left_out() -> None:
    """X6: and others be added."""
    dkim = signer(headers=(*(name for name in DKIM_HEADERS if name not in {"Date", "Message-ID"}), "X-Mine"))
    message = b"From: a@example.org\r\nDate: now\r\nMessage-ID: <a@b>\r\nX-Mine: 1\r\n\r\nx\r\n"
    signed = dkim.sign(message) + message
    assert _is_valid(signed, dkim)
    assert _is_valid(signed.replace(b"<a@b>", b"<c@d>").replace(b"Date: now", b"Date: later"), dkim)
    assert not _is_valid(signed.replace(b"X-Mine: 1", b"X-Mine: 2"), dkim)


def test_bytes_are_signed_as_they_are_sent() -> None:
    """Line ends are CRLF in what is signed, whatever they are in the bytes; a file gives the same."""
    dkim, message = signer(), b"From: a@example.org\nSubject: x\n\nText \n\n"
    for data in (message, bytearray(message), memoryview(message), io.BytesIO(message)):
        assert _is_valid(dkim.sign(cast("bytes", data)) + message.replace(b"\n", b"\r\n"), dkim)
    with pytest.raises(MessageError, match="line 3 has a NUL"):
        dkim.sign(b"From: a\n\n\0")


def test_the_time_is_that_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """X10: also where the clock of the machine shows another time; and there is no x=."""
    message, before = b"From: a@example.org\r\n\r\n", int(time.time())
    try:
        for zone in ("Pacific/Kiritimati", "America/Los_Angeles"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            (found,) = re.findall(rb" t=(\d+);", signer().sign(message))
            assert before <= int(found) <= time.time()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert b" x=" not in signer().sign(message)
    assert b" l=" not in signer().sign(message)


def test_one_signature_by_default() -> None:
    """X5: Ed25519 is a second one, and off."""
    message = b"From: a@example.org\r\n\r\n"
    assert re.findall(rb"a=([\w-]+)", signer().sign(message)) == [b"rsa-sha256"]
    assert re.findall(rb"a=([\w-]+);|s=(\w+);", signer(ed25519=True).sign(message)) == [
        (b"rsa-sha256", b""), (b"", b"mail2027"), (b"ed25519-sha256", b""), (b"", b"ed2027"),
    ]  # fmt: skip


def test_a_domain_is_written_in_ascii() -> None:
    """In A-labels and lower case."""
    dkim = signer("Bücher.EXAMPLE")
    assert dkim.domain == "xn--bcher-kva.example"
    assert dkim.dns_records()[0].name == "mail2027._domainkey.xn--bcher-kva.example"
    message = b"From: a@example.org\r\n\r\n"
    assert _is_valid(dkim.sign(message) + message, dkim)


@pytest.mark.parametrize("bits", [2048, pytest.param(4096, marks=pytest.mark.exhaustive)])
def test_a_record_has_strings_of_255(bits: int) -> None:
    """X11: in a zone file; the form of a provider has one text without quotes."""
    (record,) = DKIM("example.org", "m", rsa_pem(bits)).dns_records()
    strings = re.findall(r'"([^"]*)"', record.zone)
    assert len(strings) == {2048: 2, 4096: 4}[bits] - (bits == 4096 and len(record.value) <= 765)
    assert max(map(len, strings)) <= 255
    assert "".join(strings) == record.value
    assert re.fullmatch(r"v=DKIM1; k=rsa; p=[A-Za-z0-9+/]+=*", record.value)
    assert record.zone.startswith("m._domainkey.example.org. IN TXT (\n")


def test_a_record_of_ed25519_has_the_raw_key() -> None:
    """X11: 32 bytes (RFC 8463 §4), on one line."""
    _, record = signer(ed25519=True).dns_records()
    assert record == DNSRecord("ed2027._domainkey.example.org", record.value)
    assert re.fullmatch(r"v=DKIM1; k=ed25519; p=[A-Za-z0-9+/]{43}=", record.value)
    assert record.zone == f'ed2027._domainkey.example.org. IN TXT "{record.value}"'


def test_a_key_comes_from_text_a_file_or_a_callable(tmp_path: Path) -> None:
    """A callable is called once, now."""
    path, calls = tmp_path / "key.pem", list[int]()
    path.write_text(rsa_pem())

    def fetch() -> Secret:
        calls.append(1)
        return Secret(rsa_pem())

    sources = [rsa_pem(), rsa_pem().encode(), Secret(rsa_pem()), path, fetch, rsa_pem, lambda: path]
    found = {DKIM("example.org", "m", cast("Any", source)).dns_records() for source in sources}
    assert len(found) == 1
    assert calls == [1]


def _pem(key: Any, encryption: Any = None) -> str:
    found: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return found.decode()


async def _fetch_later() -> str:
    return rsa_pem()


_WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no key": ({"key": None}, "the key is not the text of a private key in PEM", "dkim-key"),
    "a path as str": ({"key": "/etc/dkim/key.pem"}, "not the text of a private key", "pathlib.Path"),
    "not PEM": ({"key": "x\ny\n"}, "not the text of a private key", "-----BEGIN PRIVATE KEY-----"),
    "broken": ({"key": lambda: rsa_pem()[:900]}, "not a private key that can be read", "dkim-key"),
    "broken inside": ({"key": lambda: rsa_pem().replace("A", "B")}, "that can be read", "dkim-key"),
    "encrypted": (
        {"key": lambda: _pem(rsa.generate_private_key(65537, 2048), BestAvailableEncryption(b"x"))},
        "the key is encrypted",
        "openssl pkey",
    ),
    "short": ({"key": lambda: _pem(rsa.generate_private_key(65537, 1024))}, "1024 bits", "2048"),
    "another kind": ({"key": lambda: _pem(ec.generate_private_key(ec.SECP256R1()))}, "neither an RSA", "dkim-key"),
    "Ed25519 alone": ({"key": ed25519_pem}, "is an Ed25519 key", "ed25519_key"),
    "a callable of a callable": ({"key": lambda: rsa_pem}, "returned another callable", ""),
    "a coroutine function": ({"key": _fetch_later}, "is a coroutine function", "pass the key"),
    "a key as the headers": ({"headers": rsa_pem()}, "headers is not a list", ""),
    "a key among the headers": ({"headers": [rsa_pem()]}, "headers is not a list", ""),
    "a NUL in the name of a file": ({"key": Path("a\0b")}, "cannot be read: there is a NUL in its name", ""),
    "a file that is not there": ({"key": Path("nothing-here.pem")}, "cannot be read: No such file", ""),
    "no domain": ({"domain": "localhost"}, "domain is 'localhost'", "example.org"),
    "an address": ({"domain": "me@example.org"}, "domain is", "example.org"),
    "another type": ({"domain": 1}, "domain is 1", "example.org"),
    "an injection": ({"domain": "example.org;\r\nX: y"}, "domain is", "example.org"),
    "a long label": ({"domain": "x" * 64 + ".org"}, "domain is", "example.org"),
    "no selector": ({"selector": ""}, "selector is ''", "_domainkey"),
    "a key as selector": ({"selector": rsa_pem}, "selector is", "_domainkey"),
    "a wrong selector": ({"selector": "a;b"}, "selector is", "_domainkey"),
    "a long selector": ({"selector": ".".join(["x" * 50] * 5)}, "selector is", "_domainkey"),
    "headers of one name": ({"headers": "From"}, "headers is not a list", "DKIM_HEADERS"),
    "no headers": ({"headers": []}, "headers is not a list", "DKIM_HEADERS"),
    "headers of no name": ({"headers": ["From", "a b"]}, "headers is not a list", "DKIM_HEADERS"),
    "headers of a tag": ({"headers": ["From;"]}, "headers is not a list", "DKIM_HEADERS"),
    "no headers at all": ({"headers": 1}, "headers is not a list", "DKIM_HEADERS"),
    "the signature": ({"headers": ["dkim-SIGNATURE"]}, "names DKIM-Signature", ""),
    "no second selector": ({"ed25519_key": ed25519_pem}, "belong together", ""),
    "no second key": ({"ed25519_selector": "e"}, "belong together", ""),
    "RSA twice": ({"ed25519_selector": "e", "ed25519_key": rsa_pem}, "not an Ed25519 key", ""),
    "one selector": ({"ed25519_selector": "m", "ed25519_key": ed25519_pem}, "both keys have the selector 'm'", ""),
}


@pytest.mark.parametrize("name", _WRONG)
def test_a_wrong_argument_is_refused(name: str) -> None:
    """With a hint, and without the key in what it shows (invariant 9)."""
    options, text, hint = _WRONG[name]
    arguments = {"domain": "example.org", "selector": "m", "key": rsa_pem(), **options}
    with pytest.raises(ConfigurationError, match=re.escape(text)) as caught:
        DKIM(**arguments)
    assert hint in str(caught.value.hint)
    key = arguments["key"]() if name == "broken inside" else rsa_pem()
    _assert_no_key(shown(caught.value), key, ed25519_pem())


def _assert_no_key(text: str, *keys: str) -> None:
    for key in keys:
        lines = [line for line in key.splitlines() if not line.startswith("-")]
        assert not [line for line in lines if line[8:40] in text]


def test_a_file_that_every_user_can_write_is_refused(tmp_path: Path) -> None:
    """Somebody else may sign with it."""
    path = tmp_path / "key.pem"
    path.write_text(rsa_pem())
    path.chmod(0o602)
    with pytest.raises(ConfigurationError, match="can be written by every user"):
        DKIM("example.org", "m", path)


def test_without_its_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the key is read."""
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ConfigurationError, match="needs the package cryptography") as caught:
        DKIM("example.org", "m", "-----BEGIN ")
    assert "securesmtp[sign]" in str(caught.value.hint)


def test_it_shows_no_key_and_cannot_be_copied() -> None:
    """Neither it nor a mailer that has it."""
    dkim = signer(ed25519=True)
    with RecordingMailer(sign=dkim) as mailer:
        texts = [repr(dkim), str(dkim), repr(dkim._keys), repr(mailer), repr(mailer._settings), repr(vars(mailer))]
    _assert_no_key("".join(texts), rsa_pem(), ed25519_pem())
    assert repr(dkim) == "<DKIM of example.org with the selector mail2027>"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(dkim)


def test_an_error_of_a_signed_message_shows_no_key(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Nor do the frames of its traceback."""
    server = serve(honest(replies={"CONTENT": b"554 no\r\n"}))
    with pytest.raises(Exception, match="554") as caught:
        mailer(server, sign=signer()).send(message)
    _assert_no_key(shown(caught.value), rsa_pem())


@pytest.mark.parametrize("sign", ["example.org", rsa_pem, True])
def test_only_a_dkim_signs(make_mailer: Mailer, sign: object) -> None:
    """Every mailer says so."""
    with pytest.raises(ConfigurationError, match=r"sign is a .*, not a DKIM"):
        make_mailer("localhost", sign=sign)


def _from_url(_: Mailer, **options: Any) -> SecureMailer:
    return SecureMailer.from_url("smtps://localhost", **options)


def _of_arguments(make_mailer: Mailer, **options: Any) -> SecureMailer:
    return make_mailer("localhost", **options)


@pytest.mark.parametrize("make", [_of_arguments, _from_url])
@pytest.mark.parametrize("form", [str, str.encode], ids=["str", "bytes"])
def test_a_key_in_the_place_of_what_signs_is_not_shown(
    make_mailer: Mailer, make: Callable[..., SecureMailer], form: Callable[[str], object]
) -> None:
    """``sign=key`` is a likely mistake."""
    with pytest.raises(ConfigurationError, match=r"sign is \(not shown: it may be a key\), not a DKIM") as caught:
        make(make_mailer, sign=form(rsa_pem()))
    _assert_no_key(shown(caught.value), rsa_pem())


@pytest.mark.parametrize("data", ["From: a@example.org", EmailMessage(), None], ids=["str", "EmailMessage", "None"])
def test_only_bytes_are_signed(data: Any) -> None:
    """As for `send_bytes`."""
    with pytest.raises(ConfigurationError, match=r"data is a \w+, neither bytes nor a file"):
        signer().sign(data)
