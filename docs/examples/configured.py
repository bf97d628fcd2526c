"""Read the mailer's settings from the environment, for the other examples."""

import os
from email.headerregistry import Address
from pathlib import Path

from securesmtp import AsyncSecureMailer, SecureMailer, TLSMode


def password() -> str:
    """Return the password, from a file if one is set. Called at each login."""
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
        tls=TLSMode(mode) if mode else None,  # None: STARTTLS only for port 587
        username=os.environ["SMTP_USERNAME"],
        password=password,
        ca_file=os.environ.get("SMTP_CA_FILE"),  # None: the public CAs
        deadline=45,  # in seconds, for one send; shorter than our callers wait
    )


def open_async_mailer() -> AsyncSecureMailer:
    """Return the same for a program with an event loop."""
    port, mode = os.environ.get("SMTP_PORT"), os.environ.get("SMTP_TLS")
    return AsyncSecureMailer(
        os.environ["SMTP_HOST"],
        int(port) if port else None,
        tls=TLSMode(mode) if mode else None,
        username=os.environ["SMTP_USERNAME"],
        password=password,
        ca_file=os.environ.get("SMTP_CA_FILE"),
        deadline=45,
    )


def sender() -> str:
    """Return the sender; raise an exception if it is not an address."""
    return Address(addr_spec=os.environ["MAIL_FROM"]).addr_spec
