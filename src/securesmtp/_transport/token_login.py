"""
Log in with the mailer's access token; if the server refuses it, once more with another one.

How it works: the second login is tried on the same connection. Some servers close it after a refusal, or allow one
login only; then the error is kept in the slot, and the mailer tries once more over a new connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from securesmtp._interrupts import raise_if_interrupt
from securesmtp._protocol.dialogue import begin_login, exchange, usable_mechanism
from securesmtp._protocol.effects import fetch_token
from securesmtp._protocol.hints import is_token_refused
from securesmtp._protocol.replies import is_bad_sequence, is_closing
from securesmtp.errors import AuthenticationError, ConnectError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._protocol.dialogue import Session
    from securesmtp._protocol.effects import Dialogue
    from securesmtp._protocol.sasl import OAuth2
    from securesmtp._secret import Secret
    from securesmtp._transport.slot import Slot
    from securesmtp._transport.tokens import Tokens


def log_in(
    slot: Slot[Any], session: Session, login: OAuth2, tokens: Tokens, source: Callable[[], Secret]
) -> Dialogue[str]:
    """
    Log in with the token of *source*, and return the name of the mechanism.

    Raises:
        AuthenticationError: The server refused the login, and another token too if there was one; or no token could be
            fetched. If it is the `refusal` of *slot*, another token is to be tried over a new connection.
    """
    name = yield from usable_mechanism(session, login)
    # On another connection, which this one has replaced.
    refusal, slot.refusal = slot.refusal, None
    is_new_connection = refusal is not None
    if refusal is None:
        token = yield from fetch_usable_token(tokens, source)
        refusal = yield from _try(session, login, tokens, name, token)
        if refusal is None:
            return name
    try:
        token = yield from fetch_token(source)
    except Exception as error:
        raise_if_interrupt(error)
        raise refusal from error
    if tokens.refusal_of(token) is not None:
        refusal.hint = f"{tokens.renewal_hint}; {refusal.hint}"
        raise refusal
    try:
        second = yield from _try(session, login, tokens, name, token)
    except SecureSMTPError as error:
        if is_new_connection or not _ends_connection(error):
            raise
        slot.refusal = refusal
        raise refusal from error
    if second is not None:
        raise second
    return name


def fetch_usable_token(tokens: Tokens, source: Callable[[], Secret]) -> Dialogue[Secret]:
    """
    Return a token that the server has not refused.

    Raises:
        AuthenticationError: *source* returns one that the server had refused before.
    """
    while True:
        refused = tokens.refused
        token = yield from fetch_token(source)
        if (refusal := tokens.refusal_of(token)) is None:
            return token
        # The login of another connection may have been refused meanwhile: then there may be another token.
        if tokens.is_among(token, refused):
            raise refusal


def _ends_connection(error: SecureSMTPError) -> bool:
    """Return whether *error* says nothing of the token, but that the connection allows no second login."""
    if isinstance(error, ConnectError):
        return not error.interrupted
    code = 0 if error.reply is None else error.reply.code
    return isinstance(error, AuthenticationError) and (is_closing(code) or is_bad_sequence(code))


def _try(
    session: Session, login: OAuth2, tokens: Tokens, name: str, token: Secret
) -> Dialogue[AuthenticationError | None]:
    """Log in once; return the error if the server refused the token, so that another one may help."""
    mechanism = begin_login(session, login, name, token)
    try:
        yield from exchange(mechanism)
    except AuthenticationError as error:
        if not is_token_refused(error.reply, has_failed=mechanism.has_failed):
            raise
        tokens.refuse(token, error)
        return error
    return None
