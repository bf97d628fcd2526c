"""
Login credentials, and which SASL mechanism uses them.

A mechanism takes and returns bytes. It knows nothing of base64, command lines or replies: `dialogue.authenticate`
handles those. Secrets are revealed only in this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from securesmtp._protocol.sasl.logins import (
    Auth,
    External,
    OAuth2,
    Password,
    allowed_mechanisms,
    identity,
    known_secrets,
    secret_source,
    with_secret_source,
)
from securesmtp._protocol.sasl.mechanism import ChannelBinding, Credentials, Mechanism
from securesmtp._protocol.sasl.oauth import fingerprint, validated_token
from securesmtp._protocol.sasl.registry import RANKED
from securesmtp._protocol.sasl.sources import (
    AsyncPasswordSource,
    PasswordFunction,
    PasswordSource,
    as_secret,
    resolve_password,
)
from securesmtp._secret import Secret
from securesmtp._shown import escape
from securesmtp._values import Stage
from securesmtp.errors import NoUsableMechanismError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "NOT_BOUND",
    "RANKED",
    "AsyncPasswordSource",
    "Auth",
    "ChannelBinding",
    "Choice",
    "Credentials",
    "External",
    "Mechanism",
    "OAuth2",
    "Password",
    "PasswordFunction",
    "PasswordSource",
    "as_secret",
    "choose_mechanism",
    "fingerprint",
    "known_secrets",
    "require_mechanism",
    "resolve_password",
    "secret_source",
    "start_mechanism",
    "validated_token",
    "with_secret_source",
]
NOT_OFFERED = "not offered by the server"
NOT_BOUND = "this connection has no channel binding"


@dataclass(frozen=True, slots=True)
class Choice:
    """
    Which mechanism a login uses on one connection.

    Attributes:
        name: Of the mechanism; None if none is usable.
        passed_over: Each better mechanism that the login may use, with the reason why it is not used.
        binding: The channel binding of the connection, if it has one.
    """

    name: str | None
    passed_over: Mapping[str, str]
    binding: ChannelBinding | None = None


def choose_mechanism(login: Auth, offered: Sequence[str], binding: ChannelBinding | None = None) -> Choice:
    """Return the best mechanism that *login* allows, the server *offered*, and *binding* makes possible."""
    passed_over = dict[str, str]()
    for name in allowed_mechanisms(login):
        if name not in offered:
            passed_over[name] = NOT_OFFERED
        elif RANKED[name].needs_binding and binding is None:
            passed_over[name] = NOT_BOUND
        else:
            return Choice(name, passed_over, binding)
    return Choice(None, passed_over, binding)


def require_mechanism(choice: Choice, login: Auth, offered: Sequence[str]) -> str:
    """
    Return the name of the chosen mechanism.

    Raises:
        NoUsableMechanismError: None was chosen.
    """
    if choice.name is None:
        unbound = [name for name, reason in choice.passed_over.items() if reason == NOT_BOUND]
        message = "the server offers no login"
        if offered:
            message = f"the server offers {_listed(offered)}, but only {_listed(allowed_mechanisms(login))} may be used"
        hint = _other_proof(login, offered)
        if unbound:
            hint = f"{NOT_BOUND}, which {_listed(unbound)} needs: allow a mechanism without -PLUS, too"
        raise NoUsableMechanismError(message, stage=Stage.AUTH, hint=hint)
    return choice.name


def _other_proof(login: Auth, offered: Sequence[str]) -> str | None:
    """Return the hint for a server that wants another kind of login than *login*."""
    proofs = {RANKED[name].proof for name in offered if name in RANKED}
    if isinstance(login, Password) and "token" in proofs:
        return "the server takes access tokens: pass auth=OAuth2(username, token)"
    if isinstance(login, OAuth2) and "password" in proofs:
        return "the server takes passwords, and no access tokens: is it the right host and port?"
    return None


def start_mechanism(
    name: str, login: Auth, secret: Secret | None, binding: ChannelBinding | None = None, offered: Sequence[str] = ()
) -> Mechanism:
    """Return a new exchange of the mechanism *name*, with the *secret* of *login*."""
    is_binding_offered = any(RANKED[each].needs_binding for each in offered if each in RANKED)
    return RANKED[name](Credentials(identity(login), secret or Secret(""), binding, is_binding_offered))


def _listed(names: Sequence[str]) -> str:
    return escape(", ".join(names), 200)
