"""
What becomes of one message when the first of two servers fails: ours beside two rules that other programs have.

`PYTHONPATH=tests python tests/bench/failover.py [--node-modules FOLDER] [--page docs/how-to/failover.md]` prints the
table, or puts it into the page. The servers are scripted, with real TLS. A copy has arrived if its server has read the
whole content and meant to deliver it, whether or not it could say so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import smtplib
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial as bind
from pathlib import Path
from time import monotonic

import trustme

from scripted import Peer, Script, ScriptedServer, honest
from securesmtp import Failover, SecureMailer, SecureSMTPError

HERE = Path(__file__).parent
LOGIN = ("me", "correct horse")
# More than the buffers of both sides hold, so that a client knows that the server has not read it.
_LARGE = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 300_000
_SMALL = b"Subject: x\r\nMessage-ID: <1@example.test>\r\n\r\nx\r\n"


@dataclass
class Copies:
    """What a server has read to its end and meant to deliver, and how many logins it has refused."""

    arrived: int = 0
    logins: int = 0


def _server(copies: Copies, **replies: object) -> Script:
    def accepts(*_: object) -> bytes:
        copies.arrived += 1
        return b"250 2.0.0 queued\r\n"

    given: dict[str, object] = {"CONTENT": accepts, **replies}
    return honest(auth=LOGIN, replies=given)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Scenario:
    """What the first server does, the message that it gets, and what the second server does: it accepts everything."""

    script: Callable[[Copies], Script]
    message: bytes = _SMALL
    second: Callable[[Copies], Script] = _server


def _dies_at(verb: str) -> Callable[[Copies], Script]:
    def dies(peer: Peer, _: bytes) -> bytes:
        peer.close()
        return b""

    return lambda copies: _server(copies, **{verb: dies})


def _dies_in_content(copies: Copies) -> Script:
    def dies(peer: Peer, _: bytes) -> bytes:
        peer.send(b"354 go\r\n")
        peer.read_exactly(1000)
        peer.reset()
        return b""

    return _server(copies, DATA=dies)


def _dies_after_content(copies: Copies) -> Script:
    def dies(peer: Peer, _: bytes) -> bytes:
        copies.arrived += 1
        peer.close()
        return b""

    return _server(copies, CONTENT=dies)


def _refuses_login(copies: Copies) -> Script:
    def refuses(*_: object) -> bytes:
        copies.logins += 1
        return b"535 5.7.8 wrong password\r\n"

    return _server(copies, AUTH=refuses)


def _replies(verb: str, reply: bytes) -> Callable[[Copies], Script]:
    return lambda copies: _server(copies, **{verb: reply})


SCENARIOS = {
    "is down": Scenario(_replies("GREETING", b"421 4.3.2 down\r\n")),
    "dies before the content": Scenario(_dies_at("MAIL")),
    "dies in the content": Scenario(_dies_in_content, _LARGE),
    "dies after the content, which it delivers": Scenario(_dies_after_content),
    "refuses the message for now (451)": Scenario(_replies("RCPT", b"451 4.7.1 greylisted\r\n")),
    "refuses the message for good (550)": Scenario(_replies("RCPT", b"550 5.1.1 unknown user\r\n")),
    "refuses the login (535), and so does the second": Scenario(_refuses_login, second=_refuses_login),
}
# What the program is told: nothing, which is an accepted message, or the name of an error.
Client = Callable[[Sequence[int], bytes, Path], str]


def _ours(ports: Sequence[int], message: bytes, ca_file: Path, **choices: object) -> str:
    mailers = [SecureMailer("localhost", port, tls="implicit", username=LOGIN[0], password=LOGIN[1], ca_file=ca_file,
                            timeout=10) for port in ports]  # fmt: skip
    with Failover(mailers, **choices) as mailer:  # type: ignore[arg-type]
        try:
            mailer.send_bytes(message, mail_from="a@example.test", recipients=["b@example.test"])
        except SecureSMTPError as error:
            return type(error).__name__
    return "accepted"


class SymfonyRule:
    """Symfony's rule over smtplib: after any error, the transport is dead for a minute, and the next one is tried."""

    def __init__(self, ports: Sequence[int], context: ssl.SSLContext) -> None:
        """Have a transport for each of *ports*."""
        self._ports, self._context = ports, context
        self._dead: dict[int, float] = {}

    def send(self, message: bytes) -> None:
        """
        Send *message*.

        Raises:
            SMTPException: All transports have failed.
        """
        for port in self._ports:
            if monotonic() - self._dead.get(port, -60) < 60:
                continue
            try:
                with smtplib.SMTP_SSL("localhost", port, context=self._context, timeout=10) as client:
                    client.login(*LOGIN)
                    client.sendmail("a@example.test", ["b@example.test"], message)
                    return
            except (smtplib.SMTPException, OSError):
                self._dead[port] = monotonic()
        raise smtplib.SMTPException


def _symfony(ports: Sequence[int], message: bytes, ca_file: Path) -> str:
    try:
        SymfonyRule(ports, ssl.create_default_context(cafile=ca_file)).send(message)
    except smtplib.SMTPException:
        return "error: all failed"
    return "accepted"


def _nodemailer(node_modules: str, ports: Sequence[int], message: bytes, ca_file: Path) -> str:
    file = ca_file.with_name("message")
    file.write_bytes(message)
    task = {"ports": ports, "login": LOGIN, "ca": str(ca_file), "message": str(file)}
    command, environment = (
        ["node", str(HERE / "failover.cjs"), json.dumps(task)],
        os.environ | {"NODE_PATH": node_modules},
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def measure(scenario: Scenario, client: Client, folder: Path) -> str:
    """Return what has arrived and what the program was told."""
    ca, copies = trustme.CA(), Copies()
    ca_file = folder / "ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(ScriptedServer(script(copies), tls=context))
            for script in (scenario.script, scenario.second)
        ]
        told = client([each.port for each in servers], scenario.message, ca_file)
        for server in servers:
            server.joined()
    copied = "1 copy" if copies.arrived == 1 else f"{copies.arrived} copies"
    if copies.logins:
        copied = f"{copies.logins} wrong login{'s' * (copies.logins > 1)}"
    error = told.removeprefix("error: ")
    return f"{copied}, {told if told == 'accepted' else f'`{error}`'}"


def table(node_modules: str | None) -> str:
    """Return the table as Markdown."""
    clients: dict[str, Client] = {
        "`Failover`": _ours,
        '`on_refusal="next"`': bind(_ours, on_refusal="next"),
        "Symfony's rule": _symfony,
    }
    if node_modules is not None and shutil.which("node"):
        clients["nodemailer in a loop"] = bind(_nodemailer, node_modules)
    rows = [["the first server", *clients], ["---"] * (1 + len(clients))]
    for name, scenario in SCENARIOS.items():
        with tempfile.TemporaryDirectory() as folder:
            rows.append([name, *(measure(scenario, client, Path(folder)) for client in clients.values())])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    """Measure, and print the table or put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node-modules", help="the folder where npm put nodemailer")
    parser.add_argument("--page", type=Path, help="the page that has the table")
    arguments = parser.parse_args()
    made = table(arguments.node_modules)
    if arguments.page is None:
        print(made, end="")
        return
    pattern = re.compile(r"(?<=<!-- table of failures -->\n\n).*?(?=<!-- end -->)", re.DOTALL)
    text, count = pattern.subn(lambda _: f"{made}\n", arguments.page.read_text("utf-8"))
    assert count == 1, "the page has no place for the table"
    arguments.page.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
