"""
A message written as octets: each field as one field, what is signed as it was signed, within bounds.

The email package is given nothing that it takes quadratic time for: `check_bounds` comes before the first of its
parsers, and `folding` writes the header fields in place of its folder.
"""

from __future__ import annotations

import io
import re
from email.errors import InvalidHeaderDefect
from email.errors import MessageError as EmailError
from email.generator import BytesGenerator
from email.headerregistry import AddressHeader, BaseHeader, Group, HeaderRegistry
from email.policy import SMTP, EmailPolicy
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from securesmtp._protocol.address import ascii_domain
from securesmtp._protocol.content import BLOCK, MAX_HEADER, MAX_LINE, Content
from securesmtp._protocol.folding import (
    MIN_LINE,
    address_field,
    fold,
    mime_field,
    phrase,
    read_addresses,
    text_field,
    too_long,
)
from securesmtp.errors import MessageError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from email.errors import MessageDefect
    from email.message import EmailMessage, Message

T = TypeVar("T")
ADDRESS_FIELDS = ("From", "Sender", "Reply-To", "To", "Cc")
RESENT = ("Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Bcc")
# The last ones are text to Python, and lists of addresses to those who read them (RFC 8098 §2.1).
_ADDRESS_NAMES = frozenset(name.lower() for name in (*ADDRESS_FIELDS, *RESENT)) | {
    "disposition-notification-to", "return-receipt-to", "errors-to", "mail-followup-to", "mail-reply-to"
}  # fmt: skip
# Bounds of one message: Postfix looks into parts no deeper (mime_nesting_limit); nobody needs as many of the others.
_MAX_NESTING = 100
_MAX_PARTS = 10_000
# The email package parses these of each part, and takes quadratic time for it. A filename of 255 characters fits.
_MAX_MIME_FIELD = 4096
_MAX_PARAMETERS = 100
# Stands for a large payload while the rest is serialised.
# Display names beside which there is room for the name of a long field.
_PHRASE = 60
_PLACE = "securesmtp: here a payload is put in"
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


def check_bounds(message: Message) -> None:
    """
    Refuse what the email package would take quadratic time for, before it reads any of it.

    Raises:
        MessageError: There are too many parts, too deep; or a header, or one field of it, is too long.
    """
    parts, level = 0, [message]
    for _ in range(_MAX_NESTING + 1):
        parts += len(level)
        if parts > _MAX_PARTS:
            text = f"the message has more than {_MAX_PARTS} parts"
            raise MessageError(text)
        for part in level:
            _check_header(part)
        level = [child for part in level if part.is_multipart() for child in cast("list[Message]", part.get_payload())]
        if not level:
            return
    text = f"the parts of the message are nested more than {_MAX_NESTING} deep"
    raise MessageError(text)


def _check_header(part: Message) -> None:
    size = 0
    for name, value in part.raw_items():
        length = len(str(value))
        size += len(name) + length
        if size > MAX_HEADER:
            text = f"the header is longer than {MAX_HEADER} octets, with the field {name[:80]!r}"
            raise MessageError(text)
        if length > MIN_LINE and not hasattr(value, "fold") and name.lower().startswith("content-"):
            text = str(value)
            if length > _MAX_MIME_FIELD or max(text.count(";"), text.count('"') // 2) > _MAX_PARAMETERS:
                bounds = f"{_MAX_MIME_FIELD} characters or {_MAX_PARAMETERS} parameters"
                text = f"the header field {name[:80]!r} has more than {bounds}"
                raise MessageError(text)


def field_groups(message: Message, field: str) -> tuple[list[Group], bool]:
    """Return the addresses of all fields of this name, and whether each field is a list of addresses."""
    groups: list[Group] = []
    is_valid = True
    for name, value in message.raw_items():
        if name.lower() == field.lower():
            if isinstance(value, AddressHeader):
                found, is_list = list(value.groups), not _is_unreadable(value)
            else:
                found, is_list = _read(field, _text(str(value)))
            groups += found
            is_valid = is_valid and is_list
    return groups, is_valid


def _is_unreadable(value: AddressHeader) -> bool:
    # The parser keeps what it could read ("a@b.example; c@d.example" gives one) and says so only in the defects.
    defects = cast("tuple[MessageDefect, ...]", value.defects)  # type: ignore[attr-defined] # typeshed lacks it
    return any(isinstance(defect, InvalidHeaderDefect) for defect in defects)


def _read(name: str, text: str) -> tuple[list[Group], bool]:
    return read_addresses(name, text, lambda piece: cast("AddressHeader", _AddressList(name, piece)))


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


def _changed(text: str) -> MessageError:
    hint = "pass the octets that were signed to send_bytes; or take the signature out, if it need not hold"
    return MessageError(text, hint=hint)


def _is_parsed(part: Message) -> bool:
    """Return whether a multipart was parsed: Python loses octets of it, such as blanks behind a boundary."""
    return part.epilogue is not None or bool(part.defects)


def signed_fields(message: Message) -> frozenset[str]:
    """
    Return the names of the fields that a DKIM signature covers, in lower case; none if there is none (RFC 6376 §3.5).

    Raises:
        MessageError: It was parsed, and it is not known whether the signature still holds.
    """
    names: set[str] = set()
    for name, value in message.raw_items():
        if name.lower() != "dkim-signature":
            continue
        tags = dict(tag.partition("=")[::2] for tag in "".join(str(value).split()).split(";"))
        header, _, body = tags.get("c", "").partition("/")
        # Python's parser keeps neither the blanks behind a colon nor those behind a boundary, which simple ones see.
        is_exact = header != "relaxed" or (body != "relaxed" and message.is_multipart() and _is_parsed(message))
        if is_exact and not hasattr(value, "fold"):
            text = "the message has a DKIM-Signature that sees each octet, and was parsed"
            raise _changed(text)
        names |= {"dkim-signature", *tags.get("h", "").lower().split(":")}
    return frozenset(names)


def check_signed(message: Message, prepared: Message) -> None:
    """
    Refuse a message of which a field is signed that *prepared*, its copy, has otherwise.

    Raises:
        MessageError: There is one.
    """
    signed = signed_fields(message)
    for name in sorted(signed):
        if [str(v) for n, v in message.raw_items() if n.lower() == name] != [
            str(v) for n, v in prepared.raw_items() if n.lower() == name
        ]:
            text = f"the header field {name[:80]!r} is signed, and must be changed to send the message"
            raise _changed(text)


class _CheckedPolicy(EmailPolicy):
    """A policy under which each field is one field (CVE-2024-6923, CVE-2026-1299: on older Pythons it can be two)."""

    # Which fields are signed, and whether all that is here is: as the body of a message, or as a part of one. They are
    # written as they stand, or not at all.
    signed_fields: frozenset[str] = frozenset()
    signed: Literal["", "body", "part"] = ""
    # Whether this is in a message that is attached.
    attached = False

    def but(self, **changes: object) -> _CheckedPolicy:
        """Return this policy with these attributes."""
        return self.clone(**changes)  # type: ignore[arg-type] # typeshed knows Python's own attributes alone

    def fold_binary(self, name: str, value: str) -> bytes:
        """Return the folded field, or refuse what is more than one."""
        if not _NAME.fullmatch(name):
            raise _not_one_field(name)
        folded = self._set_field(name, value) if hasattr(value, "fold") else self._source_field(name, value)
        if (self.signed or name.lower() in self.signed_fields) and not self._is_as_signed(name, value, folded):
            raise _changed(f"the header field {name} is signed, and cannot be written as it was signed")
        return folded.encode("utf-8" if self.utf8 else "ascii", "surrogateescape")

    def _is_as_signed(self, name: str, value: str, folded: str) -> bool:
        """Return whether *folded* is what a program that signed the field had before it."""
        lines = folded.split("\r\n")
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
            return f"{name}: {text}\r\n" if text else f"{name}:\r\n"
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
        if value.isascii():
            longest = max(len(name) + 2 + len(lines[0]), *map(len, lines))
            if longest <= {"long": self._limit, "none": MAX_LINE}.get(self.refold_source, 0):
                return "\r\n".join([f"{name}: {lines[0]}", *lines[1:], ""])
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
        return "\r\n".join([f"{name}: {lines[0]}", *lines[1:], ""])

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
            short = len(source) <= MAX_LINE
            found = cast("AddressHeader", _AddressList(name, source)).groups if short else _read(name, source)[0]
            if _spoken_to(found) == _spoken_to(groups):
                return fold(name, source, self._limit)
        if _is_unreadable(value):
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
        found, _ = _read(name, written.partition(":")[2].replace("\r\n", ""))
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


def _ascii_spec(spec: str) -> str:
    local, at, domain = spec.rpartition("@")
    return f"{local}@{ascii_domain(domain)}" if at and not domain.isascii() else spec


def serialised(message: EmailMessage, *, utf8: bool, cte_type: str) -> Content:
    """
    Return the octets of *message*.

    Args:
        message: A copy of ours; boundaries are set in it.
        utf8: Whether the header may be UTF-8 (RFC 6532).
        cte_type: ``"7bit"`` re-encodes parts that are not ASCII.

    Raises:
        MessageError: It cannot be written as it is.
    """
    theirs = cast("EmailPolicy", message.policy)
    signed = signed_fields(message)
    policy = _CheckedPolicy(
        linesep="\r\n",
        utf8=utf8,
        cte_type=cte_type,
        # Above 998 no server need take it.
        max_line_length=max(MIN_LINE, min(theirs.max_line_length or MAX_LINE, MAX_LINE)),
        refold_source="none" if signed else theirs.refold_source,
        header_factory=theirs.header_factory,
    ).but(signed_fields=signed)
    pieces = guarded(lambda: _pieces(message, policy))
    try:
        return Content.from_pieces(pieces)
    except MessageError as error:
        raise _with_part(message, error) from None


def _with_part(message: Message, error: MessageError) -> MessageError:
    """Return *error* with the part that a line too long or a NUL is in, and how to re-encode it."""
    for number, part in enumerate(message.walk()):
        payload = part.get_payload()
        if isinstance(payload, str) and ("\0" in payload or max(map(len, payload.split("\n"))) > MAX_LINE):
            filename = part.get_filename()
            shown = f"{part.get_content_type()}{f' {filename!r}' if filename else ''}"[:80]
            text = f"{error.args[0]}, in the part {shown}"
            hint = (
                f'part = list(message.walk())[{number}]; del part["Content-Transfer-Encoding"]; '
                "email.encoders.encode_base64(part)"
            )
            return MessageError(text, hint=hint)
    return error


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
    """Python's own, but for one write of a text, and for what is signed or attached."""

    policy: _CheckedPolicy

    def _write_lines(self, lines: str) -> None:
        self.write(lines.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n"))

    def _dispatch(self, msg: Message) -> None:
        policy = self.policy
        self.policy = self._below(msg)
        try:
            super()._dispatch(msg)  # type: ignore[misc] # typeshed lacks it
        finally:
            self.policy = policy

    def _below(self, part: Message) -> _CheckedPolicy:
        """Return the policy for what is in *part*."""
        if self.policy.signed_fields:
            return self.policy.but(signed="body", signed_fields=frozenset())
        if part.is_multipart():
            kind = part.get_content_type()
            if kind == "multipart/signed":
                if _is_parsed(part):
                    text = "the message has a signed part (multipart/signed), and was parsed: it may have been changed"
                    raise _changed(text)
                return self.policy.but(signed="part", refold_source="none")
            if part.get_content_maintype() == "message":
                # What is attached is not ours to fold anew.
                return self.policy.but(attached=True, refold_source="none")
        return self.policy

    def _handle_multipart_signed(self, msg: Message) -> None:
        self._handle_multipart(msg)  # type: ignore[attr-defined] # typeshed lacks it

    def _handle_text(self, msg: Message) -> None:
        is_kept = bool(self.policy.signed) or self.policy.attached
        if self.policy.cte_type == "7bit" and is_kept and not str(msg.get_payload()).isascii():
            text = "a part that is signed or attached has non-ASCII octets, and the server does not offer 8BITMIME"
            raise _changed(text)
        super()._handle_text(msg)  # type: ignore[misc] # typeshed lacks it

    _writeBody = _handle_text  # noqa: N815 -- Python's name
