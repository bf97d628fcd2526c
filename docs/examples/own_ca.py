"""Trust your own CA and no other: `python own_ca.py corp-ca.pem you@corp.example`."""

import os
import sys
from email.message import EmailMessage
from getpass import getpass

from securesmtp import SecureMailer
from securesmtp.errors import CertificateError

ca_file, recipient = sys.argv[1:]
message = EmailMessage()
message["From"], message["To"], message["Subject"] = (
    os.environ["MAIL_FROM"],
    recipient,
    "Hello",
)
message.set_content("To a server whose certificate our own CA signed.")

# SMTP_HOST and SMTP_USERNAME. Our CA counts instead of the public ones.
with SecureMailer.from_env(password=getpass, ca_file=ca_file) as mailer:
    try:
        receipt = mailer.send(message)
    except CertificateError as error:
        # Nothing was sent, and the password was not asked for.
        sys.exit(f"refused, {error.reason}: {error}")

print("accepted:", receipt.reply)
print("verified by:", receipt.tls.trust)
