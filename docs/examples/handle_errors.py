"""Handle each kind of error: `python handle_errors.py you@example.net`."""

import os
import sys
from email.message import EmailMessage

from securesmtp import SecureMailer
from securesmtp.errors import (
    AddressError,
    AuthenticationError,
    CertificateError,
    ConfigurationError,
    ConnectError,
    DeadlineExceededError,
    MessageError,
    OutcomeUnknownError,
    ProtocolError,
    RecipientsRefusedError,
    RefusedError,
    TLSError,
)


def send(mailer: SecureMailer, message: EmailMessage) -> str:
    """Return what became of the message, and what to do."""
    try:
        receipt = mailer.send(message)
    # It may have arrived. After every other error, it has not.
    except OutcomeUnknownError as error:
        return f"unknown: look for {error.message_id} in the server's log first"
    # Mistakes of this program. Nothing was sent.
    except AddressError as error:
        return f"fix the address: {error}"
    except MessageError as error:
        return f"fix the message: {error}"
    except ConfigurationError as error:
        return f"fix the settings: {error}"
    # No verified connection. The password was not sent.
    except CertificateError as error:
        return f"do not send, the certificate is {error.reason}: {error.hint}"
    except TLSError as error:
        return f"do not send, there may be an attacker: {error}"
    # The login failed, inside verified TLS.
    except AuthenticationError as error:
        return f"{'later' if error.retryable else 'fix the login'}: {error}"
    # The server refused it.
    except RecipientsRefusedError as error:
        no = ", ".join(each.address for each in error.recipients if not each.accepted)
        when = "later" if error.retryable else "never"
        return f"{when}, refused for {no}: {error.reply}"
    except RefusedError as error:
        return f"{'later' if error.retryable else 'never'}, refused: {error.reply}"
    # The server or the network has a fault.
    except (ConnectError, DeadlineExceededError) as error:
        return f"{'later' if error.retryable else 'ask who runs the server'}: {error}"
    except ProtocolError as error:
        return f"ask who runs the server: {error}"
    return f"accepted: {receipt.reply}"


if __name__ == "__main__":
    message = EmailMessage()
    message["From"], message["To"] = os.environ["MAIL_FROM"], sys.argv[1]
    message["Subject"] = "Hello"
    message.set_content("Over verified TLS, or not at all.")
    with SecureMailer.from_env(deadline=45) as mailer:
        print(send(mailer, message))
