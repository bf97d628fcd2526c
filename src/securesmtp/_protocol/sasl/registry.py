"""The ranked registry of SASL mechanisms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp._protocol.sasl.external import ExternalMechanism
from securesmtp._protocol.sasl.oauth import OAuthBearer, XOAuth2
from securesmtp._protocol.sasl.scram import (
    ScramSHA1,
    ScramSHA1Plus,
    ScramSHA256,
    ScramSHA256Plus,
    ScramSHA512,
    ScramSHA512Plus,
)
from securesmtp._protocol.sasl.simple import Login, Plain

if TYPE_CHECKING:
    from securesmtp._protocol.sasl.mechanism import Mechanism

# Strongest first; a login uses those of its own kind of proof. A channel binding is worth more than a longer hash, and
# SHA-1 is for servers that have nothing stronger. XOAUTH2 and OAUTHBEARER send the same token; Google and Microsoft
# document the first for SMTP. PLAIN and LOGIN send the password itself; PLAIN needs one round trip.
RANKED: dict[str, type[Mechanism]] = {
    mechanism.name: mechanism
    for mechanism in (
        ExternalMechanism,
        ScramSHA512Plus,
        ScramSHA256Plus,
        ScramSHA512,
        ScramSHA256,
        ScramSHA1Plus,
        ScramSHA1,
        XOAuth2,
        OAuthBearer,
        Plain,
        Login,
    )
}
