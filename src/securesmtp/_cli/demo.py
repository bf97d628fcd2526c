"""``securesmtp demo``: send two messages and show two refusals, all on loopback."""

from __future__ import annotations

import secrets
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import TYPE_CHECKING, Literal

import click
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from securesmtp import SecureMailer, SecureSMTPError, TLSPolicy
from securesmtp.testing import MailServer, Received

if TYPE_CHECKING:
    from securesmtp import Receipt


@click.command("demo")
def command() -> int:
    """
    Send two messages to a temporary server on this machine, then show two attacks that fail.

    It takes a second, installs nothing, and connects to this machine only.
    """
    console = Console(highlight=False)
    console.print(
        "Four mail servers are started on this machine, one after the other, each with a certificate made for it.\n"
        "Two of them receive a message. The other two are attackers. Nothing leaves this machine.\n"
    )
    message = EmailMessage()
    message["From"] = "Ada <ada@example.org>"
    message["To"] = "Grace <grace@example.org>"
    message["Bcc"] = "hidden@example.org"
    message["Subject"] = "Verified TLS, or not at all ✓"
    message.set_content("Dear Grace,\n\n.this line begins with a dot, and arrives with one.\n\nAda\n")
    sent = _show_sent(console, "implicit", message) and _show_sent(console, "starttls", message)
    refused = _show_untrusted_certificate(console, message) and _show_stripped_starttls(console, message)
    if not (sent and refused):
        console.print("[bold red]The demonstration did not work as expected: please report it.[/]")
        return 1
    console.print("[bold green]Two messages arrived exactly as they were sent; two attacks got nothing.[/]")
    return 0


def _show_sent(console: Console, mode: Literal["implicit", "starttls"], message: EmailMessage) -> bool:
    name = "implicit TLS" if mode == "implicit" else "STARTTLS"
    _announce(console, f"Logging in and sending a message with {name}")
    password = secrets.token_urlsafe()
    with MailServer(mode, login=("ada", password)) as server:
        trust = TLSPolicy(ca_data=server.ca_pem)
        with SecureMailer(
            server.host, server.port, tls=mode, username="ada", password=password, policy=trust
        ) as mailer:
            receipt = mailer.send(message)
        (received,) = server.messages
    arrived = message_from_bytes(received.content, policy=policy.default)
    equal = (
        arrived.get_content().splitlines() == message.get_content().splitlines()
        and arrived["Subject"] == message["Subject"]
        and arrived["Bcc"] is None
    )
    console.print(Panel(_table(receipt, received, equal=equal), title=f"sent with {name}", border_style="green"))
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


def _show_untrusted_certificate(console: Console, message: EmailMessage) -> bool:
    with MailServer(login=None) as server, SecureMailer(server.host, server.port) as mailer:
        return (
            _show_refused(console, "its certificate is not signed by a trusted CA", mailer, message)
            and not server.messages
        )


def _show_stripped_starttls(console: Console, message: EmailMessage) -> bool:
    with (
        MailServer(fault="starttls_stripped") as server,
        SecureMailer(server.host, server.port, tls="starttls") as mailer,
    ):
        return _show_refused(console, "it has removed STARTTLS", mailer, message)


def _show_refused(console: Console, title: str, mailer: SecureMailer, message: EmailMessage) -> bool:
    _announce(console, f"Sending the message to an attacker: {title}")
    try:
        mailer.send(message)
    except SecureSMTPError as error:
        text = f"[bold]{type(error).__name__}[/], outcome: {error.outcome}\n"
        console.print(Panel(text + str(error).replace("[", r"\["), title="refused", border_style="red"))
        return True
    return False


def _announce(console: Console, step: str) -> None:
    console.print(f"[bold]{step} …[/]")
