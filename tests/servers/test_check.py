"""`securesmtp check` with each real server, in both modes: the right verdict, and the right fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme

from scripted import Mode
from securesmtp._cli.check.probe import probe
from securesmtp._cli.check.result import CheckResult, Request
from servers.real import ALICE, RealServer

# The warnings about each server, as it is set up for the tests, in both modes and with STARTTLS alone; and the round
# trips of a message. Before TLS, Dovecot offers logins to its own machine, whatever it is told; Sendmail offers SCRAM,
# and smtp-server all, of which it accepts none.
EXPECTED: dict[str, tuple[set[str], set[str], int]] = {
    "postfix": (set(), set(), 1),
    "exim": (set(), set(), 1),
    "dovecot": (set(), {"auth-before-tls"}, 1),
    "opensmtpd": ({"no-pipelining"}, set(), 4),
    "sendmail": (set(), {"auth-before-tls"}, 2),
    "courier": (set(), set(), 2),
    "chasquid": (set(), set(), 2),
    "haraka": (set(), set(), 2),
    "smtp-server": (set(), {"auth-before-tls"}, 2),
    "aiosmtpd": ({"no-pipelining"}, set(), 4),
}

OTHERS = [
    pytest.param(name, marks=pytest.mark.exhaustive) for name in ("chasquid", "haraka", "smtp_server", "aiosmtpd")
]


@pytest.fixture(params=["postfix", "exim", "dovecot", "dovecot24", "opensmtpd", "sendmail", "courier", *OTHERS])
def server(request: pytest.FixtureRequest) -> RealServer:
    """Return each of the real servers in turn."""
    started: RealServer = request.getfixturevalue(request.param)
    return started


def _check(server: RealServer, mode: Mode, ca_file: Path | None, **request: Any) -> CheckResult:
    port = server.implicit_port if mode == "implicit" else server.starttls_port
    return probe(
        Request(**{"host": "localhost", "port": port, "tls": mode, "ca_file": ca_file, "family": 4, **request})
    )


def _login(server: RealServer) -> dict[str, Any]:
    return {} if server.name == "opensmtpd" else {"username": ALICE.username, "password": ALICE.password}


def test_a_good_server_has_no_fault(server: RealServer, mode: Mode, ca_file: Path) -> None:
    """But what it is known to lack; the login works, and the mechanism is the one that the library uses."""
    login = _login(server)
    result = _check(server, mode, ca_file, **login)
    always, in_plaintext, trips = EXPECTED[server.name]
    assert {fault.name for fault in result.faults} == (always if mode == "implicit" else always | in_plaintext)
    assert (result.error, result.stage, result.round_trips) == (None, "auth" if login else "ehlo", trips)
    assert (result.address, result.chain[0].names) == ("127.0.0.1", ("localhost", "127.0.0.1"))
    assert result.report is not None
    assert result.mechanism == (result.report.mechanism if login else "PLAIN")
    assert (result.before_tls is None) is (mode == "implicit")


def test_each_fault_is_found(server: RealServer, mode: Mode, ca_file: Path, tmp_path: Path) -> None:
    """Another CA, another name, another key, the wrong mode, and a wrong password."""
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    key = "sha256/" + "A" * 43 + "="
    # These two send the root, too.
    untrusted = f"certificateerror-{'self-signed' if server.name in {'dovecot', 'sendmail'} else 'untrusted'}"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"ca_file": stranger}, untrusted),
        ({"ca_file": None}, untrusted),
        ({"server_name": "mail.example.com"}, "certificateerror-name-mismatch"),
        ({"pins": (key,)}, "certificateerror-pin"),
    ]
    if mode == "starttls":
        cases.append(({"tls": "implicit"}, "wrongtlsmodeerror"))
    if login := _login(server):
        cases.append(({**login, "password": "wrong password"}, "authenticationerror"))
    for request, name in cases:
        result = _check(server, mode, **{"ca_file": ca_file, **request})
        assert result.faults[0].name == name, result
        assert (result.error is None, result.faults[0].level) == (False, "error")
        assert bool(result.chain) is (name != "wrongtlsmodeerror")
