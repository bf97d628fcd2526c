"""``securesmtp serve``: a mail server for development, which keeps each message and shows it in a browser."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.console import Console
from rich.text import Text

from securesmtp._cli.inbox.store import Store
from securesmtp._cli.inbox.web import serve_pages
from securesmtp._shown import escape
from securesmtp.testing import MailServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securesmtp.testing import Received

# Seconds between two looks for Ctrl-C.
_LOOK = 0.2
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"


@click.command("serve")
@click.option(
    "--ca-out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write the certificate of the CA that your program must trust. It is new at each start.",
)
@click.option(
    "--folder",
    default="inbox",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to keep the messages, one .eml file each.",
)
@click.option("--port", default=1025, show_default=True, type=click.IntRange(0, 65535), help="The SMTP port.")
@click.option("--web-port", default=8025, show_default=True, type=click.IntRange(0, 65535), help="The web page's port.")
@click.option(
    "--tls", default="implicit", show_default=True, type=click.Choice(["implicit", "starttls"]), help="The TLS mode."
)
def command(ca_out: Path, folder: Path, port: int, web_port: int, tls: Literal["implicit", "starttls"]) -> None:
    """
    Receive the messages of a program that you are writing, and show them in a browser.

    Nothing is delivered. Only programs on this machine can connect. Port 0 is a free port. Ctrl-C ends it.
    """
    console = Console(highlight=False)
    try:
        with open_inbox(console, ca_out, folder, (port, web_port), tls):
            while True:
                # Not for ever: the kernel may give Ctrl-C to another thread, which does not wake this one.
                time.sleep(_LOOK)
    except KeyboardInterrupt:
        console.print("\nThe messages are in", Text(escape(str(folder))), soft_wrap=True)


@contextmanager
def open_inbox(
    console: Console, ca_out: Path, folder: Path, ports: tuple[int, int], tls: Literal["implicit", "starttls"]
) -> Iterator[tuple[MailServer, str]]:
    """
    Receive messages, and yield the mail server and the address of the page.

    Raises:
        click.ClickException: A port is in use, or a file cannot be written.
    """

    def keep(received: Received) -> None:
        # It is in the folder from here on; the server itself need not remember it as well.
        server.clear()
        who = escape(f"{received.mail_from or '<>'} → {', '.join(received.recipients)}")
        try:
            kept = store.keep(received)
        except OSError as error:
            _print(console, ("not kept: ", "bold red"), (f"{error.strerror}: {who}", ""))
            raise
        arrived, subject = f"{kept.arrived:%H:%M:%S} ", f"  {escape(kept.subject)}  "
        _print(console, (arrived, "dim"), (who, ""), (subject, "bold"), (f"{address}messages/{kept.number}", ""))

    server = MailServer(tls, login="any", on_message=keep, port=ports[0])
    with ExitStack() as stack:
        try:
            store = Store(folder)
            _check_ca(ca_out)
            address = stack.enter_context(serve_pages(store, ports[1]))
        except OSError as error:
            raise _failure(error, f"--web-port {ports[1]}") from error
        try:
            stack.enter_context(server)
        except OSError as error:
            raise _failure(error, f"--port {ports[0]}") from error
        try:
            # Last: it may replace that of an inbox that runs.
            ca_out.write_text(server.ca_pem, "ascii")
        except OSError as error:
            raise _failure(error, "--ca-out") from error
        _show_start(console, server, ca_out, folder, address)
        yield server, address


def _check_ca(path: Path) -> None:
    """Refuse to replace a file that is something else."""
    if path.exists() and not path.read_bytes().startswith(_CERTIFICATE.encode()):
        message = f"{path} exists and is no certificate. Hint: choose another name for --ca-out"
        raise click.ClickException(message)


def _failure(error: OSError, option: str) -> click.ClickException:
    if error.filename is None:
        return click.ClickException(f"{option} cannot be used: {error.strerror}. Hint: port 0 is a free one")
    return click.ClickException(f"{error.filename}: {error.strerror}")


def _show_start(console: Console, server: MailServer, ca_out: Path, folder: Path, address: str) -> None:
    _print(console, ("Waiting for messages", "bold"), (", from programs on this machine only. Ctrl-C ends it.", ""))
    _print(console, ("Messages: ", "bold"), (f"{address} and {escape(str(folder))}", ""))
    _print(console, ("Settings for your program; any login is accepted:", "bold"))
    variables = {
        "SMTP_HOST": server.host,
        "SMTP_PORT": server.port,
        "SMTP_CA_FILE": shlex.quote(str(ca_out.absolute())),
    }
    if server.mode == "starttls":
        variables["SMTP_TLS"] = "starttls"
    for name, value in variables.items():
        _print(console, (f"{name}={value}", ""))


def _print(console: Console, *parts: tuple[str, str]) -> None:
    # Without wrapping: addresses and settings are to be copied.
    console.print(Text.assemble(*parts), soft_wrap=True)
