"""The CA of a test server, and the certificates that it shows: a good one, and one for each fault of that kind."""

from __future__ import annotations

import ssl
import tempfile
from datetime import datetime
from pathlib import Path

from trustme import CA, LeafCert

from securesmtp.testing._faults import FAULTS, FaultName

# Clients take either; ``localhost`` may mean ::1 to them, where nothing listens.
_NAMES = ("127.0.0.1", "localhost")


class Certificates:
    """
    A new CA, and the certificates of one server.

    The CA and the good certificate are valid from 2000 to 2038, which is trustme's default: tests that change the clock
    do not make them invalid. The expired one differs from the good one by its dates alone.

    Attributes:
        ca_pem: The CA in PEM form.
    """

    def __init__(self) -> None:
        """Make the CA."""
        self._authority = CA()
        self.ca_pem: str = self._authority.cert_pem.bytes().decode("ascii")
        self._contexts: dict[FaultName | None, ssl.SSLContext] = {}

    def context(self, fault: FaultName | None) -> ssl.SSLContext:
        """Return the TLS context of a server that plays *fault*."""
        shown = fault if fault is not None and FAULTS[fault].reason else None
        if shown not in self._contexts:
            self._contexts[shown] = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._certificate(shown, context)
        return self._contexts[shown]

    def _certificate(self, fault: FaultName | None, context: ssl.SSLContext) -> None:
        match fault:
            case "untrusted":
                CA().issue_cert(*_NAMES).configure_cert(context)
            case "expired":
                long_ago = datetime(2000, 1, 2)  # noqa: DTZ001 -- trustme takes naive times, in UTC
                self._authority.issue_cert(*_NAMES, not_after=long_ago).configure_cert(context)
            case "wrong_name":
                self._authority.issue_cert("elsewhere.example").configure_cert(context)
            case "self_signed":
                # A CA of its own that shows its own certificate.
                other = CA()
                _show(LeafCert(other.private_key_pem.bytes(), other.cert_pem.bytes(), []), context)
            case _:
                self._authority.issue_cert(*_NAMES).configure_cert(context)


def _show(certificate: LeafCert, context: ssl.SSLContext) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "server.pem")
        path.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
        context.load_cert_chain(path)
