"""The command line: thin, and the only place that prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from securesmtp._cli.demo import demo

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.group()
@click.version_option(package_name="securesmtp")
def cli() -> None:
    """Submit mail over verified TLS, or not at all."""


cli.add_command(demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    cli.main(arguments, standalone_mode=False)
    return 0
