"""The picture of `securesmtp send` on its page: real messages to a real server on loopback."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from shlex import quote

from terminal import watch, write_pictures

from securesmtp.testing import MailServer

_SENDING = "securesmtp send --from me@example.org --to you@example.org --subject disks --text report.txt"
_COMMANDS = (_SENDING, f"{_SENDING} \\\n    --to nobody@example.org", "echo $?")


def draw(docs: Path) -> None:
    """Make it."""
    with tempfile.TemporaryDirectory() as name, MailServer(refuse=["nobody@example.org"], login=None) as server:
        (Path(name) / "report.txt").write_text("62 % used\n", "ascii")
        lines = [f'securesmtp() {{ {quote(sys.executable)} -m securesmtp "$@"; }}']
        for number, command in enumerate(_COMMANDS):
            # The first one is the title. The exit code stays that of the command before.
            lines += [f"code=$?; printf '%s\\n' {quote(f'$ {command}')}; (exit $code)"] * (number > 0)
            lines.append(command)
        screen = watch(["bash", "-c", "\n".join(lines)], folder=Path(name), columns=100, environment=server.env())
        write_pictures(screen, _COMMANDS[0], docs / "how-to/pictures/send")
