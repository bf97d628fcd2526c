"""Conditions: which paths meet them."""

from __future__ import annotations

import ast
import operator
import re
from typing import TYPE_CHECKING, Any, Final

from securesmtp._cli.audit.arguments import kind_of, text_of
from securesmtp._cli.audit.expressions import Expressions
from securesmtp._cli.audit.machine import fact_of
from securesmtp._cli.audit.paths import Fact, Path, decided
from securesmtp._cli.audit.values import Const, Kind, Object, Unknown, Value

if TYPE_CHECKING:
    from collections.abc import Callable

_Decided = list[tuple[Path, bool]]

_OPERATIONS: Final[dict[type[ast.cmpop], tuple[str, bool]]] = {
    ast.Eq: ("==", True),
    ast.NotEq: ("==", False),
    ast.Is: ("is", True),
    ast.IsNot: ("is", False),
    ast.In: ("in", True),
    ast.NotIn: ("in", False),
    ast.Lt: ("<", True),
    ast.GtE: ("<", False),
    ast.Gt: (">", True),
    ast.LtE: (">", False),
}
# A TypeError says that it is not known.
_COMPUTE: Final[dict[str, Callable[[Any, Any], object]]] = {
    "==": operator.eq,
    "is": operator.eq,
    "in": lambda left, right: operator.contains(right, left),
    "<": operator.lt,
    ">": operator.gt,
}


def _compute(operation: str, left: Value | None, right: Value | None) -> bool | None:
    if not (isinstance(left, Const) and isinstance(right, Const)):
        return None
    try:
        return bool(_COMPUTE[operation](left.value, right.value))
    except TypeError:
        return None


# A test for Python 2, or for a Python that has had no fixes since 2026, is decided: its branch does not run.
_VERSION: Final = re.compile(r"(?:sys\.)?version_info(?P<major>\[0\]|\.major|)(?:\[0?:\d\])?")
_VERSIONS: Final = ((3, 10), (3, 99))


def _known_version(node: ast.Compare, comparison: ast.cmpop, right: ast.expr) -> bool | None:
    """Return whether a comparison with Python's version holds for all versions that are maintained, or for none."""
    match node.left:
        case ast.Subscript(value=whole) | ast.Attribute(value=whole, attr="major") | whole:
            pass
    match whole:
        case ast.Name(id="version_info") | ast.Attribute(value=ast.Name(id="sys"), attr="version_info"):
            tested = _VERSION.fullmatch(ast.unparse(node.left))
        case _:
            return None
    operation, expected = _OPERATIONS[type(comparison)]
    if tested is None or not (tested["major"] or operation in {"<", ">"}):
        return None
    try:
        against = ast.literal_eval(right)
        met = {_COMPUTE[operation](version[0] if tested["major"] else version, against) for version in _VERSIONS}
    except (TypeError, ValueError):
        return None
    return (met == {True}) is expected if len(met) == 1 else None


def words_of(node: ast.AST) -> str:
    """Return the names and texts in a condition."""
    words = []
    for each in ast.walk(node):
        match each:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.Constant(value=str(word)):
                words.append(word)
            case ast.Constant(value=int(number)) if number.bit_length() < 64:  # noqa: PLR2004 -- a port, a version
                words.append(str(number))
            case _:
                pass
    return " ".join(words)


class Conditions(Expressions):
    """Evaluates conditions."""

    def test(self, node: ast.expr, path: Path) -> _Decided:
        """Return the paths after a condition, each with whether it is met."""
        match node:
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return [(after, not met) for after, met in self.test(operand, path)]
            case ast.BoolOp():
                return self._test_all(node, path)
            case ast.Compare(ops=[comparison], comparators=[right]):
                return self._test_comparison(node, comparison, right, path)
            case ast.Compare():
                operands = self.evaluate_all((node.left, *node.comparators), path)
                return [
                    result
                    for after, values in operands
                    for result in self.test_value(Unknown(self.site(node), kind_of(values)), node, after)
                ]
            case _:
                return [
                    result
                    for after, value in self.evaluate(node, path)
                    for result in self.test_value(value, node, after)
                ]

    def _test_all(self, node: ast.BoolOp, path: Path) -> _Decided:
        going = [path]
        ended: _Decided = []
        is_and = isinstance(node.op, ast.And)
        for each in node.values:
            tested = [result for before in going for result in self.test(each, before)]
            going = [after for after, met in tested if met is is_and]
            ended += [(after, met) for after, met in tested if met is not is_and]
        return ended + [(after, is_and) for after in going]

    def test_value(self, value: Value, node: ast.expr, path: Path) -> _Decided:
        """Return the paths on which a value is true and is false."""
        known = self.truth(value, path)
        if known is not None:
            return [(path, known)]
        key, fact = fact_of(value, node, words_of(node))
        return decided(path, key, fact)

    def _test_comparison(self, node: ast.Compare, comparison: ast.cmpop, right: ast.expr, path: Path) -> _Decided:
        version = _known_version(node, comparison, right)
        if version is not None:
            return [(path, version)]
        operation, expected = _OPERATIONS[type(comparison)]
        results: _Decided = []
        for after, (one, other) in self.evaluate_all((node.left, right), path):
            known = _compute(operation, one, other)
            if known is None and operation == "in":
                known = self._known_member(one, other, after)
            if known is None and operation == "is":
                known = self._known_identity(one, other)
            if known is not None:
                results.append((after, known is expected))
                continue
            results += [(end, met is expected) for end, met in self._decide(node, operation, (one, other), after)]
        return results

    def _decide(self, node: ast.Compare, operation: str, operands: tuple[Value, Value], path: Path) -> _Decided:
        one, other = operands
        if isinstance(one, Const) and operation == "==":
            one, other = other, one
        constant = self._constant(other, path)
        subject = one if isinstance(one, Unknown) else other
        symbol = subject.symbol if isinstance(subject, Unknown) else self.site(node)
        against: object = constant.value if constant is not None else f"{other!r:.60}"
        default = _compute(operation, one.default if isinstance(one, Unknown) else one, constant)
        fact = Fact(True, self._decider(operands), default, node, words_of(node))  # noqa: FBT003 -- replaced
        if isinstance(against, str | int | bytes | float | tuple | None) and isinstance(one, Unknown):
            is_none = operation in {"is", "=="} and constant is not None and against is None
            return decided(path, (symbol, "is None" if is_none else operation, None if is_none else against), fact)
        return decided(path, (symbol, f"{operation} {self.site(node)}", None), fact)

    @staticmethod
    def _decider(operands: tuple[Value, Value]) -> Kind:
        kind = kind_of(operands)
        # `"starttls" in features`, wherever the features come from.
        if any("starttls" in (text_of(value) or "").lower() for value in operands) and kind is Kind.OTHER:
            return Kind.SERVER
        return kind

    def _constant(self, value: Value, path: Path) -> Const | None:
        match value:
            case Const():
                return value
            case Object(key=key, qual="sequence"):
                items = [value for name, value in path.fields(key).items() if name != "length"]
                known = [item.value for item in items if isinstance(item, Const)]
                return Const(tuple(known)) if len(known) == len(items) else None
        return None

    def _known_member(self, one: Value, other: Value, path: Path) -> bool | None:
        constant = self._constant(other, path)
        if constant is not None:
            return _compute("in", one, constant)
        if isinstance(other, Object) and other.qual == "dict" and isinstance(one, Const):
            return path.get(other.key, f"[{one.value!r}]") is not None
        return None

    @staticmethod
    def _known_identity(one: Value, other: Value) -> bool | None:
        # Objects, classes and functions are never None.
        if isinstance(one, Unknown) or isinstance(other, Unknown):
            is_module = isinstance(one, Unknown) and one.qual in {"smtplib", "ssl"}
            return False if is_module and isinstance(other, Const) else None
        return one == other
