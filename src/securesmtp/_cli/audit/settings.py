"""
Settings of Django, Flask-Mail, Flask-Mailman and fastapi-mail: groups of names and values in the syntax tree.

A group is what one object gets: the names of a module or a class, the keys of a dictionary, the keywords of a call, and
the keys of `app.config[...] = ...` in a file. Each value is what its expression shows, with the default of an
environment variable.
"""

from __future__ import annotations

import ast
import ipaddress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple

from securesmtp._cli.audit.findings import Level

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from securesmtp._cli.audit.findings import Rule

_ON: Final = frozenset({"1", "on", "t", "true", "y", "yes"})
_OFF: Final = frozenset({"", "0", "f", "false", "n", "no", "none", "off"})
# `dict` and what takes settings as keywords.
_TAKES_SETTINGS: Final = frozenset({"dict", "update", "from_mapping"})


class Switch(Enum):
    """What a setting that turns something on or off is."""

    ON = auto()
    OFF = auto()
    ON_BY_DEFAULT = auto()
    OFF_BY_DEFAULT = auto()
    OPTION = auto()
    """Something outside the code decides."""


class Fault(NamedTuple):
    """An expression that breaks a rule."""

    rule: Rule
    node: ast.expr
    message: str
    level: Level = Level.ERROR


@dataclass(slots=True)
class Group:
    """
    The settings of one object.

    Attributes:
        values: The expressions that a name gets, in their order.
        is_complete: False if the names of another module are added by ``from … import *``.
        call: The name of the called function, for keywords.
    """

    values: dict[str, list[ast.expr]] = field(default_factory=dict)
    is_complete: bool = True
    call: str = ""
    constants: Mapping[str, ast.expr] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def is_set(self, name: str) -> bool:
        """Return whether a setting has a value that is not empty or None."""
        return any(not self._is_empty(self._resolve(node)) for node in self.values.get(name, []))

    def texts(self, name: str) -> list[str | None]:
        """Return the texts that a setting may be; None for what the code does not show."""
        nodes = [self._resolve(node) for node in self.values.get(name, [])]
        return [
            node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None for node in nodes
        ]

    def is_loopback(self, name: str) -> bool:
        """Return whether a host is this machine in each case, by a literal."""
        return all(text is not None and is_loopback(text) for text in self.texts(name))

    def switch(self, name: str) -> Switch:
        """Return whether a setting is on: in the best case, as each case is a configuration of its own."""
        states = [_switch(self._resolve(node)) for node in self.values.get(name, [])]
        if not states:
            return Switch.OFF
        if Switch.ON in states and Switch.OFF in states:
            return Switch.OPTION
        order = (Switch.ON, Switch.ON_BY_DEFAULT, Switch.OPTION, Switch.OFF_BY_DEFAULT, Switch.OFF)
        return min(states, key=order.index)

    def _resolve(self, node: ast.expr) -> ast.expr:
        return self.constants.get(node.id, node) if isinstance(node, ast.Name) else node

    @staticmethod
    def _is_empty(node: ast.expr) -> bool:
        return isinstance(node, ast.Constant) and not node.value


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host in {"", "localhost"} or host.endswith(".localhost")


def groups(tree: ast.Module) -> Iterator[Group]:
    """Return all groups of settings in a file."""
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    stars = any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree))
    yield _of_body(tree.body, Group(is_complete=not stars, constants=constants))
    items = Group(constants=constants)
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef():
                yield _of_body(node.body, Group(is_complete=not node.bases, constants=constants))
            case ast.Dict():
                yield _of_pairs(node, Group(constants=constants))
            case ast.Call(keywords=keywords) if keywords:
                group = Group(call=_called(node.func), constants=constants)
                for keyword in keywords:
                    if keyword.arg:
                        group.values.setdefault(keyword.arg, []).append(keyword.value)
                yield group
            case ast.Assign(targets=[ast.Subscript(slice=ast.Constant(value=str(name)))], value=value):
                items.values.setdefault(name, []).append(value)
    yield items


def takes_settings(group: Group) -> bool:
    """Return whether a group is no call, or one that takes settings as keywords."""
    return not group.call or group.call in _TAKES_SETTINGS


def nested(node: ast.expr, constants: Mapping[str, ast.expr]) -> dict[str, ast.expr]:
    """Return a dictionary's values that are known by name; empty for anything else."""
    match node:
        case ast.Dict():
            return {name: values[-1] for name, values in _of_pairs(node, Group(constants=constants)).values.items()}
        case ast.Call(func=ast.Name(id="dict"), args=[]):
            return {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        case _:
            return {}


def _of_body(body: list[ast.stmt], group: Group) -> Group:
    """Add the names that statements assign, in all branches; functions and classes are others' names."""
    for node in body:
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Name):
                        group.values.setdefault(target.id, []).append(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                group.values.setdefault(name, []).append(value)
            case ast.If() | ast.Try() | ast.With() | ast.For():
                for part in ("body", "orelse", "finalbody"):
                    _of_body(getattr(node, part, []), group)
                for handler in getattr(node, "handlers", []):
                    _of_body(handler.body, group)
    return group


def _of_pairs(node: ast.Dict, group: Group) -> Group:
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            group.values.setdefault(key.value, []).append(value)
        elif key is None:
            group.is_complete = False
    return group


def _called(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def _switch(node: ast.expr) -> Switch:  # noqa: PLR0911 -- one for each form of expression
    match node:
        case ast.Constant(value=value):
            return Switch.ON if value else Switch.OFF
        case ast.Compare(left=left, comparators=[ast.Constant(value=bool(other))]):
            return _switch(left) if other else Switch.OPTION
        case ast.Compare(left=left):
            return _switch(left)
        case ast.BoolOp(op=ast.Or(), values=[*_, ast.Constant(value=last)]):
            return Switch.ON_BY_DEFAULT if last else Switch.OFF_BY_DEFAULT
        case ast.Call(func=ast.Attribute(value=value), args=[], keywords=[]):
            # `os.environ.get("EMAIL_USE_TLS", "true").lower()`
            return _switch(value)
        case ast.Call(func=ast.Name(), args=[ast.expr() as value], keywords=[]) if not isinstance(value, ast.Constant):
            # `bool(os.environ.get("EMAIL_USE_TLS"))`
            return _switch(value)
        case ast.Call(args=arguments, keywords=keywords):
            defaults = [*arguments[1:], *(keyword.value for keyword in keywords if keyword.arg == "default")]
            known = [str(default.value).strip().lower() for default in defaults if isinstance(default, ast.Constant)]
            if any(default in _ON for default in known):
                return Switch.ON_BY_DEFAULT
            return Switch.OFF_BY_DEFAULT if any(default in _OFF for default in known) else Switch.OPTION
        case _:
            return Switch.OPTION
