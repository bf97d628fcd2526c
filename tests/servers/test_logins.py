"""Each login mechanism with each real server: the table of docs/how-to/log-in.md."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from securesmtp import (
    AuthenticationError,
    External,
    NoUsableMechanismError,
    OAuth2,
    Password,
    SecureMailer,
    ServerReport,
    TLSPolicy,
)
from securesmtp._protocol.sasl import RANKED
from securesmtp._transport.channel import Channel
from servers.dovecot import Dovecot
from servers.real import ACCOUNTS, ALICE, CAROL, PREPARED, Account, RealServer

PAGE = Path(__file__).parents[2] / "docs/how-to/log-in.md"
PASSWORDS = [name for name, mechanism in RANKED.items() if mechanism.proof == "password"]


def table() -> dict[tuple[str, str], bool]:
    """Return which mechanism each server has, by the page."""
    text = PAGE.read_text("utf-8").partition("## What was tested")[2]
    head, *rows = re.findall(r"^\| (`[A-Z0-9-]+`|mechanism) \| (.*) \|$", text, re.MULTILINE)
    servers = head[1].split(" | ")
    cells = {
        (server, mechanism.strip("`")): cell == "yes"
        for mechanism, row in rows
        for server, cell in zip(servers, row.split(" | "), strict=True)
    }
    assert {mechanism for _, mechanism in cells} == set(RANKED)
    return cells


TABLE = table()
Attempts = Callable[[], list[bytes]]
Offers = Callable[[str], bool]


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    """Record what is written to the wire, and return each AUTH command since the last call."""
    written: list[bytes] = []
    write = Channel.write

    def recording(channel: Channel, record: memoryview) -> int:
        sent = write(channel, record)
        written.append(bytes(record[:sent]))
        return sent

    def taken() -> list[bytes]:
        found = re.findall(rb"^AUTH (\S+)", b"".join(written), re.MULTILINE)
        written.clear()
        return found

    monkeypatch.setattr(Channel, "write", recording)
    return taken


Check = Callable[..., ServerReport]


@pytest.fixture
def offers(login_server: RealServer) -> Offers:
    """Say by the page whether the server has a mechanism."""
    name = login_server.name
    version = f" {login_server.version[:3]}" if name == "dovecot" else ""
    (column,) = {column for column, _ in TABLE if column.lower() == name + version}
    return lambda mechanism: TABLE[column, mechanism]


@pytest.fixture
def check(login_server: RealServer, ca_file: Path) -> Check:
    """Log in to the server."""

    def check(
        auth: Password | OAuth2 | External, *, client_cert: Path | None = None, tls12: bool = False
    ) -> ServerReport:
        trust = TLSPolicy(ca_file=ca_file, client_cert=client_cert)
        with SecureMailer(login_server.host, login_server.implicit_port, auth=auth, policy=trust, timeout=20) as mailer:
            if tls12:
                assert mailer._core.context is not None
                mailer._core.context.maximum_version = ssl.TLSVersion.TLSv1_2
            return mailer.check()

    return check


@pytest.mark.parametrize("mechanism", PASSWORDS)
def test_a_password_logs_in_by_each_mechanism(
    login_server: RealServer, offers: Offers, check: Check, attempts: Attempts, mechanism: str
) -> None:
    """Each account; a wrong password is refused after one attempt; and what is not offered is not tried."""
    is_offered, tls12 = offers(mechanism), RANKED[mechanism].needs_binding
    for account in login_server.accounts:
        report = check(Password(*account, [mechanism]), tls12=tls12)
        assert (report.mechanism, report.login) == ((mechanism, True) if is_offered else (None, False)), report
        assert attempts() == [mechanism.encode()] * is_offered
    report = check(Password(ALICE.username, "not this", [mechanism]), tls12=tls12)
    assert report.login is False
    kind = AuthenticationError if is_offered else NoUsableMechanismError
    assert type(report.login_error) is kind
    assert attempts() == [mechanism.encode()] * is_offered


@pytest.mark.parametrize("tls12", [False, True], ids=["TLS 1.3", "TLS 1.2"])
def test_the_strongest_that_the_server_offers_is_used(
    offers: Offers, check: Check, attempts: Attempts, *, tls12: bool
) -> None:
    """
    -PLUS on TLS 1.2 alone; and the report says why it is no better one.

    On TLS 1.2, a server without -PLUS is told that the client could have bound, and does not mind.
    """
    offered = [mechanism for mechanism in PASSWORDS if offers(mechanism)]
    best = next(mechanism for mechanism in offered if tls12 or not RANKED[mechanism].needs_binding)
    report = check(Password(*ALICE), tls12=tls12)
    assert (report.mechanism, report.login) == (best, True)
    unbound = "this connection has no channel binding"
    better = PASSWORDS[: PASSWORDS.index(best)]
    assert report.passed_over == {name: unbound if name in offered else "not offered by the server" for name in better}
    assert attempts() == [best.encode()]
    report = check(Password(ALICE.username, "not this"), tls12=tls12)
    assert report.login is False
    assert attempts() == [best.encode()]


# U+00AA, U+00A0, U+2168, U+00AD and a ligature become what the server has; the emoji stays (O19).
TYPED = "\u00aa\u00a0\u2168 \ufb01\u00ad\N{GRINNING FACE}"


@pytest.mark.parametrize("mechanism", [name for name in PASSWORDS if name.startswith("SCRAM-")])
def test_a_password_is_prepared_for_scram(offers: Offers, check: Check, mechanism: str) -> None:
    """As its user typed it, it is the one that the server has, whether the server prepares it or not."""
    if offers(mechanism):
        report = check(Password(PREPARED.username, TYPED, [mechanism]), tls12=RANKED[mechanism].needs_binding)
        assert (report.mechanism, report.login) == (mechanism, True), report


def test_a_certificate_logs_in(
    offers: Offers, check: Check, attempts: Attempts, ca: trustme.CA, tmp_path: Path
) -> None:
    """As whom it names, and as nobody else."""
    path = tmp_path / "carol.pem"
    ca.issue_cert(common_name=CAROL).private_key_and_cert_chain_pem.write_to_path(str(path))
    is_offered = offers("EXTERNAL")
    for identity in ("", CAROL, ALICE.username):
        report = check(External(identity), client_cert=path)
        assert report.login is (is_offered and identity != ALICE.username), identity
        assert attempts() == [b"EXTERNAL"] * is_offered


def test_an_account_has_every_letter_that_needs_care() -> None:
    """Letters beyond ASCII, a blank, a comma and an equals sign, in a name and in a password."""
    for field in Account._fields:
        values = [getattr(account, field) for account in ACCOUNTS]
        assert any(set(" ,=") < set(value) and not value.isascii() for value in values)


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_token_logs_in_by_each_mechanism(
    login_server: RealServer, offers: Offers, check: Check, attempts: Attempts, mechanism: str
) -> None:
    """Each account; a refused token is replaced once, on the same connection; a second refusal is final (O15)."""
    is_offered = offers(mechanism)
    for account in login_server.accounts:
        report = check(OAuth2(account.username, Dovecot.token(account.username), [mechanism]))
        assert (report.mechanism, report.login) == ((mechanism, True) if is_offered else (None, False)), report
        assert attempts() == [mechanism.encode()] * is_offered
    good, old, other = Dovecot.token(ALICE.username), Dovecot.token(ALICE.username, exp=1), Dovecot.token(CAROL)
    # Dovecot 2.4 sends no JSON for the token of another user.
    for tokens, logs_in in (([old, good], True), ([other, good], True), ([other, old], False)):
        report = check(OAuth2(ALICE.username, iter(tokens).__next__, [mechanism]))
        assert report.login is (logs_in and is_offered), report
        assert attempts() == [mechanism.encode()] * 2 * is_offered
        if not logs_in and is_offered:
            assert '"status":"' in str(report.login_error)
