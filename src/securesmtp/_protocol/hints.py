"""What a mail provider's refusal mostly means, by its enhanced code: hints for a person, and if a token is too old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp._protocol.replies import is_refusal, is_temporary

if TYPE_CHECKING:
    from securesmtp._protocol.sasl.mechanism import Mechanism
    from securesmtp._values import Reply

_LATER = "the refusal is temporary: try again later, or with fewer connections at the same time (max_connections)"
# RFC 4954 §6: the mechanism is too weak. Google uses it for "log in with a browser first".
_OTHER_LOGIN_NEEDED = 534
# What a new token does not change: Exchange could not read what was sent, or does not allow the login (seen in reports
# to sasl-xoauth2 and email-oauth2-proxy).
_NO_FAULT_OF_THE_TOKEN = frozenset({"5.5.124", "5.7.139"})
# Exchange replies with it up to ten minutes before the token expires.
_TOKEN_WILL_EXPIRE = (501, "5.5.127")
# RFC 4954 §6: the credentials are invalid.
_TOKEN_REFUSED = 535
_TURNED_OFF = (
    "the provider does not allow this login: in Microsoft 365, turn on Authenticated SMTP for the mailbox, and look "
    "for a policy that blocks it (security defaults, conditional access)"
)
_LOGIN_HINTS: dict[str, dict[str, str]] = {
    "token": {
        "5.5.124": "the server could not read the login: check that the username is the mailbox's full address",
        "5.7.3": (
            "check that the username is the mailbox of the token, that the token is for SMTP (Microsoft: scope "
            "https://outlook.office365.com/.default, permission SMTP.SendAsApp), and that the application has access "
            "to the mailbox"
        ),
        "5.7.8": (
            "check that the username is the mailbox's full address, and that the token has the scope for mail (Google: "
            "https://mail.google.com/, and for a service account domain-wide delegation and with_subject)"
        ),
        "5.7.139": _TURNED_OFF,
    },
    "password": {
        "5.7.139": _TURNED_OFF + ". It may want OAuth 2 instead of a password (auth=OAuth2(…))",
    },
}
_SEND_AS = (
    "the account that logs in may not send as this sender: log in as the mailbox that is in mail_from and in From, "
    "with one mailer for each mailbox, or have the provider allow it to send as the other one"
)
_REFUSAL_HINTS = {
    "5.2.252": _SEND_AS,
    "5.4.5": "the account has sent as much as the provider allows for a day: go on tomorrow",
    "5.7.60": _SEND_AS,
}


def login_hint(mechanism: Mechanism, reply: Reply) -> str:
    """Return what to do after *reply* refused a login by *mechanism*."""
    if is_temporary(reply.code):
        return _LATER
    return _LOGIN_HINTS.get(mechanism.proof, {}).get(str(reply.enhanced), mechanism.hint)


def refusal_hint(reply: Reply) -> str | None:
    """Return what to do after *reply* refused a message, if its enhanced code says it."""
    return _REFUSAL_HINTS.get(str(reply.enhanced))


def is_token_refused(reply: Reply | None, *, has_failed: bool) -> bool:
    """
    Return whether another token may help after *reply* refused a login.

    Args:
        reply: The final reply.
        has_failed: Whether the server sent an error in a challenge before it.
    """
    if reply is None or reply.code == _OTHER_LOGIN_NEEDED or reply.enhanced in _NO_FAULT_OF_THE_TOKEN:
        return False
    if is_temporary(reply.code) or not is_refusal(reply.code):
        return False
    return has_failed or reply.code == _TOKEN_REFUSED or (reply.code, reply.enhanced) == _TOKEN_WILL_EXPIRE
