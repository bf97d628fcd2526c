"""What a message looks like on the wire, and how a reader takes it apart."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from typing import Any

from securesmtp import compose
from securesmtp._protocol.building import from_message

MINIMAL: dict[str, Any] = {"sender": "ada@example.org", "to": "bob@example.net", "subject": "Hello"}


def composed(**given: Any) -> EmailMessage:
    """Return a message of *given*, from Ada to Bob."""
    return compose(**{**MINIMAL, **({} if "html" in given else {"text": "Hi"}), **given})


def wire(message: EmailMessage) -> bytes:
    """Return the bytes that a server gets."""
    date = "Tue, 24 Nov 2026 12:00:00 +0000"
    submission = from_message(message, None, None, date=lambda: date, token=lambda: "1")
    return b"".join(submission.content.chunk())


def read(data: bytes) -> EmailMessage:
    """Return what a reader makes of *data*."""
    return message_from_bytes(data, policy=policy.default)


def arrived(**given: Any) -> EmailMessage:
    """Return what a reader gets of a message of *given*."""
    return read(wire(composed(**given)))


def tree(part: MIMEPart) -> str:
    """Return the structure of *part*, such as ``mixed(alternative(plain, html), pdf)``."""
    kind = part.get_content_subtype()
    if not part.is_multipart() or part.get_content_maintype() != "multipart":
        return kind
    return f"{kind}({', '.join(tree(child) for child in part.iter_parts())})"
