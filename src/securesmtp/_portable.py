"""Values and errors as JSON, and back: everything that is annotated, and nothing that could run code."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints


class Portable:
    """What can be written as JSON, and read back, by its annotated attributes."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """
        Return every attribute by its name, as ``json.dumps`` takes it.

        Times are ISO 8601, durations are seconds, and bytes are text in Latin-1. Of an error that is not this
        library's own, only the type is kept.
        """
        return attributes_of(self, type(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """
        Return what `as_dict` was called on.

        Raises:
            ValueError: *data* is not what `as_dict` returns.
        """
        try:
            return cls(**attributes_from(data, cls))
        except (TypeError, OverflowError) as error:
            message = f"{cls.__name__} cannot be made from this: {error}"
            raise ValueError(message) from None


def attributes_of(value: Portable, kind: type[Portable]) -> dict[str, Any]:
    """Return the annotated attributes of *kind* that *value* has, as JSON takes them."""
    return {name: _as_json(getattr(value, name)) for name in get_type_hints(kind)}


def attributes_from(data: Mapping[str, Any], kind: type[Portable]) -> dict[str, Any]:
    """
    Return the attributes of *kind* that are in *data*; what a later version has added is left out.

    Raises:
        ValueError: One of them has another type than it is annotated with.
    """
    return {name: _from_json(hint, data[name]) for name, hint in get_type_hints(kind).items() if name in data}


def _as_json(value: object) -> Any:  # noqa: ANN401, PLR0911 -- JSON, case by case
    match value:
        case Portable():
            return value.as_dict()
        case BaseException():
            # With its module, so that none is taken for one of ours of the same name.
            return {"type": f"{type(value).__module__}.{type(value).__qualname__}"}
        case StrEnum():
            return value.value
        case bytes():
            return value.decode("latin-1")
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case tuple():
            return [_as_json(each) for each in value]
        case Mapping():
            return dict(value)
    return value


def _from_json(kind: Any, value: Any) -> Any:  # noqa: ANN401, PLR0911 -- its inverse
    if get_origin(kind) is UnionType:
        (kind,) = (each for each in get_args(kind) if each is not type(None))
        return None if value is None else _from_json(kind, value)
    if kind is Exception:
        # Our errors are made from what the library itself wrote; their module stands above this one.
        (ours,) = (each for each in Portable.__subclasses__() if issubclass(each, Exception))
        return ours.from_dict(_checked(dict, value))
    if get_origin(kind) is tuple:
        return tuple(_from_json(get_args(kind)[0], each) for each in _checked(list, value))
    if get_origin(kind) is Mapping:
        _, each = get_args(kind)
        return {name: _checked(each, item) for name, item in _checked(dict, value).items()}
    if issubclass(kind, Portable):
        return kind.from_dict(_checked(dict, value))
    if issubclass(kind, bytes):
        return _checked(str, value).encode("latin-1")
    if issubclass(kind, datetime):
        return datetime.fromisoformat(_checked(str, value))
    if issubclass(kind, timedelta):
        # A whole number of seconds may come back as an int.
        return timedelta(seconds=value if type(value) is int else _checked(float, value))
    return kind(value) if issubclass(kind, StrEnum) else _checked(kind, value)


def _checked(kind: type, value: Any) -> Any:  # noqa: ANN401 -- what it is, is asked here
    if type(value) is not kind:
        message = f"{value!r:.100} is not a {kind.__name__}"
        raise ValueError(message)
    return value
