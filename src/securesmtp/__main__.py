"""The command ``securesmtp``, which needs the extra ``cli``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line, or say what to install."""
    try:
        from securesmtp._cli import main as run
    except ModuleNotFoundError as error:
        sys.stderr.write(f"securesmtp: {error.name} is missing. Hint: install securesmtp with its extra 'demo'\n")
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
