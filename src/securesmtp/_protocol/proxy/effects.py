"""What a tunnel may ask of its connection."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(slots=True)
class Write:
    """Write these bytes. The repr does not show them: a login may be among them."""

    data: bytes = field(repr=False)


@dataclass(slots=True)
class Read:
    """Read exactly so many bytes, and not one more. They are the answer."""

    size: int


# The answer to `Write` is empty.
Tunnel: TypeAlias = Generator[Write | Read, bytes | None, None]


def write(data: Write) -> Generator[Write | Read, bytes | None, None]:
    """Write *data*."""
    yield data


def read(size: int) -> Generator[Write | Read, bytes | None, bytes]:
    """Return the next *size* bytes."""
    data = yield Read(size)
    return data or b""
