"""A message becomes an envelope and the bytes to send."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Callable
from dataclasses import replace
from email.header import Header
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage, Message, MIMEPart
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import EmailPolicy, Policy
from typing import cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.building import from_message
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.content import Content
from securesmtp._protocol.generator import _PLACEHOLDER
from securesmtp._protocol.header_fields import CheckedPolicy
from securesmtp._protocol.message import Submission, envelope_recipients
from securesmtp.errors import AddressError, ConfigurationError, MessageError, SecureSMTPError

DATE = "Mon, 01 Jan 2024 00:00:00 +0000"
IDN = "bücher.example"
ASCII = "xn--bcher-kva.example"


def prepare(message: Message, mail_from: str | None = None, recipients: list[str] | None = None) -> Submission:
    """Return the submission of *message*."""
    return from_message(message, mail_from, recipients, date=lambda: DATE, token=lambda: "token")


def mail(**fields: str) -> EmailMessage:
    """Return a message with these *fields*, From and To, and a short text."""
    message = EmailMessage()
    for name, value in ({"From": "me@a.example", "To": "you@b.example"} | fields).items():
        message[name.replace("_", "-")] = value
    message.set_content("text\n")
    return message


def parse(data: bytes) -> EmailMessage:
    """Return the message that is parsed from *data*."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def wire(submission: Submission) -> bytes:
    """Return the bytes that are sent after 354."""
    return b"".join(submission.content.blocks())


def receive(submission: Submission) -> EmailMessage:
    """Return the message as the receiver parses it."""
    return parse(wire(submission).removesuffix(b".\r\n"))


def recipients(message: EmailMessage) -> list[str]:
    """Return the forward-paths of *message*."""
    return [mailbox.address for mailbox in prepare(message).recipients]


@pytest.mark.parametrize(
    ("to", "addresses"),
    [
        ("Team: a@x.example, B <b@x.example>;", ["a@x.example", "b@x.example"]),
        ("Nobody:;, c@x.example", ["c@x.example"]),
        ("One: a@x.example;, Two: a@x.example, d@x.example;", ["a@x.example", "d@x.example"]),
        ('"Last, First" <a@x.example>', ["a@x.example"]),
    ],
)
def test_the_members_of_groups_are_recipients(to: str, addresses: list[str]) -> None:
    """Each member is a recipient once, in order; an empty group has none; the header keeps the groups (MSG-04)."""
    message = mail(To=to)
    assert recipients(message) == addresses
    assert receive(prepare(message))["To"].groups == message["To"].groups


@pytest.mark.parametrize(
    "field",
    ["From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc"],
)
def test_a_non_ascii_domain_is_written_in_ascii(field: str) -> None:
    """In every address field, with a display name. The header is then ASCII, and the caller's message unchanged."""
    message = mail()
    del message[field]
    message[field] = f"Jörg <me@{IDN}>" if field.endswith(("From", "Sender")) else f"Jörg <me@{IDN}>, b@plain.example"
    before = message.as_bytes(policy=email.policy.SMTPUTF8)
    submission = prepare(message, "me@a.example", ["b@b.example"])
    assert wire(submission).isascii()
    assert not submission.needs_smtputf8
    first = receive(submission)[field].addresses[0]
    assert (first.display_name, first.addr_spec) == ("Jörg", f"me@{ASCII}")
    assert message.as_bytes(policy=email.policy.SMTPUTF8) == before


def test_a_group_with_a_non_ascii_domain_stays_a_group() -> None:
    """Its name, its members and other addresses are kept, in the same order."""
    to = f"Büro: Jörg <j@{IDN}>, b@plain.example;, C <c@c.example>, Nobody:;"
    submission = prepare(mail(To=to))
    assert wire(submission).isascii()
    groups = receive(submission)["To"].groups
    assert [(group.display_name, [a.addr_spec for a in group.addresses]) for group in groups] == [
        ("Büro", [f"j@{ASCII}", "b@plain.example"]),
        (None, ["c@c.example"]),
        ("Nobody", []),
    ]
    assert [mailbox.domain for mailbox in submission.recipients] == [ASCII, "plain.example", "c.example"]


def test_repeated_address_fields_become_one() -> None:
    """A parsed message may have To twice; the addresses in both are kept and are recipients."""
    data = f"From: a@a.example\nTo: b@{IDN}\nTo: c@c.example\n\nx\n"
    submission = prepare(email.message_from_string(data, policy=email.policy.default))
    assert [a.addr_spec for a in receive(submission)["To"].addresses] == [f"b@{ASCII}", "c@c.example"]
    assert receive(submission).get_all("To", []) == [f"b@{ASCII}, c@c.example"]
    assert len(submission.recipients) == 2


@pytest.mark.parametrize("domain", ["☃.example", "-ü.example"])
def test_an_invalid_domain_in_the_header_is_refused(domain: str) -> None:
    """Even in a field that is not part of the envelope."""
    message = mail(Reply_To=f"a@{domain}")
    with pytest.raises(MessageError, match="domain"):
        prepare(message)


@pytest.mark.parametrize("prefix", ["", "Resent-"])
def test_to_cc_and_bcc_are_recipients_and_bcc_is_removed(prefix: str) -> None:
    """The fields count in this order; if there are Resent fields, only those count (RFC 5322 §3.6.6)."""
    fields = {"To": "t@x.example", "Cc": "c@x.example", "Bcc": "b@x.example"}
    message = mail(From="f@x.example", **({"Resent_From": "r@x.example"} if prefix else {}))
    for name, value in fields.items():
        del message[f"{prefix}{name}"]
        message[f"{prefix}{name}"] = value
    assert recipients(message) == list(fields.values())
    assert b"bcc" not in wire(prepare(message)).lower()


def test_a_non_ascii_local_part_needs_smtputf8() -> None:
    """In the envelope or only in the header, which is then UTF-8."""
    for fields in ({"To": "jörg@b.example"}, {"Reply_To": "jörg@b.example"}):
        submission = prepare(mail(**fields))
        assert submission.needs_smtputf8
        assert submission.content.utf8_header
        assert "jörg@b.example".encode() in wire(submission)


def test_date_and_message_id_are_added_if_missing() -> None:
    """Existing ones stay, Bcc is removed, and the caller's message is not changed."""
    message = mail(Bcc="secret@x.example")
    submission = prepare(message)
    assert submission.content.message_id == "<token@a.example>"
    assert b"\r\nMessage-ID: <token@a.example>\r\n" in wire(submission)
    assert f"\r\nDate: {DATE}\r\n".encode() in wire(submission)
    assert b"secret" not in wire(submission)
    assert "Date" not in message
    assert message["Bcc"] == "secret@x.example"
    other = prepare(mail(Message_ID="<own@x.example>", Date="Tue, 02 Jan 2024 00:00:00 +0000"))
    assert other.content.message_id == "<own@x.example>"
    assert wire(other).count(b"Date:") == wire(other).lower().count(b"message-id:") == 1


def test_parts_of_the_old_api_are_sent() -> None:
    """A compat32 part is copied; its fields, even raw non-ASCII ones, are sent as ASCII."""
    message = mail()
    message.make_mixed()
    part = MIMEText("Grüße", "plain", "utf-8")
    cast("Message[object, object]", part)["Content-Description"] = Header("Grüße", "utf-8")
    message.attach(cast("EmailMessage", part))
    raw = email.message_from_bytes("Content-Type: text/plain\nX-Raw: grün\n\nx\n".encode())
    message.attach(cast("EmailMessage", raw))
    outside = repr(message.get_payload()), part.items()
    submission = prepare(message)
    assert wire(submission).isascii()
    assert (repr(message.get_payload()), part.items()) == outside
    assert [str(p["Content-Description"]) for p in receive(submission).walk()].count("Grüße") == 1


def test_an_ascii_header_object_in_an_old_part_is_sent() -> None:
    """As a non-ASCII email.header.Header is."""
    message = mail()
    message.make_mixed()
    part = MIMEText("text")
    cast("Message[object, object]", part)["Content-Description"] = Header("plain")
    message.attach(cast("EmailMessage", part))
    assert b"Content-Description: plain" in wire(prepare(message))


def test_raw_bytes_of_a_parsed_header_are_encoded() -> None:
    """8-bit fields, in UTF-8 or in another charset, are sent as encoded-words."""
    data = "From: Jörg <a@a.example>\nTo: b@b.example\nSubject: Grüße\n".encode() + b"X-Latin: gr\xfcn\n\nx\n"
    submission = prepare(parse(data))
    assert wire(submission).isascii()
    assert not submission.needs_smtputf8
    assert receive(submission)["Subject"] == "Grüße"


def broken(kind: str) -> EmailMessage:
    """Return a message that the email package cannot write."""
    message = mail()
    if kind == "payload":
        message.set_payload(cast("str", object()))
    elif kind == "charset":
        message.set_payload("ü")
        message.replace_header("Content-Type", 'text/plain; charset="no-such-charset"')
    elif kind == "nothing":
        message.make_mixed()
        message.set_payload([mail(), cast("EmailMessage", None)])
    else:
        part = message
        for _ in range(2000):
            outer = EmailMessage()
            outer.set_raw("Content-Type", "multipart/mixed")
            outer.set_payload([part])
            part = outer
        message = mail()
        message.make_mixed()
        message.attach(part)
    return message


@pytest.mark.parametrize("kind", ["payload", "charset"])
def test_a_message_that_cannot_be_serialised_is_refused(kind: str) -> None:
    """The email package raises various errors; the caller gets one, without a cause that may show the message."""
    with pytest.raises(MessageError, match=r"cannot be read or serialised \(\w+Error in") as caught:
        prepare(broken(kind))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize("kind", ["nothing", "deep"])
def test_a_message_that_cannot_be_copied_is_refused(kind: str) -> None:
    """A part that is None, and endless nesting, are message errors as well."""
    with pytest.raises(MessageError):
        prepare(broken(kind))


@pytest.mark.parametrize(
    "field", ["Subject: a\r\nBcc: x@x.example", "Subject: a\nX: b", "Subject: a\rb", "Sub ject: x"]
)
def test_a_raw_field_that_would_be_two_is_refused(field: str) -> None:
    """The email package accepts line ends in a raw field."""
    message = mail()
    name, _, value = field.partition(": ")
    message.set_raw(name, value)
    with pytest.raises(MessageError):
        prepare(message)


@pytest.mark.parametrize(
    ("message", "hint"),
    [("From: x", "send_bytes"), (b"x", "send_bytes"), (None, "set_content"), ([], "EmailMessage"), (Message, "Email")],
    ids=["str", "bytes", "None", "list", "class"],
)
def test_an_object_of_another_type_is_refused(message: Message, hint: str) -> None:
    """The error names the type, the hint what to pass."""
    with pytest.raises(MessageError, match=type(message).__name__) as caught:
        prepare(message)
    assert hint in (caught.value.hint or "")


OLD = email.policy.compat32


def old(message: Message, **fields: object) -> Message:
    """Return *message* with these *fields*, From and To."""
    for name, value in ({"From": "me@a.example", "To": "you@b.example"} | fields).items():
        message[name.replace("_", "-")] = value  # type: ignore[assignment]  # what programs set
    return message


@pytest.mark.parametrize(
    "make",
    [Message, lambda: MIMEText("x"), MIMEMultipart, lambda: EmailMessage(policy=OLD),
     lambda: email.message_from_bytes(b"X-Any: x\n\nx\n"), lambda: MIMEPart(policy=OLD)],
    ids=["Message", "MIMEText", "MIMEMultipart", "old policy", "parsed", "MIMEPart"],
)  # fmt: skip
def test_a_message_of_any_class_is_sent(make: Callable[[], Message]) -> None:
    """Envelope and header are those of an EmailMessage with the same fields, and the object is not changed."""
    message = old(make(), To="Jörg <you@b.example>", Cc=Header("Änne <c@bücher.example>", "utf-8"), Bcc="d@b.example",
                  Subject="Grüße")  # fmt: skip
    before, outside = list(message.raw_items()), repr(message.get_payload())
    submission = prepare(message)
    assert [mailbox.address for mailbox in submission.recipients] == [
        "you@b.example",
        "c@bücher.example",
        "d@b.example",
    ]
    received = receive(submission)
    assert [(a.display_name, a.addr_spec) for a in received["To"].addresses] == [("Jörg", "you@b.example")]
    assert [(a.display_name, a.addr_spec) for a in received["Cc"].addresses] == [("Änne", f"c@{ASCII}")]
    assert (received["Subject"], received["Message-ID"], received["Date"]) == ("Grüße", "<token@a.example>", DATE)
    assert "Bcc" not in received
    assert wire(submission).isascii()
    assert (list(message.raw_items()), repr(message.get_payload())) == (before, outside)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        pytest.param({"To": ["a@b.example"]}, "'To' is a list, not a str", id="list"),
        pytest.param({"Cc": None}, "'Cc' is a NoneType, not a str", id="None"),
        pytest.param({"X-Count": 5}, "'X-Count' is a int, not a str", id="number"),
        pytest.param({"Subject": "x\nBcc: e@f.example"}, "'Subject' has a line end", id="injection"),
        pytest.param({"Cc": "x@y.example\nBcc: e@f.example"}, "'Cc' has a line end", id="injected address"),
        pytest.param({"Subject": "x\r"}, "'Subject' has a line end", id="CR"),
        pytest.param({"Subject": Header("x\ny")}, "'Subject' has a line end", id="in a Header"),
    ],
)
def test_a_field_of_the_old_kind_that_is_no_text_is_refused(fields: dict[str, object], text: str) -> None:
    """With its name: the old classes take any value, and an EmailMessage does not."""
    with pytest.raises(MessageError) as caught:
        prepare(old(Message(), **fields))
    assert text in caught.value.args[0]
    assert caught.value.hint


def test_a_field_of_a_part_that_is_no_text_is_refused() -> None:
    """In a part as well."""
    message = MIMEMultipart()
    message.attach(old(MIMEText("x"), Content_Description=None))
    with pytest.raises(MessageError, match="'Content-Description' is a NoneType"):
        prepare(old(message))


@pytest.mark.parametrize("field", ["To", "from", "Subject", "Content-Type"])
def test_a_field_that_was_set_twice_is_refused(field: str) -> None:
    """A loop that sets To anew adds to it: everybody before would get the message again (RFC 5322 §3.6)."""
    message = old(MIMEText("x"), Subject="x")
    message[field] = "text/html" if field == "Content-Type" else "other@b.example"
    with pytest.raises(MessageError, match=r"has 2 .*del message\["):
        prepare(message)
    assert wire(prepare(old(MIMEText("x"), X_Any="a", x_any="b"))).lower().count(b"\r\nx-any: ") == 2


_PIECES = st.sampled_from(
    ["a@b.example, ", "Jörg <c@bücher.example>, ", " ", '"q, r" <d@d.example>, ', "=?utf-8?q?=C3=BC?= <e@e.example>, ",
     f"{'x' * 60} <f@f.example>, "]
)  # fmt: skip


@given(
    st.sampled_from(["To", "Cc", "Reply-To", "Subject", "X-Any"]),
    st.lists(_PIECES).map(lambda pieces: "".join(pieces).strip(" ,")),
)
@settings(max_examples=examples(100), deadline=None)
def test_both_apis_give_the_same_result(name: str, value: str) -> None:
    """With the same field, the envelope and the received text are equal, or both are refused with the same error."""
    results: list[object] = []
    for message in (old(Message()), old(EmailMessage())):
        del message[name]
        message[name] = value
        try:
            submission = prepare(message, recipients=["you@b.example"] if name not in {"To", "Cc"} else None)
        except SecureSMTPError as error:
            results.append(error.args)
            continue
        people = [
            str(a).split() for field in receive(submission).get_all(name, []) for a in getattr(field, "addresses", ())
        ]
        results.append((submission.recipients, people or str(receive(submission)[name]).split()))
    assert results[0] == results[1]


@pytest.mark.parametrize("field", ["Cc", "To", "Reply-To", "Sender", "References", "In-Reply-To", "Date", "Message-ID"])
@pytest.mark.parametrize("make", [EmailMessage, Message])
@pytest.mark.parametrize("value", ["", " ", ", ,"])
def test_a_field_that_must_not_be_empty_is_left_out(make: Callable[[], Message], field: str, value: str) -> None:
    """Some servers refuse a message with one (RFC 5322 §3.6). Date and Message-ID are added instead."""
    message = make()
    message["From"], message["Bcc"] = "me@a.example", "you@b.example"
    message[field], message["Subject"] = value, ""
    before = list(message.raw_items())
    submission = prepare(message)
    header = wire(submission).partition(b"\r\n\r\n")[0].decode()
    filled = {"Date": DATE, "Message-ID": "<token@a.example>"}
    assert re.findall(rf"(?m)^{field}: ?(.*?)\r?$", header) == ([filled[field]] if field in filled else [])
    assert re.findall("(?m)^Subject: ?\r?$", header)
    assert list(message.raw_items()) == before


def test_empty_groups_and_empty_fields_of_attached_messages_stay() -> None:
    """A group without members is not empty, and an attached message is not changed."""
    message = mail(To="undisclosed-recipients:;", Bcc="x@x.example")
    message.add_attachment(mail(Cc=""))
    received = receive(prepare(message))
    assert received["To"].groups[0].display_name == "undisclosed-recipients"
    assert b"\r\nCc:" in wire(prepare(message))


@pytest.mark.parametrize("make", [EmailMessage, Message])
@pytest.mark.parametrize(
    ("field", "value"), [("Date", "yesterday"), ("Resent-Date", "1 Foo 2024"), ("Date", "x" * 200)]
)
def test_an_invalid_date_is_refused(make: Callable[[], Message], field: str, value: str) -> None:
    """The email package would write an empty field (RFC 5322 §3.3); the error shows the value."""
    message = old(make())
    message[field] = value
    with pytest.raises(MessageError, match=f"^{field} is not a date: '{value[:80]}") as caught:
        prepare(message, "a@a.example", ["b@b.example"])
    assert len(caught.value.args[0]) < 130
    assert "datetime" in (caught.value.hint or "")


@pytest.mark.parametrize("sender", [None, "s@a.example"])
def test_a_message_without_from_is_refused(sender: str | None) -> None:
    """From is not optional, even with an explicit envelope (RFC 5322 §3.6)."""
    message = EmailMessage()
    message["To"], message["Sender"] = "you@b.example", sender or ""
    with pytest.raises(MessageError, match="has no From") as caught:
        prepare(message, "me@a.example")
    assert "mail_from" not in (caught.value.hint or "")
    with pytest.raises(MessageError, match="has no From"):
        prepare(message)


def test_the_null_reverse_path_is_never_taken_from_the_header() -> None:
    """An empty Return-Path, Sender or From does not count. With mail_from="", the Message-ID has the domain of From."""
    message = mail(Return_Path="<>", Sender="")
    assert prepare(message).mail_from.address == "me@a.example"
    assert prepare(message, "").mail_from.encoded == b""
    assert prepare(message, "").content.message_id == "<token@a.example>"
    assert prepare(message, "bounce@c.example").content.message_id == "<token@c.example>"
    with pytest.raises(AddressError):
        prepare(mail(From="<>"))
    with pytest.raises(AddressError, match=r"^From: 'root' has no @"):
        prepare(mail(From="root"), "", ["b@b.example"])


QUOTED = '"user..name."@mobile.example'


@pytest.mark.parametrize(
    ("to", "written"),
    [
        (QUOTED, [QUOTED]),
        (Address("", "user..name.", "mobile.example"), [QUOTED]),
        (f"Me <{QUOTED}>, b@b.example", [f"<{QUOTED}>", "b@b.example"]),
        (f'G: {QUOTED}, "a b"@c.example;', [QUOTED, '"a b"@c.example']),
        ('"u..n"@bücher.example', [f'"u..n"@{ASCII}']),
        ('".a"@[192.0.2.1]', ['".a"@[192.0.2.1]']),
        (f'"{"Last, First " * 12}" <{QUOTED}>', [f"<{QUOTED}>"]),
        (f"{'Jörg ' * 40} <{QUOTED}>", [f"<{QUOTED}>"]),
    ],
    ids=["str", "Address", "named", "group", "idn", "literal", "long name", "long non-ascii name"],
)
@pytest.mark.parametrize("field", ["To", "Cc", "Reply-To"])
def test_a_local_part_keeps_its_quotes(field: str, to: str | Address, written: list[str]) -> None:
    """In header and envelope (RFC 5321 §4.1.2); Python's own addr_spec forgets them if only dots need them."""
    message = mail()
    del message[field]
    message[field] = to
    submission = prepare(message, recipients=None if field != "Reply-To" else ["x@x.example"])
    header = wire(submission).partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").decode()
    (value,) = re.findall(rf"(?m)^{field}: (.*?)\r?$", header)
    assert all(address in value for address in written)
    if field != "Reply-To":
        paths = [mailbox.encoded.decode() for mailbox in submission.recipients]
        assert set(paths) >= {address.strip("<>") for address in written}


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (["a@b.example", "c@d.example"], MessageError, "To is set to a list, but not of Address objects: 'a@b.e"),
        ([None], MessageError, "To is set to a list, but not of Address objects: 'None'"),
        ("foo", AddressError, "To is not a list of addresses: 'foo'"),
        ("a@b_c.example", AddressError, "To: 'a@b_c.example' has an invalid domain"),
        ("x" * 500, AddressError, "To is not a list of addresses: 'xxx"),
    ],
    ids=["list", "None", "word", "domain", "long"],
)
def test_the_error_for_an_address_field_shows_its_value(value: str, error: type[Exception], text: str) -> None:
    """It also names the field, and the hint says how to write it."""
    message = mail()
    del message["To"]
    message["To"] = value
    with pytest.raises(error) as caught:
        prepare(message)
    assert isinstance(caught.value, SecureSMTPError)
    assert caught.value.args[0].startswith(text)
    assert len(caught.value.args[0]) < 200
    assert "example.org" in (caught.value.hint or "")


@pytest.mark.parametrize("policy", [email.policy.default, OLD], ids=["new", "old"])
@pytest.mark.parametrize("name", ["=?utf-8?q?M=C3=BCller=2C_J?=", "Müller", '"Last, First"'])
def test_a_folded_address_field_is_read_as_one_line(policy: Policy, name: str) -> None:
    """Its line end is not part of the value (RFC 5322 §2.2.3)."""
    data = f"From: me@a.example\nTo: {name} <a@b.example>,\n c@d.example\n\nx\n".encode()
    submission = prepare(email.message_from_bytes(data, policy=policy))
    assert [mailbox.address for mailbox in submission.recipients] == ["a@b.example", "c@d.example"]
    assert [a.addr_spec for a in receive(submission)["To"].addresses] == ["a@b.example", "c@d.example"]


@pytest.mark.parametrize("field", ["Resent-To", "Resent-From", "Resent-Date"])
def test_a_message_that_was_resent_twice_needs_an_explicit_envelope(field: str) -> None:
    """It is unknown which Resent fields count."""
    message = mail(Resent_From="r@r.example", Resent_To="t@t.example", Resent_Date=DATE)
    data = message.as_bytes() if field in message else b""
    twice = parse(f"{field}: {message[field]}\n".encode() + data)
    with pytest.raises(MessageError, match="more than once"):
        prepare(twice)
    assert prepare(twice, "a@a.example", ["b@b.example"]).mail_from.address == "a@a.example"


@pytest.mark.parametrize("given", ["a@a.example", b"b@a.example"])
def test_one_string_is_not_a_list(given: str) -> None:
    """Each of its letters would be a recipient."""
    with pytest.raises(ConfigurationError, match="not a list"):
        envelope_recipients(given)


def test_a_recipient_counts_once() -> None:
    """Recipients are equal if their bytes in RCPT are; the case of a local part may matter to the server."""
    given = [f"a@{IDN}", f"a@{ASCII}", f"A@{ASCII}", f"a@{ASCII}"]
    assert [mailbox.address for mailbox in envelope_recipients(iter(given))] == [given[0], given[2]]


@pytest.mark.parametrize(
    "to", ["\x0ba@b.example", "a@b.example\x0c", "c@d.example,\x1c a@b.example", "a@b.example\x1b"]
)
def test_a_control_character_in_an_address_field_is_refused(to: str) -> None:
    """Python's parser drops some as white space: they would be in the header but not in the envelope."""
    message = MIMEText("x")
    message["From"], message["To"] = "me@b.example", to
    with pytest.raises(AddressError):
        prepare(message)


def test_a_bad_address_in_the_header_is_refused() -> None:
    """An address that is taken from the header is checked like any other."""
    with pytest.raises(AddressError):
        prepare(mail(To="root"))


def test_without_8bitmime_the_message_is_encoded() -> None:
    """Its parts become base64 or quoted-printable, and its Message-ID stays; with 8BITMIME nothing changes."""
    message = mail()
    message.set_content("Grüße\n", cte="8bit")
    submission = prepare(message)
    assert not submission.content.is_ascii
    adapted = submission.adapt_to(Capabilities())
    assert adapted.content.is_ascii
    assert receive(adapted).get_content() == "Grüße\n"
    assert adapted.content.message_id == submission.content.message_id
    assert submission.adapt_to(Capabilities({"8BITMIME": ""})) is submission


_TOKENS = st.sampled_from(["a", "@", "b.example", "<", ">", "(", ")", '"', ",", ":", ";", " ", "[", "]", "ü", ".", "\\",
                           "=?utf-8?q?a?=", "\n ", "\t"])  # fmt: skip


@pytest.mark.parametrize(
    "field", ['Cc: "', "Sender: ;]?),<", "Bcc: ,():", f"Date: Mon, {'9' * 60} Jan 2020 00:00:00 +0000 \u00e4"]
)
def test_a_header_that_the_email_package_cannot_parse_is_refused(field: str) -> None:
    """The caller gets an error of this library, not an IndexError."""
    start = "" if field.startswith("Sender") else "To: you@b.example\n"
    with pytest.raises(SecureSMTPError):
        prepare(parse(f"From: me@a.example\n{start}{field}\n\nx\n".encode()))


@pytest.mark.parametrize("field", ["<(@@?\\a", "<a@b", "<a@b.example> (comment)", "\n <a@b.example>", "<a\n b@c>"])
def test_a_message_id_is_sent_unchanged(field: str) -> None:
    """It is not parsed: for an unusual one, the email package depends on the Python version (IndexError on 3.11)."""
    submission = prepare(parse(f"From: me@a.example\nTo: you@b.example\nMessage-ID: {field}\n\nx\n".encode()))
    assert submission.content.message_id == " ".join(field.split())
    assert re.findall(rb"(?i)^message-id:", wire(submission), re.MULTILINE) == [b"Message-ID:"]


@given(st.sampled_from(["Subject", "X-Any", "Comments"]), st.lists(_TOKENS, max_size=8).map("".join))
@settings(max_examples=examples(100), deadline=None)
def test_any_text_in_a_header_stays_one_field(name: str, text: str) -> None:
    """A parsed field is refused, or sent as one ASCII field, and the next field is unchanged."""
    data = f"From: me@a.example\nTo: you@b.example\n{name}: {text}\nX-Next: here\n\nx\n".encode()
    try:
        content = wire(prepare(parse(data)))
    except SecureSMTPError:
        return
    header = content.partition(b"\r\n\r\n")[0]
    names = [found.lower() for found in re.findall(rb"^([^\s:]+):", header, re.MULTILINE)]
    assert names == [b"from", b"to", name.lower().encode(), b"x-next", b"date", b"message-id"]
    assert header.isascii()
    assert b"\r\nX-Next: here\r\n" in header


def test_addresses_that_would_be_read_differently_are_refused() -> None:
    """A message is never sent with other people in its header."""
    message = mail()
    message["Reply-To"] = Address("", "a", "b,c.example")
    with pytest.raises(MessageError, match=r"read as the same addresses.*simpler display names"):
        prepare(message)


@pytest.mark.parametrize(
    ("data", "capabilities", "hint"),
    [
        ("Subject: ü\n\nx", {"8BITMIME": ""}, "ASCII local part"),
        ("Subject: x\n\nü", {}, "base64"),
        ("Subject: x\n\nx", {"SIZE": "14"}, "a link"),
    ],
)
def test_a_hint_says_what_the_server_would_accept(data: str, capabilities: dict[str, str], hint: str) -> None:
    """For each of the extensions that a message may need."""
    submission = Submission(
        Mailbox.parse("a@a.example"), (Mailbox.parse("b@b.example"),), Content.from_bytes(data.encode())
    )
    assert not submission.fits(Capabilities(capabilities))
    with pytest.raises(MessageError) as caught:
        submission.adapt_to(Capabilities(capabilities))
    assert hint in (caught.value.hint or "")


def test_a_message_may_be_as_large_as_the_server_says() -> None:
    """One byte more is refused."""
    for submission in (prepare(mail()), replace(prepare(mail()), content=Content.from_bytes(b"A: b\r\n\r\nno end"))):
        _check_size_limit(submission)


def _check_size_limit(submission: Submission) -> None:
    size = sum(map(len, submission.content.chunk()))
    assert submission.fits(Capabilities({"SIZE": str(size)}))
    assert submission.adapt_to(Capabilities({"SIZE": str(size)})) is submission
    assert not submission.fits(Capabilities({"SIZE": str(size - 1)}))
    with pytest.raises(MessageError, match=f"has {size} bytes, and the server accepts at most {size - 1}"):
        submission.adapt_to(Capabilities({"SIZE": str(size - 1)}))


def test_the_header_of_an_encoded_message_stays_ascii() -> None:
    """A server without 8BITMIME has no SMTPUTF8 either, so a non-ASCII subject becomes encoded-words."""
    message = mail(Subject="Grüße")
    message.set_content("Grüße\n", cte="8bit")
    assert prepare(message).fits(Capabilities({"8BITMIME": "", "SMTPUTF8": ""}))
    assert not prepare(message).fits(Capabilities({"SMTPUTF8": ""}))
    adapted = prepare(message).adapt_to(Capabilities())
    assert adapted.content.is_ascii
    assert receive(adapted)["Subject"] == "Grüße"


@pytest.mark.parametrize(
    ("fields", "text", "hint"),
    [
        (
            {"From": "a@a.example, b@b.example"},
            "From has 2 addresses",
            "set Sender (RFC 5322 §3.6.2), or pass mail_from",
        ),
        (
            {"Sender": "a@a.example, b@b.example"},
            "Sender has 2 addresses",
            "set Sender (RFC 5322 §3.6.2), or pass mail_from",
        ),
        ({"Resent_To": "a@a.example"}, "no Resent-From", "pass mail_from"),
        ({"To": "a@a.example; b@b.example"}, "To is not a list of addresses", "commas between"),
        ({"To": "Nobody:;"}, "no recipient", "recipients="),
    ],
)
def test_an_ambiguous_envelope_is_not_guessed(fields: dict[str, str], text: str, hint: str) -> None:
    """The error names the field, the hint what to set or pass (MSG-04)."""
    with pytest.raises(MessageError if "not a list" not in text else AddressError) as caught:
        prepare(mail(**fields))
    assert text in caught.value.args[0]
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["X:Y", "Sub ject"])
def test_an_invalid_field_name_is_refused(name: str) -> None:
    """It would be read as another field, or as none."""
    message = mail()
    message.set_raw(name, "x")
    with pytest.raises(MessageError, match="would not be exactly one field") as caught:
        prepare(message)
    assert "control characters" in (caught.value.hint or "")


def test_a_long_display_name_with_commas_stays_one_name() -> None:
    """Python drops the quotes of such a name, so its commas would separate addresses."""
    name = "Last, First " * 12
    submission = prepare(mail(To=f'"{name}" <a@b.example>'))
    (address,) = receive(submission)["To"].addresses
    # Python adds a space between encoded-words when it reads a name.
    assert (address.display_name.split(), address.addr_spec) == (name.split(), "a@b.example")


def test_an_encoded_display_name_with_a_comma_stays_one_name() -> None:
    """A field that was set is copied as an object: if its text were parsed again, the comma would be a separator."""
    submission = prepare(mail(To="=?utf-8?q?J=C3=B6rg=2C_b?= <a@b.example>"))
    assert [(a.display_name, a.addr_spec) for a in receive(submission)["To"].addresses] == [("Jörg, b", "a@b.example")]


@pytest.mark.parametrize(
    ("limit", "longest"),
    [(20, 78), (78, 78), (100, 100), (2000, 900), (None, 900)],
    ids=["short", "", "own", "max", "no"],
)
def test_a_header_is_folded_at_the_length_of_its_policy(limit: int | None, longest: int) -> None:
    """The length is at least 78 and at most 900."""
    for first in ("a", "aa"):
        message = EmailMessage(policy=email.policy.default.clone(max_line_length=limit))
        message["From"], message["To"] = "me@a.example", "you@b.example"
        message["Subject"] = first + " a" * 2000
        length = max(map(len, wire(prepare(message)).split(b"\r\n")))
        assert longest - 1 <= length <= longest


@pytest.mark.parametrize(("refold", "folded"), [("long", True), ("none", False)])
def test_the_policy_decides_if_a_parsed_header_is_folded(refold: str, *, folded: bool) -> None:
    """It is EmailPolicy.refold_source of the caller's message."""
    data = b"From: me@a.example\nTo: you@b.example\nSubject:" + b" a" * 200 + b"\n\nx\n"
    message = email.message_from_bytes(data, policy=email.policy.default.clone(refold_source=refold))
    assert isinstance(message, EmailMessage)
    assert (b"\r\n a" in wire(prepare(message))) is folded


def test_the_header_classes_of_the_callers_policy_are_used() -> None:
    """A raw field that is long or not ASCII is folded by the header class that the policy has for it."""

    class Loud(UnstructuredHeader):
        def fold(self, *, policy: Policy) -> str:
            return "X-Loud: LOUD\r\n"

    registry = HeaderRegistry()
    registry.map_to_type("x-loud", cast("type[BaseHeader]", Loud))
    policy = EmailPolicy(header_factory=registry)
    for value in ("grün", "a " * 100):
        data = f"From: me@a.example\nTo: you@b.example\nX-Loud: {value}\n\nx\n".encode()
        message = email.message_from_bytes(data, policy=policy)
        assert isinstance(message, EmailMessage)
        assert b"X-Loud: LOUD\r\n" in wire(prepare(message))


NAMES = ["Subject", "subject", "Date", "Message-ID", "MIME-Version", "Content-Transfer-Encoding", "X-Other"]
WORDS = st.text(st.sampled_from('ab1 .,:;=?_-<>@()[]"\\/+\t\u00fc'), max_size=90)
PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=90)
PEOPLE = st.lists(st.sampled_from(["a@b.example", "c.d+e@f.example", "g@h.example"]), min_size=1).map(", ".join)


@settings(max_examples=examples(600), deadline=None)
@given(field=st.tuples(st.sampled_from(NAMES), WORDS | PLAIN) | st.tuples(st.sampled_from(["To", "from"]), PEOPLE))
def test_a_short_ascii_field_is_written_as_the_email_package_writes_it(field: tuple[str, str]) -> None:
    """Byte by byte."""
    name, value = field
    message = EmailMessage()
    assume(value.isascii() and len(name) + len(value) <= 76 and "=?" not in value)
    try:
        message[name] = value
        stock = EmailPolicy(linesep="\r\n").fold_binary(name, message[name])
        ours = CheckedPolicy(linesep="\r\n").fold_binary(name, message[name])
    except (ValueError, LookupError, TypeError, AttributeError, MessageError):
        # Other tests check fields that cannot be parsed.
        return
    # The email package writes an empty field for a date that it cannot parse.
    assume(name != "Date" or not message[name].defects)
    assert ours == stock


def test_a_header_class_of_the_caller_folds_its_fields() -> None:
    """Even a short one that was set."""

    class Loud(UnstructuredHeader):
        def fold(self, *, policy: Policy) -> str:
            return f"{self.name}: LOUD{policy.linesep}"  # type: ignore[attr-defined]  # the registry makes it a header

    registry = HeaderRegistry()
    registry.map_to_type("subject", Loud)  # type: ignore[arg-type]  # typeshed wants what the registry makes
    message = EmailMessage(EmailPolicy(header_factory=registry))
    message["From"], message["To"], message["Subject"] = "me@a.example", "you@b.example", "quiet"
    assert b"Subject: LOUD\r\n" in wire(prepare(message))


def attached(text: str, *, ends: str = "\n") -> EmailMessage:
    """Return a message with large parts of every kind, and with boundaries set."""
    message = mail(Date=DATE, Message_ID="<1@a.example>")
    message.set_content("a line\n" * 20_000)
    message.add_alternative(f"<p>{text}</p>", subtype="html")
    inner = mail(Subject="inner")
    inner.add_attachment(bytes(range(256)) * 400, maintype="application", subtype="x", filename="a")
    message.add_attachment(bytes(range(256)) * 500, maintype="image", subtype="x", filename="b")
    message.add_attachment(inner)
    message.add_attachment("grün\n" * 20_000, cte="8bit", filename="c")
    message.as_bytes()
    for part in message.walk():
        if isinstance(payload := part.get_payload(), str) and payload.isascii():
            part.set_payload(payload.replace("\n", ends))
    return message


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: attached(""), id="plain"),
        pytest.param(lambda: attached(_PLACEHOLDER), id="contains the placeholder"),
        pytest.param(lambda: attached("", ends="\r\n"), id="CRLF"),
        pytest.param(lambda: attached("", ends="\r"), id="CR"),
        pytest.param(lambda: mail(Date=DATE, Message_ID="<1@a.example>", Subject="small"), id="small"),
    ],
)
def test_a_large_message_is_written_as_the_email_package_writes_it(make: Callable[[], EmailMessage]) -> None:
    """Byte by byte, although large payloads are left out while it is written; the caller's message is not changed."""
    message = make()
    before = message.as_bytes()
    policy = cast("EmailPolicy", message.policy).clone(linesep="\r\n")
    submission = prepare(message)
    assert b"".join(submission.content.chunk()) == message.as_bytes(policy=policy)
    # For a server that accepts only ASCII, it is written again.
    adapted = submission.adapt_to(Capabilities({}))
    assert b"".join(adapted.content.chunk()) == message.as_bytes(policy=policy.clone(cte_type="7bit"))
    assert message.as_bytes() == before


def test_a_large_payload_is_checked() -> None:
    """It is not written by the email package, but passes the same scanner."""
    message = mail()
    message.set_payload("x\n" * 70_000 + "\0")
    with pytest.raises(MessageError, match=r"line \d+ has a NUL"):
        prepare(message)


def test_a_line_that_begins_with_from_is_not_quoted() -> None:
    """Such quoting is for mbox files, not for SMTP."""
    message = mail()
    message.set_content("From me\n")
    assert b"\r\nFrom me\r\n" in wire(prepare(message))


def test_a_header_that_was_set_is_always_folded() -> None:
    """EmailPolicy.refold_source is only for parsed fields."""
    message = EmailMessage(policy=email.policy.default.clone(refold_source="none"))
    message["From"], message["To"], message["Subject"] = "me@a.example", "you@b.example", "a " * 200
    assert b"\r\n a" in wire(prepare(message))


def test_an_empty_message_id_is_replaced() -> None:
    """An empty field is not an identifier."""
    submission = prepare(parse(b"From: me@a.example\nTo: you@b.example\nMessage-ID: \n\nx\n"))
    assert submission.content.message_id == "<token@a.example>"
    assert wire(submission).lower().count(b"message-id:") == 1


@pytest.mark.parametrize(
    ("message", "given", "text", "hint"),
    [
        (mail(From=""), None, "has no From", "set it"),
        (
            parse(b"From: a@a.example\nTo: b@b.example\nno field\nBcc: c@c.example\n\n"),
            None,
            "is not a header field",
            "fix the line",
        ),
        (mail(), "b@b.example", "is a str, not a list of addresses", "pass a list"),
        (
            parse(b"Resent-To: b@b.example\nResent-To: c@c.example\n\n"),
            None,
            "more than once",
            "mail_from and recipients",
        ),
    ],
    ids=["author", "broken", "str", "twice"],
)
def test_a_hint_says_how_to_fix_it(message: EmailMessage, given: list[str] | None, text: str, hint: str) -> None:
    """The error says what is wrong, the hint what to do."""
    with pytest.raises(ConfigurationError) as caught:
        prepare(message, None, given)
    assert text in caught.value.args[0]
    assert hint in (caught.value.hint or "")
