"""Statements: branches, loops, and what is caught."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from securesmtp._cli.audit.arguments import Arguments
from securesmtp._cli.audit.catching import EVERYTHING, caught, exceptions_of, starts_of
from securesmtp._cli.audit.machine import Snapshot
from securesmtp._cli.audit.matching import Matching
from securesmtp._cli.audit.paths import Path, reduce
from securesmtp._cli.audit.values import NONE, Kind, Object, Unknown, Value

if TYPE_CHECKING:
    from collections.abc import Callable

# Elements of a literal sequence that a loop is run for, and paths on which a `try` fails.
_MOST_ELEMENTS = 4
_MOST_FAILURES = 6
_MOST_SNAPSHOTS = 24
_SUPPRESS = {"contextlib.suppress"}


class Statements(Matching):
    """Runs statements."""

    def run_block(self, body: list[ast.stmt], paths: list[Path]) -> list[Path]:
        """Return the paths after several statements."""
        for statement in body:
            if not paths:
                break
            paths = reduce([after for path in paths for after in self._run(statement, path)], self.most_paths)
        return paths

    def _run(self, node: ast.stmt, path: Path) -> list[Path]:
        self.steps += 1
        method: Callable[[Any, Path], list[Path]] | None = getattr(self, f"_do_{type(node).__name__.lower()}", None)
        return [path] if method is None else method(node, path)

    def _watch(self, path: Path) -> Callable[[], None]:
        """Return what notes, after an expression was run, that it may raise."""
        if not self.activation.catchers:
            return lambda: None
        before, start = path.copy(), len(self.called)
        catcher = self.activation.catchers[-1]
        return lambda: catcher.append(Snapshot(before, self.called[start:]))

    # ---------------------------------------------------------------------------------------------------- simple

    def _do_expr(self, node: ast.Expr, path: Path) -> list[Path]:
        done = self._watch(path)
        results = self.evaluate(node.value, path)
        done()
        return [after for after, _ in results]

    def _do_return(self, node: ast.Return, path: Path) -> list[Path]:
        done = self._watch(path)
        self.activation.returns += self.evaluate(node.value, path) if node.value is not None else [(path, NONE)]
        done()
        return []

    def _do_raise(self, node: ast.Raise, path: Path) -> list[Path]:
        done = self._watch(path)
        if node.exc is not None:
            self.evaluate(node.exc, path)
        done()
        return []

    def _do_assert(self, node: ast.Assert, path: Path) -> list[Path]:
        done = self._watch(path)
        results = self.test(node.test, path)
        done()
        return [after for after, met in results if met]

    def _do_assign(self, node: ast.Assign, path: Path) -> list[Path]:
        done = self._watch(path)
        paths = []
        for after, value in self.evaluate(node.value, path):
            for target in node.targets:
                self.assign(target, value, after)
            paths.append(after)
        done()
        return paths

    def _do_annassign(self, node: ast.AnnAssign, path: Path) -> list[Path]:
        if node.value is None:
            return [path]
        results = self.evaluate(node.value, path)
        for after, value in results:
            self.assign(node.target, value, after)
        return [after for after, _ in results]

    def _do_augassign(self, node: ast.AugAssign, path: Path) -> list[Path]:
        loaded = ast.copy_location(ast.BinOp(node.target, node.op, node.value), node)
        results = self.evaluate(loaded, path)
        for after, value in results:
            self.assign(node.target, value, after)
        return [after for after, _ in results]

    # --------------------------------------------------------------------------------------------------- branches

    def _do_if(self, node: ast.If, path: Path) -> list[Path]:
        ended: list[Path] = []
        going = [path]
        # A chain of `elif` is no deeper than its first `if`.
        while going:
            unmet: list[Path] = []
            for before in going:
                done = self._watch(before)
                tested = self.test(node.test, before)
                done()
                for after, met in tested:
                    if met:
                        ended += self.run_block(node.body, [after])
                    else:
                        unmet.append(after)
            going = reduce(unmet, self.most_paths)
            match node.orelse:
                case [ast.If() as node]:
                    ended = reduce(ended, self.most_paths)
                case rest:
                    return ended + [after for before in going for after in self.run_block(rest, [before])]
        return ended

    # ------------------------------------------------------------------------------------------------------ loops

    def enter(self, target: ast.expr, iterable: ast.expr, path: Path) -> list[Path]:
        """Return the paths on which a loop's target holds what it is given."""
        paths = []
        for after, value in self.evaluate(iterable, path):
            for element in self._elements(value, after):
                each = after.copy()
                self.assign(target, element, each)
                paths.append(each)
        return paths

    def _elements(self, value: Value, path: Path) -> list[Value]:
        if isinstance(value, Object) and value.qual == "sequence":
            items = [item for name, item in path.fields(value.key).items() if name[0] == "["]
            if items:
                return items[:_MOST_ELEMENTS]
        match value:
            case Object(key=key) if path.get(key, "%tls") is not None:
                # The call of a generator stands for what it yields.
                return [value]
            case Object(key=key):
                return [Unknown(f"{key}[*]", Kind.OPTION)]
            case Unknown(kind=kind):
                return [Unknown(f"{value.symbol}[*]", kind)]
            case _:
                return [Unknown("[*]")]

    def _do_for(self, node: ast.For | ast.AsyncFor, path: Path) -> list[Path]:
        done = self._watch(path)
        clients = self._clients(node.iter, path)
        begun = [] if clients else self.enter(node.target, node.iter, path.copy())
        done()
        self.activation.loops.append(([], []))
        left, again = self.activation.loops[-1]
        paths = self.run_block(node.body, begun)
        after = reduce([*paths, *again, path], self.most_paths)
        for client in clients:
            # What is done to each of several clients is done to all of them.
            again.clear()
            for each in after:
                self.assign(node.target, client, each)
            after = reduce([*self.run_block(node.body, after), *again], self.most_paths)
        self.activation.loops.pop()
        return left + self.run_block(node.orelse, after)

    def _clients(self, iterable: ast.expr, path: Path) -> list[Value]:
        """Return the clients of a literal sequence that has a name."""
        if not isinstance(iterable, ast.Name | ast.Attribute):
            return []
        _, value = self.evaluate(iterable, path.copy())[0]
        elements = self._elements(value, path) if isinstance(value, Object) and value.qual == "sequence" else []
        known = [each for each in elements if isinstance(each, Object) and path.get(each.key, "%tls") is not None]
        return list(known) if len(known) == len(elements) else []

    _do_asyncfor = _do_for

    def _do_while(self, node: ast.While, path: Path) -> list[Path]:
        done = self._watch(path)
        tested = self.test(node.test, path)
        done()
        self.activation.loops.append(([], []))
        paths = self.run_block(node.body, [after for after, met in tested if met])
        left, again = self.activation.loops.pop()
        after = [each for each, met in tested if not met]
        if not (isinstance(node.test, ast.Constant) and node.test.value):
            after += [*paths, *again]
        return left + self.run_block(node.orelse, reduce(after, self.most_paths))

    def _do_break(self, _node: ast.Break, path: Path) -> list[Path]:
        self.activation.loops[-1][0].append(path)
        return []

    def _do_continue(self, _node: ast.Continue, path: Path) -> list[Path]:
        self.activation.loops[-1][1].append(path)
        return []

    # --------------------------------------------------------------------------------------------- with and try

    def _do_with(self, node: ast.With | ast.AsyncWith, path: Path) -> list[Path]:
        paths = [path]
        suppressed: list[ast.expr] | None = None
        for item in node.items:
            going = []
            for before in paths:
                done = self._watch(before)
                for after, value in self.evaluate(item.context_expr, before):
                    if isinstance(value, Unknown) and value.symbol.startswith("contextlib.suppress@"):
                        suppressed = item.context_expr.args if isinstance(item.context_expr, ast.Call) else []
                    for end, entered in self._entered(value, item.context_expr, after):
                        if item.optional_vars is not None:
                            self.assign(item.optional_vars, entered, end)
                        going.append(end)
                done()
            paths = going
        if suppressed is not None:
            kind = ast.Tuple(suppressed, ast.Load())
            handler = ast.copy_location(ast.ExceptHandler(kind, None, []), node)
            return [after for each in paths for after in self._try(node.body, [handler], [], each)]
        return self.run_block(node.body, paths)

    _do_asyncwith = _do_with

    def _entered(self, value: Value, node: ast.expr, path: Path) -> list[tuple[Path, Value]]:
        if isinstance(value, Object) and value.owner is not None:
            enter = self.class_member(value.owner, "__enter__", path, value) or self.class_member(
                value.owner, "__aenter__", path, value
            )
            if enter is not None:
                return self.call(enter, Arguments(node), path)
        return [(path, value)]

    def _do_try(self, node: ast.Try, path: Path) -> list[Path]:
        paths = self._try(node.body, node.handlers, node.orelse, path)
        return self.run_block(node.finalbody, paths)

    _do_trystar = _do_try

    def _try(
        self, body: list[ast.stmt], handlers: list[ast.ExceptHandler], orelse: list[ast.stmt], path: Path
    ) -> list[Path]:
        snapshots: list[Snapshot] = []
        catchers = self.activation.catchers
        catchers.append(snapshots)
        try:
            paths = self.run_block(body, [path])
        finally:
            catchers.pop()
        ended = self.run_block(orelse, paths)
        is_propagated = True
        starts = starts_of(snapshots)
        if len(snapshots) > _MOST_SNAPSHOTS:
            snapshots = [each for each in snapshots if starts_of([each])] + snapshots[:: len(snapshots) // 8]
        for handler in handlers:
            names = exceptions_of(handler.type, self, path)
            is_propagated = is_propagated and not names & EVERYTHING
            failed = reduce(
                [each for snapshot in snapshots for each in caught(names, snapshot, starts)], _MOST_FAILURES
            )
            for each in failed:
                if handler.name is not None:
                    self.store(handler.name, Unknown(self.site(handler)), each)
            ended += self.run_block(handler.body, failed)
        if catchers and is_propagated:
            catchers[-1].extend(snapshots)
        return reduce(ended, self.most_paths)
