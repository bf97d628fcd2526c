"""A message in; envelope and octets out. The caller's object is never changed (RFC 5322, RFC 6531)."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from email.errors import MissingHeaderBodySeparatorDefect
from email.header import Header
from email.headerregistry import Address, Group
from email.message import EmailMessage, Message
from email.policy import EmailPolicy
from typing import TYPE_CHECKING, cast

from securesmtp._protocol.address import Mailbox, ascii_domain, reverse_path
from securesmtp._protocol.header_fields import ADDRESS_FIELDS, RESENT, field_groups
from securesmtp._protocol.serialising import check_bounds, check_signed, guarded, serialised
from securesmtp._shown import quote
from securesmtp._values import Stage
from securesmtp.errors import AddressError, ConfigurationError, MessageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._protocol.capabilities import Capabilities
    from securesmtp._protocol.content import Content

# RFC 5322 §3.6: what these hold is not optional. Some servers refuse a message that has one of them empty.
_NEVER_EMPTY = frozenset(
    name.lower()
    for name in (*ADDRESS_FIELDS, *RESENT, "Date", "Message-ID", "Resent-Date", "Resent-Message-ID", "In-Reply-To",
                 "References", "Keywords")
)  # fmt: skip
_FOLD = re.compile(r"\r?\n(?=[ \t])")
_LINE_END = re.compile(r"[\r\n]")
_HOW_ADDRESSES = "write user@example.org, several with commas between; or pass mail_from and recipients"
_HOW_MESSAGE = "build an email.message.EmailMessage, or pass the bytes of a whole message to send_bytes()"


@dataclass(frozen=True, slots=True)
class Submission:
    """
    One message with its envelope, checked as far as it can be before the server is known.

    Attributes:
        mail_from: The reverse-path.
        recipients: The forward-paths, each once.
        content: The octets for a server with 8BITMIME.
        message: The copy that they were made from, or None where the caller gave octets.
    """

    mail_from: Mailbox
    recipients: tuple[Mailbox, ...]
    content: Content
    message: EmailMessage | None = None

    @property
    def needs_smtputf8(self) -> bool:
        """Whether an address or the header cannot be written in ASCII (RFC 6531 §3.2)."""
        return self.content.utf8_header or any(m.needs_smtputf8 for m in (self.mail_from, *self.recipients))

    def fit(self, offered: Capabilities) -> Submission:
        """
        Return the message as this server takes it.

        Raises:
            MessageError: It does not take it (RFC 1870, RFC 6152, RFC 6531); nothing of it was written.
        """
        fitted = self
        if self.needs_smtputf8 and "SMTPUTF8" not in offered:
            message = "the message has a non-ASCII address or header, and the server does not offer SMTPUTF8"
            raise MessageError(message, stage=Stage.MAIL, hint="use an ASCII local part, or a server with SMTPUTF8")
        if not self.content.is_ascii and "8BITMIME" not in offered:
            if self.message is not None:
                fitted = replace(self, content=serialised(self.message, utf8=False, cte_type="7bit"))
            if not fitted.content.is_ascii:
                message = "the message has non-ASCII octets, and the server does not offer 8BITMIME"
                raise MessageError(message, stage=Stage.MAIL, hint="encode the parts as base64 or quoted-printable")
        if offered.size is not None and fitted.content.size > offered.size:
            message = f"the message has {fitted.content.size} octets, and the server takes {offered.size}"
            raise MessageError(message, stage=Stage.MAIL, hint="send a link in place of the attachment")
        return fitted


def from_message(
    message: Message,
    mail_from: str | Address | None,
    recipients: Iterable[str | Address] | None,
    *,
    date: Callable[[], str],
    token: Callable[[], str],
) -> Submission:
    """
    Return *message* with its envelope: as given, else from its header.

    The reverse-path is Sender, else the single address of From; the forward-paths are To, Cc and Bcc, each address
    once. Where there are Resent fields, they alone count (RFC 5322 §3.6.6). What *date* returns, and a Message-ID of
    what *token* returns, are filled in where the message has none; fields that may not be empty and are, are left out.

    Raises:
        AddressError: An address is not a mailbox.
        MessageError: The message cannot be sent as it is, or does not tell its envelope.
    """
    given: object = message
    if not isinstance(given, Message):
        text = f"the message is a {type(message).__name__}, not an EmailMessage or another email.message.Message"
        hint = "set_content() and the like return None: pass the message itself" if given is None else _HOW_MESSAGE
        raise MessageError(text, hint=hint)
    # Outside of what reads the message: an error of the caller's own iterable is the caller's.
    given_recipients = None if recipients is None else envelope_recipients(recipients)
    return guarded(lambda: _submission(message, mail_from, given_recipients, date, token))


def _submission(
    message: Message,
    mail_from: str | Address | None,
    recipients: tuple[Mailbox, ...] | None,
    date: Callable[[], str],
    token: Callable[[], str],
) -> Submission:
    check_bounds(message)
    if any(isinstance(defect, MissingHeaderBodySeparatorDefect) for defect in message.defects):
        text = "the header of the message is broken: its rest, Bcc perhaps, would be sent as text"
        raise MessageError(text, hint="mend the line that is no header field")
    copied = _copied(_modern(message))
    _drop_empty(copied)
    prefix = _prefix(copied) if mail_from is None or recipients is None else ""
    reverse = reverse_path(mail_from) if mail_from is not None else _sender(copied, prefix)
    forward = _once(_recipients(copied, prefix)) if recipients is None else recipients
    authors = _addresses(copied, "From")
    if not authors:
        text = "the message has no From"
        raise MessageError(text, hint="set it (RFC 5322 §3.6.2)")
    # The null reverse-path has no domain.
    domain = reverse.domain or _mailbox("From", authors[0]).domain
    _complete(copied, date, lambda: f"<{token()}@{domain}>")
    check_signed(message, copied)
    fields = _present(copied, ADDRESS_FIELDS)
    utf8 = any(not address.username.isascii() for field in fields for address in _non_ascii_addresses(copied, field))
    utf8 = utf8 or any(mailbox.needs_smtputf8 for mailbox in (reverse, *forward))
    return Submission(reverse, forward, serialised(copied, utf8=utf8, cte_type="8bit"), copied)


def envelope_recipients(addresses: Iterable[str | Address]) -> tuple[Mailbox, ...]:
    """
    Return *addresses* as mailboxes, each once, in their order.

    Raises:
        AddressError: One is not a mailbox.
        ConfigurationError: It is one str, which would be taken letter by letter.
        MessageError: There is none.
    """
    if isinstance(addresses, str | bytes) or not isinstance(addresses, Iterable):
        text = f"recipients is a {type(addresses).__name__}, not a list of addresses"
        raise ConfigurationError(text, hint="pass a list of addresses")
    return _once(map(Mailbox.parse, addresses))


def _once(mailboxes: Iterable[Mailbox]) -> tuple[Mailbox, ...]:
    once: dict[bytes, Mailbox] = {}
    for mailbox in mailboxes:
        once.setdefault(mailbox.encoded, mailbox)
    if not once:
        text = "the message has no recipient"
        raise MessageError(text, hint="set To, Cc or Bcc, or pass recipients=[…]")
    return tuple(once.values())


def _sender(message: EmailMessage, prefix: str) -> Mailbox:
    for field in (f"{prefix}Sender", f"{prefix}From"):
        addresses = _envelope_addresses(message, field)
        if len(addresses) == 1:
            return _mailbox(field, addresses[0])
        if addresses:
            text = f"{field} has {len(addresses)} addresses"
            raise MessageError(text, hint=f"set {prefix}Sender (RFC 5322 §3.6.2), or pass mail_from")
    text = f"the message has no {prefix}From"
    raise MessageError(text, hint="set it, or pass mail_from" if prefix else "set it (RFC 5322 §3.6.2)")


def _recipients(message: EmailMessage, prefix: str) -> list[Mailbox]:
    fields = [f"{prefix}{field}" for field in ("To", "Cc", "Bcc")]
    return [_mailbox(field, address) for field in fields for address in _envelope_addresses(message, field)]


def _mailbox(field: str, address: Address) -> Mailbox:
    try:
        return Mailbox.parse(address)
    except AddressError as error:
        error.args = (f"{field}: {error.args[0]}",)
        error.hint = _HOW_ADDRESSES
        raise


def _prefix(message: EmailMessage) -> str:
    names = [name.lower() for name in message.keys()]  # noqa: SIM118 -- a message iterates otherwise
    # Who resent last stands first by RFC 5322 §3.6.6, and last where a program added it: no guess about who gets mail.
    if any(names.count(field.lower()) > 1 for field in (*RESENT, "Resent-Date")):
        text = "the message was resent more than once"
        raise MessageError(text, hint="pass mail_from and recipients")
    return "Resent-" if any(field.lower() in names for field in RESENT) else ""


def _envelope_addresses(message: EmailMessage, field: str) -> list[Address]:
    groups, is_list = field_groups(message, field)
    if not is_list:
        text = f"{field} is not a list of addresses: {_shown(message, field)}"
        raise AddressError(text, hint=_HOW_ADDRESSES)
    return _addresses(message, field, groups)


def _addresses(message: EmailMessage, field: str, groups: list[Group] | None = None) -> list[Address]:
    groups = field_groups(message, field)[0] if groups is None else groups
    addresses = [address for group in groups for address in group.addresses]
    # A list of str is set without a word, and read without an address.
    if not all(isinstance(address, Address) for address in addresses):
        text = f"{field} is set to a list of something else than Address objects: {_shown(message, field)}"
        raise MessageError(text, hint=f'write message["{field}"] = "a@example.org, b@example.org", as one str')
    return addresses


def _non_ascii_addresses(message: EmailMessage, field: str) -> list[Address]:
    """Return the addresses of *field* if any is not ASCII: to parse a field costs a third of a message's time."""
    if all(map(str.isascii, _texts(message, field))):
        return []
    return [address for address in _addresses(message, field) if address.domain]


def _texts(message: EmailMessage, field: str) -> list[str]:
    return [str(value) for name, value in message.raw_items() if name.lower() == field.lower()]


def _shown(message: EmailMessage, field: str) -> str:
    return quote(", ".join(_texts(message, field)), allow_at=True)


def _present(message: EmailMessage, fields: Iterable[str]) -> list[str]:
    names = {name.lower() for name, _ in message.raw_items()}
    return [field for field in fields if field.lower() in names]


def _complete(message: EmailMessage, date: Callable[[], str], message_id: Callable[[], str]) -> None:
    """Change *message*, a copy, into what is to be sent."""
    del message["Bcc"], message["Resent-Bcc"]
    for field in ("Date", "Resent-Date"):
        for value in message.get_all(field, []):
            if getattr(value, "datetime", value) is None:
                text = f"{field} is not a date: {_shown(message, field)}"
                raise MessageError(text, hint="set it to a datetime.datetime, or leave it out")
    if "Date" not in message:
        message["Date"] = date()
    # Not read: which Message-IDs the email package can parse depends on the Python (measured, 3.11 and 3.13).
    if "Message-ID" not in message:
        message["Message-ID"] = message_id()
    for field in _present(message, (*ADDRESS_FIELDS, *RESENT)):
        if any(not address.domain.isascii() for address in _non_ascii_addresses(message, field)):
            groups = [_ascii_group(group) for group in field_groups(message, field)[0]]
            del message[field]
            message[field] = groups


def _ascii_group(group: Group) -> Group | Address:
    try:
        addresses = [Address(a.display_name, a.username, ascii_domain(a.domain)) for a in group.addresses]
    except ValueError:
        text = "an address in the header has a domain that is not a domain name"
        raise MessageError(text) from None
    return Group(group.display_name, tuple(addresses)) if group.display_name else addresses[0]


def _modern(message: Message) -> EmailMessage:
    """
    Return *message* as one of the new kind: itself, or another one with its fields and its payload.

    ``MIMEText`` and what ``message_from_bytes`` makes by default keep any field as often and with any value as the
    caller sets it; an EmailMessage does not, so neither does this.
    """
    if isinstance(message, EmailMessage) and isinstance(cast("object", message.policy), EmailPolicy):
        return message
    modern = EmailMessage()
    vars(modern).update(vars(message), policy=modern.policy)
    for name, count in Counter(name.title() for name, _ in message.raw_items()).items():
        if count > 1 and modern.policy.header_max_count(name):
            text = f"the message has {count} {name} fields"
            raise MessageError(text, hint=f'set it once: del message["{name}"] comes before the next one')
    for name, value in message.raw_items():
        if _LINE_END.search(_FOLD.sub("", _text(name, value))):
            text = f"the header field {name[:80]!r} has a line end in its value"
            raise MessageError(text, hint="take line ends out of it")
    return modern


def _text(name: str, value: object) -> str:
    """Return the *value* of a field as text: a Header of the old API knows no fold of the new one."""
    if not isinstance(value, str | Header):
        text = f"the header field {name[:80]!r} is a {type(value).__name__}, not a str"
        raise MessageError(text, hint="set it to a str, or leave it out")
    return value if isinstance(value, str) else str(value)


def _drop_empty(message: EmailMessage) -> None:
    fields = list(message.raw_items())
    if any(_is_left_out(name, value) for name, value in fields):
        _set_fields(message, [(name, value) for name, value in fields if not _is_left_out(name, value)])


def _is_left_out(name: str, value: str) -> bool:
    # ", ".join() of nothing but empty strings is a list of nobody as well.
    return name.lower() in _NEVER_EMPTY and not value.replace(",", "").strip()


def _copied(message: EmailMessage) -> EmailMessage:
    # The generator sets boundaries and the like on what it is given: every part is copied, no payload is.
    copied = copy.copy(message)
    fields = [(name, value if hasattr(value, "fold") else _text(name, value)) for name, value in message.raw_items()]
    _set_fields(copied, fields)
    if message.is_multipart():
        parts = cast("list[EmailMessage]", message.get_payload())
        copied.set_payload([_copied(part) for part in parts])
    return copied


def _set_fields(message: EmailMessage, fields: Iterable[tuple[str, str]]) -> None:
    # To delete the fields one by one would take quadratic time.
    message._headers = []  # type: ignore[attr-defined] # noqa: SLF001 -- there is no public way
    for name, value in fields:
        message.set_raw(name, value)
