"""
Read and write the header fields of a message: each is exactly one field, and a signed one stays as it was signed.

The email package parses a field only if it is short enough, and never folds one: see `folding`.
"""

from __future__ import annotations

import re
from email.headerregistry import BaseHeader, Group, HeaderRegistry
from email.policy import SMTP, EmailPolicy
from typing import TYPE_CHECKING, Literal, cast

from securesmtp._protocol.address import ascii_domain
from securesmtp._protocol.address_fields import (
    AddressList,
    format_address_field,
    format_phrase,
    is_address_list,
    is_unreadable,
    read_addresses,
)
from securesmtp._protocol.encoded_words import format_text_field
from securesmtp._protocol.folding import (
    PREFERRED_LINE,
    fold,
    format_mime_field,
    join_lines,
    too_long_error,
    unfold,
)
from securesmtp._protocol.message_bounds import is_header_object
from securesmtp._protocol.scanner import MAX_LINE
from securesmtp._protocol.short_fields import FIELD_NAME, is_simple, read_simple, short_line, simple_addresses
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ADDRESS_FIELDS = ("From", "Sender", "Reply-To", "To", "Cc")
RESENT = ("Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Bcc")
# Python treats the others as text, but their readers expect lists of addresses (RFC 8098 §2.1).
_ADDRESS_NAMES = frozenset(name.lower() for name in (*ADDRESS_FIELDS, *RESENT)) | {
    "disposition-notification-to", "return-receipt-to", "errors-to", "mail-followup-to", "mail-reply-to",
    # These occur in attached messages. A message that is sent has no Bcc.
    "bcc", "resent-reply-to", "delivered-to", "apparently-to", "envelope-to", "x-original-to", "x-envelope-to",
    "x-envelope-from",
}  # fmt: skip
# Room for an encoded display name, even if the name of the field is long.
_PHRASE_ROOM = 60
_LINE_END = re.compile(r"\r\n|\r|\n")
# One field and its continuation lines (RFC 5322 §2.2).
_FIELD = re.compile(r"([!-9;-~]+):[^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n")
# Returns a header object as the one line that was parsed.
_ONE_LINE = EmailPolicy(utf8=True, max_line_length=None)
_REGISTRY = HeaderRegistry()


def read_groups(field: str, values: Iterable[str]) -> tuple[list[Group], bool]:
    """Return the addresses in *values* of fields named *field*, and whether each of these is a list of addresses."""
    groups: list[Group] = []
    is_valid = True
    for value in values:
        if is_address_list(value):
            found, is_list = list(value.groups), not is_unreadable(value)
        else:
            found, is_list = read_addresses(field, _unfold_source(str(value)))
        groups += found
        is_valid = is_valid and is_list
    return groups, is_valid


def _read_at_once(name: str, text: str) -> tuple[list[Group], bool]:
    value = AddressList(name, text)
    return list(value.groups), not is_unreadable(value)


def _unfold_source(source: str) -> str:
    """Return the value of a parsed field on one line; raw bytes that are not UTF-8 stay surrogates in it."""
    line = _LINE_END.sub("", source)
    return line if line.isascii() else line.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def has_default_class(policy: object, field: str) -> bool:
    """
    Return whether *policy* makes header objects of *field* as Python does by default.

    Then a text in its final form needs no object, which takes longer than all else to make.
    """
    factory: object = policy.header_factory if type(policy) is EmailPolicy else None
    if type(factory) is not HeaderRegistry:
        return False
    name = field.lower()
    return factory.base_class is BaseHeader and factory.registry.get(name) is _REGISTRY.registry[name]


def _not_one_field_error(name: str) -> MessageError:
    text = f"the header field {name[:80]!r} would not be exactly one field"
    return MessageError(text, hint="remove line ends and control characters from its name and value")


def _other_addresses_error(name: str) -> MessageError:
    text = f"the header field {name} cannot be written in a form that is read as the same addresses"
    return MessageError(text, hint="use simpler display names")


def signature_error(text: str) -> MessageError:
    """Return the error for a message that cannot be sent exactly as it was signed."""
    return MessageError(text, hint="pass the signed bytes to send_bytes; or remove the signature if you do not need it")


class CheckedPolicy(EmailPolicy):
    """Write each field as exactly one field; older Pythons can write two (CVE-2024-6923, CVE-2026-1299)."""

    # The fields that a DKIM signature covers; they are written as they are, or refused.
    signed_fields: frozenset[str] = frozenset()
    # Whether all that is written now is signed: as the body of the message, or as a part of it.
    signed: Literal["", "body", "part"] = ""
    # Whether it is in an attached message.
    attached = False

    def with_changes(self, **changes: object) -> CheckedPolicy:
        """Return a copy of this policy with other values of these attributes."""
        return self.clone(**changes)  # type: ignore[arg-type] # typeshed knows only Python's own attributes

    def fold_binary(self, name: str, value: str) -> bytes:
        """
        Return the folded field.

        Raises:
            MessageError: It would not be exactly one field, or not the field that was signed.
        """
        if not FIELD_NAME.fullmatch(name):
            raise _not_one_field_error(name)
        folded = self._format_object(name, value) if is_header_object(value) else self._format_source(name, value)
        if (self.signed or name.lower() in self.signed_fields) and not self._is_as_signed(name, value, folded):
            raise signature_error(f"the header field {name} is signed, and cannot be written as it was signed")
        if self.utf8 or self.attached or folded.isascii():
            # A non-ASCII local part has no ASCII form. In an attached message it stays UTF-8 (RFC 6532).
            return folded.encode("utf-8", "surrogateescape")
        try:
            return folded.encode("ascii", "surrogateescape")
        except UnicodeEncodeError:
            pass
        # Raised outside of the handler, because the context of the error would show the text of the message.
        text = f"the header field {name} has an address with a non-ASCII local part"
        raise MessageError(text, hint="use an ASCII local part: it has no other form in this field")

    def _is_as_signed(self, name: str, value: object, folded: str) -> bool:
        """Return whether *folded* is the field in the form in which it was signed."""
        lines = _LINE_END.split(folded)
        if not is_header_object(value):
            # A part is signed before it is part of this message; the program that signed it may have folded it.
            longest = PREFERRED_LINE if self.signed == "part" else MAX_LINE
            return lines == [*_LINE_END.split(f"{name}: {value}"), ""] and max(map(len, lines)) <= longest
        line = value.fold(policy=_ONE_LINE).removesuffix("\n")
        if self.signed == "body":
            return line.isascii() and len(line) <= MAX_LINE and folded == value.fold(policy=SMTP)
        # A relaxed DKIM signature ignores where a header field is folded (RFC 6376 §3.4.2).
        return line.isascii() and (lines == [line, ""] or (not self.signed and "".join(lines) == line))

    @property
    def _limit(self) -> int:
        return self.max_line_length or MAX_LINE

    def _format_object(self, name: str, value: BaseHeader) -> str:
        """Return a field that a program set; Python parsed its value at that time."""
        if getattr(type(value), "fold", None) is not BaseHeader.fold:
            return self._fold_with_own_class(name, value)
        text = str(value)
        if is_address_list(value):
            return self._format_address_object(name, value, text)
        line = short_line(name, value, is_signed=bool(self.signed))
        if line is not None:
            return join_lines([line])
        if _LINE_END.search(text):
            raise _not_one_field_error(name)
        parameters: Mapping[str, str] | None = getattr(value, "params", None)
        if parameters is not None:
            media_type = text.partition(";")[0].strip()
            return format_mime_field(name, media_type, parameters, limit=self._limit)
        if not text.isascii() and name.lower() in _ADDRESS_NAMES:
            return self._format_address_text(name, text)
        return format_text_field(name, text, limit=self._limit, utf8=self.utf8)

    def _format_source(self, name: str, value: str) -> str:
        """Return a field of a parsed message: unchanged, unless it is too long or not ASCII."""
        lines = _LINE_END.split(value)
        if not all(line.startswith((" ", "\t")) for line in lines[1:]):
            raise _not_one_field_error(name)
        if not (self.signed or self.attached or name.lower() in self.signed_fields):
            # RFC 5322 §3.2.2 forbids lines of nothing but white space; some readers end the header there.
            lines = [lines[0], *(line for line in lines[1:] if line.strip())]
        if value.isascii():
            longest = max(len(name) + 2 + len(lines[0]), *map(len, lines))
            if longest <= {"long": self._limit, "none": MAX_LINE}.get(self.refold_source, 0):
                return join_lines([f"{name}: {lines[0]}", *lines[1:]])
        if self._has_own_class(name):
            return self._fold_with_own_class(name, self.header_factory(name, "".join(lines)))
        if value.isascii():
            if self.refold_source == "none":
                raise too_long_error(name)
            return fold(name, "".join(lines), self._limit)
        try:
            return self._encode_source(name, _unfold_source(value))
        except MessageError:
            # A field of an attached message that cannot be encoded stays as it is.
            if not self.attached:
                raise
        return join_lines([f"{name}: {lines[0]}", *lines[1:]])

    def _encode_source(self, name: str, text: str) -> str:
        lowered = name.lower()
        if lowered in _ADDRESS_NAMES:
            return self._format_address_text(name, text)
        if lowered in {"content-type", "content-disposition"}:
            return self._format_object(name, _REGISTRY(name, text))
        return format_text_field(name, text, limit=self._limit, utf8=self.utf8, is_source=True)

    def _has_own_class(self, name: str) -> bool:
        """Return whether the caller's policy has a header class with its own ``fold`` for fields of this name."""
        return getattr(cast("HeaderRegistry", self.header_factory)[name], "fold", None) is not BaseHeader.fold

    def _fold_with_own_class(self, name: str, value: BaseHeader) -> str:
        folded = value.fold(policy=self)
        match = _FIELD.fullmatch(folded)
        if not match or match[1] != name:
            raise _not_one_field_error(name)
        return folded

    def _format_address_object(self, name: str, value: AddressList, text: str) -> str:
        groups = value.groups
        if not value.defects and is_simple(groups, text):
            return fold(name, text, self._limit)
        # Keep the text that the program set if it still reads as the same addresses. It may not, because Python has
        # decoded the encoded-words in it.
        source = value.fold(policy=_ONE_LINE).partition(":")[2].strip()
        simple = simple_addresses(groups)
        if simple is not None and simple == read_simple(source) and "=?" not in source:
            is_short = len(name) + len(source) <= PREFERRED_LINE - 2
            return join_lines([f"{name}: {source}"]) if is_short else fold(name, source, self._limit)
        if (source.isascii() or (self.utf8 and source.isprintable())) and not _LINE_END.search(source):
            # Python reads a short text at once, even if it is no valid list; for a long one it takes quadratic time.
            found, is_list = read_addresses(name, source) if len(source) > MAX_LINE else _read_at_once(name, source)
            # Names differ if Python decoded the name of an Address that was never encoded. Mailboxes differ if it
            # forgot the quotes of a local part such as "a..b".
            is_confirmed = _names(found) == _names(groups) if is_list else is_unreadable(value)
            if is_confirmed and _mailboxes(found) == _mailboxes(groups):
                return fold(name, source, self._limit)
        if is_unreadable(value):
            return self._format_unreadable(name, source)
        return self._format_groups(name, groups)

    def _format_address_text(self, name: str, text: str) -> str:
        groups, is_list = read_addresses(name, text)
        return self._format_groups(name, groups) if is_list else self._format_unreadable(name, text)

    def _format_unreadable(self, name: str, text: str) -> str:
        # Text such as "Undisclosed recipients" is no address, and no reader takes it for one.
        if set(text) & set('()<>[]:;@\\,."'):
            raise _other_addresses_error(name)
        return fold(name, format_phrase(text, _PHRASE_ROOM, utf8=self.utf8), self._limit)

    def _format_groups(self, name: str, groups: Iterable[Group]) -> str:
        """Return the field if it is read as the addresses of *groups*."""
        field = format_address_field(name, groups, limit=self._limit, utf8=self.utf8)
        text = unfold(field)
        written, simple = read_simple(text.strip()), simple_addresses(groups)
        if written is not None and simple is not None and [each[1] for each in written] == [each[1] for each in simple]:
            return field
        if _mailboxes(read_addresses(name, text)[0]) != _mailboxes(groups):
            raise _other_addresses_error(name)
        return field


def _mailboxes(groups: Iterable[Group]) -> list[tuple[bool, list[str]]]:
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
