"""Addresses: one, or a list; each a str, a pair, or an Address object."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from email.headerregistry import Address
from typing import Any

import fast_mail_parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compose.wire import arrived, composed, wire
from conftest import examples
from securesmtp import AddressError, AddressWarning, MessageError, validate_address
from securesmtp._protocol.building import from_message

BOB = "bob@example.net"


def _people(field: Any) -> list[tuple[str, str]]:
    return [(each.display_name, each.addr_spec) for each in field.addresses]


@pytest.mark.parametrize(
    ("to", "people"),
    [
        pytest.param(BOB, [("", BOB)], id="an-address"),
        pytest.param(("Bob", BOB), [("Bob", BOB)], id="a-pair"),
        pytest.param(("", BOB), [("", BOB)], id="no-name"),
        pytest.param(Address("Bob", "bob", "example.net"), [("Bob", BOB)], id="an-object"),
        pytest.param([BOB, ("Eve", "eve@example.net")], [("", BOB), ("Eve", "eve@example.net")], id="a-list"),
        pytest.param((each for each in [BOB]), [("", BOB)], id="a-generator"),
        pytest.param("bob@bücher.example", [("", "bob@xn--bcher-kva.example")], id="idn"),
        pytest.param(Address("", "a..b", "example.net"), [("", '"a..b"@example.net')], id="an-object-with-quotes"),
        pytest.param('"a b"@example.net', [("", '"a b"@example.net')], id="quotes"),
        pytest.param(r'"a\"b"@example.net', [("", r'"a\"b"@example.net')], id="an-escaped-quote"),
        pytest.param([(BOB, BOB)], [(BOB, BOB)], id="its-own-address-as-name"),
        pytest.param((BOB, BOB), [(BOB, BOB)], id="a-pair-of-the-same"),
    ],
)
def test_each_form_of_an_address_arrives(to: Any, people: list[tuple[str, str]]) -> None:
    """In the field, and in the envelope, which is taken from it."""
    message = composed(to=to)
    submission = from_message(message, None, None, date=lambda: "Tue, 24 Nov 2026 12:00:00 +0000", token=lambda: "1")
    assert [mailbox.encoded.decode() for mailbox in submission.recipients] == [address for _, address in people]
    assert _people(arrived(to=BOB, sender=("Ada", "ada@example.org"))["From"]) == [("Ada", "ada@example.org")]
    if '"' not in people[0][1]:
        assert _people(message["To"]) == people


def test_each_argument_is_a_field_of_its_own() -> None:
    """Bcc is not transmitted, and not shown to anybody (MSG-04)."""
    message = composed(cc="c@example.net", bcc=["d@example.net"], reply_to=("Desk", "e@example.net"))
    data = wire(message)
    assert (message["Cc"], message["Bcc"], message["Reply-To"]) == (
        "c@example.net", "d@example.net", "Desk <e@example.net>",
    )  # fmt: skip
    assert (b"c@example.net" in data, b"d@example.net" in data) == (True, False)


def test_with_bcc_alone_there_is_a_recipient_field() -> None:
    """Some readers fail without one; the empty group is nobody's address (RFC 5322 §3.6.3)."""
    message = composed(to=(), bcc=["d@example.net"])
    submission = from_message(message, None, None, date=lambda: "Tue, 24 Nov 2026 12:00:00 +0000", token=lambda: "1")
    assert [mailbox.encoded for mailbox in submission.recipients] == [b"d@example.net"]
    assert b"\r\nTo: undisclosed-recipients:;\r\n" in wire(message)


def test_without_any_recipient_there_is_no_message() -> None:
    """The error names the arguments."""
    with pytest.raises(MessageError, match="no recipient") as caught:
        composed(to=[])
    assert "bcc" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("field", "given", "text", "hint"),
    [
        pytest.param("to", "Bob <bob@example.net>", "to: ", "'bob@example.net', or (", id="a-name-in-a-str"),
        pytest.param("to", "a@example.net, b@example.net", "to: ", "as a list", id="two-in-a-str"),
        pytest.param("sender", "", "sender: '' is empty", "display name", id="empty"),
        pytest.param("sender", None, "sender: None", "display name", id="none"),
        pytest.param("sender", ["a@example.net"], "sender: ", "display name", id="a-list-of-senders"),
        pytest.param("cc", ("a@example.net", "b@example.net"), "cc is a tuple of two addresses", "list", id="two"),
        pytest.param("cc", ("a@example.net",), "cc is a tuple of 1", "list", id="one"),
        pytest.param("bcc", ("a@b.example", "b@b.example", "c@b.example"), "bcc is a tuple of 3", "list", id="three"),
        pytest.param("to", 7, "to is a int", "display name", id="a-number"),
        pytest.param("to", {"Bob": BOB}, "to is a dict", "display name", id="a-mapping"),
        pytest.param("to", b"bob@example.net", "to is a bytes", "display name", id="bytes"),
        pytest.param("to", [b"bob@example.net"], "to: .* is a bytes", "display name", id="bytes-in-a-list"),
        pytest.param("to", "bob@example.net\r\nBcc: eve@example.net", "to: ", "display name", id="injection"),
        pytest.param("to", "bob@exa\x00mple.net", "to: ", "display name", id="nul"),
        pytest.param("reply_to", ["nobody"], "reply_to: 'nobody' has no @", "display name", id="no-at"),
    ],
)
def test_what_is_no_address_is_refused(field: str, given: Any, text: str, hint: str) -> None:
    """With the argument's name, and what to pass instead; nothing is taken out of a longer string."""
    with pytest.raises(AddressError, match=text) as caught:
        composed(**{field: given})
    assert any(word in (caught.value.hint or "") for word in hint.split("|"))


UNSAFE = {
    "nul": "\x00", "tab": "\t", "cr": "\r", "lf": "\n", "vt": "\x0b", "escape": "\x1b", "delete": "\x7f", "nel": "\x85",
    "line": "\u2028", "paragraph": "\u2029", "embedding": "\u202a", "override": "\u202e", "surrogate": "\udc80",
}  # fmt: skip


@pytest.mark.parametrize("place", ["pair", "object", "subject", "headers"])
@pytest.mark.parametrize("character", UNSAFE.values(), ids=UNSAFE)
def test_a_control_character_is_refused(place: str, character: str) -> None:
    """In names, subjects and other fields; the error names the character in our words."""
    text = f"a{character}b"
    try:
        places: dict[str, Callable[[], dict[str, Any]]] = {
            "pair": lambda: {"to": (text, BOB)},
            "object": lambda: {"to": Address(text, "bob", "example.net")},
            "subject": lambda: {"subject": text},
            "headers": lambda: {"headers": {"X-Note": text}},
        }
        given = places[place]()
    except ValueError:
        # Python itself refuses CR and LF in an Address.
        assert place == "object"
        return
    with pytest.raises(MessageError, match=rf"U\+{ord(character):04X} \((.*)\) at index 1") as caught:
        composed(**given)
    assert ("half of a surrogate pair" in str(caught.value)) == (character == "\udc80")


def test_a_name_with_another_address_warns() -> None:
    """Filters take it for a forged sender; the warning points at the caller."""
    with pytest.warns(AddressWarning, match="'ceo@example.com', which is not its own") as caught:
        composed(sender=("ceo@example.com via Ada", "ada@example.org"))
    assert caught[0].filename.endswith("wire.py")
    with pytest.warns(AddressWarning):
        composed(to=[("a@example.com", BOB)])
    with pytest.warns(AddressWarning, match="'a@b..c'"):
        composed(cc=[("a@b..c", BOB)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        composed(sender=("ADA@example.org", "ada@example.org"))
        composed(sender=("ada@bücher.example", "ada@bücher.example"))


@pytest.mark.parametrize(
    ("name", "text"), [(7, "is a int"), ("x" * 256, "longer than 255"), ("ü" * 128, "longer than 255 bytes")]
)
def test_what_is_no_display_name_is_refused(name: Any, text: str) -> None:
    """A longer one does not fit the field once it is encoded."""
    with pytest.raises(MessageError, match=text):
        composed(to=[(name, BOB)])


NAMES = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\u202a\u202b\u202c\u202d\u202e")
)


@pytest.mark.filterwarnings("ignore::securesmtp.AddressWarning")
@given(names=st.lists(NAMES.map(str.strip).filter(lambda text: len(text.encode()) <= 255), min_size=1, max_size=3))
@settings(max_examples=examples(90), deadline=None)
def test_any_display_name_is_read_as_it_was_set(names: list[str]) -> None:
    """Also the longest, beside the longest address. Python's own reader joins long names with a space, so not by it."""
    longest = f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 53}.net"
    data = wire(composed(to=[(name, longest) for name in names], cc=[("Doe, Jane", BOB)]))
    found = fast_mail_parser.parse_email(data)
    assert [(each.display_name or "", each.address) for each in found.to] == [(name, longest) for name in names]
    assert [(each.display_name, each.address) for each in found.cc] == [("Doe, Jane", BOB)]
    assert validate_address(longest)


@pytest.mark.filterwarnings("ignore::securesmtp.AddressWarning")
@pytest.mark.parametrize(
    "name",
    ["Doe, Jane", "Support (Billing)", "a@b.example", '"', "\\", "王小明", "=?utf-8?q?x?=", "<a@b.example>", ";:,"],
)
def test_a_special_character_stays_in_the_name(name: str) -> None:
    """A comma makes no second recipient, and parentheses no comment."""
    assert _people(arrived(to=[(name, BOB)])["To"]) == [(name, BOB)]


@given(subject=NAMES.map(str.strip))
@settings(max_examples=examples(90), deadline=None)
def test_any_subject_is_read_as_it_was_set(subject: str) -> None:
    """Of any length; it adds no field."""
    message = arrived(subject=subject)
    assert message["Subject"] == subject
    assert sorted(message.keys()) == sorted({*message.keys()})
