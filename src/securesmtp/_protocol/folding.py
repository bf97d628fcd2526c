"""
One header field as it is written: folded, and encoded where it is not ASCII (RFC 5322 §2.2.3, RFC 2047, RFC 2231).

Python's own folder is not used. It turns a long ASCII word into an encoded-word, loses the blank between two of them,
drops the quotes of a display name, and takes quadratic time or never ends (3.11 to 3.13). Here ASCII text is folded at
white space and is otherwise left as it is; other text is encoded by the kind of its field. Each step is linear.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, a2b_qp, b2a_base64
from email.errors import InvalidHeaderDefect
from email.headerregistry import Address, AddressHeader, Group
from typing import TYPE_CHECKING, cast

from securesmtp._protocol.address import ascii_domain
from securesmtp._protocol.content import MAX_LINE
from securesmtp.errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from email.errors import MessageDefect

# RFC 5322 §2.1.1 prefers 78; RFC 2047 §2 allows 76 where a line has an encoded-word, which has at most 75 itself.
MIN_LINE = 78
_MAX_ENCODED_LINE = 76
_MAX_ENCODED_WORD = 75
# Less room than this is not worth an encoded-word: a line of its own holds more.
_MIN_ENCODED_WORD = 32
# What is longer and has no blank is encoded, where its kind allows that: no line may have more than 998 octets.
_MAX_UNBROKEN = 900
# One address that is longer is not parsed: Python's parser takes quadratic time.
_MAX_ADDRESS = 998
_MAX_PARAMETER_NAME = 60
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

# A piece that is better not broken: white space and a word, where a blank in quotes ends no word. As in all patterns
# here, what follows a repetition cannot fail, so that there is one way to match and the work is linear.
_CHUNK = re.compile(r'[ \t]*(?:"(?:[^"\\]+|\\.)*(?:"|\\?\Z)|[^ \t"]+)+|[ \t]+\Z', re.DOTALL)
_WORD = re.compile(r"[ \t]*[^ \t]+|[ \t]+\Z")
_TOKEN = re.compile(r"[ \t]+|[^ \t]+")
_ENCODED_WORD = re.compile(r"=\?([^? ]+)\?([bBqQ])\?([^? ]*)\?=")
# Some readers decode it with blanks inside and without blanks around.
_LIKE_ENCODED_WORD = re.compile(r"=\?[^?]*\?[bBqQ]\?[^?]*\?=")
# RFC 5322 §3.2.3, and all that is not ASCII (RFC 6532 §3.2).
_ATOM = r"""[^\x00-\x20"(),.:;<>@\[\\\]\x7f]+"""
_ATOMS = re.compile(rf"{_ATOM}(?: {_ATOM})*")
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_PARAMETER_NAME = re.compile(rf"[A-Za-z0-9!#$&+.^_`|~-]{{1,{_MAX_PARAMETER_NAME}}}")
# An address list is parsed one address at a time; what is quoted or in brackets holds no separator.
_LIST_TOKEN = re.compile(r'"(?:[^"\\]+|\\.)*(?:"|\\?\Z)|<[^<>"]*>|\[[^\[\]\\]*\]|\\.|[^"<\[(,:;\\]+|.', re.DOTALL)
_COMMENT_TOKEN = re.compile(r"\\.|[^()\\]+|.", re.DOTALL)
# How each octet stands in an encoded-word (RFC 2047 §5 (3): what may stand in a display name may stand everywhere).
_Q = ["_" if c == " " else c if c.isascii() and c.isalnum() else f"={ord(c):02X}" for c in map(chr, range(256))]


class _Lines:
    """The lines of one field, filled one after the other."""

    def __init__(self, name: str, limit: int) -> None:
        self._limit = limit
        self._lines: list[str] = []
        self._line = f"{name}:"
        # A line with nothing but the name is no place to fold: some servers take it for an empty field.
        self._is_new = True

    @property
    def room(self) -> int:
        """How many characters fit on this line."""
        return self._limit - len(self._line)

    def add(self, chunk: str) -> None:
        """Put *chunk*, which begins with white space, on this line or on a new one."""
        if len(chunk) > (MAX_LINE - len(self._line) if self._is_new else self.room) and not chunk.isspace():
            self.end_line()
        self._line += chunk
        self._is_new = False

    def add_parts(self, chunk: str) -> None:
        """Put *chunk* on one line if it fits on one, else word by word."""
        if len(chunk) > self._limit or (self._is_new and len(chunk) > self.room):
            for word in _WORD.findall(chunk):
                self.add(word)
        else:
            self.add(chunk)

    def end_line(self) -> None:
        """Go on with a new line."""
        self._lines.append(self._line)
        self._line = ""

    def text(self) -> str | None:
        """Return the field, or None if a line of it is longer than 998 octets."""
        lines = [*self._lines, self._line]
        is_short = all(len(line) <= MAX_LINE and len(line.encode("utf-8", "replace")) <= MAX_LINE for line in lines)
        return "\r\n".join(lines) + "\r\n" if is_short else None


def fold(name: str, text: str, limit: int) -> str:
    """
    Return the field with *text* as it is, folded at white space alone.

    Raises:
        MessageError: A line would be longer than 998 octets.
    """
    folded = _folded(name, text, limit)
    if folded is None:
        raise too_long(name)
    return folded


def too_long(name: str) -> MessageError:
    """Return the error for a field that cannot be folded."""
    message = (
        f"the header field {name[:80]!r} has more than {MAX_LINE} octets without a blank, where it could be folded"
    )
    return MessageError(message, hint="shorten it, or put blanks in it")


def _folded(name: str, text: str, limit: int) -> str | None:
    lines = _Lines(name, limit)
    for chunk in _CHUNK.findall(f" {text}"):
        lines.add_parts(chunk)
    return lines.text()


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
        folded = _folded(name, text, limit)
        if folded is not None:
            return folded
        if lowered not in _TEXT_FIELDS or is_source:
            raise too_long(name)
    if lowered in _PROGRAM_FIELDS:
        message = f"the header field {name} is not ASCII, and programs that read it do not decode it (RFC 2047 §5)"
        raise MessageError(message, hint="write it in ASCII: URLs percent-encoded, JSON with ensure_ascii=True")
    wanted = _decoded(text) if is_source else text
    for is_encoded in (_needs_encoding, lambda _: True):
        encoded = _encoded_text(name, text, is_encoded, is_source=is_source)
        # RFC 2047 §6.2: what a reader sees is compared with what was set, whatever the writer above thinks.
        seen = _decoded(encoded.partition(":")[2].replace("\r\n", "")) if encoded else None
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
    lines = _Lines(name, _MAX_ENCODED_LINE)
    # A reader drops the white space between two encoded-words: where it counts, it is inside one of them.
    blank, last = "", ""
    run: list[str] = []

    def end_run() -> None:
        if lines.room < _MIN_ENCODED_WORD:
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


def phrase(text: str, room: int, *, utf8: bool) -> str:
    """Return the display name *text* as it stands in front of an address (RFC 5322 §3.2.5, RFC 2047 §5 (3))."""
    # What a parsed header had of octets that are no text is not text here either.
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    is_short = max(map(len, text.split(" "))) <= _MAX_UNBROKEN
    if (utf8 or text.isascii()) and text.isprintable() and is_short and "=?" not in text:
        return text if _ATOMS.fullmatch(text) else quoted(text)
    return " ".join(encoded_words(text, room))


def quoted(text: str) -> str:
    """Return *text* as a quoted-string (RFC 5322 §3.2.4)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def address_field(name: str, groups: Iterable[Group], *, limit: int, utf8: bool) -> str:
    """
    Return an address field: display names encoded where they must be, domains in ASCII (RFC 5890).

    Raises:
        MessageError: A domain has no ASCII form, or a line would be longer than 998 octets.
    """
    room = max(_MAX_ENCODED_LINE - len(name) - 2, _MIN_ENCODED_WORD)

    def mailbox(address: Address) -> str:
        try:
            spec = _spec(address)
        except ValueError:
            message = f"an address in the header field {name} has a domain that is not a domain name"
            raise MessageError(message) from None
        return f"{phrase(address.display_name, room, utf8=utf8)} <{spec}>" if address.display_name else spec

    written = []
    for group in groups:
        members = ", ".join(map(mailbox, group.addresses))
        if group.display_name is not None:
            named = phrase(group.display_name, room, utf8=utf8)
            # RFC 2047 §5 (3): white space stands between an encoded-word and a special.
            members = f"{named}{' ' if named.endswith('?=') else ''}: {members};"
        written.append(members)
    text = ", ".join(written)
    return fold(name, text, min(limit, _MAX_ENCODED_LINE) if "=?" in text else limit)


def _spec(address: Address) -> str:
    if not address.domain:
        return address.addr_spec
    # Python drops the quotes of a local part that needs them for its dots alone.
    local = address.username if _DOT_ATOM.fullmatch(address.username) else quoted(address.username)
    return f"{local}@{address.domain if address.domain.isascii() else ascii_domain(address.domain)}"


def read_addresses(name: str, text: str, parse: Callable[[str], AddressHeader]) -> tuple[list[Group], bool]:
    """
    Return the addresses of a field, and whether it is a list of addresses and nothing else (RFC 5322 §3.4).

    Args:
        name: The field's name, for the error.
        text: Its text, unfolded.
        parse: Python's parser. It gets one address at a time: its work grows with the square of what it gets.

    Raises:
        MessageError: One address has more than 998 characters.
    """
    groups: list[Group] = []
    members: list[Address] = []
    group: str | None = None
    is_valid, is_closed = True, False

    def parsed(piece: str) -> list[Group]:
        nonlocal is_valid
        if len(piece) > _MAX_ADDRESS:
            message = f"the header field {name} has an address of more than {_MAX_ADDRESS} characters"
            raise MessageError(message, hint="separate the addresses with commas")
        header = parse(piece)
        defects = cast("tuple[MessageDefect, ...]", header.defects)  # type: ignore[attr-defined] # typeshed lacks it
        is_valid = is_valid and not any(isinstance(defect, InvalidHeaderDefect) for defect in defects)
        return list(header.groups)

    for piece, mark in _address_list(text):
        if mark == ":":
            is_valid = is_valid and group is None and not is_closed
            named = parsed(f"{piece}:;")
            group = named[0].display_name if named else ""
            continue
        if piece.strip():
            # Behind a group stands a comma.
            is_valid = is_valid and not is_closed
            found = parsed(piece.strip())
            members += [address for each in found for address in each.addresses]
        if mark == ";":
            is_valid = is_valid and group is not None
            groups.append(Group(group or "", tuple(members)))
            group, members = None, []
        elif group is None:
            groups += [Group(None, (address,)) for address in members]
            members = []
        is_closed = mark == ";"
    return groups + [Group(group, tuple(members))] * (group is not None), is_valid and group is None


def _address_list(text: str) -> Iterable[tuple[str, str]]:
    """Yield the pieces of *text* and the separator behind each, the last with an empty one."""
    piece: list[str] = []
    depth = position = 0
    while found := (_COMMENT_TOKEN if depth else _LIST_TOKEN).match(text, position):
        token, position = found[0], found.end()
        if not depth and token in {",", ":", ";"}:
            yield "".join(piece), token
            piece.clear()
            continue
        depth += {"(": 1, ")": -1 if depth else 0}.get(token, 0)
        piece.append(token)
    yield "".join(piece), ""


def mime_field(name: str, value: str, parameters: Mapping[str, str], *, limit: int, utf8: bool) -> str:
    """
    Return a field with parameters; one that is not ASCII as RFC 2231 writes it.

    Raises:
        MessageError: The value or a parameter's name cannot be written.
    """
    if not value.isascii() or not all(map(_PARAMETER_NAME.fullmatch, parameters)):
        message = f"the header field {name} has a value or the name of a parameter that is no token of RFC 2045"
        raise MessageError(message, hint=f"write it in ASCII, a name with at most {_MAX_PARAMETER_NAME} characters")
    parts = [value, *(part for key, text in parameters.items() for part in _parameter(key, text, utf8=utf8))]
    return fold(name, "; ".join(parts), limit)


def _parameter(key: str, text: str, *, utf8: bool) -> list[str]:
    if (utf8 or text.isascii()) and text.isprintable() and len(text) <= _MAX_UNBROKEN:
        return [f"{key}={quoted(text)}"]
    characters = [
        c
        if c.isascii() and (c.isalnum() or c in "-._")
        else "".join(f"%{octet:02X}" for octet in c.encode("utf-8", "replace"))
        for c in text
    ]
    room = MIN_LINE - len(f" {key}*=utf-8'';")
    if sum(map(len, characters)) <= room:
        return [f"{key}*=utf-8''{''.join(characters)}"]
    sections = ["utf-8''"]
    # A section has at most three digits for its number: a field has no more than some thousand octets.
    room = max(MIN_LINE - len(f" {key}*000*=;"), 12)
    for character in characters:
        if len(sections[-1]) + len(character) > room:
            sections.append("")
        sections[-1] += character
    return [f"{key}*{number}*={section}" for number, section in enumerate(sections)]
