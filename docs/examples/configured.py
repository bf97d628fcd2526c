"""A mailer and a sender from the environment, for the other examples."""

import os
from email.headerregistry import Address
from pathlib import Path

from securesmtp import SecureMailer, TLSMode


def password() -> str:
    """Return the password from a file, or from the environment; asked at each login, so a new one needs no restart."""
    path = os.environ.get("SMTP_PASSWORD_FILE")
    return Path(path).read_text("utf-8").rstrip("\n") if path else os.environ["SMTP_PASSWORD"]


def open_mailer() -> SecureMailer:
    """Return a mailer; it connects at its first send."""
    port = os.environ.get("SMTP_PORT")
    return SecureMailer(
        os.environ["SMTP_HOST"],
        int(port) if port else None,
        tls=TLSMode(os.environ.get("SMTP_TLS", "implicit")),
        username=os.environ["SMTP_USERNAME"],
        password=password,
        ca_file=os.environ.get("SMTP_CA_FILE"),  # None: the public CAs
        deadline=45,  # seconds for one send: less than those who call us wait
    )


def sender() -> str:
    """Return who the mail is from; what is no address is found when the program starts."""
    return Address(addr_spec=os.environ["MAIL_FROM"]).addr_spec
