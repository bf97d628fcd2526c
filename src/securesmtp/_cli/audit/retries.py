"""Find retries round what sends: loops, handlers that send again, decorators."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.catching import exceptions_of
from securesmtp._cli.audit.rules_retries import DECORATOR, LOOP, RULES
from securesmtp._cli.audit.values import Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from securesmtp._cli.audit.families import Call
    from securesmtp._cli.audit.machine import Machine
    from securesmtp._cli.audit.paths import Path
    from securesmtp._cli.audit.values import Value

# What is raised when the connection is lost, and what catches that.
_LOST: Final = {
    "",
    "BaseException",
    "Exception",
    "SMTPException",
    "SMTPServerDisconnected",
    "OSError",
    "IOError",
    "EnvironmentError",
    "error",
    "timeout",
    "TimeoutError",
    "ConnectionError",
    "ConnectionResetError",
    "ConnectionAbortedError",
    "BrokenPipeError",
    "SSLError",
}
# How the decorators name what they retry: the position and the keyword. Without it, they retry everything.
_DECORATORS: Final = {
    "tenacity.retry": (-1, "retry"),
    "tenacity.Retrying": (-1, "retry"),
    "tenacity.AsyncRetrying": (-1, "retry"),
    "backoff.on_exception": (1, "exception"),
    "retry.retry": (0, "exceptions"),
    "retry.api.retry": (0, "exceptions"),
    "retrying.retry": (-1, "retry_on_exception"),
    "stamina.retry": (-1, "on"),
    "stamina.retry_context": (0, "on"),
}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_LEAST_SENDMAIL = 3


class RetriesFamily:
    """Retries."""

    words: tuple[bytes, ...] = ()
    rules = RULES
    bases: Mapping[str, str] = {}
    exports: Mapping[str, tuple[str, ...]] = {}
    annotated: tuple[str, ...] = ()

    def handlers(self) -> Mapping[str, Callable[[Call], Value | None]]:
        """Return nothing: retries are found when the calls that send are known."""
        return {}

    def finish(self, tree: ast.Module, machine: Machine, path: Path) -> None:
        """Look for retries round what sends."""
        _Search(tree, machine, path).run()


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    """Return what a statement runs: not the functions that it defines."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        yield each
        waiting += [child for child in ast.iter_child_nodes(each) if not isinstance(child, (*_FUNCTIONS, ast.Lambda))]


def _leaves(body: list[ast.stmt]) -> bool:
    """Whether statements always leave a loop."""
    match body[-1:]:
        case [ast.Return() | ast.Raise() | ast.Break()]:
            return True
        case [ast.If(body=one, orelse=other)] if other:
            return _leaves(one) and _leaves(other)
        case [ast.Expr(value=ast.Call(func=ast.Attribute(attr="exit" | "_exit")))]:
            return True
        case _:
            return False


def _may_leave(body: list[ast.stmt]) -> bool:
    return any(isinstance(node, ast.Return | ast.Break) for each in body for node in _inside(each))


class _Search:
    """The search in one file."""

    def __init__(self, tree: ast.Module, machine: Machine, path: Path) -> None:
        self.tree = tree
        self.machine = machine
        self.path = path
        self.sending: set[ast.AST] = set()

    def run(self) -> None:
        """Report what is found."""
        functions = [node for node in ast.walk(self.tree) if isinstance(node, _FUNCTIONS)]
        self._find_sending(functions)
        for function in functions:
            self._search(function, function.body, None)
            if function in self.sending:
                self._decorators(function)
        self._search(None, self.tree.body, None)
        for cls in [node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)]:
            self._class(cls)

    def _find_sending(self, functions: list[ast.FunctionDef | ast.AsyncFunctionDef]) -> None:
        """Find the functions that send, and those that call them, each once."""
        callers: dict[ast.AST, list[ast.AST]] = {}
        waiting: list[ast.AST] = []
        for function in functions:
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            if any(self._sends(node) for node in calls):
                waiting.append(function)
            for callee in {callee for node in calls for callee in self.machine.calls.get(node, set())}:
                callers.setdefault(callee, []).append(function)
        while waiting:
            found = waiting.pop()
            if found not in self.sending:
                self.sending.add(found)
                waiting += callers.get(found, [])

    def _sends(self, node: ast.Call) -> bool:
        if node in self.machine.notes.sends or self.machine.calls.get(node, set()) & self.sending:
            return True
        is_sendmail = isinstance(node.func, ast.Attribute) and node.func.attr == "sendmail"
        return is_sendmail and len(node.args) + len(node.keywords) >= _LEAST_SENDMAIL

    def _sends_in(self, body: list[ast.stmt]) -> list[ast.Call]:
        return [node for each in body for node in _inside(each) if isinstance(node, ast.Call) and self._sends(node)]

    # -------------------------------------------------------------------------------------------------------- loops

    def _search(
        self,
        function: ast.FunctionDef | ast.AsyncFunctionDef | None,
        body: list[ast.stmt],
        loop: ast.For | ast.AsyncFor | ast.While | None,
    ) -> None:
        for index, node in enumerate(body):
            if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
                continue
            if isinstance(node, _LOOPS):
                if isinstance(node, ast.For | ast.AsyncFor) and self._sends_in(node.body):
                    self._report_decorator(node.iter)
                self._search(function, node.body, node)
                continue
            if isinstance(node, ast.Try):
                self._try(function, node, loop, body[index + 1 :])
            for name in ("body", "orelse", "finalbody"):
                self._search(function, getattr(node, name, []), loop)
            for handler in getattr(node, "handlers", []):
                self._search(function, handler.body, loop)

    def _try(
        self,
        function: ast.FunctionDef | ast.AsyncFunctionDef | None,
        node: ast.Try,
        loop: ast.For | ast.AsyncFor | ast.While | None,
        rest: list[ast.stmt],
    ) -> None:
        sends = self._sends_in(node.body)
        if not sends:
            return
        left: set[str] = set()
        for handler in node.handlers:
            names = (exceptions_of(handler.type, self.machine, self.path) & _LOST) - left
            if "SMTPServerDisconnected" in left:
                names -= {"SMTPException"}
            if not names:
                continue
            if _leaves(handler.body) and not self._again(function, handler, sends):
                left |= names
                continue
            if self._again(function, handler, sends) or (loop is not None and _goes_round(node, loop, handler, rest)):
                self._report(handler, names)

    def _report(self, handler: ast.ExceptHandler, names: set[str]) -> None:
        what = ", ".join(sorted(names - {""})) or "any exception"
        self.machine.notes.report(LOOP, handler, f"the message is sent again after {what}, and may arrive twice")

    def _again(
        self,
        function: ast.FunctionDef | ast.AsyncFunctionDef | None,
        handler: ast.ExceptHandler,
        sends: list[ast.Call],
    ) -> bool:
        """Whether a handler sends the same message, calls its own function, or asks Celery for a retry."""
        same = {_arguments(each) for each in sends}
        for each in handler.body:
            for node in _inside(each):
                if not isinstance(node, ast.Call):
                    continue
                if self._sends(node) and _arguments(node) in same:
                    return True
                match node.func:
                    case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                        pass
                    case _:
                        continue
                is_own = function is not None and name == function.name
                if is_own or (name == "retry" and isinstance(node.func, ast.Attribute)):
                    return True
        return False

    # --------------------------------------------------------------------------------------------------- decorators

    def _decorators(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in function.decorator_list:
            self._report_decorator(decorator)

    def _report_decorator(self, node: ast.expr) -> None:
        call = node if isinstance(node, ast.Call) else None
        callee = call.func if call is not None else node
        kept = self.machine.evaluate(callee, self.path.copy())[:1]
        qual = next((value.qual for _, value in kept if isinstance(value, Unknown)), "")
        keywords = {each.arg: each.value for each in call.keywords} if call is not None else {}
        given: ast.expr | None = keywords.get("autoretry_for")
        if given is None:
            if qual not in _DECORATORS:
                return
            position, name = _DECORATORS[qual]
            given = keywords.get(name)
            if given is None and call is not None and 0 <= position < len(call.args):
                given = call.args[position]
        names = {"Exception"} if given is None else self._mentioned(given)
        if names & _LOST:
            what = "any exception" if given is None else ", ".join(sorted(names & _LOST))
            self.machine.notes.report(DECORATOR, node, f"the message is sent again after {what}, and may arrive twice")

    def _mentioned(self, node: ast.expr) -> set[str]:
        """Return the exceptions that an expression names; `retry_if_exception_type()` alone means all."""
        found = set[str]()
        for each in ast.walk(node):
            if isinstance(each, ast.Attribute | ast.Name):
                found |= exceptions_of(each, self.machine, self.path)
        if isinstance(node, ast.Call) and not node.args and not node.keywords and "retry_if_exception_type" in found:
            found.add("Exception")
        if any(name.startswith(("retry_if_not", "retry_unless")) for name in found):
            return set()
        return found

    def _class(self, cls: ast.ClassDef) -> None:
        if not any(node in self.sending for node in cls.body):
            return
        for node in cls.body:
            match node:
                case ast.Assign(targets=[ast.Name(id="autoretry_for")], value=value) if self._mentioned(value) & _LOST:
                    what = ", ".join(sorted(self._mentioned(value) & _LOST))
                    message = f"the message is sent again after {what}, and may arrive twice"
                    self.machine.notes.report(DECORATOR, node, message)
                case _:
                    pass


def _goes_round(
    node: ast.Try, loop: ast.For | ast.AsyncFor | ast.While, handler: ast.ExceptHandler, rest: list[ast.stmt]
) -> bool:
    """Whether a loop goes round again after a failure, and ends after a success: it repeats one message."""
    if _may_leave([*node.body, *node.orelse]) or (_leaves(rest) and _continues(handler.body)):
        return True
    if isinstance(loop, ast.While):
        tested = {each.id for each in ast.walk(loop.test) if isinstance(each, ast.Name)}
        changed = {
            each.id
            for statement in (*node.body, *node.orelse)
            for each in _inside(statement)
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
        }
        return bool(tested & changed)
    return False


def _continues(body: list[ast.stmt]) -> bool:
    return any(isinstance(node, ast.Continue) for each in body for node in _inside(each))


def _arguments(node: ast.Call) -> str:
    return ast.dump(ast.Tuple([*node.args, *(each.value for each in node.keywords)], ast.Load()))
