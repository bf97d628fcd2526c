"""Which functions of a file can have to do with the rules, so that the others are run only when these call them."""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from securesmtp._cli.audit.families import Family

# Methods of clients with names that everything has. A function that calls only them can hardly break a rule.
_COMMON = {"connect", "send", "data", "auth", "putcmd"}


def _seeds(families: tuple[Family, ...]) -> tuple[set[str], set[str]]:
    """Return the modules, and the names of methods, that the rules know."""
    modules, methods = set[str](), set[str]()
    for family in families:
        modules |= {name.partition(".")[0] for name in family.exports}
        for qual in family.handlers():
            modules.add(qual.partition(".")[0])
            owner, _, name = qual.rpartition(".")
            if owner.endswith("()") and not (owner.startswith("smtplib.") and name in _COMMON):
                methods.add(name)
    return modules, methods


def _bound(tree: ast.Module, modules: set[str]) -> set[str]:
    """Return the names that imports of the modules bind; `import_module("smtplib")` binds what it is assigned to."""
    names = set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                names |= {
                    each.asname or each.name.partition(".")[0]
                    for each in node.names
                    if each.name.partition(".")[0] in modules
                }
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in modules:
                names |= {each.asname or each.name for each in node.names}
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(args=[ast.Constant(value=str(text)), *_])):
                if text.partition(".")[0] in modules:
                    names.add(name)
            case _:
                pass
    return names


def _mentions(node: ast.AST) -> set[str]:
    found = set[str]()
    for each in ast.walk(node):
        match each:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Constant(value=str(name)):
                found.add(name)
            case _:
                pass
    return found


def relevant(tree: ast.Module, families: tuple[Family, ...]) -> set[ast.AST]:
    """Return the functions that use what the rules know, or that use functions and names that do."""
    modules, names = _seeds(families)
    names |= _bound(tree, modules) | modules
    if "*" in names:
        names |= {name for family in families for exported in family.exports.values() for name in exported}
    definitions = [
        (node, _mentions(node), _defines(node))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign)
    ]
    # A name that many classes define, such as `close`, says nothing.
    often = {name for name, times in Counter(name for *_, names in definitions for name in names).items() if times > 2}  # noqa: PLR2004
    found = set[ast.AST]()
    before = -1
    while before != len(found):
        before = len(found)
        for node, mentioned, defined in definitions:
            if node not in found and mentioned & names:
                found.add(node)
                names |= {name for name in defined if not name.startswith("__") and name not in often}
    return found


def _defines(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [name for target in targets for name in _targets(target)]
        case ast.AnnAssign(target=target):
            return _targets(target)
        case _:  # never
            raise TypeError(node)


def _targets(node: ast.expr) -> list[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return [name]
        case ast.Tuple(elts=elements):
            return [name for element in elements for name in _targets(element)]
        case _:
            return []
