"""The options of `securesmtp send` for many messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def many_options(function: F) -> F:
    """Add the options for many messages."""
    return function
