"""
Header fields of a message, read and written: each as one field, and as it was signed where it is signed.

The email package's own parser gets a field only within bounds, and its folder none: see `folding`.
"""

from __future__ import annotations

import re
from email.headerregistry import AddressHeader, BaseHeader, Group, HeaderRegistry
from email.policy import SMTP, EmailPolicy
from typing import TYPE_CHECKING, Literal, cast

from securesmtp._protocol.address import ascii_domain
from securesmtp._protocol.address_fields import address_field, is_unreadable, phrase, read_addresses
from securesmtp._protocol.content import MAX_LINE
from securesmtp._protocol.encoded_words import text_field
from securesmtp._protocol.folding import MIN_LINE, fold, joined, mime_field, too_long, unfolded
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from email.message import Message

ADDRESS_FIELDS = ("From", "Sender", "Reply-To", "To", "Cc")
RESENT = ("Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Bcc")
# The last ones are text to Python, and lists of addresses to those who read them (RFC 8098 §2.1).
_ADDRESS_NAMES = frozenset(name.lower() for name in (*ADDRESS_FIELDS, *RESENT)) | {
    "disposition-notification-to", "return-receipt-to", "errors-to", "mail-followup-to", "mail-reply-to",
    # Of an attached message. What is sent has no Bcc.
    "bcc", "resent-reply-to", "delivered-to", "apparently-to", "envelope-to", "x-original-to", "x-envelope-to",
    "x-envelope-from",
}  # fmt: skip
# Stands for a large payload while the rest is serialised.
# Display names beside which there is room for the name of a long field.
_PHRASE = 60
# An address in which no character has another meaning in a header. To parse it costs a third of a message's time.
_SIMPLE = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9.-]+")
_NAME = re.compile(r"[!-9;-~]+")
_LINE_END = re.compile(r"\r\n|\r|\n")
# One field and its folded continuations, as they must stand on the wire (RFC 5322 §2.2).
_FIELD = re.compile(r"([!-9;-~]+):[^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n")
# Writes a header object as the one line that was parsed.
_ONE_LINE = EmailPolicy(utf8=True, max_line_length=None)
_STOCK = HeaderRegistry()
_AddressList = _STOCK["To"]


def field_groups(message: Message, field: str) -> tuple[list[Group], bool]:
    """Return the addresses of all fields of this name, and whether each field is a list of addresses."""
    groups: list[Group] = []
    is_valid = True
    for name, value in message.raw_items():
        if name.lower() == field.lower():
            if isinstance(value, AddressHeader):
                found, is_list = list(value.groups), not is_unreadable(value)
            else:
                found, is_list = _read(field, _text(str(value)))
            groups += found
            is_valid = is_valid and is_list
    return groups, is_valid


def _read(name: str, text: str) -> tuple[list[Group], bool]:
    return read_addresses(name, text, lambda piece: cast("AddressHeader", _AddressList(name, piece)))


def _read_at_once(name: str, text: str) -> tuple[list[Group], bool]:
    header = cast("AddressHeader", _AddressList(name, text))
    return list(header.groups), not is_unreadable(header)


def _text(source: str) -> str:
    """Return a parsed field unfolded; raw octets that are no UTF-8 stay surrogates in it."""
    unfolded = _LINE_END.sub("", source)
    return (
        unfolded if source.isascii() else unfolded.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    )


def _not_one_field(name: str) -> MessageError:
    text = f"the header field {name[:80]!r} would become more than one field, or none"
    return MessageError(text, hint="take line ends and control characters out of its name and value")


def _not_same_addresses(name: str) -> MessageError:
    text = f"the header field {name} cannot be written so that it is read as the same addresses"
    return MessageError(text, hint="use simpler display names")


def changed(text: str) -> MessageError:
    hint = "pass the octets that were signed to send_bytes; or take the signature out, if it need not hold"
    return MessageError(text, hint=hint)


class CheckedPolicy(EmailPolicy):
    """A policy under which each field is one field (CVE-2024-6923, CVE-2026-1299: on older Pythons it can be two)."""

    # Which fields are signed, and whether all that is here is: as the body of a message, or as a part of one. They are
    # written as they stand, or not at all.
    signed_fields: frozenset[str] = frozenset()
    signed: Literal["", "body", "part"] = ""
    # Whether this is in a message that is attached.
    attached = False

    def but(self, **changes: object) -> CheckedPolicy:
        """Return this policy with these attributes."""
        return self.clone(**changes)  # type: ignore[arg-type] # typeshed knows Python's own attributes alone

    def fold_binary(self, name: str, value: str) -> bytes:
        """Return the folded field, or refuse what is more than one."""
        if not _NAME.fullmatch(name):
            raise _not_one_field(name)
        folded = self._set_field(name, value) if hasattr(value, "fold") else self._source_field(name, value)
        if (self.signed or name.lower() in self.signed_fields) and not self._is_as_signed(name, value, folded):
            raise changed(f"the header field {name} is signed, and cannot be written as it was signed")
        if self.utf8 or self.attached or folded.isascii():
            # A local part has no ASCII form: where it is attached it stays as it is, in UTF-8 (RFC 6532).
            return folded.encode("utf-8", "surrogateescape")
        try:
            return folded.encode("ascii", "surrogateescape")
        except UnicodeEncodeError:
            pass
        # Out here, so that the error is not its context: it holds the text of the message.
        text = f"the header field {name} has an address with a local part that is not ASCII"
        raise MessageError(text, hint="use an ASCII local part: this field cannot be written in another way")

    def _is_as_signed(self, name: str, value: str, folded: str) -> bool:
        """Return whether *folded* is what a program that signed the field had before it."""
        lines = _LINE_END.split(folded)
        if not hasattr(value, "fold"):
            # A part is signed before it is one, and then a program that builds it may have it folded.
            longest = MIN_LINE if self.signed == "part" else MAX_LINE
            return lines == [*_LINE_END.split(f"{name}: {value}"), ""] and max(map(len, lines)) <= longest
        header = cast("BaseHeader", value)
        line = header.fold(policy=_ONE_LINE).removesuffix("\n")
        if self.signed == "body":
            return line.isascii() and len(line) <= MAX_LINE and folded == header.fold(policy=SMTP)
        # Relaxed signatures of a header do not see where it is folded (RFC 6376 §3.4.2).
        return line.isascii() and (lines == [line, ""] or (not self.signed and "".join(lines) == line))

    @property
    def _limit(self) -> int:
        return cast("int", self.max_line_length)

    def _set_field(self, name: str, value: str) -> str:
        """Return a field that a program set: a header object, which was parsed then."""
        if getattr(type(value), "fold", None) is not BaseHeader.fold:
            return self._own_field(name, value)
        text = str(value)
        if isinstance(value, AddressHeader):
            return self._address_field(name, value, text)
        if len(name) + len(text) <= MIN_LINE - 2 and text.isascii() and text.isprintable() and "=?" not in text:
            return joined([f"{name}: {text}" if text else f"{name}:"])
        if _LINE_END.search(text):
            raise _not_one_field(name)
        parameters = cast("Mapping[str, str] | None", getattr(value, "params", None))
        if parameters is not None:
            return mime_field(name, text.partition(";")[0].strip(), parameters, limit=self._limit, utf8=self.utf8)
        if not text.isascii() and name.lower() in _ADDRESS_NAMES:
            return self._address_list(name, text)
        return text_field(name, text, limit=self._limit, utf8=self.utf8)

    def _source_field(self, name: str, value: str) -> str:
        """Return a field of a parsed message: as it stands, unless it is too long or not ASCII."""
        lines = _LINE_END.split(value)
        if not all(line.startswith((" ", "\t")) for line in lines[1:]):
            raise _not_one_field(name)
        if not (self.signed or self.attached or name.lower() in self.signed_fields):
            # RFC 5322 §3.2.2: no line is nothing but white space; some readers end the header there.
            lines = [lines[0], *(line for line in lines[1:] if line.strip())]
        if value.isascii():
            longest = max(len(name) + 2 + len(lines[0]), *map(len, lines))
            if longest <= {"long": self._limit, "none": MAX_LINE}.get(self.refold_source, 0):
                return joined([f"{name}: {lines[0]}", *lines[1:]])
        if self._has_own_class(name):
            return self._own_field(name, self.header_factory(name, "".join(lines)))
        if value.isascii():
            if self.refold_source == "none":
                raise too_long(name)
            return fold(name, "".join(lines), self._limit)
        try:
            return self._encoded_source(name, _text(value))
        except MessageError:
            # What cannot be encoded is not ours to refuse where it is attached: it stays as it is.
            if not self.attached:
                raise
        return joined([f"{name}: {lines[0]}", *lines[1:]])

    def _encoded_source(self, name: str, text: str) -> str:
        lowered = name.lower()
        if lowered in _ADDRESS_NAMES:
            return self._address_list(name, text)
        if lowered in {"content-type", "content-disposition"}:
            return self._set_field(name, _STOCK(name, text))
        return text_field(name, text, limit=self._limit, utf8=self.utf8, is_source=True)

    def _has_own_class(self, name: str) -> bool:
        """Return whether the caller's policy has a class for these fields that folds them in its own way."""
        return getattr(cast("HeaderRegistry", self.header_factory)[name], "fold", None) is not BaseHeader.fold

    def _own_field(self, name: str, value: object) -> str:
        folded = cast("BaseHeader", value).fold(policy=self)
        parsed = _FIELD.fullmatch(folded)
        if not parsed or parsed[1] != name:
            raise _not_one_field(name)
        return folded

    def _address_field(self, name: str, value: AddressHeader, text: str) -> str:
        groups = value.groups
        if not value.defects and _is_plain(groups, text):  # type: ignore[attr-defined] # typeshed lacks it
            return fold(name, text, self._limit)
        source = cast("BaseHeader", value).fold(policy=_ONE_LINE).partition(":")[2].strip()
        # What was parsed is written as it was, if it still means the same: encoded-words have been decoded in it.
        if (source.isascii() or (self.utf8 and source.isprintable())) and not _LINE_END.search(source):
            # A list that is none reads as the email package read it, if it is short enough for that.
            found, is_list = _read(name, source) if len(source) > MAX_LINE else _read_at_once(name, source)
            # Python writes an Address without the quotes that its local part needs for dots alone, and decodes the name
            # in it, though it was never encoded.
            is_same = _spoken_to(found) == _spoken_to(groups) and _names(found) == _names(groups)
            if is_same if is_list else is_unreadable(value) and _spoken_to(found) == _spoken_to(groups):
                return fold(name, source, self._limit)
        if is_unreadable(value):
            return self._unreadable(name, source)
        return self._checked_addresses(name, groups)

    def _address_list(self, name: str, text: str) -> str:
        groups, is_list = _read(name, text)
        return self._checked_addresses(name, groups) if is_list else self._unreadable(name, text)

    def _unreadable(self, name: str, text: str) -> str:
        # "Undisclosed recipients" is no address, and can be taken for none.
        if set(text) & set('()<>[]:;@\\,."'):
            raise _not_same_addresses(name)
        return fold(name, phrase(text, _PHRASE, utf8=self.utf8), self._limit)

    def _checked_addresses(self, name: str, groups: Iterable[Group]) -> str:
        """Return the field if it reads as the addresses of *groups* do."""
        written = address_field(name, groups, limit=self._limit, utf8=self.utf8)
        found, _ = _read(name, unfolded(written))
        if _spoken_to(found) != _spoken_to(groups):
            raise _not_same_addresses(name)
        return written


def _is_plain(groups: Iterable[Group], text: str) -> bool:
    """Return whether *text* is nothing but these addresses, so simple that they read as they stand."""
    specs = [address.addr_spec for group in groups for address in group.addresses]
    return text == ", ".join(specs) and all(map(_SIMPLE.fullmatch, specs))


def _spoken_to(groups: Iterable[Group]) -> list[tuple[bool, list[str]]]:
    return [
        (group.display_name is not None, [_ascii_spec(address.addr_spec) for address in group.addresses])
        for group in groups
    ]


def _names(groups: Iterable[Group]) -> list[str]:
    return [each.display_name for group in groups for each in group.addresses] + [
        group.display_name or "" for group in groups
    ]


def _ascii_spec(spec: str) -> str:
    local, at, domain = spec.rpartition("@")
    return f"{local}@{ascii_domain(domain)}" if at and not domain.isascii() else spec
