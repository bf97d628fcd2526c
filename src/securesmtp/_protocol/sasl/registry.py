"""The ranked registry of SASL mechanisms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp._protocol.sasl.external import ExternalMechanism
from securesmtp._protocol.sasl.oauth import OAuthBearer, XOAuth2
from securesmtp._protocol.sasl.simple import Login, Plain

if TYPE_CHECKING:
    from securesmtp._protocol.sasl.mechanism import Mechanism

# Strongest first; a login uses those of its own kind of proof. PLAIN and LOGIN send the password itself; PLAIN needs
# one round trip. XOAUTH2 and OAUTHBEARER send the same token; Google and Microsoft document the first for SMTP.
RANKED: dict[str, type[Mechanism]] = {
    mechanism.name: mechanism for mechanism in (ExternalMechanism, XOAuth2, OAuthBearer, Plain, Login)
}
