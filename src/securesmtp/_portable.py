"""Values and errors as JSON and back: every annotated attribute, and nothing that could run code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Self, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


class Portable:
    """A value that can be written as JSON and read back: its annotated attributes are its content."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """
        Return every attribute by name, in types that ``json.dumps`` accepts.

        Times are text in ISO 8601, durations are seconds, bytes are text in Latin-1. Of an exception that is not this
        library's own, only the type is kept.
        """
        return attributes_to_json(self, type(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """
        Return the value that `as_dict` was called on.

        Raises:
            ValueError: *data* is not a result of `as_dict`.
        """
        try:
            return cls(**attributes_from_json(data, cls))
        except (TypeError, OverflowError) as error:
            message = f"cannot make a {cls.__name__} from this data: {error}"
            raise ValueError(message) from None


def attributes_to_json(value: Portable, kind: type[Portable]) -> dict[str, Any]:
    """Return the attributes of *value* that are annotated in *kind*, in types of JSON."""
    return {name: _to_json(getattr(value, name)) for name in _attributes(kind)}


def attributes_from_json(data: Mapping[str, Any], kind: type[Portable]) -> dict[str, Any]:
    """
    Return the attributes of *kind* that *data* contains; attributes that a later version added are ignored.

    Raises:
        ValueError: An attribute does not have the type of its annotation.
    """
    return {name: _from_json(hint, data[name]) for name, hint in _attributes(kind).items() if name in data}


def _attributes(kind: type[Portable]) -> Mapping[str, Any]:
    # Each annotation is text that is compiled: 1.5 ms for a receipt, which a ledger would take for each message.
    hints: Mapping[str, Any] = _hints_of(kind)  # type: ignore[arg-type]  # a class is hashable, which mypy denies
    return hints


_hints_of = cache(get_type_hints)


def _to_json(value: object) -> object:
    return next((encode(value) for kind, encode in _ENCODERS if isinstance(value, kind)), value)


def _from_json(hint: Any, value: object) -> object:  # noqa: ANN401 -- an annotation, whatever it is
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType:
        (kind,) = (each for each in arguments if each is not NoneType)
        return None if value is None else _from_json(kind, value)
    if origin is tuple:
        return tuple(_from_json(arguments[0], each) for each in _require(list, value))
    if origin is Mapping:
        return {name: _from_json(arguments[1], each) for name, each in _require(dict, value).items()}
    decode = next((decode for kind, decode in _DECODERS if issubclass(hint, kind)), _require)
    return decode(hint, value)


def _exception_to_json(error: BaseException) -> dict[str, str]:
    # With its module: a class of the same name as one of this library's must not be taken for it.
    return {"type": f"{type(error).__module__}.{type(error).__qualname__}"}


def _error_from_json(_: object, value: object) -> Portable:
    # `errors` imports this module, so its base class is looked up here: the only subclass that is an exception.
    (base,) = (each for each in Portable.__subclasses__() if issubclass(each, Exception))
    return base.from_dict(_require(dict, value))


def _timedelta_from_json(_: object, value: object) -> timedelta:
    # JSON has one type of number, so other programs write 1.0 as 1.
    return timedelta(seconds=value if type(value) is int else _require(float, value))


def _require(kind: type[T], value: object) -> T:
    """Return *value* if its type is exactly *kind*: True is not an int here."""
    if isinstance(value, kind) and type(value) is kind:
        return value
    message = f"{value!r:.100} is not a {kind.__name__}"
    raise ValueError(message)


_Encode: TypeAlias = Callable[[Any], object]
_Decode: TypeAlias = Callable[[Any, object], object]
_ENCODERS: tuple[tuple[type, _Encode], ...] = (
    (Portable, lambda value: value.as_dict()),
    (BaseException, _exception_to_json),
    (StrEnum, str),
    (bytes, lambda value: value.decode("latin-1")),
    (datetime, datetime.isoformat),
    (timedelta, timedelta.total_seconds),
    (tuple, lambda value: [_to_json(each) for each in value]),
    (Mapping, dict),
)
_DECODERS: tuple[tuple[type, _Decode], ...] = (
    (Exception, _error_from_json),
    (Portable, lambda kind, value: kind.from_dict(_require(dict, value))),
    (StrEnum, lambda kind, value: kind(value)),
    (bytes, lambda _, value: _require(str, value).encode("latin-1")),
    (datetime, lambda _, value: datetime.fromisoformat(_require(str, value))),
    (timedelta, _timedelta_from_json),
)
