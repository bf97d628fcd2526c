"""Send one message: `python first_mail.py you@example.net`."""

import os
import sys
from email.message import EmailMessage
from getpass import getpass

from securesmtp import SecureMailer, TLSMode

message = EmailMessage()
message["From"] = os.environ["MAIL_FROM"]
message["To"] = sys.argv[1]
message["Subject"] = "Hello"
message.set_content("Over verified TLS, or not at all.")
port, mode = os.environ.get("SMTP_PORT"), os.environ.get("SMTP_TLS")

with SecureMailer(
    os.environ["SMTP_HOST"],
    int(port) if port else None,  # None: 465, or 587 for STARTTLS
    tls=TLSMode(mode) if mode else None,  # None: STARTTLS only for port 587
    username=os.environ["SMTP_USERNAME"],
    password=getpass,  # asks at the terminal, after TLS is verified
    ca_file=os.environ.get("SMTP_CA_FILE"),  # None: the public CAs
) as mailer:
    receipt = mailer.send(message)

print("accepted:", receipt.reply)
print("Message-ID:", receipt.message_id)
print("TLS:", receipt.tls.version, receipt.tls.cipher)
