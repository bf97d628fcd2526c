"""
What a server repeats of our secrets is cut out of its words, before anybody can show them (AUTH-08).

How it works: every 6 bytes in a row of a secret are remembered by their hash, as they are and in base64 at each of the
three places where a secret can begin in it. A reply is hashed in the same way: all of its lines in one piece, in one
case and without blanks, so that neither case, blanks nor line ends hide an echo. What matches is cut out, and the rest
stays. A secret that is shorter is looked for as a whole word, since its letters are in every text.

No secret is kept here. The hash is Python's own, which is fast enough for every reply (a message has dozens of them in
a second), behind a random key of each mailer, since PYTHONHASHSEED can make Python's own key known. So what a traceback
could show of it does not tell the 6 bytes. Whoever reads the memory of the process has the key, and no need of it: the
password is there as well.
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

# So many bytes of a secret in a row are no accident.
_NGRAM = 6
# Of a token that changes with each login, a mailer remembers the last ones; a connection remembers its own.
_KEPT = 4
# A line with more of it is left out whole, so that a reply does not grow by what stands for it.
_MOST_CUTS = 8
# A reply with more of it says nothing else: no time is spent on where each of it stands.
_MOST_HITS = 1000
REDACTED = b"(left out: it repeats what was sent to log in)"

_BASE64 = re.compile(rb"[A-Za-z0-9+/=]+")
_CUT = re.compile(rb"[bx](?:[bx ]*[bx])?")
# What we act on in the answer to EHLO stays, whatever the password is: redaction changes only what is shown.
_KEYWORD = re.compile(
    rb"(?<![\w-])(?:STARTTLS|AUTH|PLAIN|LOGIN|8BITMIME|SMTPUTF8|SIZE|PIPELINING|CHUNKING|LIMITS|MAILMAX|RCPTMAX)(?![\w-])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, repr=False)
class _Fingerprint:
    """The hashes of what no reply is to be seen to repeat: of runs, of runs of its base64, and of a short one whole."""

    plain: frozenset[int]
    encoded: frozenset[int]
    words: frozenset[int]


class Memory:
    """
    What one mailer has sent to log in: the fingerprints of the last secrets that differed.

    Threads share it without a lock, which a fork could leave locked: each store and each copy is one step.
    """

    __slots__ = ("_next", "_slots", "key")

    def __init__(self) -> None:
        """Know of nothing."""
        self.key = token_bytes(16)
        self._slots: list[_Fingerprint | None] = [None] * _KEPT
        self._next = count()

    def remember(self, made: _Fingerprint) -> None:
        """Keep *made*, and forget the oldest."""
        if made not in self._slots:
            self._slots[next(self._next) % _KEPT] = made

    def known(self) -> list[_Fingerprint]:
        """Return what is remembered."""
        return [each for each in tuple(self._slots) if each]


class Redactor:
    """Cuts out of the replies on one connection what repeats a secret of it, or of its mailer's other connections."""

    __slots__ = ("_memory", "_own")

    def __init__(self, memory: Memory | None = None) -> None:
        """Know what is in the *memory* of the mailer."""
        self._memory = memory or Memory()
        # A mailer forgets; a connection goes on to know what was sent over it.
        self._own: list[_Fingerprint] = []

    def add(self, secrets: Iterable[bytes], token: bytes) -> None:
        """Recognise *secrets* from now on, and the *token* that was written with them in it."""
        plain, encoded, words = set[int](), set(self._ngram_hashes(_folded(token.rstrip(b"=")))), set[int]()
        for secret in filter(_folded, secrets):
            whole = base64.b64encode(secret).rstrip(b"=")
            for form, ngrams in ((secret, plain), (whole, encoded)):
                folded = _folded(form)
                ngrams.update(self._ngram_hashes(folded))
                if len(folded) < _NGRAM:
                    words.update(self._ngram_hashes(folded, len(folded)))
            for before in range(3):
                encoded.update(self._ngram_hashes(_folded(_in_base64(secret, before))))
        made = _Fingerprint(frozenset(plain), frozenset(encoded), frozenset(words))
        self._memory.remember(made)
        self._own.append(made)

    def redact(self, lines: tuple[bytes, ...], prefix: re.Pattern[bytes]) -> tuple[bytes, ...]:
        """Return *lines* of one reply without what repeats a secret; the *prefix* of the first stays, on each line."""
        known = {*self._own, *self._memory.known()}
        if not known:
            return lines
        # Only the same: each line could have other digits of a password in it.
        head = found[0] if (found := prefix.match(lines[0])) else b""
        starts = [len(head) * text.startswith(head) for text in lines]
        joined = b"".join(text[start:] for text, start in zip(lines, starts, strict=True))
        folded = _folded(joined)
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
        if len(hits) > _MOST_HITS:
            return tuple(text[:start] + REDACTED for text, start in zip(lines, starts, strict=True))
        if words:
            short = [(width, self._ngram_hashes(folded, width)) for width in range(1, _NGRAM)]
            hits += [(at, width, b"w") for width, found in short for at, value in enumerate(found) if value in words]
        return _cut(lines, starts, joined, hits) if hits else lines

    def _ngram_hashes(self, folded: bytes, width: int = _NGRAM) -> list[int]:
        key = self._memory.key
        return [hash(key + folded[at : at + width]) for at in range(len(folded) - width + 1)]


def _cut(
    lines: tuple[bytes, ...], starts: Sequence[int], joined: bytes, hits: Iterable[tuple[int, int, bytes]]
) -> tuple[bytes, ...]:
    """Return *lines* without what *hits* says of their *joined* text: where in its folded form, how much, and what."""
    places, marks = _places(joined)
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
        # The characters at the seam of an encoded secret are in part of it.
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
    if len(cuts) > _MOST_CUTS:
        return REDACTED
    shown, at = b"", 0
    for cut in cuts:
        shown, at = shown + body[at : cut.start()] + REDACTED, cut.end()
    return shown + body[at:]


def _places(text: bytes) -> tuple[list[tuple[int, int]], bytearray]:
    """Return for each byte of the folded *text* where its character stands, and *text* with its blanks alone."""
    places, marks, at = list[tuple[int, int]](), bytearray(b"." * len(text)), 0
    for character in text.decode("utf-8", "surrogateescape"):
        end = at + (1 if character.isascii() else len(character.encode("utf-8", "surrogateescape")))
        if character.isspace():
            marks[at:end] = b" " * (end - at)
        else:
            places += [(at, end)] * (1 if character.isascii() else len(_folded(text[at:end])))
        at = end
    return places, marks


def _is_edge(text: bytes, at: int, edges: set[int]) -> bool:
    """Return whether a word may begin or end here: at the end of a line, or beside what is no letter and no digit."""
    return at in edges or not all(octet >= 0x80 or chr(octet).isalnum() for octet in text[at - 1 : at + 1])  # noqa: PLR2004


def _in_base64(octets: bytes, before: int) -> bytes:
    # Where so many octets stand before it: without the characters that its neighbours are in as well.
    encoded = base64.b64encode(b"\0" * before + octets).rstrip(b"=")
    return encoded[(before * 8 + 5) // 6 : len(encoded) - bool((before + len(octets)) % 3)]


def _folded(octets: bytes) -> bytes:
    # In any case, beyond ASCII as well ("ß" is "SS" in capitals), and whatever blanks stand between.
    text = octets.decode("utf-8", "surrogateescape").upper().casefold()
    return "".join(text.split()).encode("utf-8", "surrogateescape")
