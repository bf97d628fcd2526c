"""
A message that is bytes already: a file, or what a program writes to the standard input of sendmail.

How it works: the header is split into its fields, each kept as its bytes. Only what must not or cannot be sent is
changed, so that all else arrives as it was written: line ends become CRLF (a CR CR LF, which terminals write, too); a
byte order mark and mbox's line "From " are left out; Bcc is removed; Date and Message-ID are added if they are missing,
and MIME-Version if there is a Content field; fields that are not ASCII or longer than a line are encoded; a text with a
NUL, a CR alone or a line of more than 900 bytes is encoded as quoted-printable.
"""

from __future__ import annotations

import re
from binascii import b2a_qp
from dataclasses import dataclass, replace
from datetime import datetime
from email.headerregistry import Address, Group
from email.utils import format_datetime
from secrets import token_hex
from typing import TYPE_CHECKING

from securesmtp import Envelope
from securesmtp._cli.send.names import bare_name
from securesmtp._protocol.address import Mailbox, addr_spec
from securesmtp._protocol.address_fields import format_address_field, read_addresses
from securesmtp._protocol.header_fields import ADDRESS_FIELDS, RESENT, CheckedPolicy
from securesmtp._protocol.scanner import SAFE_LINE
from securesmtp._shown import quote
from securesmtp.errors import AddressError, MessageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r{0,2}\n")
# Postfix leaves out several of them, quoted or not.
_MBOX_LINE = re.compile(rb"(?:>?From [^\r\n]*\r\n)+")
_FIELD = re.compile(rb"([!-9;-~]+):[^\n]*\n(?:[ \t][^\n]*\n)*")
_BINARY = re.compile(rb"\0|\r(?!\n)")
_BLIND = frozenset({"bcc", "resent-bcc"})
_WITH_ADDRESSES = frozenset(name.lower() for name in (*ADDRESS_FIELDS, *RESENT, "Bcc"))
# What a program may have signed is not encoded.
_SIGNED = frozenset({"dkim-signature", "arc-message-signature"})
_POLICY = CheckedPolicy(linesep="\r\n", max_line_length=SAFE_LINE, refold_source="long", cte_type="8bit")
_HINT = "write user@example.org, and commas between several addresses"


@dataclass(frozen=True, slots=True)
class Message:
    """
    The header fields and the body of a message, as bytes with CRLF line ends.

    Attributes:
        fields: Each field, with its name and the line ends in and after it.
        body: What follows the empty line after the header.
    """

    fields: tuple[bytes, ...]
    body: bytes

    @classmethod
    def parse(cls, data: bytes) -> Message:
        """
        Return the message that *data* is. Without a header, all of it is the body.

        Raises:
            MessageError: It is empty, or a line of the header is not a header field.
        """
        text = data.removeprefix(_BYTE_ORDER_MARK)
        text = _LINE_END.sub(b"\r\n", text if text.endswith(b"\n") or not text else text + b"\n")
        if found := _MBOX_LINE.match(text):
            text = text[found.end() :]
        if not text:
            raise MessageError("the message is empty: it has 0 bytes")
        fields, position = list[bytes](), 0
        while field := _FIELD.match(text, position):
            fields.append(field[0])
            position = field.end()
        if text.startswith(b"\r\n", position):
            position += 2
        elif fields and position < len(text):
            # The rest, perhaps a Bcc, would be sent as text.
            number = text.count(b"\n", 0, position) + 1
            message = f"line {number} is neither a header field nor the continuation of one"
            raise MessageError(message, hint="an empty line must end the header")
        return cls(tuple(fields), text[position:])

    def names(self) -> list[str]:
        """Return the name of each field, in lower case."""
        return [_name(field) for field in self.fields]

    def values(self, name: str) -> list[str]:
        """Return the unfolded text of each field of this *name*; raw bytes that are not UTF-8 are surrogates in it."""
        return [_value(field) for field in self.fields if _name(field) == name.lower()]

    def addresses(self, name: str) -> list[Address]:
        """
        Return the addresses in the fields of this *name*.

        Raises:
            AddressError: One of the fields is not a list of addresses.
        """
        return [address for value in self.values(name) for address in parse_addresses(value, name)]

    def sender(self) -> str:
        """
        Return the address of Sender, else the only one of From; those of the Resent fields if there are any.

        Raises:
            AddressError: It is not an address.
            MessageError: There is none, or there are several.
        """
        prefix = self._resent_prefix()
        for name in (f"{prefix}Sender", f"{prefix}From"):
            found = self.addresses(name)
            if len(found) == 1:
                return to_mailbox(found[0], name)
            if found:
                raise MessageError(f"{name} has {len(found)} addresses", hint=f"set {prefix}Sender, or give the sender")
        raise MessageError(f"the message has no {prefix}From", hint="set it, or give the sender: -f user@example.org")

    def recipients(self) -> list[str]:
        """
        Return the addresses of To, Cc and Bcc, or of their Resent fields if there are any.

        Raises:
            AddressError: One of these fields is not a list of addresses.
            MessageError: It was resent more than once.
        """
        prefix = self._resent_prefix()
        names = (f"{prefix}To", f"{prefix}Cc", f"{prefix}Bcc")
        return [to_mailbox(address, name) for name in names for address in self.addresses(name)]

    def without(self, names: Iterable[str]) -> Message:
        """Return the message without the fields of these *names*."""
        lowered = {name.lower() for name in names}
        return replace(self, fields=tuple(field for field in self.fields if _name(field) not in lowered))

    def with_field(self, name: str, value: str) -> Message:
        """Return the message with one more field at the end of its header."""
        return replace(self, fields=(*self.fields, _POLICY.fold_binary(name, value)))

    def with_author(self, name: str | None, address: str) -> Message:
        """Return the message with *address* as its From."""
        (found,) = parse_addresses(address, "From")
        author = Address(name or "", found.username, found.domain)
        field = format_address_field("From", [Group(None, (author,))], limit=SAFE_LINE, utf8=False)
        return replace(self, fields=(*self.fields, field.encode()))

    def map_addresses(self, change: Callable[[str], str]) -> Message:
        """Return the message with each text of addresses in its header changed."""

        def map_field(field: bytes) -> bytes:
            name = _name(field)
            if name not in _WITH_ADDRESSES:
                return field
            value = _value(field)
            changed = change(value)
            written = field.partition(b":")[0].decode("ascii")
            return field if changed == value else _POLICY.fold_binary(written, changed.strip())

        return replace(self, fields=tuple(map(map_field, self.fields)))

    def complete(self, mail_from: str) -> Message:
        """
        Return the message in the form in which it is sent, from *mail_from*; see the top of this file.

        Raises:
            MessageError: It has no such form.
        """
        message = self.without(_BLIND)
        names = message.names()
        if "date" not in names:
            message = message.with_field("Date", format_datetime(datetime.now().astimezone()))
        if "message-id" not in names:
            # The null reverse-path has no domain.
            authors = [mail_from] if mail_from else [addr_spec(each) for each in message.addresses("From")]
            domain = Mailbox.parse(authors[0]).domain if authors else "localhost"
            message = message.with_field("Message-ID", f"<{token_hex(16)}@{domain}>")
        if "mime-version" not in names and any(name.startswith("content-") for name in names):
            message = message.with_field("MIME-Version", "1.0")
        if not _SIGNED.isdisjoint(names):
            return message
        message = replace(message, fields=tuple(map(_as_sendable, message.fields)))
        is_sendable = not _BINARY.search(message.body) and _longest_line(message.body) <= SAFE_LINE
        return message if is_sendable else _with_sendable_body(message)

    def to_bytes(self) -> bytes:
        """Return the whole message."""
        return b"".join((*self.fields, b"\r\n", self.body))

    def _resent_prefix(self) -> str:
        names = [name for name in self.names() if name.startswith("resent-")]
        if len(set(names)) < len(names):
            # RFC 5322 §3.6.6 puts the latest first, many programs put them last.
            raise MessageError("the message was resent more than once", hint="give the sender and the recipients")
        return "Resent-" if any(name.lower() in names for name in RESENT) else ""


def read_eml(data: bytes) -> Envelope:
    """
    Return the message of a file with the envelope that its header determines.

    Raises:
        AddressError: A field is not a list of addresses.
        MessageError: It cannot be sent as it is, or has no sender or no recipient.
    """
    message = Message.parse(data)
    sender, recipients = message.sender(), message.recipients()
    if not recipients:
        raise MessageError("the message has no recipient", hint="set To, Cc or Bcc")
    return Envelope(sender, recipients, message.complete(sender).to_bytes())


def parse_addresses(text: str, what: str) -> list[Address]:
    """
    Return the addresses in *text*; *what* names where it is from.

    Raises:
        AddressError: It is not a list of addresses.
    """
    groups, is_list = read_addresses(what, text)
    if not is_list:
        name = bare_name(text)
        message = f"{what} is not a list of addresses: {quote(text.strip(), allow_at=True)}"
        if name is not None:
            message = f"{what} has a name without a domain: {quote(name)}"
        error = AddressError(message, hint=_HINT)
        error.address = text
        raise error
    return [address for group in groups for address in group.addresses]


def to_mailbox(address: Address, name: str) -> str:
    """
    Return *address* as it is in an envelope; *name* is where it is from.

    Raises:
        AddressError: It is not a mailbox.
    """
    try:
        return Mailbox.parse(addr_spec(address)).address
    except AddressError as error:
        error.args = (f"{name}: {error.args[0]}",)
        error.hint = error.hint or _HINT
        raise


def _name(field: bytes) -> str:
    return field.partition(b":")[0].decode("ascii").lower()


def _value(field: bytes) -> str:
    return field.partition(b":")[2].replace(b"\r\n", b"").decode("utf-8", "surrogateescape")


def _as_sendable(field: bytes) -> bytes:
    """Return *field* unchanged, unless it is not ASCII or has a line of more than 900 bytes."""
    if field.isascii() and _longest_line(field) <= SAFE_LINE:
        return field
    name, _, value = field.decode("utf-8", "surrogateescape").removesuffix("\r\n").partition(":")
    try:
        return _POLICY.fold_binary(name, value.removeprefix(" "))
    except MessageError:
        # A local part in UTF-8 has no other form; the server may offer SMTPUTF8.
        if name.lower() in _WITH_ADDRESSES and _is_utf8(field):
            return field
        raise


def _with_sendable_body(message: Message) -> Message:
    """Return *message* with its body as quoted-printable, if it is one text that is not encoded yet."""
    types, encodings = message.values("Content-Type"), message.values("Content-Transfer-Encoding")
    is_text = all(value.strip().lower().startswith("text/") for value in types)
    if not is_text or {value.strip().lower() for value in encodings} - {"7bit", "8bit", "binary"}:
        return message
    message = message.without(["Content-Transfer-Encoding"])
    if not types and not message.body.isascii():
        charset = "utf-8" if _is_utf8(message.body) else "unknown-8bit"
        message = message.with_field("Content-Type", f"text/plain; charset={charset}")
    message = message.with_field("Content-Transfer-Encoding", "quoted-printable")
    if "mime-version" not in message.names():
        message = message.with_field("MIME-Version", "1.0")
    return replace(message, body=b"\r\n".join(map(_quoted_printable, message.body.split(b"\r\n"))))


def _longest_line(data: bytes) -> int:
    return max(map(len, data.split(b"\r\n")))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _quoted_printable(line: bytes) -> bytes:
    return b2a_qp(line, quotetabs=False, istext=False).replace(b"\n", b"\r\n")
