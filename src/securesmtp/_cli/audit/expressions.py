"""What expressions are: on each path one value."""

from __future__ import annotations

import ast
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from securesmtp._cli.audit.arguments import Arguments, decorators, joined, key_of, kind_of, text_of
from securesmtp._cli.audit.choices import choices
from securesmtp._cli.audit.machine import MOST_STEPS_OF_A_FILE, PATCHES, Machine, Results
from securesmtp._cli.audit.source import NotCheckedError
from securesmtp._cli.audit.values import (
    Class,
    Const,
    Function,
    Kind,
    Object,
    Super,
    Unknown,
    Value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from securesmtp._cli.audit.paths import Path

# On how many paths one expression is followed.
_MOST_RESULTS = 32
_MOST_BITS = 1_000


class Expressions(Machine):
    """Evaluates expressions."""

    def evaluate(self, node: ast.expr, path: Path) -> Results:
        """Return the paths after an expression, each with its value."""
        self.steps += 1
        if self.steps > MOST_STEPS_OF_A_FILE:
            raise NotCheckedError("has too many paths to check")
        method: Callable[[Any, Path], Results] | None = getattr(self, f"_on_{type(node).__name__.lower()}", None)
        if method is not None:
            return method(node, path)
        children = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        return [
            (after, Unknown(self.site(node), kind_of(values))) for after, values in self.evaluate_all(children, path)
        ]

    def evaluate_all(self, nodes: Iterable[ast.expr], path: Path) -> list[tuple[Path, list[Value]]]:
        """Return the paths after several expressions, each with their values."""
        results: list[tuple[Path, list[Value]]] = [(path, [])]
        for node in nodes:
            after_it: list[tuple[Path, list[Value]]] = []
            for before, values in results:
                found = self.evaluate(node, before)
                # The usual case takes no copy of the values.
                for after, value in found:
                    many = [*values, value] if len(found) > 1 else values
                    after_it.append((after, many))
                if len(found) == 1:
                    values.append(found[0][1])
            results = after_it[:_MOST_RESULTS]
        return results

    @abstractmethod
    def test(self, node: ast.expr, path: Path) -> list[tuple[Path, bool]]:
        """Return the paths after a condition, each with whether it is met."""
        raise NotImplementedError

    @abstractmethod
    def call(self, callee: Value, arguments: Arguments, path: Path) -> Results:
        """Return the paths after a call, each with what it returns."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------- constants

    def _on_constant(self, node: ast.Constant, path: Path) -> Results:
        if isinstance(node.value, int) and node.value.bit_length() > _MOST_BITS:
            # Python refuses to write it in decimal.
            return [(path, Unknown(self.site(node)))]
        return [(path, Const(node.value, node))]

    def _on_joinedstr(self, node: ast.JoinedStr, path: Path) -> Results:
        return [
            (after, joined(values, self.site(node), node) if values else Const("", node))
            for after, values in self.evaluate_all(node.values, path)
        ]

    def _on_formattedvalue(self, node: ast.FormattedValue, path: Path) -> Results:
        if node.format_spec is None:
            return [
                (after, Const(str(value.value), value.node) if isinstance(value, Const) else value)
                for after, value in self.evaluate(node.value, path)
            ]
        return [(path, Unknown(self.site(node)))]

    def _on_binop(self, node: ast.BinOp, path: Path) -> Results:
        results: Results = []
        for after, (left, right) in self.evaluate_all((node.left, node.right), path):
            value: Value = Unknown(self.site(node), kind_of((left, right)))
            match node.op:
                case ast.Add():
                    value = joined((left, right), self.site(node), node)
                case ast.Mod() if (text := text_of(left)) is not None:
                    value = Unknown(self.site(node), kind_of((right,)), prefix=text.partition("%")[0])
                case _:
                    pass
            results.append((after, value))
        return results

    def _on_unaryop(self, node: ast.UnaryOp, path: Path) -> Results:
        if isinstance(node.op, ast.Not):
            return [(after, Const(not met, node)) for after, met in self.test(node.operand, path)]
        return [(after, Unknown(self.site(node))) for after, _ in self.evaluate(node.operand, path)]

    # -------------------------------------------------------------------------------------------------- displays

    def _sequence(self, node: ast.List | ast.Tuple | ast.Set, path: Path) -> Results:
        results: Results = []
        for after, values in self.evaluate_all(node.elts, path):
            made = Object(self.site(node), "sequence", node=node)
            fields = {f"[{index}]": value for index, value in enumerate(values)}
            after.store[made.key] = {**fields, "length": Const(len(values))}
            results.append((after, made))
        return results

    _on_list = _on_tuple = _on_set = _sequence

    def _on_dict(self, node: ast.Dict, path: Path) -> Results:
        results: Results = []
        keys = [key or ast.Constant(None) for key in node.keys]
        for after, names in self.evaluate_all(keys, path):
            for end, values in self.evaluate_all(node.values, after):
                made = Object(self.site(node), "dict", node=node)
                fields: dict[str, Value] = {}
                for key, name, value in zip(node.keys, names, values, strict=True):
                    if key is None and isinstance(value, Object):
                        fields |= end.fields(value.key)
                    elif (index := key_of(name)) is not None:
                        fields[index] = value
                    else:
                        fields["more"] = Const(None)
                end.store[made.key] = fields
                results.append((end, made))
        return results

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, path: Path) -> Results:
        paths = [path]
        for generator in node.generators:
            paths = [after for each in paths for after in self.enter(generator.target, generator.iter, each)]
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        return [(after, Unknown(self.site(node))) for each in paths for after, _ in self.evaluate_all(parts, each)]

    _on_listcomp = _on_setcomp = _on_generatorexp = _on_dictcomp = _comprehension

    @abstractmethod
    def enter(self, target: ast.expr, iterable: ast.expr, path: Path) -> list[Path]:
        """Return the paths on which a loop's target holds what it is given."""
        raise NotImplementedError

    # ----------------------------------------------------------------------------------------------------- names

    def _on_name(self, node: ast.Name, path: Path) -> Results:
        return [(path, self.load(node.id, path))]

    def _on_namedexpr(self, node: ast.NamedExpr, path: Path) -> Results:
        results = self.evaluate(node.value, path)
        for after, value in results:
            self.store(node.target.id, value, after)
        return results

    def _on_lambda(self, node: ast.Lambda, path: Path) -> Results:
        activation = self.activation
        return [(path, Function(node, (*activation.frames, activation.key), activation.owner, None))]

    def _on_await(self, node: ast.Await, path: Path) -> Results:
        return self.evaluate(node.value, path)

    _on_starred = _on_await

    def _on_yield(self, node: ast.Yield | ast.YieldFrom, path: Path) -> Results:
        results = self.evaluate(node.value, path) if node.value is not None else [(path, Const(None, node))]
        self.activation.yields += [(after.copy(), value) for after, value in results]
        return [(after, Unknown(self.site(node))) for after, _ in results]

    _on_yieldfrom = _on_yield

    def _on_ifexp(self, node: ast.IfExp, path: Path) -> Results:
        return [
            result
            for after, met in self.test(node.test, path)
            for result in self.evaluate(node.body if met else node.orelse, after)
        ]

    def _on_boolop(self, node: ast.BoolOp, path: Path) -> Results:
        results: Results = []
        paths = [path]
        for index, each in enumerate(node.values):
            going: list[Path] = []
            for before in paths:
                for after, value in self.evaluate(each, before):
                    if index == len(node.values) - 1:
                        results.append((after, value))
                        continue
                    for end, met in self.test_value(value, each, after):
                        if met is isinstance(node.op, ast.And):
                            going.append(end)
                        else:
                            results.append((end, end.narrow(value)))
            paths = going
        return results

    def _on_compare(self, node: ast.Compare, path: Path) -> Results:
        return [(after, Const(met, node)) for after, met in self.test(node, path)]

    def _on_subscript(self, node: ast.Subscript, path: Path) -> Results:
        results: Results = []
        for after, (owner, index) in self.evaluate_all((node.value, node.slice), path):
            chosen = choices(owner, index, node, after)
            results += chosen or [(after, after.narrow(self.item(owner, key_of(index), node, after)))]
        return results

    def item(self, owner: Value, name: str | None, node: ast.AST, path: Path) -> Value:
        """Return what a dictionary or a sequence holds at an index."""
        found = path.get(owner.key, name or "more") if isinstance(owner, Object) else None
        if found is not None and not (name is None and isinstance(found, Const)):
            return found
        match owner:
            case Unknown(symbol=symbol, kind=kind, qual=qual):
                stored = path.get(symbol, name or "more")
                kind = kind if kind is Kind.SERVER else Kind.OPTION
                return stored or Unknown(f"{symbol}{name or self.site(node)}", kind, f"{qual}[]" if qual else "")
            case _:
                return Unknown(self.site(node), Kind.OPTION)

    # ------------------------------------------------------------------------------------------------ attributes

    def _on_attribute(self, node: ast.Attribute, path: Path) -> Results:
        return [
            result for after, owner in self.evaluate(node.value, path) for result in self.attribute(owner, node, after)
        ]

    def attribute(self, owner: Value, node: ast.Attribute, path: Path) -> Results:
        """Return what an attribute of a value is; a property is called."""
        value = self.member(owner, node.attr, path)
        if isinstance(value, Function) and decorators(value.node) & {"property", "cached_property"}:
            return self.call(value, Arguments(node), path)
        return [(path, path.narrow(value))]

    def member(self, owner: Value, name: str, path: Path) -> Value:  # noqa: PLR0911 -- one for each kind of value
        """Return what an attribute of a value is."""
        match owner:
            case Object(key=key, owner=cls, qual=qual):
                stored = path.get(key, name)
                if stored is not None:
                    return stored
                found = self.class_member(cls, name, path, owner) if cls is not None else None
                if found is not None:
                    return found
                kind = Kind.SERVER if qual.startswith("smtplib.") else Kind.OPTION
                return Unknown(f"{key}.{name}", kind, f"{qual}.{name}" if qual else "", receiver=owner)
            case Class():
                return self.class_member(owner, name, path, None) or Unknown(
                    f"{owner.key}.{name}", Kind.OPTION, f"{owner.external_base}.{name}" if owner.external_base else ""
                )
            case Super(receiver=receiver, owner=cls):
                for base in cls.bases:
                    if isinstance(base, Class) and (found := self.class_member(base, name, path, receiver)):
                        return found
                qual = receiver.qual
                return Unknown(f"super.{name}", Kind.OTHER, f"{qual}.{name}" if qual else "", receiver=receiver)
            case Unknown():
                return self._unknown_member(owner, name, path)
            case _:
                return Unknown(f"{owner!r:.60}.{name}", Kind.OTHER, f"{type(owner).__name__}.{name}", receiver=owner)

    def _unknown_member(self, owner: Unknown, name: str, path: Path) -> Value:
        qual = f"{owner.qual}.{name}" if owner.qual else ""
        stored = path.get(PATCHES, qual) if qual else path.get(owner.symbol, name)
        if stored is not None:
            return stored
        kind = owner.kind if owner.kind is Kind.SERVER else Kind.OPTION
        return Unknown(f"{owner.symbol}.{name}", kind, qual, self.options.get(name), receiver=owner)

    def class_member(self, cls: Class, name: str, path: Path, receiver: Value | None) -> Value | None:
        """Return an attribute of a class or of its bases in this file, bound to an object; None if there is none."""
        for each in cls.lineage():
            value = path.get(each.key, name)
            if value is None:
                continue
            if isinstance(value, Function) and value.owner is not None:
                kinds = decorators(value.node)
                if "staticmethod" in kinds:
                    return value
                bound = cls if "classmethod" in kinds else receiver
                return Function(value.node, value.frames, value.owner, bound)
            return value
        return None
