"""What statements bind: names, attributes, functions, classes."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from securesmtp._cli.audit.arguments import key_of
from securesmtp._cli.audit.calls import Calls, defaults_key, parameters
from securesmtp._cli.audit.machine import PATCHES, Activation
from securesmtp._cli.audit.values import Class, Const, Function, Kind, Object, Unknown, Value

if TYPE_CHECKING:
    from securesmtp._cli.audit.paths import Path


class Definitions(Calls):
    """Binds names."""

    def assign(self, target: ast.expr, value: Value, path: Path) -> None:
        """Bind a target to a value."""
        match target:
            case ast.Name(id=name):
                self.store(name, value, path)
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                for index, each in enumerate(targets):
                    self.assign(each, self.item(value, f"[{index}]", target, path), path)
            case ast.Starred(value=inner):
                self.assign(inner, Unknown(self.site(target)), path)
            case ast.Attribute(value=inner, attr=name):
                for after, owner in self.evaluate(inner, path)[:1]:
                    self.set_member(owner, name, value, target, after)
            case ast.Subscript(value=inner, slice=index):
                for after, (owner, at) in self.evaluate_all((inner, index), path)[:1]:
                    if isinstance(owner, Object | Unknown):
                        key = owner.key if isinstance(owner, Object) else owner.symbol
                        after.put(key, key_of(at) or "more", value)
            case _:  # never
                raise TypeError(target)

    def set_member(self, owner: Value, name: str, value: Value, node: ast.AST, path: Path) -> None:
        """Set an attribute; where that is done is noted beside it."""
        match owner:
            case Object(key=key) | Class(key=key):
                path.put(key, name, value)
                path.put(key, f"@{name}", Const(None, node))
            case Unknown(qual=qual) if qual:
                path.put(PATCHES, f"{qual}.{name}", value)
            case Unknown(symbol=symbol):
                path.put(symbol, name, value)
            case _:
                pass

    # ------------------------------------------------------------------------------------------------- definitions

    def _do_import(self, node: ast.Import, path: Path) -> list[Path]:
        for each in node.names:
            name = each.name if each.asname else each.name.partition(".")[0]
            self.store(each.asname or name, Unknown(name, Kind.OPTION, name), path)
        return [path]

    def _do_importfrom(self, node: ast.ImportFrom, path: Path) -> list[Path]:
        module = "." * node.level + (node.module or "")
        for each in node.names:
            for name in self.rules.exports.get(module, ()) if each.name == "*" else (each.name,):
                qual = f"{module}.{name}"
                value = path.get(PATCHES, qual) or Unknown(qual, Kind.OPTION, qual)
                self.store(each.asname or name, value, path)
        return [path]

    def _do_global(self, node: ast.Global, path: Path) -> list[Path]:
        self.activation.names.update(node.names)
        return [path]

    def _do_functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef, path: Path) -> list[Path]:
        activation = self.activation
        is_method = activation.owner is not None and activation.key == activation.owner.key
        frames = activation.frames if is_method else (*activation.frames, activation.key)
        function = Function(node, frames, activation.owner if is_method else None)
        defaults: dict[str, Value] = {}
        given = [*node.args.defaults, *(each for each in node.args.kw_defaults if each is not None)]
        names = [each.arg for each in (*node.args.posonlyargs, *node.args.args)][-len(node.args.defaults) :]
        names = names if node.args.defaults else []
        pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        names += [each.arg for each, default in pairs if default is not None]
        for name, default in zip(names, given, strict=True):
            for _, value in self.evaluate(default, path)[:1]:
                defaults[name] = value
        path.store[defaults_key(node)] = defaults
        self.store(node.name, function, path)
        if node not in self.made:
            self.made[node] = (path if len(frames) == 1 else path.copy(), function)
        return [path]

    _do_asyncfunctiondef = _do_functiondef

    def _do_classdef(self, node: ast.ClassDef, path: Path) -> list[Path]:
        bases = [value for base in node.bases for _, value in self.evaluate(base, path)[:1]]
        cls = Class(node, f"class/{self.site(node)}", tuple(bases))
        outer = self.activation
        path.store[cls.key] = {}
        self.activation = Activation(cls.key, (*outer.frames, outer.key), owner=cls, catchers=outer.catchers)
        try:
            paths = self.run_block(node.body, [path])
        finally:
            self.activation = outer
        for after in paths:
            self.store(node.name, cls, after)
        return paths

    def _do_delete(self, node: ast.Delete, path: Path) -> list[Path]:
        for target in node.targets:
            self.assign(target, Unknown(self.site(target)), path)
        return [path]


def entry_frame(machine: Definitions, function: Function, path: Path) -> dict[str, Value]:
    """Return the frame of a function that anybody may call."""
    node = function.node
    defaults = path.fields(defaults_key(node))
    name = node.name if not isinstance(node, ast.Lambda) else "lambda"
    frame: dict[str, Value] = {}
    for index, parameter in enumerate(parameters(node)):
        if index == 0 and function.receiver is not None:
            frame[parameter.arg] = function.receiver
            continue
        symbol = f"{name}.{parameter.arg}"
        value: Value = Unknown(symbol, Kind.OPTION, default=defaults.get(parameter.arg))
        if parameter.annotation is not None:
            for _, annotation in machine.evaluate(parameter.annotation, path.copy())[:1]:
                is_class = defaults.get(parameter.arg) == annotation
                if isinstance(annotation, Unknown) and annotation.qual in machine.rules.annotated and not is_class:
                    value = Object(symbol, f"{annotation.qual}()", node=parameter)
        frame[parameter.arg] = value
    for more in (node.args.vararg, node.args.kwarg):
        if more is not None:
            frame[more.arg] = Unknown(f"{name}.{more.arg}", Kind.OPTION)
    return frame
