"""Fixtures for the real servers, which are started once per session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servers.dovecot import Dovecot
from servers.kinds import KINDS, running
from servers.postfix import SevenBitPostfix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import trustme

    from servers.real import RealServer


def _exhaustive(*names: str) -> list[object]:
    """Return parameters that only `nox -s exhaustive` runs."""
    return [pytest.param(name, marks=pytest.mark.exhaustive) for name in names]


# `test_contract.py` runs with each server; these have the whole of the others only in `nox -s exhaustive`.
_NEW = _exhaustive("chasquid", "haraka", "smtp_server", "aiosmtpd")


def _fixture(name: str) -> Callable[..., Iterator[RealServer]]:
    """Return the fixture that runs the server *name*."""

    @pytest.fixture(scope="session", name=name)
    def run(ca: trustme.CA) -> Iterator[RealServer]:
        yield from running(KINDS[name], ca)

    return run


postfix, exim, dovecot, opensmtpd = map(_fixture, ("postfix", "exim", "dovecot", "opensmtpd"))
sendmail, courier, chasquid = map(_fixture, ("sendmail", "courier", "chasquid"))
haraka, smtp_server, aiosmtpd = map(_fixture, ("haraka", "smtp_server", "aiosmtpd"))


@pytest.fixture(scope="session")
def seven_bit_postfix(ca: trustme.CA) -> Iterator[RealServer]:
    """Run a Postfix whose next hop does not offer 8BITMIME."""
    yield from running(SevenBitPostfix, ca)


@pytest.fixture(scope="session")
def dovecot24(request: pytest.FixtureRequest, ca: trustme.CA) -> Iterator[RealServer]:
    """Run a Dovecot 2.4, which is the same if the system has that."""
    if Dovecot.missing() is None and not Dovecot.installed_version().startswith("2.3"):
        yield request.getfixturevalue("dovecot")
    else:
        yield from running(KINDS["dovecot24"], ca)


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
