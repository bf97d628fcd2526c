"""``securesmtp audit``."""

from __future__ import annotations

import click


@click.command("audit")
def command() -> int:
    """Say that it is not there yet."""
    return 0
