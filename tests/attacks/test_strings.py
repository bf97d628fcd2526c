"""Every string that a caller passes, with everything in it that could end a line or add a parameter."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from contextlib import suppress
from email.message import EmailMessage
from itertools import product

import pytest

from conftest import Mailer, Serve
from securesmtp import AddressError, ConfigurationError, MessageError, Password, SecureMailer, TLSPolicy

pytestmark = pytest.mark.faces("attacks", sample=(13, 12))

RAW = b"Subject: x\r\n\r\nx\r\n"
CONTROLS = [
    chr(code) for code in (*range(0x20), 0x7F, 0x80, 0x85, 0x9F, 0x2028, 0x2029, 0x202E, 0x200B, 0xFEFF, 0xD800)
]
# Characters whose low byte is CR or LF, for encoders that keep only that byte (CVE-2025-7962).
NARROW = ["\u560d", "\u560a", "\u010d", "\u010a", "\uff0d\uff0a"]
SYNTAX = {
    "route": "@evil.example:a@b.example",
    "group": "G: a@b.example;",
    "display name": "A <a@b.example>",
    "comment": "a(c)@b.example",
    "comment in front": "(c)a@b.example",
    "list": "a@b.example, c@d.example",
    "brackets": "<a@b.example>",
    "parameter": "a@b.example> SIZE=1",
    "AUTH parameter": "a@b.example> AUTH=<x",
    "NOTIFY": "a@b.example> NOTIFY=NEVER ORCPT=<",
    "second path": 'x@evil.example> <"y"@b.example',
    "quoted path": '"to@evil.example> <x"@b.example',
    "unquoted space": "a b@b.example",
    "two at signs": "a@b@c.example",
    "quotes in the middle": 'a"b"@b.example',
    "open quote": '"a@b.example',
    "no local part": "@b.example",
    "no domain": "a@",
    "no at": "a.b.example",
    "empty": "",
    "dot first": ".a@b.example",
    "two dots": "a..b@b.example",
    "dot at the end of the domain": "a@b.example.",
    "underscore in the domain": "a@b_c.example",
    "hyphen first": "a@-b.example",
    "number": "a@[300.0.0.1]",
    "zone": "a@[IPv6:fe80::1%eth0]",
    "long local part": "a" * 245 + "@b.example",
    "long": "a@" + "b." * 130 + "example",
    "very long": "a@" + "b" * 1_000_000,
    "full-width": "a\uff20b.example",
}

Use = Callable[[str], object]
NAMES: dict[str, Callable[[Mailer, str], object]] = {
    "host": lambda make, text: make(text),
    "server_hostname": lambda make, text: make("localhost", policy=TLSPolicy(server_hostname=text)),
    "local_hostname": lambda make, text: make("localhost", local_hostname=text),
    "source_address": lambda make, text: make("localhost", source_address=(text, 0)),
}
BAD_NAMES = [
    "a b",
    "a XCLIENT ADDR=1.2.3.4",
    "a/b",
    "a:25",
    "[a]",
    "a..b",
    "-a",
    "a\\b",
    "a@b",
    "<a>",
    "a,b",
    "a" * 254,
]
# The resolver reads these as 127.0.0.1, but OpenSSL as another address or as a name; and addresses with zones.
BAD_ADDRESSES = [
    "0177.0.0.1",
    "127.1",
    "127.0.0.01",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0X7F.0.0.1",
    "127.0.0.1.",
    "127.0.0.0x1",
    "a.0x",
    "[127.0.0.1]",
    "[::1]",
    "fe80::1%eth0",
    "::1%1",
]


@pytest.mark.parametrize("address", BAD_ADDRESSES)
@pytest.mark.parametrize("name", ["host", "server_hostname", "source_address"])
def test_an_ip_address_is_in_canonical_form_or_refused(make_mailer: Mailer, name: str, address: str) -> None:
    """The connection and the check of the certificate must use the same address (WHATWG URL; inet_aton)."""
    with pytest.raises(ConfigurationError) as caught:
        NAMES[name](make_mailer, address)
    assert caught.value.hint


@pytest.mark.parametrize("name", NAMES)
def test_a_malformed_name_is_refused_when_the_mailer_is_created(make_mailer: Mailer, name: str) -> None:
    """So before any network use (CMD-01, CMD-05, ID-05)."""
    for bad in [*BAD_NAMES, *(form.format(c) for c in CONTROLS for form in ("a{}b.example", "b.example{}"))]:
        # EHLO takes an address literal, and an empty source address means any address of this machine.
        if (name, bad) in {("local_hostname", "[127.0.0.1]"), ("source_address", "")}:
            continue
        with pytest.raises(ConfigurationError):
            NAMES[name](make_mailer, bad)


def _senders(mailer: SecureMailer) -> dict[str, Use]:
    """Return functions that send one message with the given text at that place."""

    def header(field: str) -> Use:
        def use(text: str) -> object:
            mail = EmailMessage()
            mail["From"], mail["To"] = "a@b.example", "c@d.example"
            del mail[field]
            try:
                mail[field] = text
            except (ValueError, IndexError, AttributeError) as error:
                # The email package refused it first.
                raise MessageError(str(error)) from error
            return mailer.send(mail)

        return use

    return {
        "mail_from": lambda text: mailer.send_bytes(RAW, mail_from=text, recipients=["c@d.example"]),
        "recipients": lambda text: mailer.send_bytes(RAW, mail_from="a@b.example", recipients=["x@y.example", text]),
        "From": header("From"),
        "Sender": header("Sender"),
    }


# Without mail_from="", which is the null reverse-path.
@pytest.mark.parametrize(
    ("where", "bad"),
    [pair for pair in product(["mail_from", "recipients"], SYNTAX) if pair != ("mail_from", "empty")],
)
def test_anything_but_one_bare_mailbox_is_refused(serve: Serve, mailer: Mailer, where: str, bad: str) -> None:
    """Addresses are checked exactly as given, never repaired or parsed (CMD-02, CMD-03, CVE-2025-59937)."""
    server = serve()
    with pytest.raises(AddressError) as caught:
        _senders(mailer(server))[where](SYNTAX[bad])
    assert len(str(caught.value)) < 500
    assert server.connections == []


@pytest.mark.parametrize("where", ["mail_from", "recipients"])
@pytest.mark.parametrize(
    "form", ["a{}b@c.example", "a@b{}c.example", "{}a@b.example", "a@b.example{}", '"a{}"@b.example']
)
def test_no_control_character_reaches_a_command(serve: Serve, mailer: Mailer, where: str, form: str) -> None:
    """All of C0, DEL, the line ends of C1, and marks that reverse text (CMD-01)."""
    server = serve()
    use = _senders(mailer(server))[where]
    for control in CONTROLS:
        with pytest.raises(AddressError):
            use(form.format(control))
    assert server.connections == []


@pytest.mark.parametrize("where", ["From", "Sender"])
def test_a_malformed_address_in_a_header_is_refused_or_becomes_one_mailbox(
    serve: Serve, mailer: Mailer, where: str
) -> None:
    """What the email package parsed is checked again; the audit of the wire sees one path per command (CMD-02)."""
    server = serve()
    mine = mailer(server)
    use, sent = _senders(mine)[where], 0
    for bad in (*SYNTAX.values(), *(f"a{control}b@c.example" for control in CONTROLS)):
        with suppress(ConfigurationError):
            use(bad)
            sent += 1
    mine.close()
    server.joined()
    assert len(server.accepted) == sent
    for message in server.accepted:
        assert message.mail_from.count(b"<") == message.mail_from.count(b">") == 1
        assert b"evil" not in message.mail_from


@pytest.mark.parametrize("narrow", NARROW, ids=[unicodedata.name(text[0], "?") for text in NARROW])
def test_characters_are_never_cut_to_their_low_byte(serve: Serve, mailer: Mailer, narrow: str) -> None:
    """Not in an address, not in a header, not in a body (CVE-2025-7962)."""
    server = serve()
    mine = mailer(server)
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@b.example", "c@d.example", f"x{narrow}Bcc: evil@x.example"
    mail.set_content(f"x{narrow}.{narrow}MAIL FROM:<evil@x.example>\n")
    mine.send(mail)
    with pytest.raises((AddressError, MessageError)):
        mine.send(mail, recipients=[f"a{narrow}RSET@b.example"])
    (accepted,) = server.accepted
    assert b"\nBcc" not in accepted.content
    assert accepted.content.count(b"\r\n.\r\n") == 0


@pytest.mark.parametrize("text", ["a\0b", "", "a\ud800"], ids=["NUL", "empty", "surrogate"])
def test_a_malformed_login_is_refused(text: str) -> None:
    """Before any network use, and the error does not show it (AUTH-07)."""
    for arguments in ((text, "secret"), ("me", text)):
        with pytest.raises(ConfigurationError) as caught:
            Password(*arguments)
        assert not text or text not in str(caught.value)


# Sequences that some servers take for the end of a message (SEC Consult 2023, VU#302671).
SEQUENCES = {
    "LF.LF": b"\n.\n", "CR.CR": b"\r.\r", "CRLF.CR": b"\r\n.\r", "CR.LF": b"\r.\n", "LF.CRLF": b"\n.\r\n",
    "CR.CRLF": b"\r.\r\n", "CRLF.LF": b"\r\n.\n", "CRLF NUL.CRLF": b"\r\n\0.\r\n", "CRLF.NUL CRLF": b"\r\n.\0\r\n",
    "CRLF.CRLF": b"\r\n.\r\n",
}  # fmt: skip
SMUGGLED = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<evil@y.example>\r\nDATA\r\n"


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 5], ids=lambda offset: f"block end {offset}")
@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES)
@pytest.mark.parametrize("form", ["bytes", "text"])
def test_smuggled_commands_stay_inside_the_message(
    serve: Serve, mailer: Mailer, form: str, sequence: bytes, offset: int
) -> None:
    """Each sequence at each position around the end of a block is refused or stays content (MSG-01, MSG-02)."""
    server = serve()
    mine = mailer(server)
    head = b"From: a@b.example\r\nTo: c@d.example\r\n\r\n"
    # Blocks have 65536 bytes; lines of 64 bytes fill the first one.
    fill = (b"x" * 62 + b"\r\n") * 1100
    body = fill[: 65536 - len(head) - offset]
    body = body[: body.rfind(b"\n") + 1] + b"y" * (len(body) - body.rfind(b"\n") - 1) + sequence + SMUGGLED
    try:
        if form == "bytes":
            mine.send_bytes(head + body, mail_from="a@b.example", recipients=["c@d.example"])
        else:
            mail = EmailMessage()
            mail["From"], mail["To"] = "a@b.example", "c@d.example"
            mail.set_content(body.decode("latin-1"), cte="7bit")
            mine.send(mail)
    except MessageError:
        mine.close()
        server.joined()
        assert server.accepted == []
        return
    mine.close()
    server.joined()
    # The audit in conftest.py checks for one MAIL, one content, and no bare CR, LF or NUL.
    (accepted,) = server.accepted
    assert b"evil@x" in accepted.content
