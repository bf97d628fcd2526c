"""The arguments of a call, and texts and keys in the code."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from securesmtp._cli.audit.values import Const, Kind, Unknown, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A longer text is no password, no host and no command.
_LONGEST_TEXT = 2_000


def decorators(node: ast.AST) -> set[str]:
    """Return the last names of a function's decorators."""
    found = set[str]()
    for each in getattr(node, "decorator_list", ()):
        inner = each.func if isinstance(each, ast.Call) else each
        match inner:
            case ast.Attribute(attr=name) | ast.Name(id=name):
                found.add(name)
            case _:
                pass
    return found


def key_of(value: Value) -> str | None:
    """Return the name of the field for an index; None if the index is not in the code."""
    if isinstance(value, Const) and isinstance(value.value, str | int | bytes):
        return f"[{value.value!r}]"
    return None


def text_of(value: Value) -> str | None:
    """Return a text in the code; None if it is not a text or not in the code."""
    match value:
        case Const(value=str(text)):
            return text
        case Const(value=bytes(data)):
            return data.decode("latin-1")
        case _:
            return None


def joined(values: Sequence[Value], symbol: str, node: ast.AST) -> Value:
    """Return several texts as one, or what is known about its start and who decides it."""
    texts = [text_of(value) for value in values]
    if all(text is not None for text in texts):
        text = "".join(text or "" for text in texts)
        is_binary = any(isinstance(value, Const) and isinstance(value.value, bytes) for value in values)
        if len(text) < _LONGEST_TEXT:
            return Const(text.encode("latin-1", "replace") if is_binary else text, node)
    first = next(iter(values))
    prefix = first.prefix if isinstance(first, Unknown) else texts[0] or ""
    return Unknown(symbol, kind_of(values), prefix=prefix)


def kind_of(values: Iterable[Value]) -> Kind:
    """Return who decides what is made of several values."""
    kinds = [value.kind for value in values if isinstance(value, Unknown)]
    if Kind.SERVER in kinds:
        return Kind.SERVER
    return Kind.OPTION if Kind.OPTION in kinds else Kind.OTHER


class Arguments:
    """The arguments of a call, evaluated."""

    def __init__(
        self,
        node: ast.expr,
        positional: Sequence[Value] = (),
        keywords: dict[str, Value] | None = None,
        *,
        has_more: bool = False,
    ) -> None:
        self.node = node
        self.positional = list(positional)
        self.keywords = keywords or {}
        # Whether `*args` or `**kwargs` may add others.
        self.has_more = has_more

    def get(self, position: int, name: str) -> Value | None:
        """Return an argument by its position or name; None if it is not given."""
        if name in self.keywords:
            return self.keywords[name]
        return self.positional[position] if 0 <= position < len(self.positional) else None
