"""
Send from a Google Workspace mailbox, as a service account: OAuth 2 by google-auth.

`python oauth_google.py you@example.net`, with the variables below in the
environment.
"""

import os
import sys
from email.message import EmailMessage

from google.auth.transport.requests import Request
from google.oauth2.service_account import Credentials

from securesmtp import OAuth2, SecureMailer

MAILBOX = os.environ["GOOGLE_MAILBOX"]  # the mailbox that sends
KEY_FILE = os.environ["GOOGLE_KEY_FILE"]  # the service account's key, as JSON

credentials = Credentials.from_service_account_file(
    KEY_FILE, scopes=["https://mail.google.com/"]
).with_subject(MAILBOX)


def refresh() -> None:
    """Fetch a new access token, even if the old one has not expired."""
    credentials.refresh(Request())


def token() -> str:
    """Return an access token; google-auth keeps it until it expires."""
    if not credentials.valid:
        refresh()
    return str(credentials.token)


# When the server refuses a token, a new one is fetched in any case.
auth = OAuth2(MAILBOX, token, on_refused=refresh)

message = EmailMessage()
message["From"] = MAILBOX
message["To"] = sys.argv[1]
message["Subject"] = "Hello"
message.set_content("Sent with OAuth 2.\n")

with SecureMailer("smtp.gmail.com", auth=auth, deadline=60) as mailer:
    receipt = mailer.send(message)
print("accepted:", receipt.reply)
