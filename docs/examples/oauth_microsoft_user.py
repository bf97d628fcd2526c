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

from securesmtp import OAuth2, SecureMailer

TENANT = os.environ.get("MS_TENANT_ID", "common")
TOKENS = Path(os.environ["MS_TOKEN_FILE"])  # keep it as you would a password
SCOPES = ["https://outlook.office.com/SMTP.Send"]  # msal adds offline_access


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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Read the file, and write it if it changed; one process at a time."""
        with TOKENS.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if TOKENS.exists():
                self.cache.deserialize(TOKENS.read_text("utf-8"))
            yield
            if self.cache.has_state_changed:
                # A reader, or a crash here, never sees half a file.
                new = TOKENS.with_suffix(".new")
                new.unlink(missing_ok=True)
                new.touch(0o600)
                new.write_text(self.cache.serialize(), "utf-8")
                new.replace(TOKENS)

    def login(self) -> None:
        """Have the user sign in, in a browser on any device."""
        flow = self.app.initiate_device_flow(SCOPES)
        print(flow.get("message") or flow)
        with self.locked():
            access_token(self.app.acquire_token_by_device_flow(flow))

    def token(self) -> str:
        """Return an access token, from the file or by the refresh token in it."""
        with self.locked():
            for account in self.app.get_accounts():
                result = self.app.acquire_token_silent_with_error(SCOPES, account)
                if self.is_refused and access_token(result) == self.last:
                    # No other process has fetched a new one yet.
                    result = self.app.acquire_token_silent_with_error(
                        SCOPES, account, force_refresh=True
                    )
                self.last, self.is_refused = access_token(result), False
                return self.last
        raise PermissionError("run this program with 'login' first")

    def refused(self) -> None:
        """Note that the server refused the token."""
        self.is_refused = True


def access_token(result: dict[str, Any] | None) -> str:
    """Return the token from a result of msal, which returns errors, too."""
    if not result:
        raise PermissionError("run this program with 'login' again")
    if "access_token" not in result:
        raise PermissionError(result["error"], result.get("error_description"))
    return str(result["access_token"])


account = Account()
if sys.argv[1] == "login":
    account.login()
    sys.exit("signed in")

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
