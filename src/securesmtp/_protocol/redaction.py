"""
Redact secrets that a server repeats in its replies, before anyone can show them (AUTH-08).

How it works: a hash is kept of every 6 consecutive bytes of a secret (an n-gram). The same is done for its base64, once
for each of the three offsets at which a secret can start in base64. A reply is hashed in the same way: all its lines
joined, case-folded and without white space, so that neither case, spaces nor line ends hide a secret. Matching text is
redacted, and the rest stays. A secret shorter than 6 bytes is redacted only as a whole word, because its letters occur
in any text.

No secret is kept here, only hashes. They are Python's own `hash`, which is fast enough for every reply, over a random
key for each mailer, because PYTHONHASHSEED can make Python's own key known. So a traceback that shows the hashes does
not reveal the 6 bytes. Someone who can read the memory of the process finds the key, but also the password itself.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from itertools import count
from secrets import token_bytes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# This many consecutive bytes of a secret do not match by accident.
_NGRAM = 6
# A mailer remembers this many secrets, for tokens that change with each login; a connection remembers all it has sent.
_KEPT = 4
# A line with more redactions is redacted as a whole: the placeholders would make the reply much longer.
_MAX_CUTS = 8
# A reply with more matches is nothing but repeated secrets: all of it is redacted, without finding each place.
_MAX_HITS = 1000
REDACTED = b"(redacted: repeats what was sent to log in)"

_BASE64 = re.compile(rb"[A-Za-z0-9+/=]+")
# Letters and digits; every byte of a non-ASCII character counts as one.
_IN_WORD = re.compile(rb"[A-Za-z0-9\x80-\xff]*")
# Marks: b is base64, x is other matching text, a space is white space, a dot is everything else.
_CUT = re.compile(rb"[bx](?:[bx ]*[bx])?")
# Keywords of EHLO that the library acts on are never redacted, whatever the password is.
_KEYWORD = re.compile(
    rb"(?<![\w-])(?:STARTTLS|AUTH|PLAIN|LOGIN|EXTERNAL|XOAUTH2|OAUTHBEARER|SCRAM-SHA-(?:1|256|512)(?:-PLUS)?"
    rb"|8BITMIME|SMTPUTF8|SIZE|PIPELINING|CHUNKING|LIMITS|MAILMAX|RCPTMAX)(?![\w-])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, repr=False)
class _Fingerprint:
    """
    The hashes of the secrets of one login.

    Attributes:
        plain: Of the n-grams of each secret.
        encoded: Of the n-grams of their base64.
        words: Of each secret that is shorter than an n-gram.
    """

    plain: frozenset[int]
    encoded: frozenset[int]
    words: frozenset[int]


class Memory:
    """
    The fingerprints of the last few different secrets that a mailer has sent, on any connection.

    Threads share it without a lock, because a fork could copy a locked lock: each read and each write is atomic.

    Attributes:
        key: What the hashes are made over.
        version: Another object whenever there is a new fingerprint.
    """

    __slots__ = ("_next", "_slots", "key", "version")

    def __init__(self) -> None:
        """Start without any fingerprint, and with a random key."""
        self.key = token_bytes(16)
        self._slots: list[_Fingerprint | None] = [None] * _KEPT
        self._next = count()
        self.version = object()

    def remember(self, fingerprint: _Fingerprint) -> None:
        """Keep *fingerprint*, and forget the oldest one."""
        if fingerprint not in self._slots:
            self._slots[next(self._next) % _KEPT] = fingerprint
            # Last, and before the secret is sent: no reply that repeats it can have been redacted without it.
            self.version = object()

    def fingerprints(self) -> list[_Fingerprint]:
        """Return all that are remembered."""
        return [each for each in tuple(self._slots) if each]


class Redactor:
    """Redact the replies on one connection: its own secrets, and those of the mailer's other connections."""

    __slots__ = ("_memory", "_own")

    def __init__(self, memory: Memory | None = None) -> None:
        """Start with the fingerprints in the *memory* of the mailer."""
        self._memory = memory or Memory()
        # A mailer forgets old secrets; a connection remembers all that were sent on it.
        self._own: list[_Fingerprint] = []

    def add(self, secrets: Iterable[bytes], token: bytes) -> None:
        """Redact *secrets* from now on, and the base64 *token* in which they were sent."""
        plain, encoded, words = set[int](), set(self._ngram_hashes(_fold(token.rstrip(b"=")))), set[int]()
        for secret in filter(_fold, secrets):
            whole = base64.b64encode(secret).rstrip(b"=")
            for form, ngrams in ((secret, plain), (whole, encoded)):
                folded = _fold(form)
                ngrams.update(self._ngram_hashes(folded))
                if len(folded) < _NGRAM:
                    words.update(self._ngram_hashes(folded, len(folded)))
            for offset in range(3):
                encoded.update(self._ngram_hashes(_fold(_base64_inside(secret, offset))))
        fingerprint = _Fingerprint(frozenset(plain), frozenset(encoded), frozenset(words))
        self._memory.remember(fingerprint)
        self._own.append(fingerprint)

    def redact(self, lines: tuple[bytes, ...], prefix: re.Pattern[bytes]) -> tuple[bytes, ...]:
        """Return the *lines* of one reply without secrets; a *prefix* that starts the first line stays on each line."""
        known = {*self._own, *self._memory.fingerprints()}
        if not known:
            return lines
        # The same text on each line: a different enhanced code on each could spell the digits of a password.
        head = match[0] if (match := prefix.match(lines[0])) else b""
        starts = [len(head) * text.startswith(head) for text in lines]
        joined = b"".join(text[start:] for text, start in zip(lines, starts, strict=True))
        folded = _fold(joined)
        ngrams = self._ngram_hashes(folded)
        words = frozenset[int]().union(*(each.words for each in known))
        hits = [
            (at, _NGRAM, kind)
            for each in known
            for kind, hashes in ((b"x", each.plain), (b"b", each.encoded))
            if not hashes.isdisjoint(ngrams)
            for at, value in enumerate(ngrams)
            if value in hashes
        ]
        if len(hits) > _MAX_HITS:
            return tuple(text[:start] + REDACTED for text, start in zip(lines, starts, strict=True))
        if words:
            short = [(width, self._ngram_hashes(folded, width)) for width in range(1, _NGRAM)]
            hits += [(at, width, b"w") for width, hashes in short for at, value in enumerate(hashes) if value in words]
        return _cut(lines, starts, joined, hits) if hits else lines

    def _ngram_hashes(self, folded: bytes, width: int = _NGRAM) -> list[int]:
        key = self._memory.key
        return [hash(key + folded[at : at + width]) for at in range(len(folded) - width + 1)]


def _cut(
    lines: tuple[bytes, ...], starts: Sequence[int], joined: bytes, hits: Iterable[tuple[int, int, bytes]]
) -> tuple[bytes, ...]:
    """Return *lines* without the *hits*: each has its position in the folded *joined* text, its length and its kind."""
    places, marks = _map_folded(joined)
    edges, at = {0}, 0
    for text, start in zip(lines, starts, strict=True):
        at += len(text) - start
        edges.add(at)
    for first, width, kind in hits:
        begin, end = places[first][0], places[first + width - 1][1]
        if kind == b"w" and not (_is_edge(joined, begin, edges) and _is_edge(joined, end, edges)):
            continue
        for begin, end in places[first : first + width]:
            marks[begin:end] = (b"b" if kind == b"b" else b"x") * (end - begin)
    shown, at = [], 0
    for text, start in zip(lines, starts, strict=True):
        body, mark = text[start:], marks[at : at + len(text) - start]
        at += len(body)
        # The first and last base64 character of a secret also encode its neighbours: redact the whole run of base64.
        for run in _BASE64.finditer(body):
            if b"b" in mark[run.start() : run.end()]:
                mark[run.start() : run.end()] = b"b" * len(run[0])
        if _KEYWORD.match(body):
            for word in _KEYWORD.finditer(body):
                mark[word.start() : word.end()] = b"." * len(word[0])
        shown.append(text[:start] + _without(body, bytes(mark)))
    return tuple(shown)


def _without(body: bytes, mark: bytes) -> bytes:
    cuts = list(_CUT.finditer(mark))
    if len(cuts) > _MAX_CUTS:
        return REDACTED
    shown, at = b"", 0
    for cut in cuts:
        shown, at = shown + body[at : cut.start()] + REDACTED, cut.end()
    return shown + body[at:]


def _map_folded(text: bytes) -> tuple[list[tuple[int, int]], bytearray]:
    """Return the start and end in *text* of each byte's character after folding, and marks for white space only."""
    places, marks, at = list[tuple[int, int]](), bytearray(b"." * len(text)), 0
    for character in text.decode("utf-8", "surrogateescape"):
        end = at + (1 if character.isascii() else len(character.encode("utf-8", "surrogateescape")))
        if character.isspace():
            marks[at:end] = b" " * (end - at)
        else:
            places += [(at, end)] * (1 if character.isascii() else len(_fold(text[at:end])))
        at = end
    return places, marks


def _is_edge(text: bytes, at: int, edges: set[int]) -> bool:
    """Return whether a word may begin or end here: at a line end, or next to a byte that is no letter or digit."""
    return at in edges or not _IN_WORD.fullmatch(text[at - 1 : at + 1])


def _base64_inside(secret: bytes, offset: int) -> bytes:
    # The base64 of a longer text with *secret* at *offset*, without the characters that also encode its neighbours.
    encoded = base64.b64encode(b"\0" * offset + secret).rstrip(b"=")
    return encoded[(offset * 8 + 5) // 6 : len(encoded) - bool((offset + len(secret)) % 3)]


def _fold(data: bytes) -> bytes:
    # Upper case first, because casefold() alone keeps some letters apart whose capitals are equal (such as dotless i).
    text = data.decode("utf-8", "surrogateescape").upper().casefold()
    return "".join(text.split()).encode("utf-8", "surrogateescape")
