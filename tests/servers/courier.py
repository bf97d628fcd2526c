"""
Courier of Debian 13, in a root of its own, which tests/servers/install unpacks.

A program accepts the connections of each port and starts another for each; `courierd` delivers; `authdaemond` has the
accounts.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, ClassVar

from servers.real import (
    ACCOUNTS,
    HASHES,
    REFUSED,
    SEARCH_PATH,
    SIZE_LIMIT,
    RealServer,
    contained,
    in_root,
    missing_root_server,
    servers_cache,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from servers.real import Ability

ROOT = "courier"
# Of this root alone: see tests/servers/install.
USER = 65001
ETC = "/etc/courier"

# Sourced by a shell.
SETTINGS = """\
PATH=/usr/bin:/bin
SHELL=/bin/sh

# Without DNS lookups, and without a pause after an error.
BOFHCHECKDNS=0
BOFHNOEXPN=1
BOFHNOVRFY=1
TARPIT=0

# The message must not be changed.
NOADDMSGID=1
NOADDDATE=1
NOADDRREWRITE=1

AUTH_REQUIRED=1
ESMTPAUTH=
ESMTPAUTH_TLS="PLAIN LOGIN"
ESMTP_TLS_REQUIRED=1
ESMTP_USE_STARTTLS=0
COURIERTLS=/usr/bin/couriertls
TLS_CERTFILE=/etc/courier/esmtpd.pem
TLS_VERIFYPEER=NONE
DEFAULTDELIVERY=./Maildir
"""

AUTHDAEMONRC = """\
authmodulelist="authuserdb"
authmodulelistorig="authuserdb"
daemons=3
authdaemonvar=/run/courier/authdaemon
DEBUG_LOGIN=0
DEFAULTOPTIONS=""
LOGGEROPTS=""
"""

# Courier's own scripts start the same, in the background and with a logger.
START = """\
set -eu
trap exit TERM
cd /var/lib/courier
for base in userdb userdbshadow; do
    /usr/lib/courier/courier-authlib/makedatprog - {etc}/$base.tmp {etc}/$base.dat < {etc}/$base
done
/usr/sbin/makealiases
set -a
. {etc}/settings
. {etc}/authdaemonrc
/usr/lib/courier/courier-authlib/authdaemond &
/usr/lib/courier/courier/courierd &
listen() {{
    /usr/sbin/couriertcpd -address=127.0.0.1 -nodnslookup -user=courier -group=courier \\
        -maxprocs=1000 -maxperip=1000 -maxperc=1000 "$@" &
}}
listen {starttls} /usr/sbin/courieresmtpd
ESMTP_TLS=1
listen {implicit} /usr/bin/couriertls -server -tcpd /usr/sbin/courieresmtpd
wait
"""


class Courier(RealServer):
    """A private Courier."""

    name: ClassVar[str] = "courier"
    cannot: ClassVar[Mapping[Ability, str]] = {
        "later": "no setting refuses a recipient for a while",
        "greeting": "it greets at once, which cannot be set",
        "patience": "no setting says how long it waits for a command",
    }

    @classmethod
    def missing(cls) -> str | None:
        """Return why Courier cannot be started here and what to do about it, or None."""
        return missing_root_server("Courier", "Courier", _version)

    def _prepare(self) -> str:
        self._log = _Log(self._directory)
        self._stack.callback(self._log.close)
        root, etc = servers_cache() / ROOT, self._directory / "etc"
        for folder in ("etc/aliases", "etc/aliasdir", "etc/filters/active", "run/authdaemon"):
            (self._directory / folder).mkdir(parents=True)
        for folder in ("msgq", "msgs", "tmp/broken", "track", "filters", "allfilters"):
            (self._directory / "var" / folder).mkdir(parents=True)
        # It starts with all of its modules or not at all.
        for path in (*(root / "etc/courier").glob("dsn*.txt"), *(root / "etc/courier").glob("module.*")):
            shutil.copy(path, etc)
        files = {
            "me": "localhost",
            "defaultdomain": "localhost",
            "locals": "localhost",
            "esmtproutes": f":[127.0.0.1],{self._sink.port}",
            "sizelimit": str(SIZE_LIMIT),
            # All recipients in one transaction.
            "batchsize": "100000",
            "module.esmtp": "NAME=esmtp\nPRIORITY=50\nPROG=./courieresmtp\nMAXDELS=40\nMAXHOST=4\nMAXRCPT=100000",
            # No MIME: parts are not encoded again.
            "bofh": f"maxrcpts 100000\nopt MIME=none\nopt BOFHHEADERLIMIT={SIZE_LIMIT}",
            # An alias of a user who does not exist is refused at RCPT.
            "aliases/system": f"{REFUSED}: nosuchuser",
            "authdaemonrc": AUTHDAEMONRC,
            "settings": SETTINGS,
            # What the program reads that makes databases of them ends with a dot.
            "userdb": "".join(f"{each.username}\thome=/tmp|uid={USER}|gid={USER}\n" for each in ACCOUNTS) + ".",
            "userdbshadow": "".join(f"{each.username}\tesmtppw={HASHES[each]}\n" for each in ACCOUNTS) + ".",
        }
        for name, text in files.items():
            (etc / name).write_text(f"{text}\n", encoding="utf-8")
        shutil.copy(self._certificate, etc / "esmtpd.pem")
        for folder in ("etc", "run", "var"):
            for path in (self._directory / folder, *(self._directory / folder).rglob("*")):
                shutil.chown(path, USER, USER)
        # Behind "Courier".
        return _version().split()[1]

    def expected(self, content: bytes) -> bytes:
        """Return *content* as Courier leaves it: with domains, with To, and with another name for Return-Path."""
        head, end, body = content.partition(b"\r\n\r\n")
        head = re.sub(rb"(?im)^(?=Return-Path:)", b"Old-", head)
        head = re.sub(rb"(?im)^((?:From|To): \w+)(?=\r|\Z)", rb"\1@localhost", head)
        head = re.sub(rb"(?im)^(To: \w+):;", rb"\1: ;", head)
        names = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")}
        if not names & {b"to", b"cc"}:
            head += b"\r\nTo: undisclosed-recipients: ;"
        return head + end + body

    def _command(self) -> list[str]:
        text = START.format(etc=ETC, implicit=self.implicit_port, starttls=self.starttls_port)
        (self._directory / "etc/start").write_text(text)
        folders = {"etc": ETC, "run": "/run/courier", "var": "/var/lib/courier"}
        own = {f"{self._directory}/{folder}": where for folder, where in folders.items()}
        return [*contained(ROOT, own, self._log.path), "/bin/sh", f"{ETC}/start"]


class _Log:
    """What stands for the syslog: each line goes to a file."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "log.socket"
        self._file = (directory / "mail.log").open("ab", buffering=0)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self.path.chmod(0o666)
        self._thread = threading.Thread(target=self._write, name="syslog")
        self._thread.start()

    def _write(self) -> None:
        while line := self._socket.recv(65536):
            self._file.write(line.rstrip(b"\0\n") + b"\n")

    def close(self) -> None:
        """End, with an empty line."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.path))
        self._thread.join()
        self._socket.close()
        self._file.close()


def _version() -> str:
    """Return what Courier says about itself, or why it does not run."""
    done = subprocess.run(
        [*in_root(ROOT, {}), "/usr/sbin/courier", "--version"],
        env={"PATH": SEARCH_PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout
