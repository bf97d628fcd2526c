"""A mailer and a sender from the environment, for the other examples."""

import os
from email.headerregistry import Address
from pathlib import Path

from securesmtp import SecureMailer, TLSMode


def password() -> str:
    """Return the password, from a file where there is one; asked for at each login."""
    path = os.environ.get("SMTP_PASSWORD_FILE")
    if path is None:
        return os.environ["SMTP_PASSWORD"]
    return Path(path).read_text("utf-8").rstrip("\n")


def open_mailer() -> SecureMailer:
    """Return a mailer; it connects at its first send."""
    port, mode = os.environ.get("SMTP_PORT"), os.environ.get("SMTP_TLS")
    return SecureMailer(
        os.environ["SMTP_HOST"],
        int(port) if port else None,
        tls=TLSMode(mode) if mode else None,  # None: STARTTLS for 587 alone
        username=os.environ["SMTP_USERNAME"],
        password=password,
        ca_file=os.environ.get("SMTP_CA_FILE"),  # None: the public CAs
        deadline=45,  # seconds for one send: less than those who call us wait
    )


def sender() -> str:
    """Return who the mail is from; raise when that is no address."""
    return Address(addr_spec=os.environ["MAIL_FROM"]).addr_spec
