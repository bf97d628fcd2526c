"""What the tests of `securesmtp check` share."""

from __future__ import annotations

from collections.abc import Callable

from scripted import Peer, Script
from securesmtp._cli.check.result import CheckResult

Check = Callable[..., CheckResult]
Resolve = Callable[..., None]
# Each makes a note in the result.
TRUST_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SMTP_CA_FILE")


def said(result: CheckResult) -> list[str]:
    """Return the transcript as text."""
    return [f"{line.hint} {line.text}" for line in result.transcript]


def names(result: CheckResult) -> list[str]:
    """Return the names of the faults."""
    return [fault.name for fault in result.faults]


def says(*replies: bytes, hello: bytes = b"220 mx.test ESMTP\r\n", encrypted: bool = False) -> Script:
    """Play a server that sends *hello*, then one of *replies* for each line that comes; then it waits."""

    def script(peer: Peer) -> None:
        if encrypted:
            peer.start_tls()
        peer.send(hello)
        for reply in replies:
            peer.read_line()
            peer.send(reply)
        peer.sleep_until_peer_closes()

    return script
