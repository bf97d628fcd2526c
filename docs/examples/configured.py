"""Make the mailer from the environment, for the web examples."""

import os
from email.headerregistry import Address

from securesmtp import AsyncSecureMailer, SecureMailer

# In seconds, for one send; shorter than our callers wait.
DEADLINE = 45


def open_mailer() -> SecureMailer:
    """Return a mailer; it connects at its first send."""
    return SecureMailer.from_env(deadline=DEADLINE)


def open_async_mailer() -> AsyncSecureMailer:
    """Return the same for a program with an event loop."""
    return AsyncSecureMailer.from_env(deadline=DEADLINE)


def sender() -> str:
    """Return the sender; raise an exception if it is not an address."""
    return Address(addr_spec=os.environ["MAIL_FROM"]).addr_spec
