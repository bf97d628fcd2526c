"""EmailMessage in; envelope and octets out. The caller's object is never changed (RFC 5322, RFC 6531)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from email.errors import MissingHeaderBodySeparatorDefect
from email.headerregistry import Address, Group
from email.message import EmailMessage
from email.policy import EmailPolicy
from typing import TYPE_CHECKING, cast

from securesmtp._protocol.address import Mailbox, ascii_domain
from securesmtp._protocol.header_fields import ADDRESS_FIELDS, RESENT, field_groups
from securesmtp._protocol.serialising import check_bounds, check_signed, guarded, serialised
from securesmtp._values import Stage
from securesmtp.errors import AddressError, ConfigurationError, MessageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._protocol.capabilities import Capabilities
    from securesmtp._protocol.content import Content


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
    message: EmailMessage,
    mail_from: str | None,
    recipients: Iterable[str] | None,
    *,
    date: Callable[[], str],
    token: Callable[[], str],
) -> Submission:
    """
    Return *message* with its envelope: as given, else from its header.

    The reverse-path is Sender, else the single address of From; the forward-paths are To, Cc and Bcc, each address
    once. Where there are Resent fields, they alone count (RFC 5322 §3.6.6). What *date* returns, and a Message-ID of
    what *token* returns, are filled in where the message has none.

    Raises:
        AddressError: An address is not a mailbox.
        MessageError: The message cannot be sent as it is, or does not tell its envelope.
    """
    given: object = message
    if not isinstance(given, EmailMessage) or not isinstance(cast("object", message.policy), EmailPolicy):
        text = f"the message is a {type(message).__name__}, not an EmailMessage with one of the new policies"
        raise MessageError(text, hint="email.message_from_bytes(m.as_bytes(), policy=email.policy.default) makes one")
    # Outside of what reads the message: an error of the caller's own iterable is the caller's.
    given_recipients = None if recipients is None else envelope_recipients(recipients)
    return guarded(lambda: _submission(message, mail_from, given_recipients, date, token))


def _submission(
    message: EmailMessage,
    mail_from: str | None,
    recipients: tuple[Mailbox, ...] | None,
    date: Callable[[], str],
    token: Callable[[], str],
) -> Submission:
    check_bounds(message)
    if any(isinstance(defect, MissingHeaderBodySeparatorDefect) for defect in message.defects):
        text = "the header of the message is broken: its rest, Bcc perhaps, would be sent as text"
        raise MessageError(text, hint="mend the line that is no header field")
    prefix = _prefix(message) if mail_from is None or recipients is None else ""
    reverse = Mailbox.parse(mail_from) if mail_from is not None else _sender(message, prefix)
    forward = envelope_recipients(_recipients(message, prefix)) if recipients is None else recipients
    prepared = _prepared(message, date, lambda: f"<{token()}@{reverse.domain}>")
    check_signed(message, prepared)
    fields = _present(prepared, ADDRESS_FIELDS)
    utf8 = any(not address.username.isascii() for field in fields for address in _non_ascii_addresses(prepared, field))
    utf8 = utf8 or any(mailbox.needs_smtputf8 for mailbox in (reverse, *forward))
    return Submission(reverse, forward, serialised(prepared, utf8=utf8, cte_type="8bit"), prepared)


def envelope_recipients(addresses: Iterable[str]) -> tuple[Mailbox, ...]:
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
    mailboxes: dict[bytes, Mailbox] = {}
    for mailbox in map(Mailbox.parse, addresses):
        mailboxes.setdefault(mailbox.encoded, mailbox)
    if not mailboxes:
        text = "the message has no recipient"
        raise MessageError(text, hint="set To, Cc or Bcc, or pass recipients=[…]")
    return tuple(mailboxes.values())


def _sender(message: EmailMessage, prefix: str) -> Mailbox:
    for field in (f"{prefix}Sender", f"{prefix}From"):
        addresses = _envelope_addresses(message, field)
        if len(addresses) == 1:
            return Mailbox.parse(addresses[0].addr_spec)
        if addresses:
            text = f"{field} has {len(addresses)} addresses"
            raise MessageError(text, hint=f"set {prefix}Sender (RFC 5322 §3.6.2), or pass mail_from")
    text = f"the message has no {prefix}From"
    raise MessageError(text, hint="set it, or pass mail_from")


def _recipients(message: EmailMessage, prefix: str) -> list[str]:
    return [a.addr_spec for field in ("To", "Cc", "Bcc") for a in _envelope_addresses(message, f"{prefix}{field}")]


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
        text = f"{field} is not a list of addresses"
        raise AddressError(
            text, hint="write user@example.org, several with commas between; or pass mail_from and recipients"
        )
    return [address for group in groups for address in group.addresses]


def _non_ascii_addresses(message: EmailMessage, field: str) -> list[Address]:
    """Return the addresses of *field* if any is not ASCII: to parse a field costs a third of a message's time."""
    values = [str(value) for name, value in message.raw_items() if name.lower() == field.lower()]
    if all(map(str.isascii, values)):
        return []
    return [address for group in field_groups(message, field)[0] for address in group.addresses if address.domain]


def _present(message: EmailMessage, fields: Iterable[str]) -> list[str]:
    names = {name.lower() for name, _ in message.raw_items()}
    return [field for field in fields if field.lower() in names]


def _prepared(message: EmailMessage, date: Callable[[], str], message_id: Callable[[], str]) -> EmailMessage:
    copied = _copied(message)
    del copied["Bcc"], copied["Resent-Bcc"]
    if "Date" not in copied:
        copied["Date"] = date()
    # As it stands: which Message-IDs the email package can parse depends on the Python (measured, 3.11 and 3.13).
    if not any(name.lower() == "message-id" and str(value).strip() for name, value in copied.raw_items()):
        del copied["Message-ID"]
        copied["Message-ID"] = message_id()
    for field in _present(copied, (*ADDRESS_FIELDS, *RESENT)):
        if any(not address.domain.isascii() for address in _non_ascii_addresses(copied, field)):
            groups = [_ascii_group(group) for group in field_groups(copied, field)[0]]
            del copied[field]
            copied[field] = groups
    return copied


def _ascii_group(group: Group) -> Group | Address:
    try:
        addresses = [Address(a.display_name, a.username, ascii_domain(a.domain)) for a in group.addresses]
    except ValueError:
        text = "an address in the header has a domain that is not a domain name"
        raise MessageError(text) from None
    return Group(group.display_name, tuple(addresses)) if group.display_name else addresses[0]


def _copied(message: EmailMessage) -> EmailMessage:
    # The generator sets boundaries and the like on what it is given: every part is copied, no payload is.
    copied = copy.copy(message)
    # To delete the fields one by one would take quadratic time.
    copied._headers = []  # type: ignore[attr-defined] # noqa: SLF001 -- there is no public way
    for name, value in message.raw_items():
        # A Header of the old API knows no fold of the new one.
        copied.set_raw(name, value if hasattr(value, "fold") else str(value))
    if message.is_multipart():
        parts = cast("list[EmailMessage]", message.get_payload())
        copied.set_payload([_copied(part) for part in parts])
    return copied
