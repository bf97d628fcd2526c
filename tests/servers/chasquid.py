"""
chasquid from Debian's package, unpacked by tests/servers/install.

It has no relay: a hook, which gets each message before chasquid accepts it, hands it to the sink. Its queue then gives
each recipient's copy to a program that drops it.
"""

from __future__ import annotations

import os
import subprocess
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from servers.real import (
    ALICE,
    BOB,
    DOMAIN,
    INSTALL,
    LATER,
    PREPARED,
    REFUSED,
    SEARCH_PATH,
    RealServer,
    servers_cache,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from servers.real import Ability, Account

# Mail for other domains would need the DNS; it would stay in the queue, which holds 200 messages.
DOMAINS = (DOMAIN, f"bücher.{DOMAIN}")

CONFIGURATION = """\
hostname: "localhost"
submission_address: "127.0.0.1:{starttls}"
submission_over_tls_address: "127.0.0.1:{implicit}"
# By default, systemd would hand it a socket. The port of the mail exchange is not used.
smtp_address: "127.0.0.1:0"
data_dir: "{directory}/data"
mail_log_path: "{directory}/mail.log"
# The largest below SIZE_LIMIT.
max_data_size_mb: 28
suffix_separators: ""
drop_characters: ""
"""

# What chasquid asks for each recipient, and for "*", whose alias is that of all unknown users.
ALIASES = """\
#!/bin/sh
case $1 in
{refused} | {later} | \\**) ;;
*) echo '| /bin/true' ;;
esac
"""

RELAY = r"""#!/bin/bash
exec 3<> /dev/tcp/127.0.0.1/{sink}
{{
    printf 'EHLO localhost\r\nMAIL FROM:<%s>\r\n' "${{MAIL_FROM#<>}}"
    # chasquid decodes the labels of a domain.
    printf 'RCPT TO:<%s>\r\n' ${{RCPT_TO//@bücher./@xn--bcher-kva.}}
    printf 'DATA\r\n'
    # chasquid keeps lines without their CR.
    LC_ALL=C sed -e 's/\r$//' -e 's/^\./../' -e 's/$/\r/'
    printf '.\r\nQUIT\r\n'
}} >&3
replies=$'\n'$(tr -d '\r' <&3)
# 354, and 221 for QUIT: the sink has replied to everything.
if [[ $replies == *$'\n'[45]* || $replies != *$'\n'354*$'\n'221* ]]; then
    echo "the sink replied ${{replies//$'\n'/ }}"
    exit 1
fi
"""


class Chasquid(RealServer):
    """A private chasquid."""

    name: ClassVar[str] = "chasquid"
    # A name may have no blank (PRECIS, RFC 8265).
    accounts: ClassVar[tuple[Account, ...]] = (ALICE, BOB, PREPARED)
    cannot: ClassVar[Mapping[Ability, str]] = MappingProxyType(
        {
            "size": "it counts its limit in MiB",
            "later": "it refuses a recipient for good or not at all",
            "greeting": "it greets at once, which cannot be set",
            "patience": "it waits for a minute, which is not a setting",
        }
    )

    @classmethod
    def missing(cls) -> str | None:
        """Return why chasquid cannot be started here and what to do about it, or None."""
        if os.geteuid() != 0:
            return "chasquid runs without a resolver, which only root can arrange: run the tests as root"
        try:
            _version()
        except (OSError, subprocess.CalledProcessError) as error:
            return f"chasquid does not run here ({error}): {INSTALL}"
        return None

    def _prepare(self) -> str:
        pem, certificates = self._certificate.read_text("utf-8"), self._directory / "certs" / "localhost"
        certificates.mkdir(parents=True)
        for name in ("fullchain.pem", "privkey.pem"):
            (certificates / name).write_text(pem, "utf-8")
        for domain in DOMAINS:
            (self._directory / "domains" / domain).mkdir(parents=True)
        users = "".join(
            f"users: {{ key: {_quoted(user)} value: {{ plain: {{ password: {_quoted(account.password)} }} }} }}\n"
            for account in self.accounts
            for user, _, _ in [account.username.rpartition("@")]
        )
        (self._directory / "domains" / DOMAIN / "users").write_text(users, "utf-8")
        hooks = self._directory / "hooks"
        hooks.mkdir()
        _write_script(hooks / "alias-resolve", ALIASES.format(refused=REFUSED, later=LATER))
        _write_script(hooks / "post-data", RELAY.format(sink=self._sink.port))
        return _version()

    def _command(self) -> list[str]:
        text = CONFIGURATION.format(directory=self._directory, implicit=self.implicit_port, starttls=self.starttls_port)
        (self._directory / "chasquid.conf").write_text(text, "utf-8")
        # Without a name server: what chasquid asks for a domain that it does not know leaves the machine otherwise.
        script = 'mount --bind /dev/null /etc/resolv.conf; exec "$@"'
        program = [str(_program()), "-alsologtostderr", "-config_dir", str(self._directory)]
        return ["unshare", "--mount", "sh", "-euc", script, "-", *program]


def _quoted(text: str) -> str:
    """Return a string of protocol buffers' text format."""
    return '"{}"'.format("".join(f"\\{byte:03o}" for byte in text.encode()))


def _write_script(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    path.chmod(0o755)


def _program() -> Path:
    return servers_cache() / "chasquid" / "usr" / "bin" / "chasquid"


def _version() -> str:
    command, environment = [str(_program()), "-version"], {"PATH": SEARCH_PATH}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split()[1]
