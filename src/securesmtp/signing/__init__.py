"""
Sign messages, so that their receivers know who is responsible for them.

It needs the extra ``sign`` (cryptography), when something of it is used.
"""

from __future__ import annotations

from securesmtp._protocol.dkim import DKIM_HEADERS
from securesmtp.signing._dkim import DKIM
from securesmtp.signing._record import DNSRecord
from securesmtp.signing._smime import smime_encrypt, smime_sign

__all__ = ["DKIM", "DKIM_HEADERS", "DNSRecord", "smime_encrypt", "smime_sign"]
