"""The command line: a thin layer over the library, and the only place that prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from securesmtp._cli.demo import demo
from securesmtp._cli.serve import serve

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.group()
@click.version_option(package_name="securesmtp")
def cli() -> None:
    """Submit email over verified TLS, or not at all."""


cli.add_command(demo)
cli.add_command(serve)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 (success), 1 (failure), 2 (wrong arguments) or 130 (Ctrl-C)."""
    try:
        return int(cli.main(arguments, standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        # Ctrl-C, as shells report it.
        return 130
