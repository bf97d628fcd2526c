"""Send one message: `python first_mail.py you@example.net`."""

import os
import sys
from email.message import EmailMessage
from getpass import getpass

from securesmtp import SecureMailer

message = EmailMessage()
message["From"] = os.environ["MAIL_FROM"]
message["To"] = sys.argv[1]
message["Subject"] = "Hello"
message.set_content("Over verified TLS, or not at all.")

# SMTP_HOST and SMTP_USERNAME, perhaps SMTP_PORT and SMTP_CA_FILE. The password is
# asked for at the terminal, after TLS is verified.
with SecureMailer.from_env(password=getpass) as mailer:
    receipt = mailer.send(message)

print("accepted:", receipt.reply)
print("Message-ID:", receipt.message_id)
print("TLS:", receipt.tls.version, receipt.tls.cipher)
