"""
Go source as tokens with matched brackets, as the Go specification ("Lexical elements") defines them.

There is no Go parser in Python's standard library. Comments, raw strings and runes are what misleads a search by
pattern, so these are read exactly; rules then look at calls, their arguments and the blocks around them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from securesmtp._cli.audit.noqa import Comment
from securesmtp._cli.audit.source import NotCheckedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN: Final = re.compile(
    r"""
      (?P<blank>\s+)
    | (?P<comment>//[^\n]*|/\*.*?\*/)
    | (?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)
    | (?P<rune>'(?:\\.[0-9A-Fa-f]*|[^'\\\n])')
    | (?P<number>\d[\w.]*)
    | (?P<name>[^\W\d]\w*)
    | (?P<wrong>["`']|/\*)
    | (?P<operator>:=|[=!<>]=|&&|\|\||\.\.\.|<-|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_OPENING: Final = {")": "(", "]": "[", "}": "{"}


class Token(NamedTuple):
    """A token; `kind` is the group of `_TOKEN` that matched."""

    kind: str
    text: str
    offset: int
    line: int


@dataclass(slots=True)
class GoSource:
    """
    A Go file.

    Attributes:
        tokens: All tokens but comments.
        comments: Each line of each comment.
        closing: The index of the closing bracket, by that of the opening one.
        packages: The path of each imported package, by its name in this file; "" is a dot import's name.
    """

    text: str
    tokens: list[Token] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    closing: dict[int, int] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    # For each token, the outermost bracket and the innermost brace that are open there; -1 for none.
    _around: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """
        Read the tokens.

        Raises:
            NotCheckedError: This is no Go file.
        """
        self._read_tokens()
        self._match_brackets()
        if not self.tokens or self.tokens[0].text != "package":
            raise NotCheckedError("not Go: the file does not begin with a package clause")
        self.packages = dict(self._imports())

    def column(self, token: Token) -> int:
        """Return a token's column, from 1."""
        return token.offset - self.text.rfind("\n", 0, token.offset)

    def arguments(self, opening: int) -> list[range]:
        """Return the tokens of each argument of a call; *opening* is its parenthesis."""
        return self.split(range(opening + 1, self.closing[opening]), ",")

    def split(self, tokens: range, operator: str) -> list[range]:
        """Return the parts of an expression between an operator that is outside of brackets."""
        parts, begin, index = [], tokens.start, tokens.start
        while index < tokens.stop:
            token = self.tokens[index]
            if token.kind == "operator" and token.text == operator:
                parts.append(range(begin, index))
                begin = index + 1
            index = self.closing.get(index, index) + 1
        return [part for part in [*parts, range(begin, tokens.stop)] if part]

    def calls(self, package: str, *names: str, within: range | None = None) -> Iterator[tuple[int, str, int]]:
        """Return each call of a package's functions: its first token, the function's name, its parenthesis."""
        for index in range(len(self.tokens)) if within is None else within:
            if found := self.qualified(index, package):
                name, last = found
                if name in names and self.is_text(last + 1, "("):
                    yield index, name, last + 1

    def qualified(self, index: int, package: str) -> tuple[str, int] | None:
        """Return the name of a package's member that begins at a token, and its last token."""
        token = self.tokens[index]
        if token.kind != "name" or self.is_text(index - 1, "."):
            return None
        if self.packages.get(token.text) == package and self.is_text(index + 1, "."):
            return self.tokens[index + 2].text, index + 2
        if self.packages.get("") == package and not self.is_text(index - 1, "func"):
            return token.text, index
        return None

    def is_text(self, index: int, text: str) -> bool:
        """Return whether a token exists and is an operator or a name with this text."""
        return 0 <= index < len(self.tokens) and self.tokens[index].text == text and self.tokens[index].kind != "string"

    def outermost_block(self, index: int) -> range:
        """Return the tokens of the top-level block round a token, a function's body; empty if there is none."""
        opening = self._around[index][0]
        return range(opening + 1, self.closing[opening]) if opening >= 0 and self.is_text(opening, "{") else range(0)

    def block_around(self, index: int) -> int | None:
        """Return the opening brace of the innermost block round a token; None outside of blocks."""
        opening = self._around[index][1]
        return opening if opening >= 0 else None

    def _read_tokens(self) -> None:
        line = 1
        for found in _TOKEN.finditer(self.text):
            kind, text = str(found.lastgroup), found[0]
            if kind == "wrong":
                raise NotCheckedError(f"not Go: an unterminated {text} on line {line}")
            if kind == "comment":
                self.comments += [Comment(number, part) for number, part in enumerate(text.split("\n"), line)]
            elif kind != "blank":
                self.tokens.append(Token(kind, text, found.start(), line))
            line += text.count("\n")

    def _match_brackets(self) -> None:
        opened: list[int] = []
        braces: list[int] = []
        for index, token in enumerate(self.tokens):
            bracket = token.text if token.kind == "operator" else ""
            if bracket in _OPENING:
                if not opened or self.tokens[opened[-1]].text != _OPENING[bracket]:
                    raise NotCheckedError(f"not Go: an unmatched {bracket} on line {token.line}")
                self.closing[opened.pop()] = index
                braces = braces[:-1] if bracket == "}" else braces
            self._around.append((opened[0] if opened else -1, braces[-1] if braces else -1))
            if bracket in _OPENING.values():
                opened.append(index)
                braces = [*braces, index] if bracket == "{" else braces
        if opened:
            token = self.tokens[opened[-1]]
            raise NotCheckedError(f"not Go: an unmatched {token.text} on line {token.line}")

    def _imports(self) -> Iterator[tuple[str, str]]:
        for index, token in enumerate(self.tokens):
            if token.kind == "name" and token.text == "import":
                group = (
                    range(index + 2, self.closing[index + 1])
                    if self.is_text(index + 1, "(")
                    else range(index + 1, index + 3)
                )
                for place in group:
                    if place < len(self.tokens) and self.tokens[place].kind == "string":
                        yield self._name_of(place), self.tokens[place].text[1:-1]
                        if not self.is_text(index + 1, "("):
                            break

    def _name_of(self, place: int) -> str:
        """Return the name by which a package is imported; *place* is its path."""
        before = self.tokens[place - 1]
        path = self.tokens[place].text[1:-1]
        if before.kind == "name" and before.text != "import":
            return before.text
        if before.text == ".":
            return ""
        # "gopkg.in/gomail.v2" and ".../mail/v2" are named after the part before the version.
        parts = [part for part in path.split("/") if not re.fullmatch(r"v\d+", part)]
        return re.sub(r"\.v\d+$", "", parts[-1] if parts else path)
