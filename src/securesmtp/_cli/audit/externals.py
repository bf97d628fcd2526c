"""Calls of Python's own functions whose result the interpreter knows, and what other calls return."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.arguments import Arguments, key_of, kind_of, text_of
from securesmtp._cli.audit.choices import choices
from securesmtp._cli.audit.values import NONE, Class, Const, Function, Kind, Object, Partial, Super, Unknown, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._cli.audit.expressions import Expressions
    from securesmtp._cli.audit.machine import Results
    from securesmtp._cli.audit.paths import Path

# They return what is configured, and the last argument if nothing is.
_GETTERS = {
    "get",
    "getenv",
    "getboolean",
    "getint",
    "getattr",
    "pop",
    "setdefault",
    "get_bool",
    "bool",
    "str",
    "config",
}
_DEFAULTS = ("default", "fallback")
# They return their argument or their object in another form.
_SAME: Final[dict[str, Callable[[str], object]]] = {
    "strip": str.strip,
    "rstrip": str.rstrip,
    "lower": str.lower,
    "upper": str.upper,
    "encode": lambda text: text.encode("latin-1", "replace"),
    "decode": str,
    "casefold": str.casefold,
    "str": str,
    "bytes": lambda text: text.encode("latin-1", "replace"),
    "b64encode": lambda text: base64.b64encode(text.encode("latin-1", "replace")),
    "b64decode": lambda text: base64.b64decode(text, validate=True),
    "encode_base64": lambda text: base64.b64encode(text.encode("latin-1", "replace")).decode(),
}
_EXITS = {"sys.exit", "os._exit", "builtins.exit", "builtins.quit", "os.abort"}
_IMPORTS = {"importlib.import_module", "builtins.__import__"}
# They call their argument in another thread or task: the position of the function, and of its arguments if they follow.
_LATER: Final = {"submit": 0, "run_in_executor": 1, "to_thread": 0, "Thread": -1, "Timer": 1, "run_sync": 0}
_NAMESPACES = {"types.SimpleNamespace", "argparse.Namespace"}
_FIRST = {"contextlib.closing", "copy.copy", "copy.deepcopy", "typing.cast", "builtins.iter"}

# Methods of a ConfigParser, which take a section and an option.
_SECTIONED = {"getboolean", "getint", "getfloat"}


class Externals:
    """What calls outside the file return."""

    def __init__(self, machine: Expressions) -> None:
        self.machine = machine

    def special(  # noqa: C901, PLR0911 -- one for each kind of function
        self, callee: Unknown
    ) -> Callable[[Unknown, Arguments, Path], Results | None] | None:
        """Return what computes a call of Python's own; None if it is no such call."""
        qual = callee.qual
        name = qual.rpartition(".")[2]
        if qual in _EXITS:
            return self._exit
        if qual in _IMPORTS:
            return self._import
        if qual in _FIRST or (name == "enter_context" and qual.startswith("contextlib.")):
            return self._first
        if qual in {"functools.partial", "functools.partialmethod"}:
            return self._partial
        if name in _LATER:
            return self._later
        if qual in _NAMESPACES:
            return self._namespace
        if qual.startswith("builtins."):
            by_name: dict[str, Callable[[Unknown, Arguments, Path], Results | None]] = {
                "super": self._super,
                "getattr": self._getattr,
                "setattr": self._setattr,
                "dict": self._dict,
                "type": self._type,
            }
            found = by_name.get(name)
            if found is not None:
                return found
        if name == "add_argument":
            return self._option
        if name in {"get", "pop"} and isinstance(callee.receiver, Object) and callee.receiver.qual == "dict":
            return self._dict_get
        return None

    # -------------------------------------------------------------------------------------------------- builtins

    def _exit(self, _callee: Unknown, _arguments: Arguments, path: Path) -> Results:
        self.machine.exits.append(path)
        return []

    def _import(self, callee: Unknown, arguments: Arguments, path: Path) -> Results | None:
        name = text_of(arguments.get(0, "name") or NONE)
        if name is None:
            return None
        root = name.partition(".")[0] if callee.qual.startswith("builtins.") else name
        return [(path, Unknown(root, Kind.OPTION, root))]

    def _first(self, callee: Unknown, arguments: Arguments, path: Path) -> Results | None:
        if not arguments.positional:
            return None
        return [(path, arguments.positional[-1 if callee.qual == "typing.cast" else 0])]

    def _later(self, callee: Unknown, arguments: Arguments, path: Path) -> Results | None:
        name = (callee.qual or callee.symbol).rpartition(".")[2]
        position = _LATER[name]
        target = arguments.keywords.get("target") or arguments.get(position, "function")
        if not isinstance(target, Function | Partial):
            return None
        positional = arguments.positional[position + 1 :] if position >= 0 else []
        keywords = {key: value for key, value in arguments.keywords.items() if key not in {"target", "args", "kwargs"}}
        if name in {"Thread", "Timer"}:
            given, keywords = arguments.get(position + 1 if position >= 0 else -1, "args"), {}
            positional = []
            if isinstance(given, Object):
                positional = [value for key, value in path.fields(given.key).items() if key != "length"]
        rest = Arguments(arguments.node, positional, keywords, has_more=arguments.has_more)
        return self.machine.call(target, rest, path)

    def _namespace(self, _callee: Unknown, arguments: Arguments, path: Path) -> Results:
        made = Object(self.machine.site(arguments.node), node=arguments.node)
        path.store[made.key] = dict(arguments.keywords)
        return [(path, made)]

    def _partial(self, _callee: Unknown, arguments: Arguments, path: Path) -> Results | None:
        if not arguments.positional:
            return None
        target, *positional = arguments.positional
        return [(path, Partial(target, tuple(positional), tuple(arguments.keywords.items())))]

    def _super(self, _callee: Unknown, _arguments: Arguments, path: Path) -> Results | None:
        activation = self.machine.activation
        if isinstance(activation.receiver, Object) and activation.owner is not None:
            return [(path, Super(activation.receiver, activation.owner))]
        return None

    def _getattr(self, _callee: Unknown, arguments: Arguments, path: Path) -> Results | None:
        if len(arguments.positional) < 2:  # noqa: PLR2004 -- an object and a name
            return None
        owner, name = arguments.positional[:2]
        default = arguments.get(2, "default")
        text = text_of(name)
        if text is None:
            kind = kind_of((owner, name))
            return [(path, Unknown(self.machine.site(arguments.node), kind, default=default))]
        value = self.machine.member(owner, text, path)
        if default is not None and isinstance(value, Unknown) and value.default is None:
            value = Unknown(value.symbol, value.kind, value.qual, default, value.prefix, value.receiver)
        return [(path, path.narrow(value))]

    def _setattr(self, _callee: Unknown, arguments: Arguments, path: Path) -> Results | None:
        match arguments.positional:
            case [owner, Const(value=str(name)), value]:
                self.machine.set_member(owner, name, value, arguments.node, path)
                return [(path, NONE)]
            case _:
                return None

    def _dict(self, _callee: Unknown, arguments: Arguments, path: Path) -> Results:
        made = Object(self.machine.site(arguments.node), "dict", node=arguments.node)
        fields: dict[str, Value] = {}
        first = arguments.get(0, "")
        if isinstance(first, Object):
            fields |= path.fields(first.key)
        elif first is not None or arguments.has_more:
            fields["more"] = NONE
        path.store[made.key] = fields | {f"[{name!r}]": value for name, value in arguments.keywords.items()}
        return [(path, made)]

    def _type(self, _callee: Unknown, arguments: Arguments, path: Path) -> Results | None:
        match arguments.positional:
            case [Object(owner=Class() as owner)]:
                return [(path, owner)]
            case _:
                return None

    def _dict_get(self, callee: Unknown, arguments: Arguments, path: Path) -> Results | None:
        owner = callee.receiver
        index = arguments.get(0, "key") or NONE
        name = key_of(index)
        if not isinstance(owner, Object) or name is None:
            return choices(owner, index, arguments.node, path) or None if owner is not None else None
        value = path.get(owner.key, name)
        default = arguments.get(1, "default") or NONE
        if value is None and "more" not in path.fields(owner.key):
            value = default
        return [(path, path.narrow(value or Unknown(f"{owner.key}{name}", Kind.OPTION, default=default)))]

    def _option(self, _callee: Unknown, arguments: Arguments, _path: Path) -> Results | None:
        """Remember an option of `argparse` with its default."""
        names = [text for value in arguments.positional if (text := text_of(value)) is not None]
        destination = text_of(arguments.keywords.get("dest", NONE)) or next(
            (name.lstrip("-").replace("-", "_") for name in sorted(names, key=len, reverse=True)), None
        )
        action = text_of(arguments.keywords.get("action", NONE))
        default = arguments.keywords.get("default") or {
            "store_true": Const(value=False),
            "store_false": Const(value=True),
        }.get(action or "")
        required = arguments.keywords.get("required") or any(not name.startswith("-") for name in names)
        if destination is not None and (default is not None or not required):
            self.machine.options[destination] = default or NONE
        return None

    # --------------------------------------------------------------------------------------------------- results

    def result(self, callee: Unknown, arguments: Arguments) -> Value:
        """Return what is known about the result of any other call."""
        values = [*arguments.positional, *arguments.keywords.values()]
        name = (callee.qual or callee.symbol).rpartition(".")[2]
        same = self._same(callee, name, arguments)
        if same is not None:
            return same
        if callee.receiver is not None and isinstance(callee.receiver, Unknown) and callee.kind is Kind.SERVER:
            return Unknown(self.machine.site(arguments.node), Kind.SERVER, receiver=callee.receiver)
        names = [text_of(value) for value in values]
        is_getter = name in _GETTERS and names and names[0] is not None
        if is_getter:
            default = next((arguments.keywords[key] for key in _DEFAULTS if key in arguments.keywords), None)
            if default is None and len(arguments.positional) > (2 if name in _SECTIONED else 1):
                default = arguments.positional[-1]
            if default is None and name in {"get", "getenv"}:
                default = NONE
            qual = f"{callee.qual}()" if callee.qual else ""
            first = names[: 2 if len(names) > 2 else 1]  # noqa: PLR2004
            return Unknown(f"{callee.symbol}({first})", Kind.OPTION, qual, default)
        kind = Kind.SERVER if callee.kind is Kind.SERVER else kind_of(values)
        kind = Kind.SERVER if kind is Kind.SERVER else Kind.OTHER
        return Unknown(
            f"{callee.symbol}@{self.machine.site(arguments.node)}", kind, f"{callee.qual}()" if callee.qual else ""
        )

    def _same(self, callee: Unknown, name: str, arguments: Arguments) -> Value | None:
        subject = arguments.positional[0] if arguments.positional else None
        if callee.receiver is not None and (subject is None or name in {"encode", "decode", "strip", "rstrip"}):
            subject = callee.receiver
        if name in {"int", "bool", "float"} and isinstance(subject, Unknown):
            return Unknown(subject.symbol, subject.kind, "", subject.default, receiver=subject.receiver)
        change = _SAME.get(name)
        if change is None or subject is None or isinstance(subject, Function | Class):
            return None
        if isinstance(subject, Unknown):
            default = self._changed(subject.default, change) if subject.default is not None else None
            return Unknown(f"{name}({subject.symbol})", subject.kind, "", default, subject.prefix)
        return self._changed(subject, change)

    @staticmethod
    def _changed(value: Value, change: Callable[[str], object]) -> Value | None:
        text = text_of(value)
        if text is None:
            return None
        try:
            return Const(change(text), value.node if isinstance(value, Const) else None)
        except ValueError:
            return None
