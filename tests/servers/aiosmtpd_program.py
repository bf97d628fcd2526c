"""
Runs aiosmtpd as its documentation sets it up, and hands each message to the sink.

`python -P aiosmtpd_program.py SETTINGS`; `aiosmtpd_server.py` writes the settings. It runs in the foreground.
"""

from __future__ import annotations

import asyncio
import asyncio.constants
import json
import re
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiosmtpd.smtp import Envelope, Session


class Handler:
    """Refuses two recipients, and relays."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Keep the *settings*."""
        self._settings = settings

    async def handle_RCPT(  # noqa: N802 -- aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Reply to RCPT."""
        refusal: str | None = self._settings["refusals"].get(address)
        if refusal is None:
            envelope.rcpt_tos.append(address)
        return refusal or "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 -- aiosmtpd's name
        """Reply to a message's content when the sink has it."""
        assert isinstance(envelope.content, bytes)
        commands = [
            f"MAIL FROM:<{envelope.mail_from or ''}>",
            *(f"RCPT TO:<{address}>" for address in envelope.rcpt_tos),
        ]
        head = "\r\n".join(["EHLO localhost", *commands, "DATA", ""])
        reader, writer = await asyncio.open_connection("127.0.0.1", self._settings["sink"])
        writer.write(head.encode() + re.sub(rb"^\.", b"..", envelope.content, flags=re.MULTILINE) + b".\r\nQUIT\r\n")
        replies = await reader.read()
        writer.close()
        # 354, and 221 for QUIT: the sink has replied to everything.
        if re.search(rb"^[45]", replies, re.MULTILINE) or not re.search(rb"^354(.*\n)+221", replies, re.MULTILINE):
            return f"451 the sink replied {replies!r}"
        return "250 Message accepted for delivery"


async def serve(settings: Mapping[str, Any]) -> None:
    """Serve on both ports until the process is ended."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings["certificate"])
    accounts = {name.encode(): password.encode() for name, password in settings["accounts"].items()}

    def authenticate(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        # Not handled: aiosmtpd itself replies with 535.
        return AuthResult(success=accounts.get(data.login) == data.password, handled=False)

    def make(*, tls: ssl.SSLContext | None) -> SMTP:
        return SMTP(
            Handler(settings),
            hostname="localhost",
            data_size_limit=settings["size"],
            enable_SMTPUTF8=True,
            timeout=settings["patience"],
            tls_context=tls,
            require_starttls=tls is not None,
            authenticator=authenticate,
            auth_required=True,
            # It does not see that a connection has TLS from the beginning.
            auth_require_tls=tls is not None,
        )

    # Seconds for which a connection that aiosmtpd closes waits for the other side; the default is 30.
    asyncio.constants.SSL_SHUTDOWN_TIMEOUT = 1
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: make(tls=None), "127.0.0.1", settings["implicit"], ssl=context)
    await loop.create_server(lambda: make(tls=context), "127.0.0.1", settings["starttls"])
    await loop.create_future()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
