"""What a family of rules is given, and what it may say: the interface between the interpreter and the rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from securesmtp._cli.audit.values import Object, Unknown, Value

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Mapping

    from securesmtp._cli.audit.arguments import Arguments
    from securesmtp._cli.audit.findings import Rule
    from securesmtp._cli.audit.judge import Notes
    from securesmtp._cli.audit.machine import Machine, Results
    from securesmtp._cli.audit.paths import Path


@dataclass(slots=True)
class Call:
    """
    A call of something outside the file, on one path.

    Attributes:
        qual: The qualified name of what is called: ``smtplib.SMTP``, or ``smtplib.SMTP().login`` for a method.
        arguments: What it is given; ``arguments.get(0, "host")`` is a value or None.
        path: What holds when it is called; `path.narrow(value)` applies the conditions that were met.
        receiver: For a method, the object. For a constructor, the instance of a subclass that is being made.
        machine: The interpreter, to test a value: ``machine.test_value(value, node, path)``.
    """

    qual: str
    arguments: Arguments
    path: Path
    receiver: Value | None
    machine: Machine

    @property
    def node(self) -> ast.expr:
        """The call."""
        return self.arguments.node

    @property
    def notes(self) -> Notes:
        """Where findings go."""
        return self.machine.notes

    @property
    def name(self) -> str:
        """The last part of the qualified name."""
        return self.qual.rpartition(".")[2]

    def argument(self, position: int, name: str) -> Value | None:
        """Return an argument by its position (-1: by name only) or name; None if it is not given."""
        value = self.arguments.get(position, name)
        return None if value is None else self.path.narrow(value)

    @property
    def key(self) -> str:
        """Where the store holds what is known about the receiver."""
        match self.receiver:
            case Object(key=key) | Unknown(symbol=key):
                return key
            case _:
                return ""

    def get(self, name: str) -> Value | None:
        """Return what a rule noted on the receiver; names of notes begin with ``%``."""
        return self.path.get(self.key, name)

    def put(self, name: str, value: Value) -> None:
        """Note something on the receiver, on this path."""
        self.path.put(self.key, name, value)

    def make(self, qual: str) -> Object:
        """Return the object that a constructor makes: the instance of a subclass, or a new one."""
        if isinstance(self.receiver, Object) and self.receiver.owner is not None:
            self.machine.fresh.add(self.receiver.key)
            return self.receiver
        made = Object(self.machine.site(self.node), qual, node=self.node)
        self.path.store[made.key] = {}
        self.machine.fresh.add(made.key)
        return made


class Family(Protocol):
    """Rules about one module or framework; each attribute may be a plain class attribute."""

    @property
    def words(self) -> tuple[bytes, ...]:
        """A file is read only if it contains one of these, in lower case."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Its rules."""

    @property
    def bases(self) -> Mapping[str, str]:
        """External classes whose methods are looked up in another: ``{"smtplib.SMTP_SSL": "smtplib.SMTP"}``."""

    @property
    def exports(self) -> Mapping[str, tuple[str, ...]]:
        """What `from module import *` binds."""

    @property
    def annotated(self) -> tuple[str, ...]:
        """Classes; a parameter that is annotated with one is an instance of it."""

    def handlers(self) -> Mapping[str, Callable[[Call], Results | Value | None]]:
        """
        Return what is to be done at calls, by qualified name.

        A handler returns what the call returns, on one path or on several; None if that is not known.
        """

    def finish(self, tree: ast.Module, machine: Machine, path: Path) -> None:
        """Look at the whole module once, after its functions were run; *path* is its end."""
