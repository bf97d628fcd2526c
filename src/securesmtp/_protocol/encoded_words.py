"""
Text of a header field that is not ASCII, as encoded-words (RFC 2047).

What a reader decodes is what was set: white space between two encoded-words is not seen (§6.2), so that it stands
inside of one of them, and what was written is read again before it is used.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, a2b_qp, b2a_base64
from typing import TYPE_CHECKING

from securesmtp._protocol.folding import Lines, too_long, try_fold, unfolded
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Callable

# RFC 2047 §2: 76 where a line has an encoded-word, which has at most 75 itself.
MAX_ENCODED_LINE = 76
_MAX_ENCODED_WORD = 75
# Less room than this is not worth an encoded-word: a line of its own holds more.
MIN_ENCODED_WORD = 32
# Text for people by RFC 5322 §3.6.5 and RFC 2045 §8. Only in these may ASCII become an encoded-word.
_TEXT_FIELDS = frozenset({"subject", "comments", "content-description"})
# An encoded-word in one of these is read by programs as it stands (RFC 2047 §5).
_PROGRAM_FIELDS = frozenset(
    f"{prefix}{name}"
    for prefix, names in {
        "": "date message-id in-reply-to references mime-version dkim-signature return-path x-smtpapi x-msys-api",
        "resent-": "date message-id",
        "content-": "id location transfer-encoding",
        "list-": "unsubscribe unsubscribe-post subscribe post help owner archive",
    }.items()
    for name in names.split()
)

_TOKEN = re.compile(r"[ \t]+|[^ \t]+")
_ENCODED_WORD = re.compile(r"=\?([^? ]+)\?([bBqQ])\?([^? ]*)\?=")
# Some readers decode it with blanks inside and without blanks around.
_LIKE_ENCODED_WORD = re.compile(r"=\?[^?]*\?[bBqQ]\?[^?]*\?=")
# How each octet stands in an encoded-word (RFC 2047 §5 (3): what may stand in a display name may stand everywhere).
_Q = ["_" if c == " " else c if c.isascii() and c.isalnum() else f"={ord(c):02X}" for c in map(chr, range(256))]


def text_field(name: str, text: str, *, limit: int, utf8: bool, is_source: bool = False) -> str:
    """
    Return a field of text; what is not ASCII is encoded-words, unless *utf8*.

    Args:
        name: The field's name.
        text: What a reader is to see; or with *is_source* what a parsed field has, encoded-words included.
        limit: Characters of a line.
        utf8: Whether the header may be UTF-8 (RFC 6532).
        is_source: See *text*.

    Raises:
        MessageError: It cannot be written so that it is read as the same.
    """
    lowered = name.lower()
    has_meaning = not is_source and lowered in _TEXT_FIELDS and _LIKE_ENCODED_WORD.search(text) is not None
    if (text.isascii() or (utf8 and _is_text(text))) and not has_meaning:
        whole = try_fold(name, text, limit)
        if whole is not None:
            return whole
        if lowered not in _TEXT_FIELDS or is_source:
            raise too_long(name)
    if lowered in _PROGRAM_FIELDS:
        message = f"the header field {name} is not ASCII, and programs that read it do not decode it (RFC 2047 §5)"
        raise MessageError(message, hint="write it in ASCII: URLs percent-encoded, JSON with ensure_ascii=True")
    wanted = _decoded(text) if is_source else text
    for is_encoded in (_needs_encoding, lambda _: True):
        encoded = _encoded_text(name, text, is_encoded, is_source=is_source)
        # RFC 2047 §6.2: what a reader sees is compared with what was set, whatever the writer above thinks.
        seen = _decoded(unfolded(encoded)) if encoded else None
        if encoded and seen and seen.strip(" \t") == wanted.strip(" \t"):
            return encoded
    message = f"the header field {name} cannot be written so that it is read as the same text"
    raise MessageError(message, hint="use simpler text")


def _is_text(text: str) -> bool:
    """Return whether *text* has neither raw octets (surrogates) nor what could be a line end to somebody."""
    return text.isprintable() or text.replace("\t", " ").isprintable()


def _needs_encoding(word: str) -> bool:
    return not (word.isascii() and word.isprintable()) or "=?" in word


def _encoded_text(name: str, text: str, is_encoded: Callable[[str], bool], *, is_source: bool) -> str | None:
    lines = Lines(name, MAX_ENCODED_LINE)
    # A reader drops the white space between two encoded-words: where it counts, it is inside one of them.
    blank, last = "", ""
    run: list[str] = []

    def end_run() -> None:
        if lines.room < MIN_ENCODED_WORD:
            lines.end_line()
        for word in encoded_words("".join(run), lines.room - 1):
            lines.add(f" {word}")
        run.clear()

    for token in _TOKEN.findall(text):
        if token[0] in " \t":
            blank = token
            continue
        kind = "source" if is_source and _ENCODED_WORD.fullmatch(token) else "new" if is_encoded(token) else "plain"
        if kind == "new":
            # One blank stands outside, between an encoded-word and text that is none.
            run += [blank[1:] if last == "plain" else blank, token]
        else:
            if last == "new":
                run.append(blank[:-1] if kind == "plain" else blank)
                end_run()
                blank = " "
            lines.add(blank + token if last else f" {blank}{token}")
        blank, last = "", kind
    if last == "new":
        run.append(blank)
        end_run()
    return lines.text()


def encoded_words(text: str, first: int = _MAX_ENCODED_WORD) -> list[str]:
    """
    Return *text* as encoded-words of at most 75 characters, no character split over two (RFC 2047 §2, §5).

    Args:
        text: Raw octets of a parsed message are surrogates in it.
        first: How long the first of them may be.
    """
    characters = [character.encode("utf-8", "surrogateescape") for character in text]
    charset = "utf-8" if text.isprintable() or not any("\ud800" <= c <= "\udfff" for c in text) else "unknown-8bit"
    quoted = ["".join(map(_Q.__getitem__, octets)) for octets in characters]
    # The readable form where it is at most half as long again as base64.
    is_quoted = sum(map(len, quoted)) <= 2 * sum(map(len, characters))
    chrome = len(f"=?{charset}?q??=")
    words: list[str] = []
    start, used, room = 0, 0, min(first, _MAX_ENCODED_WORD) - chrome
    costs = list(map(len, quoted if is_quoted else characters))
    for end, cost in enumerate([*costs, 0]):
        if end == len(costs) or used + cost > (room if is_quoted else room // 4 * 3):
            payload = "".join(quoted[start:end]) if is_quoted else _base64(b"".join(characters[start:end]))
            words.append(f"=?{charset}?{'q' if is_quoted else 'b'}?{payload}?=")
            start, used, room = end, 0, _MAX_ENCODED_WORD - chrome
        used += cost
    return words


def _base64(octets: bytes) -> str:
    return b2a_base64(octets, newline=False).decode("ascii")


def _decoded(text: str) -> str:
    """Return *text* as a reader sees it (RFC 2047 §6.2), other charsets than ours undecoded."""
    seen: list[str] = []
    blank, was_encoded = "", False
    for token in _TOKEN.findall(text):
        if token[0] in " \t":
            blank = token
            continue
        parsed = _ENCODED_WORD.fullmatch(token)
        if not (parsed and was_encoded):
            seen.append(blank)
        seen.append(_decoded_word(parsed) if parsed else token)
        blank, was_encoded = "", parsed is not None
    return "".join([*seen, blank])


def _decoded_word(parsed: re.Match[str]) -> str:
    charset, encoding, payload = parsed[1].lower(), parsed[2].lower(), parsed[3]
    if charset not in {"utf-8", "unknown-8bit"}:
        return parsed[0]
    try:
        octets = a2b_base64(payload) if encoding == "b" else a2b_qp(payload, header=True)
    except ValueError:
        return parsed[0]
    return octets.decode("utf-8", "surrogateescape")
