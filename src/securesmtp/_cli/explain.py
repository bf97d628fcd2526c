"""``securesmtp explain``."""

from __future__ import annotations

import click


@click.command("explain")
def command() -> int:
    """Say that it is not there yet."""
    return 0
