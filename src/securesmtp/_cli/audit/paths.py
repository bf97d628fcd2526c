"""The paths through the audited code: on each, what every name holds and which conditions were met."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from securesmtp._cli.audit.values import NONE, Const, Kind, Object, Unknown, Value

if TYPE_CHECKING:
    import ast

# More paths than these are merged, so that a function with many branches takes no time that doubles with each.
MOST_PATHS = 8
_MOST_HISTORIES = 8
# Attributes that rules ask about.
_TELLING = re.compile(r"(?i)tls|ssl|secure|security|encrypt|verify|context")
_NOTED = {"debuglevel", "verify_mode", "check_hostname", "sock"}

Key = tuple[str, str, object]


@dataclass(frozen=True, slots=True)
class Fact:
    """
    A condition that was met, or not, on a path.

    Attributes:
        holds: Whether it was met.
        kind: Who decides it.
        default: Whether it is met if nobody chooses; None if that is not in the code.
        node: The condition.
        words: The names in it.
    """

    holds: bool
    kind: Kind
    default: bool | None = None
    node: ast.AST | None = field(default=None, compare=False)
    words: str = field(default="", compare=False)


@dataclass(slots=True)
class Path:
    """
    One path: fields by frame or object, and the conditions that were met.

    An inner dictionary changes only as long as no copy of its path can see it, so that a frame with many names takes no
    time that grows with their square.
    """

    # What changed since the path was settled last; `base` never changes, so that copies share it.
    store: dict[str, dict[str, Value]] = field(default_factory=dict)
    facts: dict[Key, Fact] = field(default_factory=dict)
    # The conditions of each path that was merged into this one.
    merged: tuple[dict[Key, Fact], ...] = ()
    base: dict[str, dict[str, Value]] = field(default_factory=dict)
    # Whether paths beside it were left out, so that nothing can be said about all of them.
    is_cut: bool = False
    # The places whose dictionaries no other path sees.
    owned: set[str] = field(default_factory=set)

    def copy(self) -> Path:
        """Return another path that begins as this one."""
        self.owned.clear()
        return Path(self.store.copy(), self.facts.copy(), self.merged, self.base, self.is_cut)

    def settle(self) -> None:
        """Make copies of this path cheap."""
        if self.store:
            self.base, self.store = {**self.base, **self.store}, {}
            self.owned.clear()

    def has(self, key: str) -> bool:
        """Return whether there is a frame or an object with this key."""
        return key in self.store or key in self.base

    def places(self) -> set[str]:
        """Return the keys of all frames and objects."""
        return self.store.keys() | self.base.keys()

    def histories(self) -> list[dict[Key, Fact]]:
        """Return the conditions that were met, for each of the paths that are one here."""
        return [{**each, **self.facts} for each in self.merged or ({},)]

    def get(self, key: str, name: str) -> Value | None:
        """Return a field; None if it has no value."""
        return self.fields(key).get(name)

    def put(self, key: str, name: str, value: Value) -> None:
        """Set a field."""
        if key in self.owned and key in self.store:
            self.store[key][name] = value
        else:
            self.store[key] = {**self.fields(key), name: value}
            self.owned.add(key)

    def fields(self, key: str) -> dict[str, Value]:
        """Return all fields of a frame or an object."""
        fields = self.store.get(key)
        return self.base.get(key, {}) if fields is None else fields

    # ------------------------------------------------------------------------------------------------ conditions

    def known(self, key: Key) -> bool | None:
        """Return whether a condition is met on this path; None if nothing says so."""
        fact = self.facts.get(key)
        if fact is not None:
            return fact.holds
        symbol, operation, _ = key
        if operation == "is None":
            return False if self.knows(symbol, "truth", holds=True) else None
        if operation == "truth":
            return False if self.knows(symbol, "is None", holds=True) else None
        return None

    def knows(self, symbol: str, operation: str, *, holds: bool) -> bool:
        """Return whether exactly this was found out about a value."""
        fact = self.facts.get((symbol, operation, None))
        return fact is not None and fact.holds is holds

    def narrow(self, value: Value) -> Value:
        """Return what a value is, by the conditions that were met."""
        if not isinstance(value, Unknown) or not self.facts:
            return value
        if self.knows(value.symbol, "is None", holds=True):
            return NONE
        for (symbol, operation, operand), fact in self.facts.items():
            if symbol == value.symbol and operation == "==" and fact.holds:
                return Const(operand, fact.node)
        falsy = isinstance(value.default, Const) and not value.default.value
        if falsy and self.knows(value.symbol, "truth", holds=False):
            return value.default or value
        chosen = self.knows(value.symbol, "truth", holds=True) or self.knows(value.symbol, "is None", holds=False)
        if falsy and chosen:
            return Unknown(value.symbol, value.kind, value.qual, None, value.prefix, value.receiver)
        return value


def decided(path: Path, key: Key, fact: Fact) -> list[tuple[Path, bool]]:
    """Return the paths on which a condition is met and is not met; one of them if that is known."""
    known = path.known(key)
    if known is not None:
        return [(path, known)]
    other = path.copy()
    path.facts[key] = Fact(True, fact.kind, fact.default, fact.node, fact.words)  # noqa: FBT003 -- the value itself
    other.facts[key] = Fact(False, fact.kind, fact.default, fact.node, fact.words)  # noqa: FBT003
    return [(path, True), (other, False)]


def _is_dull(value: Value | None) -> bool:
    # A call's result, which no rule asks about.
    return isinstance(value, Unknown) and value.kind is Kind.OTHER and not value.qual and value.receiver is None


def _difference(one: Path, other: Path, *, is_dull: bool) -> list[tuple[str, str]] | None:
    """Return the fields that differ; with *is_dull*, None if a rule may ask about one of them."""
    different: list[tuple[str, str]] = []
    is_alike = one.base is other.base
    for key in one.store.keys() | other.store.keys() if is_alike else one.places() | other.places():
        left, right = one.fields(key), other.fields(key)
        if left is right or left == right:
            continue
        for name in left.keys() | right.keys():
            mine, others = left.get(name), right.get(name)
            if mine is others or mine == others:
                continue
            if is_dull and not (_is_dull(mine) and _is_dull(others)):
                return None
            different.append((key, name))
    return different


def _rank(value: Value | None) -> int:
    # The value that says most about what the code does.
    match value:
        case None:
            return 0
        case Const(value=None):
            return 1
        case Unknown(qual=""):
            return 2
        case Const():
            return 3
        case _:
            return 4


def _merge(one: Path, other: Path, different: list[tuple[str, str]]) -> None:
    for key, name in different:
        left, right = one.get(key, name), other.get(key, name)
        best = left if _rank(left) >= _rank(right) else right
        one.put(key, name, best if best is not None else NONE)
    if one.facts == other.facts and one.merged == other.merged:
        return
    histories = one.histories()
    histories += [each for each in other.histories() if each not in histories]
    one.merged = tuple(histories[:_MOST_HISTORIES])
    one.facts = {key: value for key, value in one.facts.items() if other.facts.get(key) == value}


def _tells(key: str, name: str, value: Value) -> bool:
    """Whether a rule may ask about a field, so that paths on which it differs are kept apart as long as possible."""
    match value:
        case Object(qual=qual):
            return bool(qual)
        case Unknown(qual=qual) if qual and key.startswith("instance/"):
            # Such as `self.client_class = smtplib.SMTP_SSL`.
            return True
        case Const():
            return name[0:1] == "%" or name in _NOTED or _TELLING.search(name) is not None
        case _:
            return name[0:1] == "%" or name in _NOTED


def _state(path: Path) -> list[tuple[str, str, Value]]:
    noted = [
        (key, name, value)
        for key, fields in path.store.items()
        for name, value in fields.items()
        if _tells(key, name, value)
    ]
    return sorted(noted, key=lambda each: each[:2])


def reduce(paths: list[Path], most: int = MOST_PATHS) -> list[Path]:
    """Merge paths that do not differ in anything that rules ask about, and more if there are too many."""
    if len(paths) < 2:  # noqa: PLR2004 -- nothing to compare
        return paths
    kept: list[Path] = []
    for path in paths:
        for other in kept:
            different = _difference(other, path, is_dull=True)
            if different is not None:
                _merge(other, path, different)
                break
        else:
            kept.append(path)
    if len(kept) <= most:
        return kept
    by_state: list[tuple[list[tuple[str, str, Value]], Path]] = []
    for path in kept:
        state = _state(path)
        for noted, other in by_state:
            if noted == state:
                _merge(other, path, _difference(other, path, is_dull=False) or [])
                break
        else:
            by_state.append((state, path))
    for _, path in by_state[:most]:
        path.is_cut = path.is_cut or len(by_state) > most
    return [path for _, path in by_state[:most]]
