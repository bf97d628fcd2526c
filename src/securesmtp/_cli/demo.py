"""``securesmtp demo``: two real mails and two real refusals on loopback."""

from __future__ import annotations

import socket
import threading
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import TYPE_CHECKING, Literal

import click
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from securesmtp import SecureMailer, SecureSMTPError, TLSPolicy
from securesmtp.testing import LocalServer, Received

if TYPE_CHECKING:
    from securesmtp import Receipt


@click.command()
def demo() -> int:
    """Send two mails to a throw-away server on this machine, then show two refusals."""
    console = Console(highlight=False)
    mail = EmailMessage()
    mail["From"] = "Ada <ada@example.org>"
    mail["To"] = "Grace <grace@example.org>"
    mail["Bcc"] = "hidden@example.org"
    mail["Subject"] = "Verified TLS, or not at all ✓"
    mail.set_content("Dear Grace,\n\n.this line begins with a dot, and arrives with one.\n\nAda\n")
    equal = _sent(console, "implicit", mail) and _sent(console, "starttls", mail)
    refused = _untrusted(console, mail) and _stripped(console, mail)
    if not (equal and refused):
        console.print("[bold red]This is not what was to be shown: please report it.[/]")
        return 1
    console.print("[bold green]Two mails arrived as they were sent; two were not let out.[/]")
    return 0


def _sent(console: Console, mode: Literal["implicit", "starttls"], mail: EmailMessage) -> bool:
    with LocalServer(mode, username="ada", password="correct horse") as server:  # noqa: S106 -- it lives as long as the demo
        own = TLSPolicy(ca_data=server.ca_pem)
        with SecureMailer(
            server.host,
            server.port,
            tls=mode,
            username="ada",
            password="correct horse",  # noqa: S106
            policy=own,
        ) as mailer:
            receipt = mailer.send(mail)
        (received,) = server.messages
    arrived = message_from_bytes(received.content, policy=policy.default)
    equal = (
        arrived.get_content().splitlines() == mail.get_content().splitlines()
        and arrived["Subject"] == mail["Subject"]
        and arrived["Bcc"] is None
    )
    console.print(Panel(_table(receipt, received, equal=equal), title=f"sent, mode {mode}", border_style="green"))
    return equal


def _table(receipt: Receipt, received: Received, *, equal: bool) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    arrived = message_from_bytes(received.content, policy=policy.default)
    rows = {
        "arrived": f"{arrived['Subject']} ({'equal to what was sent, without Bcc' if equal else 'CHANGED'})",
        "envelope": f"{received.mail_from} → {', '.join(received.recipients)}",
        "reply": str(receipt.reply),
        "message id": str(receipt.message_id),
        "TLS": f"{receipt.tls.version}, {receipt.tls.cipher}, verified by {receipt.tls.trust}",
        "certificate": f"for {receipt.tls.server_name} until {receipt.tls.not_after:%Y-%m-%d}",
        "key pin": receipt.tls.peer_spki_sha256,
        "took": f"{receipt.elapsed.total_seconds() * 1000:.0f} ms",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _untrusted(console: Console, mail: EmailMessage) -> bool:
    with LocalServer() as server, SecureMailer(server.host, server.port) as mailer:
        return _refused(console, "a certificate that nobody vouches for", mailer, mail) and not server.messages


def _stripped(console: Console, mail: EmailMessage) -> bool:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_strip, args=(listener,), daemon=True).start()
        with SecureMailer("localhost", listener.getsockname()[1], tls="starttls") as mailer:
            return _refused(console, "STARTTLS taken out on the way", mailer, mail)


def _strip(listener: socket.socket) -> None:
    """Answer as a server does whose STARTTLS was taken out by somebody in between."""
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"220 localhost ESMTP\r\n")
        connection.recv(1024)
        connection.sendall(b"250-localhost\r\n250 AUTH PLAIN LOGIN\r\n")
        connection.recv(1024)


def _refused(console: Console, title: str, mailer: SecureMailer, mail: EmailMessage) -> bool:
    try:
        mailer.send(mail)
    except SecureSMTPError as error:
        text = f"[bold]{type(error).__name__}[/], outcome: {error.outcome}\n"
        console.print(Panel(text + str(error).replace("[", r"\["), title=f"refused: {title}", border_style="red"))
        return True
    return False
