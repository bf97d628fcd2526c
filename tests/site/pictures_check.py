"""
The pictures of `securesmtp check` on its page: the real command, on real servers with real faults on loopback.

The names that it is given are looked up here, and their certificates are from a CA of these pictures.
"""

from __future__ import annotations

import json
import ssl
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import trustme
from terminal import watch, write_pictures

from scripted import ScriptedServer, honest

_EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE 35882577", "SMTPUTF8", "CHUNKING")
# The command, in a process that finds these names on loopback, and trusts the CA of the pictures as a public one.
_CHILD = """\
import json, socket, sys
import certifi
ports = json.loads(sys.argv.pop(1))
look_up = socket.getaddrinfo
def find(host, port, *more, **options):
    return look_up("127.0.0.1" if host in ports else host, ports.get(host, port), *more, **options)
socket.getaddrinfo = find
certifi.where = lambda: "public.pem"
sys.argv[0] = "securesmtp"
from securesmtp.__main__ import main
sys.exit(main())
"""


class _Host(NamedTuple):
    name: str
    days: int
    is_public: bool = True
    login: tuple[str, str] | None = ("me", "secret")


_HOSTS = (
    _Host("mail.example.com", 61),
    _Host("mail.example.net", 9),
    _Host("mail.example.org", 71, login=None),
    _Host("mail.corp.example", 300, is_public=False),
)


def draw(docs: Path) -> None:
    """Make them."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        public, private = (
            trustme.CA(organization_name=f"{kind} CA", organization_unit_name="R1") for kind in ("Example", "Corp")
        )
        public.cert_pem.write_to_path(folder / "public.pem")
        private.cert_pem.write_to_path(folder / "corp-ca.pem")
        ports = {}
        for host in _HOSTS:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            end = datetime.now(UTC) + timedelta(days=host.days, hours=1)
            issuer = public if host.is_public else private
            issuer.issue_cert(host.name, common_name=host.name, not_after=end).configure_cert(context)
            script = honest(auth=host.login, extensions=_EXTENSIONS)
            ports[host.name] = stack.enter_context(ScriptedServer(script, tls=context)).port
        (folder / "servers.txt").write_text("".join(f"{host.name}\n" for host in _HOSTS), "ascii")
        for picture, arguments in {
            "check-fine": "mail.example.com --login me",
            "check-fault": "mail.corp.example",
            "check-several": "--file servers.txt",
        }.items():
            command = [sys.executable, "-c", _CHILD, json.dumps(ports), "check", *arguments.split()]
            screen = watch(command, folder=folder, columns=90, environment={"SMTP_PASSWORD": "secret"})
            write_pictures(screen, f"securesmtp check {arguments}", docs / "how-to/pictures" / picture)
