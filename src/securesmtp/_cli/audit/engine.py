"""
Check one file: run every function of it on every path, with values that stand for what is not in the code.

Nothing of the file is executed or imported. First the module's statements are run, then each class is made and its
methods are called, then each function is called as anybody may call it: with parameters that are not known, and have a
default. Calls between functions of the file are followed. What the functions leave on objects that they share (an
instance, the module) is what the others find there in a second round.
"""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING

from securesmtp._cli.audit.arguments import decorators
from securesmtp._cli.audit.definitions import entry_frame
from securesmtp._cli.audit.judge import Notes
from securesmtp._cli.audit.machine import MODULE, Activation, Known
from securesmtp._cli.audit.paths import Path, reduce
from securesmtp._cli.audit.registry import FAMILIES
from securesmtp._cli.audit.relevance import relevant
from securesmtp._cli.audit.source import NotCheckedError, parse
from securesmtp._cli.audit.statements import Statements
from securesmtp._cli.audit.values import NONE, Class, Const, Function, FunctionNode, Object, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securesmtp._cli.audit.families import Family
    from securesmtp._cli.audit.findings import Finding

# With how many states of the module, or of an instance, each function is called.
_MOST_STATES = 4
_MOST_INSTANCES = 8
# Calls of the interpreter in one another.
_MOST_CALLS = 6_000


def is_relevant(data: bytes, families: tuple[Family, ...] = FAMILIES) -> bool:
    """Whether a file contains a word that a family of rules looks for; others are not parsed."""
    lower = data.lower()
    return any(word in lower for family in families for word in family.words)


def check_source(data: bytes, path: str, families: tuple[Family, ...] = FAMILIES, *, flags: int = 0) -> list[Finding]:
    """
    Return the findings in one file, in its order. A file without a word of the rules is not even parsed.

    Raises:
        NotCheckedError: It cannot be parsed.
    """
    if not is_relevant(data, families):
        return []
    tree = parse(data, path, flags)
    notes = Notes(path)
    before = sys.getrecursionlimit()
    # A text of 500 parts is nested 500 times, and each takes several calls.
    sys.setrecursionlimit(max(before, _MOST_CALLS))
    try:
        program = _Program(_known(families), notes)
        program.families = families
        program.check(tree)
    except RecursionError:
        raise NotCheckedError("too deeply nested to check") from None
    finally:
        sys.setrecursionlimit(before)
    return notes.findings()


def _known(families: tuple[Family, ...]) -> Known:
    return Known(
        {name: handler for family in families for name, handler in family.handlers().items()},
        {name: base for family in families for name, base in family.bases.items()},
        {name: names for family in families for name, names in family.exports.items()},
        frozenset(name for family in families for name in family.annotated),
    )


class _Program(Statements):
    """One file."""

    families: tuple[Family, ...] = ()

    def check(self, tree: ast.Module) -> None:
        """Run everything in it."""
        self._relevant = relevant(tree, self.families)
        first = ends = self._run_main(tree)
        self._ran_in_main = frozenset(self.ran)
        notes = self.notes
        left: list[Path] = []
        # Clients that one function makes and another one secures.
        self._secured: dict[str, set[ast.AST]] = {}
        for _ in range(2):
            self.notes = Notes(notes.path, is_discarded=True)
            left = self._run_all(ends)
            variants = _variants(ends, left)
            if not variants:
                break
            ends = [*first, *variants]
        self.notes = notes
        self._run_all(ends)
        for family in self.families:
            family.finish(tree, self, ends[0])
        self.notes.close()

    def _run_main(self, tree: ast.Module) -> list[Path]:
        """Run the module's own statements, and return the paths at its end."""
        path = Path()
        path.put(MODULE, "__name__", Const("__main__"))
        self.activation = Activation(MODULE)
        paths = self.run_block(tree.body, [path])
        self.notes.close()
        return reduce(paths or self.exits or [path], _MOST_STATES)[:_MOST_STATES]

    def _run_all(self, ends: list[Path]) -> list[Path]:
        left: list[Path] = []
        self.ran = set(self._ran_in_main)
        for value in list(ends[0].fields(MODULE).values()):
            if isinstance(value, Class) and value.node in self._relevant:
                left += self._run_class(value, ends)
        seen: set[FunctionNode] = set()
        # Functions that are made in these follow, such as what a decorator with arguments returns.
        while waiting := [node for node in self.made if node not in seen]:
            seen.update(waiting)
            # Private and inner functions come last: they are called by themselves only if nothing else calls them.
            for node in sorted(waiting, key=_is_private):
                left += self._run_made(node, ends)
        return left

    def _run_made(self, node: FunctionNode, ends: list[Path]) -> list[Path]:
        path, function = self.made[node]
        if node not in self._relevant or (node in self.ran and (function.owner is not None or _is_private(node))):
            return []
        if function.owner is not None:
            # A method of a class that is made in a function or in a class.
            base = function.owner.external_base
            instance = Object(f"instance/{function.owner.key}", f"{base}()" if base else "", function.owner)
            function = Function(node, function.frames, function.owner, instance)
        return self._enter(function, [path] if node.col_offset else ends)

    def _run_class(self, cls: Class, ends: list[Path]) -> list[Path]:
        base = cls.external_base
        instance = Object(f"instance/{cls.key}", f"{base}()" if base else "", cls, cls.node)
        start = self.class_member(cls, "__init__", ends[0], instance)
        paths: list[Path] = []
        for end in ends:
            made = self._enter(start, [end]) if isinstance(start, Function) else []
            made = made or [end.copy()]
            for path in made:
                _complete(path, end, instance.key)
            paths += made
        paths = reduce(paths, _MOST_INSTANCES)[:_MOST_INSTANCES]
        left = list(paths)
        for each in cls.lineage():
            for name, value in ends[0].fields(each.key).items():
                if isinstance(value, Function) and name != "__init__" and value.node in self._relevant:
                    kinds = decorators(value.node)
                    receiver = None if "staticmethod" in kinds else cls if "classmethod" in kinds else instance
                    left += self._enter(Function(value.node, value.frames, value.owner, receiver), paths)
        return left

    def _enter(self, function: Function, paths: list[Path]) -> list[Path]:
        """Call a function as anybody may call it, on several paths, and return the paths on which it ends."""
        key = f"entry/{function.node.lineno}.{function.node.col_offset}"
        self.started = self.steps
        self.ran.add(function.node)
        self.active = [function.node]
        ends: list[Path] = []
        for begun in paths:
            begun.settle()
            path = begun.copy()
            for client in [key for key in self._secured if path.has(key)]:
                if function.node not in self._secured[client]:
                    path.put(client, "%tls", Const("unknown"))
            start = len(self.called)
            self.fresh = set()
            self.activation = Activation(key, function.frames, function.node, function.owner, function.receiver)
            path.store[key] = entry_frame(self, function, path)
            ends += [after for after, _ in self._body(function.node, path)]
            for qual, receiver, _ in self.called[start:]:
                if not (qual.endswith(".starttls") and isinstance(receiver, Object)):
                    continue
                if receiver.key in begun.base and receiver.key not in self.fresh:
                    self._secured.setdefault(receiver.key, set()).add(function.node)
        self.active = []
        self.activation = Activation(MODULE)
        self.notes.close()
        return ends


def _is_private(node: FunctionNode) -> bool:
    # What is indented is a method or an inner function.
    return node.col_offset > 0 or (not isinstance(node, ast.Lambda) and node.name.startswith("_"))


def _is_shared(key: str) -> bool:
    return key == MODULE or key.startswith(("instance/", "class/"))


class _Shared:
    """What several functions can reach on paths; most of these have one base, which is looked at once."""

    def __init__(self) -> None:
        self._bases: dict[int, tuple[list[str], list[tuple[str, str, Object]]]] = {}

    def _base(self, path: Path) -> tuple[list[str], list[tuple[str, str, Object]]]:
        if id(path.base) not in self._bases:
            keys = [key for key in path.base if _is_shared(key)]
            self._bases[id(path.base)] = (keys, list(_objects(keys, path.base)))
        return self._bases[id(path.base)]

    def keys(self, path: Path, variant: Path) -> list[str]:
        """Return the shared frames and objects of a path that can differ from a variant's."""
        keys = [key for key in path.store if _is_shared(key)]
        return keys if path.base is variant.base else keys + [key for key in self._base(path)[0] if key not in keys]

    def clients(self, path: Path) -> dict[tuple[str, str], Object]:
        """Return the clients."""
        _, objects = self._base(path)
        objects = [each for each in objects if each[0] not in path.store]
        objects += _objects([key for key in path.store if _is_shared(key)], path.store)
        return {(key, name): value for key, name, value in objects if path.get(value.key, "%tls") is not None}


def _objects(keys: list[str], store: dict[str, dict[str, Value]]) -> Iterator[tuple[str, str, Object]]:
    for key in keys:
        for name, value in store[key].items():
            if isinstance(value, Object):
                yield key, name, value


def _variants(ends: list[Path], left: list[Path]) -> list[Path]:
    """Return what a function finds that is called after others: one path for each state of the clients they share."""
    variants: dict[object, Path] = {}
    shared = _Shared()
    for path in left:
        clients = shared.clients(path)
        if not clients:
            continue
        variant = ends[0].copy()
        for (key, name), client in clients.items():
            variant.put(key, name, client)
            variant.store[client.key] = path.fields(client.key).copy()
        variant.facts = dict(path.facts)
        variant.is_cut = path.is_cut
        state = tuple(
            sorted((*place, client.key, str(path.get(client.key, "%tls"))) for place, client in clients.items())
        )
        variants.setdefault(state, variant)
    found = list(variants.values())
    _note_mixed(found, shared)
    found = found[:_MOST_STATES]
    for variant in found:
        for path in left:
            for key in shared.keys(path, variant):
                if path.fields(key) is not variant.fields(key):
                    _complete(variant, path, key)
    return found


def _note_mixed(variants: list[Path], shared: _Shared) -> None:
    """Note on clients that they are secured on some paths only, whatever is left of these paths."""
    states: dict[str, set[Value | None]] = {}
    for variant in variants:
        for client in shared.clients(variant).values():
            states.setdefault(client.key, set()).add(variant.get(client.key, "%tls"))
    for variant in variants:
        for key in [key for key, seen in states.items() if len(seen) > 1 and variant.has(key)]:
            variant.put(key, "%mixed", Const(value=True))


def _complete(path: Path, other: Path, key: str) -> None:
    """Add what is missing in the fields of an object: another function sets them."""
    for name, value in other.fields(key).items():
        known = path.get(key, name)
        is_better = known == NONE and value != NONE
        if known is None or is_better:
            path.put(key, name, value)
            if isinstance(value, Object) and not path.has(value.key):
                path.store[value.key] = other.fields(value.key).copy()
