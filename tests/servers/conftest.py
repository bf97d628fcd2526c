"""Fixtures for the real servers, which are started once per session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servers.dovecot import Dovecot
from servers.kinds import KINDS, running
from servers.postfix import SevenBitPostfix

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trustme

    from servers.real import RealServer


def _exhaustive(*names: str) -> list[object]:
    """Return parameters that only `nox -s exhaustive` runs."""
    return [pytest.param(name, marks=pytest.mark.exhaustive) for name in names]


# `test_contract.py` runs with each server; these have the whole of the others only in `nox -s exhaustive`.
_NEW = _exhaustive("chasquid", "haraka", "smtp_server", "aiosmtpd")


@pytest.fixture(scope="session")
def seven_bit_postfix(ca: trustme.CA) -> Iterator[RealServer]:
    """Run a Postfix whose next hop does not offer 8BITMIME."""
    yield from running(SevenBitPostfix, ca)


@pytest.fixture(scope="session")
def postfix(ca: trustme.CA) -> Iterator[RealServer]:
    """Run a Postfix."""
    yield from running(KINDS["postfix"], ca)


@pytest.fixture(scope="session")
def exim(ca: trustme.CA) -> Iterator[RealServer]:
    """Run an Exim."""
    yield from running(KINDS["exim"], ca)


@pytest.fixture(scope="session")
def dovecot(ca: trustme.CA) -> Iterator[RealServer]:
    """Run a Dovecot."""
    yield from running(KINDS["dovecot"], ca)


@pytest.fixture(scope="session")
def dovecot24(request: pytest.FixtureRequest, ca: trustme.CA) -> Iterator[RealServer]:
    """Run a Dovecot 2.4, which is the same if the system has that."""
    if Dovecot.missing() is None and not Dovecot.installed_version().startswith("2.3"):
        yield request.getfixturevalue("dovecot")
    else:
        yield from running(KINDS["dovecot24"], ca)


@pytest.fixture(scope="session")
def opensmtpd(ca: trustme.CA) -> Iterator[RealServer]:
    """Run an OpenSMTPD."""
    yield from running(KINDS["opensmtpd"], ca)


@pytest.fixture(scope="session")
def sendmail(ca: trustme.CA) -> Iterator[RealServer]:
    """Run a Sendmail."""
    yield from running(KINDS["sendmail"], ca)


@pytest.fixture(scope="session")
def courier(ca: trustme.CA) -> Iterator[RealServer]:
    """Run a Courier."""
    yield from running(KINDS["courier"], ca)


@pytest.fixture(scope="session")
def chasquid(ca: trustme.CA) -> Iterator[RealServer]:
    """Run a chasquid."""
    yield from running(KINDS["chasquid"], ca)


@pytest.fixture(scope="session")
def haraka(ca: trustme.CA) -> Iterator[RealServer]:
    """Run a Haraka."""
    yield from running(KINDS["haraka"], ca)


@pytest.fixture(scope="session")
def smtp_server(ca: trustme.CA) -> Iterator[RealServer]:
    """Run a smtp-server of nodemailer."""
    yield from running(KINDS["smtp_server"], ca)


@pytest.fixture(scope="session")
def aiosmtpd(ca: trustme.CA) -> Iterator[RealServer]:
    """Run an aiosmtpd."""
    yield from running(KINDS["aiosmtpd"], ca)


@pytest.fixture(scope="session", params=["postfix", "exim", "dovecot", "dovecot24", "sendmail", "courier", *_NEW])
def login_server(request: pytest.FixtureRequest) -> RealServer:
    """Return each of the servers that have accounts in turn."""
    server: RealServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session", params=["postfix", "exim", *_exhaustive("sendmail", "courier"), *_NEW])
def real_server(request: pytest.FixtureRequest) -> RealServer:
    """Return each of the real servers in turn."""
    server: RealServer = request.getfixturevalue(request.param)
    return server
