"""
Send from your own Microsoft mailbox: OAuth 2 by msal, with a sign-in in a browser.

`python oauth_microsoft_user.py login` signs in, once, and writes the file of
tokens. `python oauth_microsoft_user.py you@example.net` sends. Any number of
processes may share the file.
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msal

from securesmtp import AuthenticationError, OAuth2, SecureMailer

TENANT = os.environ.get("MS_TENANT_ID", "common")
TOKENS = Path(os.environ["MS_TOKEN_FILE"])  # keep it as you would a password
SCOPES = ["https://outlook.office.com/SMTP.Send"]  # msal adds offline_access
Result = dict[str, Any] | None


class Account:
    """One mailbox, and the file with its tokens."""

    def __init__(self) -> None:
        self.cache = msal.SerializableTokenCache()
        self.app = msal.PublicClientApplication(
            os.environ["MS_CLIENT_ID"],
            authority=f"https://login.microsoftonline.com/{TENANT}",
            token_cache=self.cache,
            timeout=20,
        )
        self.last = ""  # the token that was returned last
        self.is_refused = False

    def login(self) -> None:
        """Have the user sign in, in a browser on any device."""
        flow = self.app.initiate_device_flow(SCOPES)
        if "message" not in flow:
            raise AuthenticationError(
                f"{flow['error']}: {flow.get('error_description')}"
            )
        print(flow["message"])
        access_token(self.app.acquire_token_by_device_flow(flow))
        with locked():
            self.save()

    def token(self) -> str:
        """Return an access token, from the file or by the refresh token in it."""
        with locked():
            if TOKENS.exists():
                self.cache.deserialize(TOKENS.read_text("utf-8"))
            try:
                self.last = access_token(self.find())
            finally:
                # Also if it failed: a refresh token may work only once.
                self.save()
        self.is_refused = False
        return self.last

    def find(self) -> Result:
        """Return msal's result for the user who has signed in."""
        for account in self.app.get_accounts():
            result: Result = self.app.acquire_token_silent_with_error(SCOPES, account)
            if self.is_refused and access_token(result) == self.last:
                # No other process has fetched a new one yet.
                result = self.app.acquire_token_silent_with_error(
                    SCOPES, account, force_refresh=True
                )
            return result
        return None

    def save(self) -> None:
        """Replace the file as a whole: nobody ever reads half of it."""
        if self.cache.has_state_changed:
            new = TOKENS.with_suffix(".new")
            new.unlink(missing_ok=True)
            new.touch(0o600)
            new.write_text(self.cache.serialize(), "utf-8")
            new.replace(TOKENS)

    def refused(self) -> None:
        """Note that the server refused the token."""
        self.is_refused = True


@contextmanager
def locked() -> Iterator[None]:
    """Let one process at a time use the file."""
    with TOKENS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def access_token(result: Result) -> str:
    """Return the token from a result of msal, which returns errors, too."""
    if result is None:
        raise AuthenticationError("sign in first: run this program with 'login'")
    if "access_token" not in result:
        raise AuthenticationError(
            f"{result['error']}: {result.get('error_description')}"
        )
    return str(result["access_token"])


account = Account()
if sys.argv[1] == "login":
    account.login()
    print("signed in")
    sys.exit()

mailbox = os.environ["MS_MAILBOX"]
message = EmailMessage()
message["From"] = mailbox
message["To"] = sys.argv[1]
message["Subject"] = "Hello"
message.set_content("Sent with OAuth 2.\n")

auth = OAuth2(mailbox, account.token, on_refused=account.refused)
with SecureMailer("smtp.office365.com", 587, auth=auth, deadline=60) as mailer:
    receipt = mailer.send(message)
print("accepted:", receipt.reply)
