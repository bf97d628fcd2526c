"""The CA of a test server, and the certificates that it shows: a good one, and one for each fault of that kind."""

from __future__ import annotations

import datetime as dt
import ssl
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trustme import CA, LeafCert

from securesmtp.testing._faults import FAULTS, FaultName

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        with _unfrozen():
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
                _issue(self._authority, context, not_after=dt.datetime(2000, 1, 2))  # noqa: DTZ001
            case "wrong_name":
                _issue(self._authority, context, "elsewhere.example")
            case "self_signed":
                # A CA that shows its own certificate.
                other = CA()
                _show(LeafCert(other.private_key_pem.bytes(), other.cert_pem.bytes(), []), context)
            case _:
                _issue(self._authority, context)


@contextmanager
def _unfrozen() -> Iterator[None]:
    """
    Undo for a moment what freezegun does to the class ``datetime.datetime``.

    cryptography keeps the class that it sees first in a process. If that is freezegun's, no later test can use it.
    """
    current = dt.datetime
    genuine = next(kind for kind in current.__mro__ if kind.__module__ == "datetime")
    dt.datetime = genuine  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        dt.datetime = current  # type: ignore[misc]


def _issue(authority: CA, context: ssl.SSLContext, *names: str, not_after: dt.datetime | None = None) -> None:
    unit = "securesmtp.testing"
    authority.issue_cert(*names or _NAMES, organization_unit_name=unit, not_after=not_after).configure_cert(context)


def _show(certificate: LeafCert, context: ssl.SSLContext) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "server.pem")
        path.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
        context.load_cert_chain(path)
