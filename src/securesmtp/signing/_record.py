"""The DNS record of a public key (RFC 6376 §3.6.2), in the forms in which it is entered."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from securesmtp.signing._keys import Ed25519Key, RSAKey

# RFC 1035 §3.3: a string of a TXT record has at most 255 octets. A key of 2048 bits needs two.
_STRING = 255


@dataclass(frozen=True, slots=True)
class DNSRecord:
    """
    A TXT record with a public key.

    Attributes:
        name: Its full name, without a final dot: ``selector._domainkey.example.org``.
        value: Its value as one text, for the form of a DNS provider; without quotes, which would void the key there.
    """

    name: str
    value: str

    @property
    def zone(self) -> str:
        """The record for a zone file, with its value in strings of at most 255 characters."""
        strings = [f'"{self.value[start : start + _STRING]}"' for start in range(0, len(self.value), _STRING)]
        if len(strings) == 1:
            return f"{self.name}. IN TXT {strings[0]}"
        return "\n".join([f"{self.name}. IN TXT (", *(f"  {each}" for each in strings), ")"])


def record(domain: str, selector: str, key: RSAKey | Ed25519Key) -> DNSRecord:
    """Return the record of *key*."""
    kind = key.algorithm.partition("-")[0]
    public = b64encode(key.public_bytes()).decode()
    return DNSRecord(f"{selector}._domainkey.{domain}", f"v=DKIM1; k={kind}; p={public}")
