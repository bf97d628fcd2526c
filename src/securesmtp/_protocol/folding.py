"""Header fields folded and a message written as octets, each field as one field (RFC 5322 §2.2, RFC 2047)."""

from __future__ import annotations

import io
import re
from email.errors import MessageError as EmailError
from email.generator import BytesGenerator
from email.header import Header
from email.headerregistry import AddressHeader, BaseHeader, Group
from email.policy import EmailPolicy
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeVar, cast

from securesmtp._protocol.content import BLOCK, MAX_LINE, Content
from securesmtp.errors import MessageError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from email.message import EmailMessage

T = TypeVar("T")
ADDRESS_FIELDS = ("From", "Sender", "Reply-To", "To", "Cc")
RESENT = ("Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Bcc")
_ADDRESS_NAMES = frozenset(name.lower() for name in (*ADDRESS_FIELDS, *RESENT))
_FOLD = "\r\n "
# Short fields of these need no folding, which costs half of what a small message does.
_TEXT_NAMES = frozenset({"subject", "date", "message-id", "mime-version", "content-transfer-encoding"})
_WORDS = re.compile(r"[!-~]++(?: [!-~]++)*+")
# Stands for a large payload while the rest is serialised.
_PLACE = "securesmtp: here a payload is put in"
# An address in which no character has another meaning in a header. To parse it costs a third of a message's time.
_SIMPLE = re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+")
# One field and its folded continuations, as they must stand on the wire (RFC 5322 §2.2).
_FIELD = re.compile(rb"([!-9;-~]+):[^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n")


def guarded(work: Callable[[], T]) -> T:
    """Return what *work* returns; what the email package raises for messages that it cannot handle is our error."""
    try:
        return work()
    except SecureSMTPError:
        raise
    except (
        EmailError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        NameError,
        RecursionError,
        ArithmeticError,
    ) as e:
        # All of these were seen (hypothesis, parsed headers of random characters).
        fault = type(e).__name__
    # Out here, so that it is neither cause nor context: a UnicodeEncodeError holds the text of the message.
    text = f"the message cannot be read or serialised ({fault} in Python's email package)"
    raise MessageError(text)


class _CheckedPolicy(EmailPolicy):
    """A policy under which each field is one field (CVE-2024-6923, CVE-2026-1299: on older Pythons it can be two)."""

    def fold_binary(self, name: str, value: str) -> bytes:
        """Return the folded field, or refuse what is more than one."""
        lowered = name.lower()
        if _is_short(name, value):
            field = f"{name}: {value}\r\n".encode("ascii")
            if lowered in _TEXT_NAMES or (lowered in _ADDRESS_NAMES and _is_plain(cast("AddressHeader", value), field)):
                return field
        folded = super().fold_binary(name, value)
        if lowered in _ADDRESS_NAMES:
            folded = self._same_addresses(name, value, folded)
        parsed = _FIELD.fullmatch(folded)
        if not parsed or parsed[1] != name.encode("utf-8", "surrogateescape"):
            text = f"the header field {name[:80]!r} would become more than one field, or none"
            raise MessageError(text, hint="take line ends and control characters out of its name and value")
        return folded

    def _same_addresses(self, name: str, value: str, folded: bytes) -> bytes:
        """Return *folded* if it reads as the addresses of *value* do, else with each display name encoded."""
        wanted = cast("AddressHeader", value if hasattr(value, "groups") else self.header_factory(name, value))
        # Python drops the quotes of a long display name, and those that an encoded one needs when it is decoded: what
        # was a name is then read as more addresses (seen on 3.11 to 3.13).
        if _is_plain(wanted, folded) or self._reads_as(wanted, folded):
            return folded
        encoded = _encoded_field(name, wanted.groups)
        if self._reads_as(wanted, encoded):
            return encoded
        text = f"the header field {name} cannot be written so that it is read as the same addresses"
        raise MessageError(text, hint="use simpler display names")

    def _reads_as(self, wanted: AddressHeader, field: bytes) -> bool:
        name, _, value = field.decode("utf-8", "surrogateescape").replace("\r\n", "").partition(":")
        return _spoken_to(self.header_factory(name, value.strip()).groups) == _spoken_to(wanted.groups)


def _is_short(name: str, value: str) -> bool:
    """Return whether *value* is a header object that is folded as all are, and needs no folding."""
    return (
        getattr(type(value), "fold", None) is BaseHeader.fold
        # A date that is none is written as nothing.
        and not cast("BaseHeader", value).defects
        and len(name) + len(value) <= 76  # noqa: PLR2004 -- 78 with what stands between
        and _WORDS.fullmatch(value) is not None
    )


def _is_plain(wanted: AddressHeader, field: bytes) -> bool:
    """Return whether *field* is nothing but the *wanted* addresses, so simple that they read as they stand."""
    specs = [address.addr_spec for group in wanted.groups for address in group.addresses]
    text = field.decode("utf-8", "surrogateescape").replace("\r\n", "").partition(":")[2].strip()
    return text == ", ".join(specs) and all(map(_SIMPLE.fullmatch, specs))


def _spoken_to(groups: Iterable[Group]) -> list[tuple[bool, list[str]]]:
    return [(group.display_name is not None, [address.addr_spec for address in group.addresses]) for group in groups]


def _encoded_field(name: str, groups: Iterable[Group]) -> bytes:
    """Return an address field whose display names are encoded-words, in which nothing has a meaning (RFC 2047 §5)."""
    parts = []
    for group in groups:
        mailboxes = f",{_FOLD}".join(
            f"{_encoded_words(a.display_name)} <{a.addr_spec}>" if a.display_name else a.addr_spec
            for a in group.addresses
        )
        parts.append(mailboxes if group.display_name is None else f"{_encoded_words(group.display_name)}: {mailboxes};")
    return f"{name}: {f',{_FOLD}'.join(parts)}\r\n".encode("utf-8", "surrogateescape")


def _encoded_words(text: str) -> str:
    # What a parsed header had of octets that are no text is not text here either.
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return Header(text, "utf-8").encode(maxlinelen=75, linesep="\r\n")


def serialised(message: EmailMessage, *, utf8: bool, cte_type: str) -> Content:
    theirs = cast("EmailPolicy", message.policy)
    policy = _CheckedPolicy(
        linesep="\r\n",
        utf8=utf8,
        cte_type=cte_type,
        # Below 78 the folding of some Pythons never ends (seen with 15), above 998 no server need take it.
        max_line_length=max(78, min(theirs.max_line_length or MAX_LINE, MAX_LINE)),
        refold_source=theirs.refold_source,
        header_factory=theirs.header_factory,
    )
    return Content.from_pieces(guarded(lambda: _pieces(message, policy)))


def _pieces(message: EmailMessage, policy: _CheckedPolicy) -> tuple[bytes | str, ...]:
    """Return *message* as it is written, each large payload as the str that it is: no copy is made of it."""
    large = [part for part in message.walk() if _is_large(part.get_payload())]
    payloads = [cast("str", part.get_payload()) for part in large]
    try:
        for part in large:
            part.set_payload(_PLACE)
        between = _flattened(message, policy).split(_PLACE.encode("ascii"))
    finally:
        for part, payload in zip(large, payloads, strict=True):
            part.set_payload(payload)
    if len(between) != len(large) + 1:
        # The words are in the message itself.
        return (_flattened(message, policy),)
    return tuple(piece for pair in zip_longest(between, payloads, fillvalue="") for piece in pair)


def _is_large(payload: object) -> bool:
    return isinstance(payload, str) and len(payload) > BLOCK and payload.isascii() and "\r" not in payload


def _flattened(message: EmailMessage, policy: _CheckedPolicy) -> bytes:
    buffer = io.BytesIO()
    _Generator(buffer, mangle_from_=False, policy=policy).flatten(message)
    return buffer.getvalue()


class _Generator(BytesGenerator):
    """Python's own, but for one write of a text in place of one for each of its lines."""

    def _write_lines(self, lines: str) -> None:
        self.write(lines.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n"))
