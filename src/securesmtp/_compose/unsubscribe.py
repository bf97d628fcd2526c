"""The fields by which a mail program shows a button to unsubscribe (RFC 2369, RFC 8058)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from securesmtp._protocol.address import Mailbox
from securesmtp._shown import escape
from securesmtp.errors import AddressError, MessageError

# RFC 3986 §2. One that is not percent-encoded is cut by some readers, and a long one cannot be folded.
_MAX_URL = 900
_URL = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()+*,;=-]|%[0-9A-Fa-f]{2})+")
_HTTPS = re.compile(r"https://[^/?#]+.*", re.IGNORECASE)
_HINT = 'pass ("mailto:leave@example.org?subject=…", "https://example.org/leave?t=…"), or one of them'


def unsubscribe_fields(given: object) -> list[tuple[str, str]]:
    """
    Return the header fields for *given*: one URL, or an iterable of at most one mailto and one https URL.

    Raises:
        MessageError: A URL is not percent-encoded, has another scheme, or there are two of a kind.
    """
    urls = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    kinds = [_check(url) for url in urls]
    if not kinds or len(set(kinds)) < len(kinds):
        message = f"unsubscribe has {len(kinds)} URLs: there must be one mailto URL, one https URL, or one of each"
        raise MessageError(message, hint=_HINT)
    fields = [("List-Unsubscribe", ", ".join(f"<{url}>" for url in urls))]
    if "https" in kinds:
        # A POST with this body unsubscribes; a GET, which scanners make for every link, must not (RFC 8058 §3.1).
        fields.append(("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"))
    return fields


def _check(url: object) -> str:
    """Return the scheme of *url*, in lower case."""
    if not isinstance(url, str):
        message = f"unsubscribe has a {type(url).__name__}, not a URL as a str"
        raise MessageError(message, hint=_HINT)
    # A token in the URL is a secret of the recipient's.
    scheme = url.partition(":")[0].lower()
    if len(url) > _MAX_URL or not _URL.fullmatch(url):
        message = (
            f"the {escape(scheme, 20)} URL for unsubscribe is longer than {_MAX_URL} bytes, or not percent-encoded"
        )
        raise MessageError(message, hint="encode its parts with urllib.parse.quote()")
    if scheme == "mailto" and _is_mailto(url):
        return scheme
    if scheme == "https" and _HTTPS.fullmatch(url):
        return scheme
    if ":" not in url:
        message = "unsubscribe has an address or host without a scheme"
        raise MessageError(message, hint='begin it with "mailto:" or "https://"')
    message = f"unsubscribe has a URL of the scheme {escape(scheme, 20)!r}, or one without address or host"
    raise MessageError(message, hint="one-click unsubscribe needs https (RFC 8058 §3.1)" if scheme == "http" else _HINT)


def _is_mailto(url: str) -> bool:
    try:
        Mailbox.parse(unquote(url.partition(":")[2].partition("?")[0]))
    except AddressError:
        return False
    return True
