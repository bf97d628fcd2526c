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

    The CA and the good certificate are valid from 2000 to 3000, which is trustme's default: tests that change the clock
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
                _issue(CA(), context)
            case "expired":
                # trustme takes naive times, in UTC.
                _issue(self._authority, context, not_after=datetime(2000, 1, 2))  # noqa: DTZ001
            case "wrong_name":
                _issue(self._authority, context, "elsewhere.example")
            case "self_signed":
                # A CA that shows its own certificate.
                other = CA()
                _show(LeafCert(other.private_key_pem.bytes(), other.cert_pem.bytes(), []), context)
            case _:
                _issue(self._authority, context)


def _issue(authority: CA, context: ssl.SSLContext, *names: str, not_after: datetime | None = None) -> None:
    unit = "securesmtp.testing"
    authority.issue_cert(*names or _NAMES, organization_unit_name=unit, not_after=not_after).configure_cert(context)


def _show(certificate: LeafCert, context: ssl.SSLContext) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "server.pem")
        path.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
        context.load_cert_chain(path)
