"""Parts are written as the email package writes them; what is written at once has no other meaning."""

from __future__ import annotations

import email.policy
import itertools
import re
from email.headerregistry import Address, Group, HeaderRegistry, UniqueDateHeader, UnstructuredHeader
from email.message import EmailMessage, MIMEPart
from email.mime.text import MIMEText
from email.policy import EmailPolicy
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp._protocol import parts
from securesmtp._protocol.building import from_message
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.content import BLOCK, Content
from securesmtp._protocol.generator import _PLACEHOLDER
from securesmtp._protocol.short_fields import read_simple, short_line, simple_addresses
from securesmtp.errors import MessageError

DATE = "Mon, 01 Jan 2024 00:00:00 +0000"
HEAD = {"From": "a@b.example", "To": "c@d.example", "Date": DATE, "Message-ID": "<1@b.example>"}


def to_bytes(message: EmailMessage) -> bytes:
    """Return the bytes that are sent after BDAT."""
    submission = from_message(message, None, None, date=lambda: DATE, token=lambda: "token")
    return b"".join(submission.content.chunk())


def with_head(message: EmailMessage) -> EmailMessage:
    """Return *message* with the fields that it must have."""
    for name, value in HEAD.items():
        message[name] = value
    return message


_PIECES = ["a", ".", "\n", "\r\n", "\r", "From x\n", "--b\n", "ü\n", "=3D ", " \n", "x" * 70 + "\n"]
_TEXTS = st.lists(st.sampled_from(_PIECES), max_size=6).map("".join)
_TYPES = st.sampled_from(
    ["text/plain", "TEXT/html", "application/x-y; name=z", "image/png", "text", "foo/bar", "message/x"]
)


@st.composite
def leaves(draw: st.DrawFn) -> EmailMessage:
    """Make a part with a text, of any type and encoding, as a program sets it or as a parser does."""
    part = cast("EmailMessage", draw(st.sampled_from([EmailMessage, MIMEPart]))())
    how = draw(st.sampled_from(["content", "raw", "old"]))
    text = draw(_TEXTS)
    if how == "content":
        part.set_content(text, cte=draw(st.sampled_from(["8bit", "base64", "quoted-printable"])))
    elif how == "old":
        part = cast("EmailMessage", MIMEText(text, "plain", "utf-8"))
    else:
        if draw(st.booleans()):
            part.set_raw("Content-Type", draw(_TYPES))
        part.set_payload(text.encode().decode("ascii", "surrogateescape"))
    return part


@st.composite
def trees(draw: st.DrawFn, depth: int = 2) -> EmailMessage:
    """Make a part that may have parts, and text before and after them."""
    if not depth or draw(st.booleans()):
        return draw(leaves())
    part = EmailMessage()
    kind = draw(st.sampled_from(["mixed", "alternative", "Related", "digest", "x-any; x=y"]))
    part.set_raw("Content-Type", f"multipart/{kind}; boundary=ab")
    part.set_payload(cast("str", draw(st.lists(trees(depth - 1), max_size=3))))
    part.preamble = draw(st.none() | _TEXTS)
    part.epilogue = draw(st.none() | _TEXTS)
    return part


@given(trees(), st.sampled_from(["8bit", "7bit"]))
@settings(max_examples=examples(300), deadline=None)
def test_a_tree_of_parts_is_written_as_the_email_package_writes_it(message: EmailMessage, cte_type: str) -> None:
    """Byte by byte, whatever its types, encodings, line ends, and text around the parts."""
    policy = email.policy.SMTP.clone(cte_type=cte_type)
    root = EmailMessage()
    for name, value in message.raw_items():
        root.set_raw(name, value)
    for name in ("preamble", "epilogue"):
        setattr(root, name, getattr(message, name))
    root.set_payload(message.get_payload())
    try:
        submission = from_message(with_head(root), None, None, date=lambda: DATE, token=lambda: "token")
        submission = submission if cte_type == "8bit" else submission.adapt_to(Capabilities({}))
    except MessageError:
        # Other tests have the reasons, such as a line that is a boundary.
        return
    data = b"".join(submission.content.chunk())
    # The email package does not convert the line ends of a multipart that has no parts.
    stock = re.sub(rb"\r?\n", b"\r\n", root.as_bytes(policy=policy))
    assert data == stock + b"\r\n" * (not stock.endswith(b"\r\n"))


@pytest.mark.parametrize("depth", [1, 2])
def test_a_boundary_is_in_none_of_the_parts(monkeypatch: pytest.MonkeyPatch, depth: int) -> None:
    """Another one is chosen if a part contains it (RFC 2046 §5.1.1); both are of the form that Python gives them."""
    numbers = itertools.count(7)
    monkeypatch.setattr(parts, "randbelow", lambda _: next(numbers))
    taken = f"{'=' * 15}{7:019}=="
    message = with_head(EmailMessage())
    message.set_content(f"text\n--{taken}\n")
    message.add_alternative("<p>html</p>", subtype="html")
    if depth == 2:
        message.add_attachment(b"x", maintype="application", subtype="x")
    found = re.findall(rb'boundary="(=+\d{19}==)"', to_bytes(message))
    assert sorted(found) == [f"{'=' * 15}{8 + number:019}==".encode() for number in range(depth)]


def test_a_boundary_is_not_searched_in_a_large_text() -> None:
    """It is not copied either; the chance that it has one of 2^63 boundaries is none."""
    message = with_head(EmailMessage())
    message.add_attachment(bytes(BLOCK), maintype="application", subtype="x")
    submission = from_message(message, None, None, date=lambda: DATE, token=lambda: "token")
    (part,) = cast("list[EmailMessage]", message.get_payload())
    assert any(piece is part.get_payload() for piece in submission.content.source)


class Loud(UnstructuredHeader):
    """Folds in its own way."""

    def fold(self, *, policy: EmailPolicy) -> str:
        """Return a field that is not its value."""
        return f"{self.name}: text/loud; boundary=b{policy.linesep}"  # type: ignore[attr-defined]  # of the registry


class LoudDate(UniqueDateHeader):
    """A date in its own form."""

    def fold(self, *, policy: EmailPolicy) -> str:
        """Return a field that is not its value."""
        return f"{self.name}: LOUD{policy.linesep}"  # type: ignore[attr-defined]  # of the registry


def policy_with(name: str, kind: object) -> EmailPolicy:
    """Return a policy with a class of its own for fields of this name."""
    registry = HeaderRegistry()
    registry.map_to_type(name, kind)  # type: ignore[arg-type]  # typeshed wants what the registry makes
    return cast("EmailPolicy", email.policy.default.clone(header_factory=registry))


def test_a_date_that_is_added_has_the_callers_class() -> None:
    """As if the program had set it."""
    message = EmailMessage(policy_with("date", LoudDate))
    message["From"], message["To"] = "a@b.example", "c@d.example"
    assert b"\r\nDate: LOUD\r\n" in to_bytes(message)


@pytest.mark.parametrize(("of", "count"), [("message", 1), ("part", 0)])
def test_a_content_type_with_a_boundary_has_the_class_of_the_messages_policy(of: str, count: int) -> None:
    """As the email package writes it: the policy of the whole message is that of each part."""
    loud = policy_with("content-type", Loud)
    inner = EmailMessage(loud if of == "part" else email.policy.default)
    inner["Content-Type"] = "multipart/mixed"
    inner.set_payload([EmailMessage()])
    message = with_head(EmailMessage(loud if of == "message" else email.policy.default))
    message.set_raw("Content-Type", 'multipart/mixed; boundary="outer"')
    message.set_payload([inner])
    assert to_bytes(message).count(b"Content-Type: text/loud; boundary=b") == count
    assert inner.policy is (loud if of == "part" else email.policy.default)


@pytest.mark.parametrize("refold", ["long", "all", "none"])
@pytest.mark.parametrize("kinds", [["multipart/alternative"], ["multipart/mixed; x=y"], ["multipart/mixed", "text/x"]])
def test_a_boundary_is_set_as_the_email_package_sets_it(refold: str, kinds: list[str]) -> None:
    """With parameters, with a second Content-Type, and for every way to fold the fields of a parsed message."""
    message = with_head(EmailMessage(email.policy.default.clone(refold_source=refold)))
    for kind in kinds:
        message.set_raw("Content-Type", kind)
    message.set_payload([EmailMessage()])
    data = to_bytes(message)
    (boundary,) = set(re.findall(rb"={15}\d{19}==", data))
    message.set_boundary(boundary.decode())
    assert data == message.as_bytes(policy=cast("EmailPolicy", message.policy).clone(linesep="\r\n"))


def test_the_parts_of_a_class_from_elsewhere_are_written_by_its_methods() -> None:
    """They may say something else than its attributes."""

    class Other(MIMEPart):
        def get_payload(self, *_: object, **__: object) -> str:  # type: ignore[override]  # any arguments
            return "from the method\n"

    message = with_head(EmailMessage())
    message.make_mixed()
    part = Other()
    part.set_payload("from the attribute\n")
    message.attach(cast("EmailMessage", part))
    assert b"from the method\r\n" in to_bytes(message)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a@b.example", [("", "a@b.example")]),
        ("<a@b.example>", [("", "a@b.example")]),
        ("Me <a.b@c>, d@e", [("Me", "a.b@c"), ("", "d@e")]),
        ("O'Neil A-1 <a@b>", [("O'Neil A-1", "a@b")]),
        ('"Last. First; (x): @" <a@b>', [("Last. First; (x): @", "a@b")]),
        ("=?utf-8?q?=C3=BC?= x =?utf-8?b?w7w=?= <a@b>", [("=?utf-8?q?=C3=BC?= x =?utf-8?b?w7w=?=", "a@b")]),
        ("", None),
        ("a", None),
        ("a@b.example>", None),
        ("<a@b.example", None),
        ("Me a@b", None),
        ("Me <a@b", None),
        ("Me  <a@b>", None),
        ("Me. <a@b>", None),
        ("Jörg <a@b>", None),
        ('"Last, First" <a@b>', None),
        (r'"a\"b" <a@b>', None),
        ('"x" y <a@b>', None),
        ("Team: a@b;", None),
        ("a@b (c)", None),
        ("a@b,c@d", None),
        ("=?latin1?q?x?= <a@b>", None),
        ("a@[192.0.2.1]", None),
        ('"x y"@b', None),
    ],
)
def test_a_list_is_read_at_once_only_if_it_is_simple(text: str, found: list[tuple[str, str]] | None) -> None:
    """What has a special character is left to the parser."""
    assert read_simple(text) == found


_NAMES = st.sampled_from(
    ["", "Me", "Me Too", "O'Neil", "Dr. No", "Last, First", "Jörg", "x" * 60, "a_b", "(c)", "=?", "a  b"]
)
_SPECS = st.sampled_from(["a@b.example", "a.b+c@d-e.example", "a-b@[192.0.2.1]", '"x y"@b.example', "ü@b.example"])


@given(st.lists(st.tuples(_NAMES, _SPECS, st.booleans()), min_size=1, max_size=4))
@settings(max_examples=examples(200), deadline=None)
def test_what_is_read_at_once_is_what_the_email_package_reads(people: list[tuple[str, str, bool]]) -> None:
    """Display name and address of each, with and without quotes around the name."""
    quoted = [(f'"{name}"' if has_quotes else name, spec) for name, spec, has_quotes in people]
    text = ", ".join(f"{name} <{spec}>" if name else spec for name, spec in quoted)
    found = read_simple(text)
    message = EmailMessage()
    message["To"] = text
    if found is not None and "=?" not in text:
        assert not message["To"].defects
        assert found == simple_addresses(message["To"].groups)
        assert found == [(address.display_name, address.addr_spec) for address in message["To"].addresses]


def test_a_named_group_is_not_simple() -> None:
    """Its name would be lost."""
    assert simple_addresses((Group("Team", (Address("", "a", "b.example"),)),)) is None


@pytest.mark.parametrize("value", ["x\n y", "x\r", "x\ty", "ü", "\0", "x" * 80])
def test_a_source_that_needs_a_closer_look_is_no_short_line(value: str) -> None:
    """Line ends, control characters, non-ASCII and long text."""
    assert short_line("X-Any", value) is None
    assert short_line("X:Any", "x") is None
    assert short_line("X-Any", "") == "X-Any: "


@pytest.mark.parametrize("fault", [b"\0", b"\rx", b"x" * 999, b"\r\rx"], ids=["NUL", "CR", "long", "CRs"])
@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_an_error_after_many_blocks_names_the_line(blocks: int, fault: bytes) -> None:
    """The lines before are counted only then: in bytes, in a str, and in both."""
    head, line = "A: b\n\n", "x" * 62 + "\n"
    filling = line * (blocks * BLOCK // len(line))
    pieces: list[tuple[bytes | str, ...]] = [
        ((head + filling).encode() + fault,),
        (head.encode(), filling, fault),
        ((head + filling).replace("\n", "\r\n").encode(), fault + b"\n"),
    ]
    for each in pieces:
        with pytest.raises(MessageError, match=f"^line {filling.count(line) + 3} "):
            Content.from_pieces(each)


@pytest.mark.parametrize("preamble", [None, "", "a", "a\n"])
@pytest.mark.parametrize("epilogue", [None, "", "b", "b\n"])
def test_the_text_around_parts_is_kept(preamble: str | None, epilogue: str | None) -> None:
    """An empty one is written too, as the email package does."""
    message = with_head(EmailMessage())
    message.set_raw("Content-Type", "multipart/mixed; boundary=ab")
    message.set_payload([EmailMessage()])
    message.preamble, message.epilogue = preamble, epilogue
    stock = message.as_bytes(policy=email.policy.SMTP)
    assert to_bytes(message) == stock + b"\r\n" * (not stock.endswith(b"\r\n"))


def test_a_date_that_is_added_is_made_by_a_registry_of_another_class() -> None:
    """It may make other objects."""

    class Registry(HeaderRegistry):
        pass

    message = EmailMessage(email.policy.default.clone(header_factory=Registry()))
    message["From"], message["To"] = "a@b.example", "c@d.example"
    assert f"\r\nDate: {DATE}\r\n".encode() in to_bytes(message)


@pytest.mark.parametrize("text", ["text\n", f"{_PLACEHOLDER}\n"], ids=["plain", "contains the placeholder"])
def test_a_large_text_in_an_attached_message_is_written_as_the_email_package_writes_it(text: str) -> None:
    """Byte by byte, also if the text contains what replaces the large one meanwhile."""
    inner = with_head(EmailMessage())
    inner.set_content(text)
    inner.add_attachment(bytes(BLOCK), maintype="application", subtype="x")
    message = with_head(EmailMessage())
    message.add_attachment(inner)
    message.as_bytes()
    assert to_bytes(message) == message.as_bytes(policy=email.policy.SMTP)
