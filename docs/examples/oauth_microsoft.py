"""
Send from a Microsoft 365 mailbox, as an application: OAuth 2 by msal.

`python oauth_microsoft.py you@example.net`, with the variables below in the
environment.
"""

import os
import sys
from email.message import EmailMessage

import msal

from securesmtp import AuthenticationError, OAuth2, SecureMailer

MAILBOX = os.environ["MS_MAILBOX"]  # the mailbox that sends
TENANT = os.environ["MS_TENANT_ID"]
SCOPES = ["https://outlook.office365.com/.default"]

app = msal.ConfidentialClientApplication(
    os.environ["MS_CLIENT_ID"],
    client_credential=os.environ["MS_CLIENT_SECRET"],
    authority=f"https://login.microsoftonline.com/{TENANT}",
    timeout=20,
)


def token() -> str:
    """Return an access token, from msal's cache while it has one."""
    result = app.acquire_token_for_client(SCOPES)
    if "access_token" not in result:
        # msal returns an error, and raises none.
        raise AuthenticationError(
            f"{result['error']}: {result.get('error_description')}"
        )
    return str(result["access_token"])


# When the server refuses a token, msal must forget it, or it returns it again.
auth = OAuth2(MAILBOX, token, on_refused=app.remove_tokens_for_client)

message = EmailMessage()
message["From"] = MAILBOX
message["To"] = sys.argv[1]
message["Subject"] = "Hello"
message.set_content("Sent with OAuth 2.\n")

with SecureMailer("smtp.office365.com", 587, auth=auth, deadline=60) as mailer:
    receipt = mailer.send(message)
print("accepted:", receipt.reply)
