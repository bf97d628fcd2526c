"""An item of a dictionary in the code, by a key that is not in the code: on each path another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp._cli.audit.paths import Fact, Path
from securesmtp._cli.audit.values import Class, Const, Function, Kind, Object, Partial, Unknown, Value

if TYPE_CHECKING:
    import ast

    from securesmtp._cli.audit.machine import Results

_MOST_CHOICES = 4


def choices(owner: Value, index: Value, node: ast.AST, path: Path) -> Results:
    """Return the paths on which each item is chosen; none if no item is a class, a function, a context or a client."""
    if not (isinstance(owner, Object) and owner.qual == "dict" and isinstance(index, Unknown)):
        return []
    items = [(name, item) for name, item in path.fields(owner.key).items() if name[:1] == "["]
    if not 1 < len(items) <= _MOST_CHOICES or not any(_is_telling(item) for _, item in items):
        return []
    results: Results = []
    for name, item in items:
        after = path.copy()
        for other, _ in items:
            key = (index.symbol, "item", other)
            if after.known(key) is None:
                after.facts[key] = Fact(other == name, Kind.OPTION, None, node, name)
        # A key that was chosen before stays chosen.
        if after.known((index.symbol, "item", name)):
            results.append((after, item))
    return results


def _is_telling(value: Value) -> bool:
    match value:
        case Const(value=None) | Class() | Function() | Partial():
            return True
        case Unknown(qual=qual) | Object(qual=qual):
            return bool(qual)
        case _:
            return False
