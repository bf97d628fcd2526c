"""`securesmtp send` for many messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from securesmtp import SecureMailer
    from securesmtp._cli.exit_codes import ExitCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The options that one message has too, as given."""

    paths: tuple[Path, ...] = ()
    sender: str | None = None
    subject: str | None = None
    text: Path | None = None
    html: Path | None = None
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    reply_to: tuple[str, ...] = ()
    attach: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    partial: Literal["raise", "allow"] = "raise"
    deadline: float | None = None
    dry_run: bool = False
    quiet: bool = False
    as_json: bool = False


def is_many(many: Mapping[str, object], paths: Sequence[Path]) -> bool:
    """Return whether there is more than one message."""
    return bool(many.get("csv")) or len(paths) > 1 or any(path.is_dir() for path in paths)


def run(draft: Draft, many: Mapping[str, object], open_mailer: Callable[[int | None], SecureMailer]) -> ExitCode:  # noqa: ARG001
    """Send them."""
    raise click.UsageError("many messages are not there yet")
