"""What an expression of the audited code can be: one value on each path through the code."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from enum import Enum, auto

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Kind(Enum):
    """Who decides a value that is not in the code."""

    OPTION = auto()
    """A parameter, a setting, the environment."""
    SERVER = auto()
    """The mail server, or whoever answers in its place."""
    OTHER = auto()
    """Anything else, such as the result of a call."""


@dataclass(frozen=True, slots=True)
class Const:
    """A literal, and where it is written."""

    value: object
    node: ast.AST | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """
    A value that is not in the code: a parameter, a name of another module, the result of a call.

    Attributes:
        symbol: Equal for two values that are the same at run time.
        kind: Who decides it.
        qual: Its qualified name, such as ``smtplib.SMTP``; a call adds ``()``. Empty if it has none.
        default: What it is if nobody chooses; None if that is not in the code.
        prefix: The text it starts with.
        receiver: The object whose attribute it is.
    """

    symbol: str
    kind: Kind = Kind.OTHER
    qual: str = ""
    default: Value | None = field(default=None, compare=False)
    prefix: str = field(default="", compare=False)
    receiver: Value | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the audited file, with the frames that it sees and, for a method, its object."""

    node: FunctionNode
    frames: tuple[str, ...] = ()
    owner: Class | None = None
    receiver: Value | None = None


@dataclass(frozen=True, slots=True)
class Class:
    """A class of the audited file; the store holds its attributes under *key*."""

    node: ast.ClassDef
    key: str
    bases: tuple[Value, ...] = ()

    @property
    def external_base(self) -> str:
        """The qualified name of the first base from another module; empty without one."""
        for base in self.bases:
            match base:
                case Unknown(qual=qual) if qual:
                    return qual
                case Class() if base.external_base:
                    return base.external_base
        return ""

    def lineage(self) -> list[Class]:
        """Return the class and its bases of this file, in the order in which attributes are looked up."""
        found = [self]
        for base in self.bases:
            if isinstance(base, Class):
                found += [each for each in base.lineage() if each not in found]
        return found


@dataclass(frozen=True, slots=True)
class Object:
    """
    An instance, a dictionary or a sequence; the store holds its fields under *key*.

    Attributes:
        key: Where the store holds its fields.
        qual: The qualified name of its external class with ``()``; ``dict`` or ``sequence`` for a display.
        owner: Its class, if that is in this file.
        node: The expression that makes it.
    """

    key: str
    qual: str = ""
    owner: Class | None = None
    node: ast.AST | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Super:
    """What `super()` returns: the attributes of the bases of *owner*."""

    receiver: Object
    owner: Class


@dataclass(frozen=True, slots=True)
class Partial:
    """A callable with some arguments."""

    target: Value
    arguments: tuple[Value, ...] = ()
    keywords: tuple[tuple[str, Value], ...] = ()


Value = Const | Unknown | Function | Class | Object | Super | Partial
NONE = Const(None)
