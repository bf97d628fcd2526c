"""Fixtures for the real servers, which are started once per session."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servers.dovecot import Dovecot, NewDovecot
from servers.exim import Exim
from servers.opensmtpd import OpenSMTPD
from servers.postfix import Postfix

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trustme

    from servers.real import RealServer


def _running(kind: type[Dovecot | Exim | OpenSMTPD | Postfix], ca: trustme.CA) -> Iterator[RealServer]:
    reason = kind.missing()
    if reason is not None:
        # If servers are required, as in .ci/run, a skip would hide that nothing was tested.
        if os.environ.get("SECURESMTP_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    # pytest's folders (tmp_path) are closed to other users, and the servers do not run as root.
    with tempfile.TemporaryDirectory(prefix="securesmtp-") as directory, kind(Path(directory), ca) as server:
        yield server


@pytest.fixture(scope="session")
def postfix(ca: trustme.CA) -> Iterator[RealServer]:
    """Run a Postfix."""
    yield from _running(Postfix, ca)


@pytest.fixture(scope="session")
def exim(ca: trustme.CA) -> Iterator[RealServer]:
    """Run an Exim."""
    yield from _running(Exim, ca)


@pytest.fixture(scope="session")
def dovecot(ca: trustme.CA) -> Iterator[RealServer]:
    """Run a Dovecot."""
    yield from _running(Dovecot, ca)


@pytest.fixture(scope="session")
def dovecot24(request: pytest.FixtureRequest, ca: trustme.CA) -> Iterator[RealServer]:
    """Run a Dovecot 2.4, which is the same if the system has that."""
    if Dovecot.missing() is None and not Dovecot.installed_version().startswith("2.3"):
        yield request.getfixturevalue("dovecot")
    else:
        yield from _running(NewDovecot, ca)


@pytest.fixture(scope="session")
def opensmtpd(ca: trustme.CA) -> Iterator[RealServer]:
    """Run an OpenSMTPD."""
    yield from _running(OpenSMTPD, ca)


@pytest.fixture(scope="session", params=["postfix", "exim", "dovecot", "dovecot24"])
def login_server(request: pytest.FixtureRequest) -> RealServer:
    """Return each of the servers that have accounts in turn."""
    server: RealServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session", params=["postfix", "exim"])
def real_server(request: pytest.FixtureRequest) -> RealServer:
    """Return each of the real servers in turn."""
    server: RealServer = request.getfixturevalue(request.param)
    return server
