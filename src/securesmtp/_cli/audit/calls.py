"""Calls: functions of the file are followed, others are given to the rules."""

from __future__ import annotations

import ast
from abc import abstractmethod
from typing import TYPE_CHECKING

from securesmtp._cli.audit.arguments import Arguments, decorators
from securesmtp._cli.audit.conditions import Conditions
from securesmtp._cli.audit.externals import Externals
from securesmtp._cli.audit.families import Call
from securesmtp._cli.audit.machine import MOST_DEPTH, Activation, Results, position
from securesmtp._cli.audit.paths import Path, reduce
from securesmtp._cli.audit.values import (
    NONE,
    Class,
    Function,
    FunctionNode,
    Kind,
    Object,
    Partial,
    Unknown,
    Value,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_RECORDS = {"dataclass", "define", "frozen", "mutable", "s", "attrs"}
_RECORD_BASES = ("NamedTuple", "BaseModel", "BaseSettings", "Struct")


def defaults_key(node: FunctionNode) -> str:
    """Return where the store holds the default values of a function's parameters."""
    return f"defaults/{node.lineno}.{node.col_offset}"


def parameters(node: FunctionNode) -> list[ast.arg]:
    """Return the parameters that can be given by position or name, then those by name alone."""
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]


class Calls(Conditions):
    """Calls functions."""

    @abstractmethod
    def run_block(self, body: list[ast.stmt], paths: list[Path]) -> list[Path]:
        """Return the paths after several statements."""
        raise NotImplementedError

    def _on_call(self, node: ast.Call, path: Path) -> Results:
        results: Results = []
        for before, callee in self.evaluate(node.func, path):
            for after, arguments in self._arguments(node, before):
                if isinstance(callee, Function):
                    self.calls.setdefault(node, set()).add(callee.node)
                results += self.call(callee, arguments, after)
        return results

    def _arguments(self, node: ast.Call, path: Path) -> list[tuple[Path, Arguments]]:
        results = []
        nodes = [*node.args, *(keyword.value for keyword in node.keywords)]
        for after, values in self.evaluate_all(nodes, path):
            arguments = Arguments(node)
            for argument, value in zip(node.args, values, strict=False):
                if not isinstance(argument, ast.Starred):
                    arguments.positional.append(value)
                elif isinstance(value, Object) and value.qual == "sequence":
                    items = after.fields(value.key)
                    arguments.positional += [item for name, item in items.items() if name != "length"]
                else:
                    arguments.has_more = True
            for keyword, value in zip(node.keywords, values[len(node.args) :], strict=True):
                if keyword.arg is not None:
                    arguments.keywords[keyword.arg] = value
                elif isinstance(value, Object) and value.qual == "dict":
                    fields = after.fields(value.key)
                    arguments.has_more = arguments.has_more or "more" in fields
                    arguments.keywords |= {name[2:-2]: item for name, item in fields.items() if name[1:2] == "'"}
                else:
                    arguments.has_more = True
            results.append((after, arguments))
        return results

    def call(self, callee: Value, arguments: Arguments, path: Path) -> Results:
        """Return the paths after a call, each with what it returns."""
        match callee:
            case Function():
                return self.run(callee, arguments, path)
            case Class():
                return self._make(callee, arguments, path)
            case Partial(target=target, arguments=positional, keywords=keywords):
                merged = Arguments(
                    arguments.node,
                    (*positional, *arguments.positional),
                    {**dict(keywords), **arguments.keywords},
                    has_more=arguments.has_more,
                )
                return self.call(target, merged, path)
            case Object(owner=Class() as owner) if own := self.class_member(owner, "__call__", path, callee):
                return self.call(own, arguments, path)
            case Unknown():
                return self.call_external(callee, arguments, path)
            case _:
                return [(path, Unknown(self.site(arguments.node)))]

    # ------------------------------------------------------------------------------------- functions of the file

    def run(self, function: Function, arguments: Arguments, path: Path) -> Results:
        """Run a function of the file."""
        node = function.node
        if node in self.active or len(self.active) >= MOST_DEPTH or self.is_tired:
            return [(path, Unknown(self.site(arguments.node)))]
        caller = self.activation
        key = f"{caller.key}>{position(arguments.node)}"
        callee = Activation(key, function.frames, node, function.owner, function.receiver, catchers=caller.catchers)
        path.store[key] = self.bind(function, arguments, path)
        self.ran.add(node)
        self.active.append(node)
        self.activation = callee
        try:
            ends = self._body(node, path)
        finally:
            self.activation = caller
            self.active.pop()
        return ends

    def _body(self, node: FunctionNode, path: Path) -> Results:
        activation = self.activation
        if isinstance(node, ast.Lambda):
            results = self.evaluate(node.body, path)
        else:
            results = [(after, NONE) for after in self.run_block(node.body, [path])]
            results += activation.returns
        if activation.yields:
            # A context manager gives what it yields; what follows only cleans up.
            results = activation.yields
        for after, value in results:
            after.put(activation.key, "return", value)
        ends: Results = []
        keeps_frame = any(isinstance(each, FunctionNode) for each in ast.walk(node) if each is not node)
        for after in reduce([after for after, _ in results], self.most_paths):
            value = after.get(activation.key, "return") or NONE
            if not keeps_frame:
                after.store.pop(activation.key, None)
            ends.append((after, value))
        return ends

    def bind(self, function: Function, arguments: Arguments, path: Path) -> dict[str, Value]:
        """Return the frame of a function that is called with these arguments."""
        node = function.node
        defaults = path.fields(defaults_key(node))
        positional = list(arguments.positional)
        if function.receiver is not None:
            positional.insert(0, function.receiver)
        frame: dict[str, Value] = {}
        names = parameters(node)
        by_position = len(node.args.posonlyargs) + len(node.args.args)
        for index, parameter in enumerate(names):
            name = parameter.arg
            if index < min(by_position, len(positional)):
                frame[name] = positional[index]
            elif name in arguments.keywords:
                frame[name] = arguments.keywords[name]
            elif arguments.has_more or name not in defaults:
                frame[name] = Unknown(f"{self.site(arguments.node)}:{name}", Kind.OPTION, default=defaults.get(name))
            else:
                frame[name] = defaults[name]
        given = {name: value for name, value in arguments.keywords.items() if name not in frame}
        self._bind_more(node, given, positional[by_position:], frame, arguments, path)
        return frame

    def _bind_more(  # noqa: PLR0913, PLR0917 -- what is left of the arguments
        self,
        node: FunctionNode,
        given: dict[str, Value],
        rest: list[Value],
        frame: dict[str, Value],
        arguments: Arguments,
        path: Path,
    ) -> None:
        if node.args.vararg is not None:
            made = Object(f"{self.site(arguments.node)}*", "sequence")
            path.store[made.key] = {f"[{index}]": value for index, value in enumerate(rest)}
            frame[node.args.vararg.arg] = made
        if node.args.kwarg is not None:
            made = Object(f"{self.site(arguments.node)}**", "dict")
            fields = {f"[{name!r}]": value for name, value in given.items()}
            path.store[made.key] = {**fields, "more": NONE} if arguments.has_more else fields
            frame[node.args.kwarg.arg] = made

    # --------------------------------------------------------------------------------------- classes of the file

    def _make(self, cls: Class, arguments: Arguments, path: Path) -> Results:
        base = cls.external_base
        made = Object(f"{self.site(arguments.node)}:{cls.node.name}", f"{base}()" if base else "", cls, arguments.node)
        path.store[made.key] = {}
        start = self.class_member(cls, "__init__", path, made)
        if isinstance(start, Function):
            return [(after, made) for after, _ in self.run(start, arguments, path)]
        if is_record(cls):
            self._fill(cls, made, arguments, path)
        elif base:
            outer = Unknown(base, Kind.OTHER, base, receiver=made)
            return [(after, made) for after, _ in self.call_external(outer, arguments, path)]
        return [(path, made)]

    def _fill(self, cls: Class, made: Object, arguments: Arguments, path: Path) -> None:
        names = [
            each.target.id
            for each in cls.node.body
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        ]
        for index, name in enumerate(names):
            value = arguments.get(index, name)
            default = path.get(cls.key, name)
            if value is None and (arguments.has_more or default is None):
                value = Unknown(f"{made.key}.{name}", Kind.OPTION, default=default)
            path.put(made.key, name, value or default or NONE)

    # --------------------------------------------------------------------------------------------- anything else

    def call_external(self, callee: Unknown, arguments: Arguments, path: Path) -> Results:
        """Give a call of something outside the file to the rules."""
        if not callee.qual and isinstance(callee.default, Unknown | Function | Class):
            return self.call(callee.default, arguments, path)
        special: Callable[[Unknown, Arguments, Path], Results | None] | None
        special = Externals(self).special(callee)
        if special is not None:
            results = special(callee, arguments, path)
            if results is not None:
                return results
        qual, receiver = self._resolve(callee, arguments)
        self.called.append((qual, receiver, arguments.node))
        handler = self.rules.handlers.get(qual)
        if handler is not None:
            result = handler(Call(qual, arguments, path, receiver, self))
            if isinstance(result, list):
                return result
            if result is not None:
                return [(path, result)]
        return [(path, Externals(self).result(callee, arguments))]

    def _resolve(self, callee: Unknown, arguments: Arguments) -> tuple[str, Value | None]:
        """Return the name under which rules know what is called, and its object."""
        qual, receiver = callee.qual, callee.receiver
        if qual in self.rules.handlers:
            return qual, receiver
        owner, _, name = qual.rpartition(".")
        first = arguments.positional[0] if arguments.positional else None
        if name == "__init__":
            # `super().__init__(…)`, `smtplib.SMTP.__init__(self, …)`
            if not owner.endswith("()") and isinstance(first, Object):
                receiver = arguments.positional.pop(0)
            return owner.removesuffix("()"), receiver
        instance = owner.endswith("()")
        cls = owner.removesuffix("()")
        base = self.rules.bases.get(cls, cls)
        if not instance and isinstance(first, Object) and f"{base}().{name}" in self.rules.handlers:
            # `smtplib.SMTP.login(self, …)`
            return f"{base}().{name}", arguments.positional.pop(0)
        return (f"{base}().{name}" if instance else qual), receiver


def is_record(cls: Class) -> bool:
    """Whether a class makes its `__init__` from its annotations."""
    return bool(decorators(cls.node) & _RECORDS) or cls.external_base.endswith(_RECORD_BASES)
