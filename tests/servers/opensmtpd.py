"""
OpenSMTPD of Debian 13, in a root of its own, which tests/servers/install unpacks.

It accepts 100 messages over one connection, and closes one where a command does not wait for the reply before it.
"""

from __future__ import annotations

import subprocess
import tempfile
from typing import TYPE_CHECKING, ClassVar

from servers.real import (
    ALICE,
    BOB,
    HASHES,
    LATER,
    REFUSED,
    SEARCH_PATH,
    SIZE_LIMIT,
    Ability,
    Account,
    RealServer,
    in_root,
    missing_root_server,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = "opensmtpd"
PROGRAM = "/usr/sbin/smtpd"

CONFIGURATION = """\
pki localhost cert "{certificate}"
pki localhost key "{certificate}"
table passwords file:{directory}/passwords
smtp max-message-size "{size}"

filter refused phase rcpt-to match rcpt-to {{ "{refused}" }} reject "550 5.1.1 no such user here"
filter later phase rcpt-to match rcpt-to {{ "{later}" }} reject "450 4.2.1 the mailbox is busy, come again"
filter refusals chain {{ refused, later }}
listen on 127.0.0.1 port {implicit} smtps pki localhost auth <passwords> hostname localhost filter refusals
listen on 127.0.0.1 port {starttls} tls-require pki localhost auth <passwords> hostname localhost filter refusals

# By default, it opens a new connection to the sink after 100 messages or 10 seconds, and only after a pause.
mta limit session-mail-max 100000 session-keepalive 100000
action "sink" relay host lmtp://127.0.0.1:{sink} helo localhost
match auth from any for any action "sink"
"""


class OpenSMTPD(RealServer):
    """A private OpenSMTPD."""

    name: ClassVar[str] = "opensmtpd"
    accounts: ClassVar[tuple[Account, ...]] = (ALICE, BOB)
    cannot: ClassVar[Mapping[Ability, str]] = {
        "patience": "it waits for five minutes, which cannot be set",
        "greeting": "it greets at once, which cannot be set",
    }

    @classmethod
    def missing(cls) -> str | None:
        """Return why OpenSMTPD cannot be started here and what to do about it, or None."""
        return missing_root_server("OpenSMTPD", "OpenSMTPD", _print_usage)

    def _prepare(self) -> str:
        for folder in ("run", "spool"):
            # OpenSMTPD insists on this mode for its queue.
            (self._directory / folder).mkdir(mode=0o711)
        lines = (f"{account.username} {HASHES[account]}\n" for account in self.accounts)
        (self._directory / "passwords").write_text("".join(lines))
        # Behind "version:" and "OpenSMTPD".
        return _print_usage().split()[2]

    def _command(self) -> list[str]:
        text = CONFIGURATION.format(
            directory=self._directory,
            certificate=self._certificate,
            implicit=self.implicit_port,
            starttls=self.starttls_port,
            sink=self._sink.port,
            size=SIZE_LIMIT,
            refused=REFUSED,
            later=LATER,
        )
        path = self._directory / "smtpd.conf"
        path.write_text(text)
        temporary, own = tempfile.gettempdir(), self._directory
        # The last two are compiled into it: for its process number and control socket, and for its queue.
        folders = {temporary: temporary, f"{own}/run": "/var/run", f"{own}/spool": "/var/spool/smtpd"}
        # -d: in the foreground, logging to stderr.
        return [*in_root(ROOT, folders), PROGRAM, "-d", "-f", str(path)]


def _print_usage() -> str:
    """Return OpenSMTPD's version and how it is called, or why it does not run."""
    done = subprocess.run(
        [*in_root(ROOT, {}), PROGRAM, "-h"],
        env={"PATH": SEARCH_PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout
