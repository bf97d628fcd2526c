"""What an address in Go is: constants, variables, fields, `JoinHostPort` and `Sprintf` put together."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securesmtp._cli.audit.go_tokens import GoSource

# Stands for a part of a text that is not known.
_UNKNOWN: Final = "\0"
# A chain of variables that is longer, or that goes in a circle, is not followed.
_MAX_STEPS: Final = 8
# Of a variable that is assigned more often, the last ones count.
_MOST_VALUES: Final = 2
_VERB: Final = re.compile(r"%[-+# 0-9.]*[a-zA-Z]")
_KEYWORDS: Final = frozenset(
    {"case", "default", "else", "for", "func", "go", "if", "range", "return", "switch", "defer"}
)


class Address(NamedTuple):
    """An address: each part is None if it is not known."""

    host: str | None
    port: str | None

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, by a literal."""
        if self.host is None:
            return False
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")


@dataclass(slots=True)
class GoValues:
    """The values of a Go file, as far as its text shows them."""

    go: GoSource
    # Where a value is assigned to each variable, and to each field of a structure.
    _variables: dict[str, list[range]] = field(default_factory=dict)
    _fields: dict[str, list[range]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find all assignments."""
        tokens = self.go.tokens
        for index, token in enumerate(tokens):
            if token.text in {"=", ":="} and token.kind == "operator":
                self._assignment(index)
            elif token.text == ":" and tokens[index - 1].kind == "name" and self._in_literal(index - 1):
                self._fields.setdefault(tokens[index - 1].text, []).append(self._until_comma(index + 1))

    def addresses(self, tokens: range) -> list[Address]:
        """Return the addresses that an expression can be; the last one is the one that was assigned last."""
        return [_as_address(text) for text in self._texts(tokens, _MAX_STEPS)]

    def _assignment(self, index: int) -> None:
        tokens = self.go.tokens
        value = self._until_end(index + 1)
        name = tokens[index - 1]
        if name.kind == "name" and self.go.is_text(index - 2, "."):
            self._fields.setdefault(name.text, []).append(value)
            return
        # `host string = ` in a declaration with a type.
        if (
            name.kind == "name"
            and tokens[index - 2].kind == "name"
            and tokens[index - 2].text not in _KEYWORDS | {"var", "const"}
        ):
            name = tokens[index - 2] if tokens[index - 2].line == name.line else name
        names = [name.text]
        values = self.go.split(value, ",")
        before = index - 1
        while self.go.is_text(before - 1, ",") and tokens[before - 2].kind == "name":
            before -= 2
            names.insert(0, tokens[before].text)
        if len(names) == len(values):
            for each, part in zip(names, values, strict=True):
                self._variables.setdefault(each, []).append(part)
        else:
            for each in names:
                self._variables.setdefault(each, []).append(value if len(names) == 1 else range(index, index + 1))

    def _in_literal(self, index: int) -> bool:
        opening = self.go.block_around(index)
        return opening is not None and index > 0 and (self.go.is_text(index - 1, ",") or index - 1 == opening)

    def _until_comma(self, index: int) -> range:
        return self._until(index, {","})

    def _until_end(self, index: int) -> range:
        """Return the tokens until the statement ends: at a `;`, a `{` of a block, or the end of a line."""
        return self._until(index, {";"}, lines=True)

    def _until(self, begin: int, operators: set[str], *, lines: bool = False) -> range:
        tokens, index = self.go.tokens, begin
        while index < len(tokens):
            token, before = tokens[index], tokens[index - 1]
            closes = token.kind == "operator" and token.text in operators | {")", "]", "}"}
            # A line that ends in an operator or a comma goes on.
            ends_line = (
                lines
                and index > begin
                and token.line > self._last_line(index - 1)
                and (before.kind != "operator" or before.text in {")", "]", "}"})
            )
            if closes or ends_line:
                break
            index = self.go.closing.get(index, index) + 1
        return range(begin, index)

    def _last_line(self, index: int) -> int:
        token = self.go.tokens[index]
        return token.line + token.text.count("\n")

    def _texts(self, tokens: range, steps: int) -> list[str]:  # noqa: PLR0911 -- one for each form
        if not tokens or steps == 0:
            return [_UNKNOWN]
        parts = self.go.split(tokens, "+")
        if len(parts) > 1:
            return ["".join(each) for each in self._combinations(parts, steps)]
        first = self.go.tokens[tokens[0]]
        if len(tokens) == 1:
            return self._simple(tokens[0], steps)
        if first.text == "(" and self.go.closing[tokens[0]] == tokens[-1]:
            return self._texts(range(tokens[0] + 1, tokens[-1]), steps - 1)
        if call := self._call(tokens):
            function, opening = call
            return [_called(function, each) for each in self._combinations(self.go.arguments(opening), steps)]
        if self.go.is_text(tokens[-1] - 1, ".") and self.go.tokens[tokens[-1]].kind == "name":
            values = self._fields.get(self.go.tokens[tokens[-1]].text, [])
            # Two values would be guesswork.
            return self._texts(values[0], steps - 1) if len(values) == 1 else [_UNKNOWN]
        return [_UNKNOWN]

    def _simple(self, index: int, steps: int) -> list[str]:
        token = self.go.tokens[index]
        match token.kind:
            case "string":
                return [token.text[1:-1]]
            case "number":
                return [token.text]
            case _:
                values = self._visible(token.text, index)
                return [text for value in values for text in self._texts(value, steps - 1)] or [_UNKNOWN]

    def _visible(self, name: str, index: int) -> list[range]:
        """Return the values that were assigned to a variable before a token, in its function or at the top level."""
        values = self._variables.get(name, [])
        here = self.go.outermost_block(index)
        local = [value for value in values if value.start in here and value.stop <= index]
        return local or [value for value in values if not self.go.outermost_block(value.start)]

    def _call(self, tokens: range) -> tuple[str, int] | None:
        """Return the full name of a called function and its parenthesis, if the expression is one call."""
        for package in ("net", "fmt", "strconv"):
            if found := self.go.qualified(tokens[0], package):
                name, last = found
                if self.go.is_text(last + 1, "(") and self.go.closing[last + 1] == tokens[-1]:
                    return f"{package}.{name}", last + 1
        return None

    def _combinations(self, parts: list[range], steps: int) -> Iterator[tuple[str, ...]]:
        """Return what several expressions can be together; in the last one each is what it was last."""
        return product(*(self._texts(part, steps - 1)[-_MOST_VALUES:] for part in parts))


def _called(function: str, arguments: tuple[str, ...]) -> str:
    """Return what a function of the standard library returns."""
    match function, arguments:
        case "net.JoinHostPort", [host, port]:
            return f"{host}:{port}"
        case "fmt.Sprintf", [pattern, *values]:
            waiting = iter(values)
            return _VERB.sub(lambda _: next(waiting, _UNKNOWN), pattern)
        case (("fmt.Sprint" | "strconv.Itoa" | "strconv.FormatInt"), [value, *_]):
            return value
        case _:
            return _UNKNOWN


def _as_address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon:
        return Address(None, None)
    host = host.removeprefix("[").removesuffix("]")
    return Address(None if _UNKNOWN in host else host, None if _UNKNOWN in port else port)
