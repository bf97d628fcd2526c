"""
Send through a mail server of your own that takes OAuth 2 tokens: by authlib.

`python oauth_authlib.py you@example.net`, with the variables below in the
environment.
"""

import os
import sys
from email.message import EmailMessage

from authlib.integrations.requests_client import OAuth2Session

from securesmtp import OAuth2, SecureMailer

MAILBOX = os.environ["MAIL_FROM"]
TOKEN_URL = os.environ["OAUTH_TOKEN_URL"]

session = OAuth2Session(
    os.environ["OAUTH_CLIENT_ID"],
    os.environ["OAUTH_CLIENT_SECRET"],
    scope=os.environ.get("OAUTH_SCOPE"),
    default_timeout=20,
)


def fetch() -> None:
    """Fetch a new access token, even if the old one has not expired."""
    session.fetch_token(TOKEN_URL, grant_type="client_credentials")


def token() -> str:
    """Return an access token; authlib keeps it, and knows when it expires."""
    if not session.token or session.token.is_expired(leeway=60):
        fetch()
    return str(session.token["access_token"])


# When the server refuses a token, a new one is fetched in any case.
auth = OAuth2(MAILBOX, token, on_refused=fetch)

message = EmailMessage()
message["From"] = MAILBOX
message["To"] = sys.argv[1]
message["Subject"] = "Hello"
message.set_content("Sent with OAuth 2.\n")

with SecureMailer(os.environ["SMTP_HOST"], auth=auth, deadline=60) as mailer:
    receipt = mailer.send(message)
print("accepted:", receipt.reply)
