"""
The pictures of `securesmtp send` for many messages on its page: the real command, in a mailing of 400 messages.

The server has a mailbox that is full and two that it does not know, and cuts one connection instead of confirming.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from terminal import watch, write_pictures

from securesmtp.testing import MailServer

if TYPE_CHECKING:
    from securesmtp.testing import Received

_ROWS = 400
_REFUSED = ("p0117@example.org", "p0230@example.org")
_LOST = "p0345@example.org"
_MESSAGE = ("--template", "mail.html", "--from", "news@example.com", "--subject", "Hello $name")
_TITLE = "securesmtp send --csv people.csv --template mail.html …"
# As the command is called on the path, and with a version of Python that has it.
_CHILD = "import sys; sys.argv[0] = 'securesmtp'; from securesmtp.__main__ import main; sys.exit(main())"


def draw(docs: Path) -> None:
    """Make them."""
    with tempfile.TemporaryDirectory() as name:
        folder, pictures = Path(name), docs / "how-to" / "pictures"
        rows = "".join(f"p{number:04}@example.org,Reader {number}\n" for number in range(_ROWS))
        (folder / "people.csv").write_text(f"email,name\n{rows}")
        (folder / "mail.html").write_text("<p>Dear $name</p>\n")
        with MailServer(refuse=_REFUSED, on_message=lambda message: _cut_once(server, message)) as server:
            show = partial(watch, folder=folder, columns=100, rows=40, environment=server.env())
            command = [sys.executable, "-c", _CHILD, "send", "--csv", "people.csv", *_MESSAGE]
            screen = show(command, until=" 2 refused")
            write_pictures(screen, _TITLE, pictures / "many-progress")
            screen = show(command)
            write_pictures(screen, _TITLE, pictures / "many-summary")


def _cut_once(server: MailServer, message: Received) -> None:
    """Cut the connection of one message, instead of confirming it."""
    # The attribute without underscore would wait for the thread that this runs in.
    server._rules.fault = "drops_after_content" if message.recipients == (_LOST,) else None
