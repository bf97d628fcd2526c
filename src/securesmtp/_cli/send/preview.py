"""Show a message as its reader would see it, without sending it."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message
from email.policy import default
from typing import TYPE_CHECKING

from securesmtp._shown import escape

if TYPE_CHECKING:
    from securesmtp._cli.send.sources import Ready

_FIELDS = ("From", "To", "Cc", "Reply-To", "Subject")


def preview(ready: Ready) -> str:
    """Return the first message: its addresses, its subject, its texts, and the names of its attachments."""
    content = ready.envelope.content
    # Read back from bytes, to see what is sent and not what was meant.
    data = bytes(content) if isinstance(content, Message) else content
    # Sources make no files.
    message = message_from_bytes(data if isinstance(data, bytes) else b"", policy=default)
    lines = [f"{ready.place} ({ready.key}):", ""]
    lines += [f"{name}: {message[name]}" for name in _FIELDS if message[name]]
    lines.append(f"(sent to: {', '.join(map(str, ready.envelope.recipients))})")
    for part in message.walk():
        if part.get_content_maintype() == "text" and not part.is_attachment():
            lines += ["", *part.get_content().splitlines()]
        elif part.get_filename():
            lines += ["", f"[{part.get_filename()}, {part.get_content_type()}]"]
    return "".join(f"{escape(line, 998)}\n" for line in lines) + "\n"
