"""The command line: a thin layer over the library, and the only place that prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from securesmtp._cli.demo import demo

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.group()
@click.version_option(package_name="securesmtp")
def cli() -> None:
    """Submit email over verified TLS, or not at all."""


cli.add_command(demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 for success, 1 for a failure, 2 for wrong arguments."""
    try:
        return int(cli.main(arguments, standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
