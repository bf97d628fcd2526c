"""Connect the images that HTML refers to by ``cid:`` with the parts that hold them (RFC 2392)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from securesmtp._shown import quote
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Where HTML and CSS load something, also inside of a comment for Outlook: an attribute, or url(…). This takes
# linear time, because no two repetitions share a character.
_PLACE = re.compile(
    r"""((?<![\w-])(?:src|srcset|background|poster|href|data)\s*=\s*)("[^"]*"|'[^']*'|[^\s"'<>]+)"""
    r"""|(?<![\w-])url\([^()]*\)""",
    re.IGNORECASE,
)
# In a style attribute, quotes are entities.
_REFERENCE = re.compile(
    r"""((?:(?<=[\s"'(,])|(?<=&quot;)|(?<=&apos;)|(?<=&\#34;)|(?<=&\#39;)|^)cid:)([^\s"'<>()&,;?\#]*)""", re.IGNORECASE
)


def connect_images(html: str, ids: Mapping[str, str]) -> str:
    """
    Return *html* with each ``cid:`` and a label replaced by ``cid:`` and the Content-ID that *ids* has for the label.

    Raises:
        MessageError: The HTML refers to a label that *ids* does not have, or does not refer to one that it has.
    """
    found: set[str] = set()

    def replace(reference: re.Match[str]) -> str:
        label = reference[2]
        found.add(label)
        return f"cid:{ids[label]}" if label in ids else reference[0]

    connected = _PLACE.sub(lambda place: (place[1] or "") + _REFERENCE.sub(replace, place[2] or place[0]), html)
    if missing := sorted(found - set(ids)):
        message = f"the HTML refers to {_list(missing)} by cid:, and inline does not have it"
        raise MessageError(message, hint=f"pass inline={{{quote(missing[0])}: …}}; a reader would see an empty box")
    if unused := sorted(set(ids) - found):
        message = f"inline has {_list(unused)}, and the HTML does not refer to it by cid:"
        hint = f'write <img src="cid:{unused[0]}" alt="…">, or pass it in attachments: readers hide an unused image'
        raise MessageError(message, hint=hint)
    return connected


def _list(labels: list[str]) -> str:
    return ", ".join(quote(label, allow_at=True) for label in labels[:5])
