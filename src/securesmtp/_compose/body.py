"""
Put the parts of a message together.

The structure is ``mixed(alternative(text, related(html, images), calendar), files)``, without the levels that would
have one part. Files inside of ``related`` are not shown on some phones, and images directly in ``mixed`` are listed as
files.
"""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING

from securesmtp._compose.calendar import read_invitation
from securesmtp._compose.files import File
from securesmtp._compose.images import connect_images
from securesmtp._compose.parts import (
    attached_part,
    encoded_size,
    inline_part,
    invitation_part,
    multipart,
    text_part,
)
from securesmtp._protocol.message_bounds import raw_payload
from securesmtp._shown import quote
from securesmtp.errors import ConfigurationError, MessageError

if TYPE_CHECKING:
    from email.message import EmailMessage


def build_body(  # noqa: PLR0913 -- one for each part of a message
    text: object,
    html: object,
    *,
    images: dict[str, File],
    files: list[File],
    calendar: object,
    domain: str,
    max_size: object,
) -> EmailMessage:
    """
    Return the body of a message as one part; *domain* is the sender's, for Content-IDs.

    Raises:
        MessageError: There is nothing to read, or a part cannot be sent as it is.
    """
    if text is html is None and (calendar is not None or not files):
        message = "the message has neither text nor html"
        raise MessageError(message, hint="pass text=…, and html=… if you have it; an invitation needs one of them, too")
    # Files alone look like an empty message to some readers, so there is a text, even if it is empty.
    alternatives = [text_part("" if text is None else text, "plain")] if text is not None or html is None else []
    ids = {label: f"{label}.{token_hex(8)}@{domain}" for label in images}
    page = _page(html, ids)
    invitation = None if calendar is None else read_invitation(calendar)
    if invitation is not None:
        # A copy, because some programs look at attached files only. Its type is another one, so that none of them shows
        # the invitation twice.
        copy = File("invite.ics", 'application/ics; name="invite.ics"', len(invitation.data), invitation.data)
        files = [*files, copy]
    if max_size is not None:
        _check_size([*alternatives, *page], [*images.values(), *files], max_size)
    if page:
        shown = [inline_part(file, ids[label]) for label, file in images.items()]
        alternatives.append(multipart("related", [*page, *shown]))
    if invitation is not None:
        # The last alternative is the best one (RFC 2046 §5.1.4).
        alternatives.append(invitation_part(invitation.method, invitation.data))
    return multipart("mixed", [multipart("alternative", alternatives), *map(attached_part, files)])


def _page(html: object, ids: dict[str, str]) -> list[EmailMessage]:
    if html is None:
        if ids:
            message = "inline has images, and there is no html that could show them"
            raise MessageError(message, hint="pass html=…, or pass the images in attachments")
        return []
    return [text_part(connect_images(html, ids) if isinstance(html, str) else html, "html")]


def _check_size(texts: list[EmailMessage], files: list[File], max_size: object) -> None:
    """Refuse a message that is too large before its files are read; the sizes of its fields hardly count."""
    if isinstance(max_size, bool) or not isinstance(max_size, int) or max_size < 0:
        message = f"max_size is {quote(max_size)}, not a number of bytes"
        raise ConfigurationError(message)
    total = sum(len(str(raw_payload(part))) for part in texts) + sum(encoded_size(file.size) for file in files)
    if total > max_size:
        largest = max(files, key=lambda file: file.size, default=None)
        named = f"; its largest file is {quote(largest.name, allow_at=True)}, {largest.size} bytes" if largest else ""
        message = f"the message would have {total} bytes, which is more than {max_size=}{named}"
        raise MessageError(message, hint="send a link instead of the file; encoding adds 37 % to a file")
