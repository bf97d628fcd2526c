"""Build an EmailMessage from a text, HTML, images, files and an invitation."""

from __future__ import annotations

from email.headerregistry import Group
from email.message import EmailMessage
from typing import TYPE_CHECKING

from securesmtp._compose.addresses import read_address, read_addresses, warn_of_another_address
from securesmtp._compose.body import build_body
from securesmtp._compose.characters import check_line
from securesmtp._compose.fields import MAX_TEXT, read_fields
from securesmtp._compose.files import find_files, find_images
from securesmtp._compose.parts import MIME_VERSION
from securesmtp._compose.unsubscribe import unsubscribe_fields
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from email.headerregistry import Address

    from securesmtp._compose.addresses import People, Person
    from securesmtp._compose.files import Attachment, Attachments

_FIELDS = {"To": "to", "Cc": "cc", "Bcc": "bcc", "Reply-To": "reply_to"}
# RFC 3834 §5. Exchange needs the second one; "All" is the only value that stops all of its automatic replies.
_AUTOMATIC = {"Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "All"}


def compose(  # noqa: PLR0913 -- all are keywords, one for each part of a message
    *,
    sender: Person,
    subject: str,
    to: People = (),
    cc: People = (),
    bcc: People = (),
    reply_to: People = (),
    text: str | None = None,
    html: str | None = None,
    inline: Mapping[str, Attachment] | None = None,
    attachments: Attachments = (),
    calendar: str | bytes | None = None,
    unsubscribe: str | Iterable[str] | None = None,
    headers: Mapping[str, str] | None = None,
    automatic: bool = False,
    max_size: int | None = None,
) -> EmailMessage:
    """
    Return a message with these parts, in the structure that mail programs expect.

    Nothing is guessed: a str in *to* is an address, one in *attachments* is a path, and neither is split or searched.
    An address is ``"ada@example.org"``, ``("Ada", "ada@example.org")`` or an `email.headerregistry.Address`. A file is
    a path, ``(name, bytes)`` or ``(name, bytes, type)``. Where several are allowed, pass one or a list: a tuple is
    always one.

    The message has no Date and no Message-ID yet; `SecureMailer.send` adds them. Its type is the standard library's, so
    you can change it, and send it by other means.

    Args:
        sender: Who writes it: the field From.
        subject: The subject, one line.
        to: Who gets it.
        cc: Who gets a copy.
        bcc: Who gets a copy that nobody else sees. If there is no other recipient, To says ``undisclosed-recipients``.
        reply_to: Who gets the answers, if it is not *sender*.
        text: The text. Give it even with *html*, for readers that show no HTML, and for filters.
        html: The same as HTML, a whole document or a part of one.
        inline: The images that *html* shows: ``{"logo": "logo.png"}`` for ``<img src="cid:logo">``.
        attachments: The files to attach. A file's type is that of its name's end, by a fixed table.
        calendar: An invitation: the iCalendar text as str or bytes, with its METHOD.
        unsubscribe: Where to unsubscribe: a mailto URL, an https URL, or both. With https, a mail program can do it by
            one click (RFC 8058).
        headers: Other header fields.
        automatic: Whether no person sends it, so that no automatic reply comes back (RFC 3834).
        max_size: The most bytes that the message may have once it is encoded. It is checked before files are read.

    Raises:
        AddressError: An address is not a mailbox.
        ConfigurationError: *max_size* is not a number of bytes.
        MessageError: Something else cannot be sent as it was meant: a control character in a subject or a name, a file
            that is missing, an image that *html* does not show or names by a path, nothing to read, too many bytes.
    """
    author = read_address(sender, "sender")
    message = EmailMessage()
    people = _set_addresses(message, author, to=to, cc=cc, bcc=bcc, reply_to=reply_to)
    for what, addresses in [("sender", [author]), *people.items()]:
        for address in addresses:
            warn_of_another_address(address, what)
    message["Subject"] = check_line(subject, "subject", MAX_TEXT)
    fields: list[tuple[str, str | Address]] = [] if unsubscribe is None else [*unsubscribe_fields(unsubscribe)]
    fields += _AUTOMATIC.items() if automatic else ()
    taken = frozenset(name.lower() for name, _ in fields)
    for name, value in [*fields, *read_fields({} if headers is None else headers, taken=taken)]:
        message[name] = value
    body = build_body(
        text,
        html,
        images=find_images({} if inline is None else inline),
        files=find_files(attachments),
        calendar=calendar,
        domain=author.domain,
        max_size=max_size,
    )
    message.set_raw("MIME-Version", MIME_VERSION)
    for name, value in body.raw_items():
        message.set_raw(name, value)
    message.set_payload(body.get_payload())
    return message


def _set_addresses(message: EmailMessage, author: Address, **given: object) -> dict[str, list[Address]]:
    message["From"] = author
    people = {what: read_addresses(each, what) for what, each in given.items()}
    if not (people["to"] or people["cc"] or people["bcc"]):
        text = "the message has no recipient"
        raise MessageError(text, hint="pass to=…, cc=… or bcc=…")
    for field, what in _FIELDS.items():
        if people[what]:
            message[field] = people[what]
    if not (people["to"] or people["cc"]):
        # Some readers cannot handle a message without any such field.
        message["To"] = Group("undisclosed-recipients", ())
    return people
