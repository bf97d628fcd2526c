"""The command ``securesmtp``; its commands need the extras ``cli`` or ``demo``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; if a package is missing, say which extra to install."""
    try:
        from securesmtp._cli import main as run
    except ModuleNotFoundError as error:
        sys.stderr.write(f"securesmtp: {error.name} is missing. Hint: install securesmtp with its extra 'cli'\n")
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
