"""Turn a message into an envelope and the bytes to send; complete its header (RFC 5322, RFC 6531)."""

from __future__ import annotations

from email.errors import MissingHeaderBodySeparatorDefect
from email.headerregistry import Address, Group
from email.message import Message
from typing import TYPE_CHECKING

from securesmtp._protocol.address import Mailbox, addr_spec, ascii_domain, reverse_path
from securesmtp._protocol.header_fields import ADDRESS_FIELDS, RESENT
from securesmtp._protocol.message import Submission, envelope_recipients, unique
from securesmtp._protocol.message_bounds import check_bounds
from securesmtp._protocol.message_copy import copy_message, set_fields
from securesmtp._protocol.serialising import check_signed, serialise, translate_email_errors
from securesmtp._shown import quote
from securesmtp.errors import AddressError, MessageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from securesmtp._protocol.header_index import HeaderIndex

_ADDRESSES_HINT = "write user@example.org, and commas between several addresses; or pass mail_from and recipients"
_RESENT_NAMES = frozenset(field.lower() for field in (*RESENT, "Resent-Date"))
_BLIND = frozenset({"bcc", "resent-bcc"})
_MESSAGE_HINT = "build an email.message.EmailMessage, or pass the bytes of a whole message to send_bytes()"


def from_message(  # noqa: PLR0913 -- what it cannot know by itself is by keyword
    message: Message,
    mail_from: str | Address | None,
    recipients: Iterable[str | Address] | None,
    *,
    date: Callable[[], str],
    token: Callable[[], str],
    message_id: str | None = None,
) -> Submission:
    """
    Return *message* with its envelope, which is taken from its header unless *mail_from* and *recipients* are given.

    The reverse-path is Sender, else the only address of From. The forward-paths are the addresses of To, Cc and Bcc,
    each once. If there are Resent fields, only those count (RFC 5322 §3.6.6). If the message has no Date, it is the
    result of *date*; if it has no Message-ID, it is made from the result of *token*. If *message_id* is given, it takes
    the place of that of the message, unless the message is signed.

    Raises:
        AddressError: An address is not a valid mailbox.
        MessageError: The message cannot be sent as it is, or its header does not determine the envelope.
    """
    given: object = message
    if not isinstance(given, Message):
        text = f"the message is a {type(message).__name__}, not an EmailMessage or another email.message.Message"
        hint = "set_content() and the like return None: pass the message itself" if given is None else _MESSAGE_HINT
        raise MessageError(text, hint=hint)
    # Not inside of translate_email_errors: an error of the caller's own iterable is not about the message.
    mailboxes = None if recipients is None else envelope_recipients(recipients)
    return translate_email_errors(lambda: _create_submission(message, mail_from, mailboxes, date, token, message_id))


def _create_submission(  # noqa: PLR0913, PLR0917 -- those of the public function
    message: Message,
    mail_from: str | Address | None,
    recipients: tuple[Mailbox, ...] | None,
    date: Callable[[], str],
    token: Callable[[], str],
    message_id: str | None,
) -> Submission:
    check_bounds(message)
    if message.defects and any(isinstance(each, MissingHeaderBodySeparatorDefect) for each in message.defects):
        text = "a line of the header is not a header field: the rest, perhaps a Bcc, would be sent as text"
        raise MessageError(text, hint="fix the line that is not a header field")
    copied, header = copy_message(message)
    prefix = _resent_prefix(header) if mail_from is None or recipients is None else ""
    reverse = reverse_path(mail_from) if mail_from is not None else _sender(header, prefix)
    forward = unique(_recipients(header, prefix)) if recipients is None else recipients
    authors = _addresses(header, "From")
    if not authors:
        text = "the message has no From"
        raise MessageError(text, hint="set it (RFC 5322 §3.6.2)")
    # The null reverse-path has no domain.
    domain = reverse.domain or _parse_mailbox("From", authors[0]).domain
    if message_id is not None and not header.values("DKIM-Signature"):
        header.remove(frozenset({"message-id"}))
    _complete_header(header, date, lambda: message_id or f"<{token()}@{domain}>")
    set_fields(copied, header.fields)
    if header.values("DKIM-Signature"):
        check_signed(message, copied)
    utf8 = any(mailbox.needs_smtputf8 for mailbox in (reverse, *forward)) or _has_utf8_address(header)
    return Submission(reverse, forward, serialise(copied, utf8=utf8, cte_type="8bit"), copied)


def _sender(header: HeaderIndex, prefix: str) -> Mailbox:
    for field in (f"{prefix}Sender", f"{prefix}From"):
        addresses = _envelope_addresses(header, field)
        if len(addresses) == 1:
            return _parse_mailbox(field, addresses[0])
        if addresses:
            text = f"{field} has {len(addresses)} addresses"
            raise MessageError(text, hint=f"set {prefix}Sender (RFC 5322 §3.6.2), or pass mail_from")
    text = f"the message has no {prefix}From"
    raise MessageError(text, hint="set it, or pass mail_from" if prefix else "set it (RFC 5322 §3.6.2)")


def _recipients(header: HeaderIndex, prefix: str) -> list[Mailbox]:
    fields = [f"{prefix}{field}" for field in ("To", "Cc", "Bcc")]
    return [_parse_mailbox(field, address) for field in fields for address in _envelope_addresses(header, field)]


def _parse_mailbox(field: str, address: Address) -> Mailbox:
    try:
        return Mailbox.parse(addr_spec(address))
    except AddressError as error:
        error.args = (f"{field}: {error.args[0]}",)
        error.hint = _ADDRESSES_HINT
        raise


def _resent_prefix(header: HeaderIndex) -> str:
    if not header.has_any(_RESENT_NAMES):
        return ""
    # RFC 5322 §3.6.6 puts the latest Resent fields first, many programs put them last. The library does not guess.
    if any(len(header.values(field)) > 1 for field in _RESENT_NAMES):
        text = "the message was resent more than once"
        raise MessageError(text, hint="pass mail_from and recipients")
    return "Resent-" if any(header.values(field) for field in RESENT) else ""


def _envelope_addresses(header: HeaderIndex, field: str) -> list[Address]:
    if not header.groups(field)[1]:
        text = f"{field} is not a list of addresses: {_shown(header, field)}"
        raise AddressError(text, hint=_ADDRESSES_HINT)
    return _addresses(header, field)


def _addresses(header: HeaderIndex, field: str) -> list[Address]:
    groups = header.groups(field)[0]
    addresses = [address for group in groups for address in group.addresses] if groups else []
    # Python accepts a list of str as value, and then has no address in it.
    for address in addresses:
        if not isinstance(address, Address):
            text = f"{field} is set to a list, but not of Address objects: {_shown(header, field)}"
            raise MessageError(text, hint=f'write message["{field}"] = "a@example.org, b@example.org", as one str')
    return addresses


def _domain_addresses(header: HeaderIndex, field: str) -> list[Address]:
    return [address for address in _addresses(header, field) if address.domain]


def _has_utf8_address(header: HeaderIndex) -> bool:
    """Return whether an address in the header has a non-ASCII local part, which has no ASCII form."""
    fields = [field for field in ADDRESS_FIELDS if field.lower() in header.non_ascii] if header.non_ascii else ()
    return any(not address.username.isascii() for field in fields for address in _domain_addresses(header, field))


def _shown(header: HeaderIndex, field: str) -> str:
    return quote(", ".join(map(str, header.values(field))), allow_at=True)


def _complete_header(header: HeaderIndex, date: Callable[[], str], message_id: Callable[[], str]) -> None:
    """Remove Bcc; add Date and Message-ID; convert domains to ASCII."""
    header.remove(_BLIND)
    for field in ("Date", "Resent-Date"):
        for value in header.parsed(field):
            if getattr(value, "datetime", value) is None:
                text = f"{field} is not a date: {_shown(header, field)}"
                raise MessageError(text, hint="set it to a datetime.datetime, or leave it out")
    if not header.values("Date"):
        header.add_final("Date", date())
    # Its value is not parsed: which Message-IDs the email package can parse depends on the Python version.
    if not header.values("Message-ID"):
        header.add_final("Message-ID", message_id())
    for field in (*ADDRESS_FIELDS, *RESENT) if header.non_ascii else ():
        is_non_ascii = field.lower() in header.non_ascii
        if is_non_ascii and any(not address.domain.isascii() for address in _domain_addresses(header, field)):
            groups = [_ascii_group(group) for group in header.groups(field)[0]]
            header.remove(frozenset({field.lower()}))
            header.add(field, groups)


def _ascii_group(group: Group) -> Group | Address:
    try:
        addresses = [Address(a.display_name, a.username, ascii_domain(a.domain)) for a in group.addresses]
    except ValueError:
        text = "an address in the header has an invalid domain"
        raise MessageError(text) from None
    return Group(group.display_name, tuple(addresses)) if group.display_name else addresses[0]
