"""Trust your own CA and no other: `python own_ca.py corp-ca.pem you@corp.example`."""

import os
import sys
from email.message import EmailMessage
from getpass import getpass

from securesmtp import SecureMailer, TLSMode
from securesmtp.errors import CertificateError

ca_file, recipient = sys.argv[1:]
message = EmailMessage()
message["From"], message["To"], message["Subject"] = (
    os.environ["MAIL_FROM"],
    recipient,
    "Hello",
)
message.set_content("To a server whose certificate our own CA signed.")
port, mode = os.environ.get("SMTP_PORT"), os.environ.get("SMTP_TLS")

with SecureMailer(
    os.environ["SMTP_HOST"],
    int(port) if port else None,  # None: 465, or 587 for STARTTLS
    tls=TLSMode(mode) if mode else None,  # None: STARTTLS only for port 587
    username=os.environ["SMTP_USERNAME"],
    password=getpass,
    ca_file=ca_file,  # instead of the public CAs
) as mailer:
    try:
        receipt = mailer.send(message)
    except CertificateError as error:
        # Nothing was sent, and the password was not asked for.
        sys.exit(f"refused, {error.reason}: {error}")

print("accepted:", receipt.reply)
print("verified by:", receipt.tls.trust)
