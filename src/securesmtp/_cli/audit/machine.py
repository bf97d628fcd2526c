"""What the parts of the interpreter share: where it is, how far it has gone, and what it has noted."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from securesmtp._cli.audit.paths import MOST_PATHS, Fact, Key, Path
from securesmtp._cli.audit.values import Class, Const, Function, FunctionNode, Kind, Object, Unknown, Value

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Mapping

    from securesmtp._cli.audit.judge import Notes

Results = list[tuple[Path, Value]]

MODULE: Final = "module"
# Attributes that code set on other modules, such as `ssl.create_default_context = …`.
PATCHES: Final = "patches"
# For one function: beyond them calls are no longer followed, and most branches merge at once.
MOST_STEPS: Final = 4_000
# For one file: beyond them it is not checked.
MOST_STEPS_OF_A_FILE: Final = 2_000_000
MOST_DEPTH: Final = 6


@dataclass(slots=True)
class Snapshot:
    """
    A path on which a statement may raise.

    Attributes:
        path: What holds when it does.
        cause: What the statement calls: the name, the object, the call.
    """

    path: Path
    cause: list[tuple[str, Value | None, ast.expr]]


@dataclass(slots=True)
class Activation:
    """
    One run of a function or of the module.

    Attributes:
        key: Its frame in the store.
        frames: The frames that it sees, outermost first.
        node: The function; None for the module and a class body.
        owner: The class whose method it is.
        receiver: Its `self`.
        names: The names that it declared `global`.
        returns: What it returns, on each path.
        yields: What it yields.
        loops: Paths that left the innermost loops, and paths that begin their next round.
        catchers: What each `try` around the current statement may catch.
    """

    key: str
    frames: tuple[str, ...] = ()
    node: FunctionNode | None = None
    owner: Class | None = None
    receiver: Value | None = None
    names: set[str] = field(default_factory=set)
    returns: Results = field(default_factory=list)
    yields: Results = field(default_factory=list)
    loops: list[tuple[list[Path], list[Path]]] = field(default_factory=list)
    catchers: list[list[Snapshot]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Known:
    """
    What the rules know about other modules.

    Attributes:
        handlers: What is to be done at calls, by qualified name; see `families.Family`.
        bases: External classes whose methods are looked up in another.
        exports: What `from module import *` binds.
        annotated: Classes that an annotation of a parameter may name.
    """

    handlers: Mapping[str, Callable[[Any], Results | Value | None]]
    bases: Mapping[str, str]
    exports: Mapping[str, tuple[str, ...]]
    annotated: frozenset[str]


class Machine(ABC):
    """The state of the interpreter of one file."""

    def __init__(self, known: Known, notes: Notes) -> None:
        self.rules = known
        self.notes = notes
        self.activation = Activation(MODULE)
        self.active: list[FunctionNode] = []
        self.steps = 0
        # The steps before the function that is run.
        self.started = 0
        # Options of a command line by the attribute that holds them, with their defaults.
        self.options: dict[str, Value] = {}
        # Each function that was made, with a path on which it was; and those that were run.
        self.made: dict[FunctionNode, tuple[Path, Function]] = {}
        self.ran: set[FunctionNode] = set()
        # Which functions of the file each call calls.
        self.calls: dict[ast.Call, set[FunctionNode]] = {}
        self.exits: list[Path] = []
        # What rules made in the function that is run.
        self.fresh: set[str] = set()
        # Calls of things outside the file, in their order: the name, the object, the call.
        self.called: list[tuple[str, Value | None, ast.expr]] = []

    @property
    def is_tired(self) -> bool:
        """Whether this function takes too long to follow each path."""
        return self.steps - self.started > MOST_STEPS

    @property
    def most_paths(self) -> int:
        """How many paths are followed."""
        return 2 if self.is_tired else MOST_PATHS

    @abstractmethod
    def evaluate(self, node: ast.expr, path: Path) -> Results:
        """Return the paths after an expression, each with its value."""
        raise NotImplementedError

    @abstractmethod
    def test_value(self, value: Value, node: ast.expr, path: Path) -> list[tuple[Path, bool]]:
        """Return the paths on which a value is true and is false."""
        raise NotImplementedError

    @abstractmethod
    def set_member(self, owner: Value, name: str, value: Value, node: ast.AST, path: Path) -> None:
        """Set an attribute; where that is done is noted beside it."""
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------------- names

    def load(self, name: str, path: Path) -> Value:
        """Return what a name holds."""
        activation = self.activation
        if name not in activation.names:
            for key in (activation.key, *reversed(activation.frames)):
                value = path.get(key, name)
                if value is not None:
                    return path.narrow(value)
        value = path.get(MODULE, name)
        if value is not None:
            return path.narrow(value)
        if hasattr(builtins, name):
            return Unknown(f"builtins.{name}", Kind.OTHER, f"builtins.{name}")
        return Unknown(f"name:{name}")

    def store(self, name: str, value: Value, path: Path) -> None:
        """Bind a name."""
        path.put(MODULE if name in self.activation.names else self.activation.key, name, value)

    def site(self, node: ast.AST) -> str:
        """Return a key for what an expression makes, the same on each path."""
        return f"@{self.activation.key}/{position(node)}"

    # ------------------------------------------------------------------------------------------------ conditions

    @staticmethod
    def truth(value: Value, path: Path) -> bool | None:
        """Return whether a value is true; None if that is not known."""
        match value:
            case Const(value=constant):
                return bool(constant)
            case Unknown(qual=("smtplib" | "ssl")):
                return True
            case Unknown(symbol=symbol):
                return path.known((symbol, "truth", None))
            case Object(qual=("dict" | "sequence")):
                return None
            case Object(key=key):
                return path.known((key, "truth", None)) is not False
            case _:
                return True


def position(node: ast.AST) -> str:
    """Return where a node is. Its end belongs to it: `a().b()` begins where `a()` does."""
    start = f"{getattr(node, 'lineno', 0)}.{getattr(node, 'col_offset', 0)}"
    return f"{start}-{getattr(node, 'end_lineno', 0)}.{getattr(node, 'end_col_offset', 0)}"


def fact_of(value: Value, node: ast.AST, words: str) -> tuple[Key, Fact]:
    """Return the condition that a value is true, before anything is known about it."""
    match value:
        case Unknown(symbol=symbol, kind=kind, default=default):
            met = bool(default.value) if isinstance(default, Const) else None
            return (symbol, "truth", None), Fact(True, kind, met, node, words)  # noqa: FBT003 -- replaced
        case Object(key=key):
            return (key, "truth", None), Fact(True, Kind.OTHER, None, node, words)  # noqa: FBT003
        case _:  # never
            raise TypeError(value)
