"""
Encode the non-ASCII text of a header field as encoded-words (RFC 2047).

Readers ignore white space between two encoded-words (§6.2), so it is put inside one of them. To be sure that readers
see the text that was set, every result is decoded and compared before it is used.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, a2b_qp, b2a_base64
from typing import TYPE_CHECKING

from securesmtp._protocol.folding import Lines, too_long_error, try_fold, unfold
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Callable

# RFC 2047 §2: a line with an encoded-word has at most 76 octets, the encoded-word itself at most 75.
MAX_ENCODED_LINE = 76
_MAX_ENCODED_WORD = 75
# With less room than this on a line, an encoded-word starts on the next line.
MIN_ENCODED_WORD = 32
# Text for people (RFC 5322 §3.6.5, RFC 2045 §8). Only in these fields may ASCII text become an encoded-word.
_TEXT_FIELDS = frozenset({"subject", "comments", "content-description"})
# Programs read these fields and do not decode encoded-words in them (RFC 2047 §5).
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
# Some readers decode encoded-words that have spaces inside or no spaces around them.
_LIKE_ENCODED_WORD = re.compile(r"=\?[^?]*\?[bBqQ]\?[^?]*\?=")
# Each byte in the Q encoding. The rules for display names are the strictest, so they fit every field (RFC 2047 §5 (3)).
_Q = ["_" if c == " " else c if c.isascii() and c.isalnum() else f"={ord(c):02X}" for c in map(chr, range(256))]


def format_text_field(name: str, text: str, *, limit: int, utf8: bool, is_source: bool = False) -> str:
    """
    Return a field of text; non-ASCII text is encoded, unless *utf8*.

    Args:
        name: The name of the field.
        text: The text that readers see; with *is_source*, the text of a parsed field, which may have encoded-words.
        limit: The number of characters on a line.
        utf8: Whether the header may be UTF-8 (RFC 6532).
        is_source: See *text*.

    Raises:
        MessageError: It cannot be written in a form that readers decode to the same text.
    """
    lowered = name.lower()
    # Readers would decode text that only looks encoded.
    looks_encoded = not is_source and lowered in _TEXT_FIELDS and _LIKE_ENCODED_WORD.search(text) is not None
    if (text.isascii() or (utf8 and _is_displayable(text))) and not looks_encoded:
        folded = try_fold(name, text, limit)
        if folded is not None:
            return folded
        if lowered not in _TEXT_FIELDS or is_source:
            raise too_long_error(name)
    if lowered in _PROGRAM_FIELDS:
        message = f"the header field {name} is not ASCII, and programs that read it do not decode it (RFC 2047 §5)"
        raise MessageError(message, hint="write it in ASCII: URLs percent-encoded, JSON with ensure_ascii=True")
    expected = _decode(text) if is_source else text
    # First encode only the words that need it; if readers would see another text, encode all words.
    for should_encode in (_needs_encoding, lambda _: True):
        encoded = _encode_text(name, text, should_encode, is_source=is_source)
        seen = _decode(unfold(encoded)) if encoded else None
        if encoded and seen and seen.strip(" \t") == expected.strip(" \t"):
            return encoded
    message = f"readers would not see the text of the header field {name} as it was set"
    raise MessageError(message, hint="use simpler text")


def _is_displayable(text: str) -> bool:
    """Return whether *text* has no raw bytes (surrogates), and nothing that some program treats as a line end."""
    return text.isprintable() or text.replace("\t", " ").isprintable()


def _needs_encoding(word: str) -> bool:
    return not (word.isascii() and word.isprintable()) or "=?" in word


def _encode_text(name: str, text: str, should_encode: Callable[[str], bool], *, is_source: bool) -> str | None:
    lines = Lines(name, MAX_ENCODED_LINE)
    # A word is plain, new (to be encoded), or from the source (encoded already). Readers drop white space between two
    # encoded-words, so there it is put inside of the new one.
    blank, last = "", ""
    run: list[str] = []

    def end_run() -> None:
        if lines.room < MIN_ENCODED_WORD:
            lines.end_line()
        for word in encode_words("".join(run), lines.room - 1):
            lines.add(f" {word}")
        run.clear()

    for token in _TOKEN.findall(text):
        if token[0] in " \t":
            blank = token
            continue
        kind = "source" if is_source and _ENCODED_WORD.fullmatch(token) else "new" if should_encode(token) else "plain"
        if kind == "new":
            # One space stays outside, between an encoded-word and plain text.
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


def encode_words(text: str, first: int = _MAX_ENCODED_WORD) -> list[str]:
    """
    Return *text* as encoded-words of at most 75 characters; no character is split over two (RFC 2047 §2, §5).

    Args:
        text: The text; raw bytes of a parsed message are surrogates in it.
        first: The maximum length of the first encoded-word.
    """
    data = text.encode("utf-8", "surrogateescape")
    charset = "utf-8" if text.isprintable() or not any("\ud800" <= c <= "\udfff" for c in text) else "unknown-8bit"
    payload = "".join(map(_Q.__getitem__, data))
    # Use the readable Q encoding if it is at most half as long again as base64.
    is_quoted = len(payload) <= 2 * len(data)
    encoding = "q" if is_quoted else "b"
    overhead = len(f"=?{charset}?q??=")
    room = min(first, _MAX_ENCODED_WORD) - overhead
    if (len(payload) if is_quoted else len(data)) <= (room if is_quoted else room // 4 * 3):
        return [f"=?{charset}?{encoding}?{payload if is_quoted else _base64(data)}?="]
    characters = [character.encode("utf-8", "surrogateescape") for character in text]
    quoted = ["".join(map(_Q.__getitem__, character)) for character in characters]
    words: list[str] = []
    start, used = 0, 0
    costs = list(map(len, quoted if is_quoted else characters))
    for end, cost in enumerate([*costs, 0]):
        if end == len(costs) or used + cost > (room if is_quoted else room // 4 * 3):
            payload = "".join(quoted[start:end]) if is_quoted else _base64(b"".join(characters[start:end]))
            words.append(f"=?{charset}?{encoding}?{payload}?=")
            start, used, room = end, 0, _MAX_ENCODED_WORD - overhead
        used += cost
    return words


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")


def _decode(text: str) -> str:
    """Return *text* as a reader sees it (RFC 2047 §6.2); only the charsets that `encode_words` uses are decoded."""
    seen: list[str] = []
    blank, was_encoded = "", False
    for token in _TOKEN.findall(text):
        if token[0] in " \t":
            blank = token
            continue
        match = _ENCODED_WORD.fullmatch(token)
        if not (match and was_encoded):
            seen.append(blank)
        seen.append(_decode_word(match) if match else token)
        blank, was_encoded = "", match is not None
    return "".join([*seen, blank])


def _decode_word(match: re.Match[str]) -> str:
    charset, encoding, payload = match[1].lower(), match[2].lower(), match[3]
    if charset not in {"utf-8", "unknown-8bit"}:
        return match[0]
    try:
        data = a2b_base64(payload) if encoding == "b" else a2b_qp(payload, header=True)
    except ValueError:
        return match[0]
    return data.decode("utf-8", "surrogateescape")
