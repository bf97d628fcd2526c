"""
Connect the images that HTML refers to by ``cid:`` with the parts that hold them (RFC 2392), and refuse paths.

A path is found where an image certainly is: in a tag, or in CSS; not in a comment, and not in text about HTML. Both
ways of reading take linear time and little memory, and know no more of HTML than they need.
"""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING

from securesmtp._compose.files import LABEL
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
# What is left out, the text of a style element, or a tag with its attributes. One without an end goes to the end of the
# text, or only to the next tag, so that nothing is read again and again. A group is repeated a thousand times at most,
# because `re` keeps 200 bytes for each.
_MARKUP = re.compile(
    r"""<!--.*?(?:-->|\Z)|<script\b.*?(?:</script|\Z)|<style\b[^<>]*>(?P<css>.*?)(?:</style|\Z)"""
    r"""|<(?P<tag>[a-z][\w:-]*)(?P<attributes>[^"'<>]*(?:(?:"[^"]*"|'[^']*')[^"'<>]*){0,1000})""",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""(?<=[\s"'/])([^\s"'<>/=]+)\s*=\s*("[^"]*"|'[^']*'|[^\s"'<>]+)""")
_LONG_NUMBER = re.compile(r"&#x?[\da-f]{100}", re.IGNORECASE)
_CSS_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_URL = re.compile(r"(?<![\w-])url\(([^()]*)\)", re.IGNORECASE)
# A path of this machine or of a web site, alone or in a URL. Not //host, #part, and what a provider replaces, such as
# {{ name }}, *|NAME|*, %name% or __NAME__.
_PATH = re.compile(
    r"(?:file:.*|[a-z]:[\\/].*"
    r"|(?!//|__)[\w.~/\\][\w .~/\\()+@,=&!'-]*(?:%[\da-f]{2}[\w .~/\\()+@,=&!'-]*){0,1000}(?:[?#].*)?)",
    re.IGNORECASE | re.DOTALL,
)
# Of those in CSS, srcset and background: nobody misses a font, and "none" or a part of a data: address is no path.
_IMAGE = re.compile(r"[^?#]*\.(?:png|jpe?g|gif|svg|webp|avif|bmp)(?:[?#].*)?", re.IGNORECASE | re.DOTALL)
_NAMES = {"img": ("src", "srcset"), "input": ("src",), "source": ("srcset",), "video": ("poster",)}
_ANYWHERE = ("background", "style")


def connect_images(html: str, ids: Mapping[str, str]) -> str:
    """
    Return *html* with each ``cid:`` and a label replaced by ``cid:`` and the Content-ID that *ids* has for the label.

    Raises:
        MessageError: The HTML refers to a label that *ids* does not have, or does not refer to one that it has, or
            shows an image by a path.
    """
    found: set[str] = set()

    def replace(reference: re.Match[str]) -> str:
        label = reference[2]
        found.add(label)
        return f"cid:{ids[label]}" if label in ids else reference[0]

    connected = _PLACE.sub(lambda place: (place[1] or "") + _REFERENCE.sub(replace, place[2] or place[0]), html)
    if missing := sorted(found - set(ids)):
        message = f"the HTML refers to {_list(missing)} by cid:, and inline does not have it"
        # Others cannot be passed, and would say something else to a shell.
        usable = [f"pass inline={{{label!r}: …}}" for label in missing if LABEL.fullmatch(label)]
        hint = usable[0] if usable else 'use letters, digits, ".", "_" and "-" after cid:'
        raise MessageError(message, hint=f"{hint}; a reader would see an empty box")
    if unused := sorted(set(ids) - found):
        message = f"inline has {_list(unused)}, and the HTML does not refer to it by cid:"
        hint = f'write <img src="cid:{unused[0]}" alt="…">, or pass it in attachments: readers hide an unused image'
        raise MessageError(message, hint=hint)
    refuse_paths(html)
    return connected


def refuse_paths(html: str) -> None:
    """
    Check that *html* shows no image by a path, unless it says by ``<base href>`` where its paths begin.

    Raises:
        MessageError: It does.
    """
    found: list[str] = []
    for markup in _MARKUP.finditer(html):
        tag, css = (markup["tag"] or "").lower(), markup["css"] or ""
        if not css and "=" not in (markup["attributes"] or ""):
            continue
        values = {name.lower(): value for name, value in _ATTRIBUTE.findall(markup["attributes"] or "")}
        if tag == "base" and "href" in values:
            return
        given = {name: _unquoted(values[name]) for name in (*_NAMES.get(tag, ()), *_ANYWHERE) if name in values}
        found += (given[name].strip() for name in ("src", "poster") if name in given)
        urls = [_unquoted(each.strip()) for each in _URL.findall(_CSS_COMMENT.sub("", css or given.get("style", "")))]
        urls += [given.get("background", "").strip(), *(each.rstrip(",") for each in given.get("srcset", "").split())]
        found += (each for each in urls if _IMAGE.fullmatch(each))
    names = list(dict.fromkeys(_name(each) for each in found if _PATH.fullmatch(each)))
    if names:
        label = next(iter(re.findall(r"^[\w-]{1,60}(?=\.|$)", names[0], re.ASCII)), "image")
        message = f"the HTML refers to {_list(names)} by a path, and no reader has the file"
        hint = f"write cid:{label} in its place and pass inline={{{label!r}: …}}, or write an https: address"
        raise MessageError(message, hint=hint)


def _name(path: str) -> str:
    """Return the name of the file: without what follows it, which may have a secret."""
    path = re.split(r"[?#]", path)[0]
    return re.split(r"[/\\]", path)[-1] or path


def _unquoted(value: str) -> str:
    text = value[1:-1] if value[:1] in {'"', "'"} else value
    # Python refuses to read a number of thousands of digits. No character has one.
    return text if _LONG_NUMBER.search(text) else unescape(text)


def _list(labels: list[str]) -> str:
    return ", ".join(quote(label, allow_at=True) for label in labels[:5])
