"""A message as a test looks at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage, MIMEPart
from email.policy import default
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Attachment:
    """
    One attached file.

    Attributes:
        name: Its file name; None if it has none.
        content_type: Its type, such as ``"application/pdf"``.
        data: Its bytes.
    """

    name: str | None
    content_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Received:
    """
    One message as it was received.

    Attributes:
        mail_from: The envelope's sender (reverse-path); empty for the null one.
        recipients: The recipients that were accepted, in the envelope's order, Bcc among them.
        content: The message's bytes without dot-stuffing; each line ends in CRLF.
        username: Who had logged in; None without a login.
        tls: Version and cipher of the TLS session that it came over, such as ``"TLSv1.3 TLS_AES_256_GCM_SHA384"``.
        mail_parameters: The parameters of MAIL by their names in upper case, each value as it was sent; empty for one
            without a value. So a test can look at ``received.mail_parameters["ENVID"]``.
        recipient_parameters: The same of RCPT, for each recipient that was accepted.
    """

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)
    username: str | None = None
    tls: str = ""
    mail_parameters: Mapping[str, str] = field(default_factory=dict, hash=False)
    recipient_parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)

    @cached_property
    def message(self) -> EmailMessage:
        """The message, parsed: ``received.message["Subject"]``."""
        return message_from_bytes(self.content, EmailMessage, policy=default)

    @property
    def subject(self) -> str:
        """Its subject; empty if it has none."""
        return str(self.message.get("Subject", ""))

    @property
    def text(self) -> str | None:
        r"""The text for people who see no HTML, with ``\n`` as line end; None if there is none."""
        return _text_of(self.message.get_body(("plain",)))

    @property
    def html(self) -> str | None:
        r"""The HTML, with ``\n`` as line end; None if there is none."""
        return _text_of(self.message.get_body(("html",)))

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """The attached files. Images that the HTML shows are not among them."""
        # A message of one part that is no text is a file itself.
        is_file = not self.message.is_multipart() and self.message.get_content_maintype() != "text"
        parts = [self.message] if is_file else self.message.iter_attachments()
        return tuple(Attachment(part.get_filename(), part.get_content_type(), _bytes_of(part)) for part in parts)

    def __str__(self) -> str:
        """Return one line: who, to whom, and the subject."""
        return f"{self.mail_from or '<>'} → {', '.join(self.recipients)}: {self.subject!r}"


def read_parameters(text: str) -> dict[str, str]:
    """Return the parameters after the address of a MAIL or RCPT command."""
    found = (each.partition("=") for each in text.split())
    return {name.upper(): value for name, _, value in found}


def _text_of(part: MIMEPart | None) -> str | None:
    if part is None:
        return None
    data = part.get_payload(decode=True)
    octets = data if isinstance(data, bytes) else b""
    try:
        text = octets.decode(part.get_content_charset("ascii"), "replace")
    except LookupError:
        # Nobody knows the charset: what is ASCII in it can be compared all the same.
        text = octets.decode("latin-1")
    return text.replace("\r\n", "\n")


def _bytes_of(part: MIMEPart) -> bytes:
    if part.get_content_type() == "message/rfc822":
        (inner,) = part.iter_parts()
        return inner.as_bytes()
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else part.as_bytes()
