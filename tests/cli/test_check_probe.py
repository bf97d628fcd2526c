"""The probe of `securesmtp check`: the right verdict on each server, over the same way as a send takes."""

from __future__ import annotations

import re
import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields, is_dataclass, replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import certifi
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certificates import GOOD, TABLE, Row, unreadable_time
from cli.checks import TRUST_VARIABLES, Check, Resolve, names, said, says
from conftest import Mailer, Serve
from scripted import Mode, Peer, Script, Turn, honest
from securesmtp import AuthenticationError, ConfigurationError, SecureMailer, TLSPolicy
from securesmtp._cli.check.probe import probe, probe_all
from securesmtp._cli.check.result import Request

OFFER = b"250-mx.test\r\n250 STARTTLS\r\n"
LINES = {
    "unknown_ca": None,
    "self_signed": None,
    "wrong_name": 'SecureMailer("other.example.test", {where}, ca_file="{ca}")\n'
    'SecureMailer("localhost", {where}, policy=TLSPolicy(ca_file="{ca}", server_hostname="other.example.test"))',
    "ip_without_ip_san": 'SecureMailer("localhost", {where}, ca_file="{ca}")\n'
    'SecureMailer("127.0.0.1", {where}, policy=TLSPolicy(ca_file="{ca}", server_hostname="localhost"))',
}


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """Listen with a full backlog, so that a SYN gets no reply."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.5", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex(full.getsockname())
        # Readable as soon as the kernel has the first of them in the queue.
        assert select.select([full], [], [], 5)[0]
        yield full.getsockname()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
def test_each_certificate_gets_its_verdict(
    serve: Serve, resolve: Resolve, tmp_path: Path, mode: Mode, row: Row
) -> None:
    """The reason and its section; the chain that was sent, also if it was refused; no credential goes to the server."""
    (tmp_path / "ca.pem").write_bytes(row.trust)
    server = serve(honest(mode, auth=("me", "secret")), tls=row.certificate.context())
    request = Request(host=row.host, port=server.port, tls=mode, ca_file=tmp_path / "ca.pem")
    result = probe(replace(request, username="me", password="secret"))
    sent = x509.load_pem_x509_certificates(row.certificate.pem_chain)
    assert [each.sha256 for each in result.chain] == [each.fingerprint(hashes.SHA256()).hex() for each in sent]
    server.joined()
    if row.expected == "ok":
        assert (result.stage, result.error, result.faults) == ("auth", None, ())
        assert result.report is not None
        assert result.session == result.report.tls
        return
    assert names(result) == [f"certificateerror-{row.expected.replace('_', '-')}"]
    assert (result.stage, result.report, result.session, result.round_trips) == ("connect", None, None, None)
    assert result.faults[0].level == "error"
    where = f"{server.port}" if mode == "implicit" else f'{server.port}, tls="starttls"'
    if row.id in LINES:
        line = LINES[row.id]
        assert result.faults[0].line == (line and line.format(where=where, ca=tmp_path / "ca.pem"))
    assert said(result)[-1] == f"*** {result.faults[0].cause}"
    assert server.secret == b""


def test_a_time_that_cannot_be_read_ends_no_check(serve: Serve, resolve: Resolve, tmp_path: Path) -> None:
    """The certificate is shown by its key; the others of the chain are shown whole."""
    row = unreadable_time()
    (tmp_path / "ca.pem").write_bytes(row.trust)
    server = serve(tls=row.certificate.context())
    result = probe(Request(host=row.host, port=server.port, tls="implicit", ca_file=tmp_path / "ca.pem"))
    assert names(result) == ["certificateerror-expired"]
    assert [(each.subject, each.key) for each in result.chain] == [
        ("(cannot be read)", "EC P-256"),
        ("expired CA", "EC P-256"),
    ]
    assert result.chain[1].days_left < -2000


CASES: dict[str, tuple[Mode, Script, str, str, str | None]] = {
    # A server: its mode for the client, what it does, the stage that is reached, the fault, and the line.
    "plaintext on an implicit port": ("implicit", says(), "connect", "wrongtlsmodeerror", 'tls="starttls"'),
    "silence on an implicit port": (
        "implicit", says(hello=b""), "connect", "deadlineexceedederror", 'tls="starttls"',
    ),
    "TLS on a port for STARTTLS": (
        "starttls", honest("implicit"), "connect", "deadlineexceedederror", 'tls="implicit"',
    ),
    "STARTTLS not offered": ("starttls", says(b"250 mx.test\r\n"), "connect", "downgradeerror", 'tls="implicit"'),
    "STARTTLS refused": ("starttls", says(OFFER, b"454 not now\r\n"), "connect", "downgradeerror", None),
    "plaintext after the 220": ("starttls", says(OFFER, b"220 go\r\n250 x\r\n"), "connect", "downgradeerror", None),
    "no SMTP": ("starttls", says(hello=b"SSH-2.0-x\r\n"), "connect", "protocolerror", None),
    "greeting 554": ("starttls", says(hello=b"554 no\r\n"), "connect", "connecterror", None),
    "greeting 554 inside TLS": ("implicit", says(hello=b"554 no\r\n", encrypted=True), "tls", "connecterror", None),
    "EHLO refused": (
        "implicit", says(b"501 invalid name\r\n", encrypted=True), "tls", "refusederror",
        'local_hostname="app.example.com"',
    ),
    "EHLO refused in plaintext": (
        "starttls", says(b"550 invalid name\r\n"), "connect", "downgradeerror", 'local_hostname="app.example.com"',
    ),
    "silence after the greeting": ("implicit", says(encrypted=True), "tls", "deadlineexceedederror", None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_wrong_server_gets_its_verdict(serve: Serve, check: Check, case: str) -> None:
    """How far it got, what is wrong, and the line to write; nothing of a login."""
    mode, script, stage, name, line = CASES[case]
    server = serve(script)
    result = check(server, mode, username="me", password="secret", timeout=0.5)
    assert (result.stage, names(result)) == (stage, [name])
    fault = result.faults[0]
    assert (fault.level, fault.line) == ("error", line)
    assert result.error is not None
    assert (result.error.host, result.error.port, fault.cause) == ("localhost", server.port, result.error.args[0])
    assert len(fault.fix) > 15
    assert said(result)[-1] == f"*** {fault.cause}"
    assert (result.report, result.host, result.port, result.tls) == (None, "localhost", server.port, mode)
    assert b"AUTH" not in server.secret


def test_old_tls_is_a_fault_without_a_line(serve: Serve, check: Check) -> None:
    """TLS 1.1, and cipher suites without AEAD: no setting permits them."""
    for context in (GOOD.certificate.tls11_only_context(), GOOD.certificate.cbc_only_context()):
        result = check(serve(tls=context))
        assert (names(result), result.faults[0].line, result.chain) == (["tlserror"], None, ())


def test_a_server_that_wants_a_client_certificate(serve: Serve, check: Check, ca: trustme.CA, tmp_path: Path) -> None:
    """The line has its arguments; with them, the check succeeds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    result = check(serve(tls=context))
    assert (names(result), result.faults[0].line) == (
        ["connecterror"],
        'policy=TLSPolicy(client_cert="me.pem", client_key="me.key")',
    )
    mine = tmp_path / "me.pem"
    ca.issue_cert("me@example.org").private_key_and_cert_chain_pem.write_to_path(mine)
    assert check(serve(tls=context), client_cert=mine).error is None


def test_a_host_without_an_address(resolve: Resolve) -> None:
    """It is a fault, not an exception; there is nothing else to report."""
    resolve()
    for results in ([probe(Request(host="nowhere.example"))], probe_all(Request(host="nowhere.example"))):
        assert [names(each) for each in results] == [["connecterror"]]
        result = results[0]
        assert (result.stage, result.addresses, result.chain, result.address) == ("", (), (), None)
        assert (result.port, result.tls) == (465, "implicit")
        assert "not known" in result.faults[0].cause


def test_a_port_where_nothing_listens(serve: Serve, check: Check, resolve: Resolve) -> None:
    """Each address is reported with what it replied."""
    server = serve()
    server.stop()
    resolve("127.0.0.1", "127.0.0.3")
    result = check(server)
    assert names(result) == ["connecterror"]
    assert [(each.address, each.result) for each in result.addresses] == [
        ("127.0.0.1", "Connection refused"),
        ("127.0.0.3", "Connection refused"),
    ]


def test_one_dead_address_is_a_warning(serve: Serve, check: Check, resolve: Resolve) -> None:
    """A send succeeds over the other one."""
    resolve("127.0.0.3", "127.0.0.1", "127.0.0.4")
    result = check(serve())
    assert [(each.address, each.result) for each in result.addresses] == [
        ("127.0.0.3", "Connection refused"),
        ("127.0.0.1", "connected"),
        ("127.0.0.4", "not tried"),
    ]
    assert (names(result), result.error, result.address) == (["dead-address"], None, "127.0.0.1")


def test_an_address_that_has_not_answered_yet_is_no_warning(
    serve: Serve, check: Check, resolve: Resolve, silent: tuple[str, int]
) -> None:
    """The next one is tried after a quarter of a second; which of them is slow is not known."""
    resolve(silent, "127.0.0.1")
    result = check(serve())
    assert [(each.address, each.result) for each in result.addresses] == [
        (silent[0], "no answer before another one"),
        ("127.0.0.1", "connected"),
    ]
    assert (result.faults, result.error) == ((), None)


def test_a_family_restricts_the_addresses(serve: Serve, check: Check, resolve: Resolve) -> None:
    """As -4 and -6: others are not tried; a host that has none of that kind is an error with a hint."""
    resolve("::1", "127.0.0.1")
    server = serve()
    result = check(server, family=4)
    assert [(each.address, each.result) for each in result.addresses] == [
        ("::1", "not tried"),
        ("127.0.0.1", "connected"),
    ]
    assert result.faults == ()
    resolve("127.0.0.1")
    result = check(server, family=6)
    assert (names(result), result.faults[0].cause) == (["connecterror"], "localhost has no IPv6 address")
    assert "-6" in result.faults[0].fix
    assert [each.result for each in result.addresses] == ["not tried"]


def test_an_address_is_connected_to_and_the_name_is_verified(serve: Serve, check: Check, resolve: Resolve) -> None:
    """The certificate is still for the host: at another address of the same host, and not for that address."""
    resolve("127.0.0.4")
    server = serve(tls=GOOD.certificate.context())
    policy = {"address": "127.0.0.1", "server_name": None}
    assert names(check(server, host="mail.example.test", **policy)) == ["certificateerror-untrusted"]
    server = serve()
    assert check(server, **policy).error is None
    assert names(check(server, host="mail.example.test", **policy)) == ["certificateerror-name-mismatch"]
    assert check(server, host="mail.example.test", address="127.0.0.1", server_name="localhost").error is None


def test_all_addresses_are_checked_and_compared(serve: Serve, resolve: Resolve, ca: trustme.CA, ca_file: Path) -> None:
    """Each one by its own connection; a difference is a warning at each of them that says in what."""
    second = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(second)
    one, two = serve(), serve(honest(extensions=("PIPELINING",)), tls=second, host="127.0.0.2")
    request = Request(host="localhost", ca_file=ca_file, timeout=5)
    resolve(("127.0.0.1", one.port), ("127.0.0.2", two.port))
    results = probe_all(request)
    assert [(each.address, each.stage) for each in results] == [("127.0.0.1", "ehlo"), ("127.0.0.2", "ehlo")]
    assert [names(each) for each in results] == [["different-addresses"]] * 2
    cause = results[0].faults[0].cause
    assert cause == "the addresses of the host differ in certificate and extensions: 127.0.0.1; 127.0.0.2"
    assert [len(server.connections) for server in (one, two)] == [1, 1]
    assert [[tried.result for tried in each.addresses] for each in results] == [["connected", "connected"]] * 2
    assert said(results[1])[0] == "=== Trying localhost:465 at 127.0.0.2"
    resolve(("127.0.0.1", one.port), ("127.0.0.3", one.port), "::1")
    results = probe_all(replace(request, family=4))
    assert [names(each) for each in results] == [["different-addresses"], ["connecterror", "different-addresses"]]
    assert [each.result for each in results[0].addresses] == ["connected", "Connection refused"]
    resolve(("127.0.0.1", one.port))
    assert [names(each) for each in probe_all(request)] == [[]]


@pytest.mark.parametrize(
    ("until", "stages"),
    [
        ("connect", ("connect", "connect")),
        ("tls", ("tls", "tls")),
        ("ehlo", ("ehlo", "ehlo")),
        ("auth", ("auth", "auth")),
        (None, ("auth", "auth")),
    ],
)
def test_the_check_ends_where_it_is_told(
    serve: Serve, check: Check, mode: Mode, until: str | None, stages: tuple[str, str]
) -> None:
    """Nothing of a later stage goes to the server; the stages before it are reported."""
    server = serve(honest(mode, auth=("me", "secret")))
    result = check(server, mode, until=until, username="me", password="secret")
    server.joined()
    assert (result.stage, result.error, result.faults) == (stages[0], None, ())
    whole = server.plain + server.secret
    assert (b"EHLO" in server.secret) is (until in {"ehlo", "auth", None})
    assert (b"AUTH" in whole) is (until in {"auth", None})
    assert (b"QUIT" in whole) is (until in {"ehlo", "auth", None})
    assert (len(server.raw) > 0) is False
    assert (result.session is None) is (until == "connect")
    assert bool(result.chain) is (until != "connect")
    assert (result.after_tls is None) is (until in {"connect", "tls"})
    assert (result.mechanism == "PLAIN") is (until not in {"connect", "tls"})
    if until in {"connect", "tls"}:
        assert said(result)[-1] == f"=== stopped after {until}"
        assert (
            server.plain
            == {
                ("connect", "implicit"): b"",
                ("connect", "starttls"): b"",
                ("tls", "implicit"): b"",
                ("tls", "starttls"): b"EHLO [127.0.0.1]\r\nSTARTTLS\r\n",
            }[until, mode]
        )


def test_a_server_that_closes_is_said_to_close(serve: Serve, check: Check) -> None:
    """Without close_notify, as many servers do; OpenSSL's text says nothing to an operator."""

    def script(peer: Peer) -> None:
        peer.start_tls()
        peer.send(b"220 mx.test ESMTP\r\n")
        peer.read_line()
        peer.cut()

    assert check(serve(script)).faults[0].cause == "the connection failed: the server closed it"


def test_until_tls_needs_no_greeting_inside_it(serve: Serve, check: Check) -> None:
    """A server that never greets has passed."""
    result = check(serve(says(hello=b"", encrypted=True)), until="tls", timeout=1)
    assert (result.stage, result.error) == ("tls", None)


def test_a_refused_login_is_an_error_beside_the_report(serve: Serve, check: Check) -> None:
    """The session is reported whole."""
    result = check(serve(honest(auth=("me", "right"))), username="me", password="wrong")
    assert (result.stage, names(result)) == ("ehlo", ["authenticationerror"])
    assert isinstance(result.error, AuthenticationError)
    assert result.report is not None
    assert (result.report.login, result.mechanism) == (False, "PLAIN")
    assert said(result)[-1].startswith("*** the server refused the login")
    assert result.error.host == "localhost"


def test_a_server_that_wants_a_token(serve: Serve, check: Check) -> None:
    """With a password there is no usable mechanism, and the line says what to pass; with a token, it logs in."""

    def xoauth2(peer: Any) -> None:
        peer.start_tls()
        peer.send(b"220 mx.test\r\n")
        peer.expect(b"EHLO")
        peer.send(b"250-mx.test\r\n250-PIPELINING\r\n250 AUTH XOAUTH2\r\n")
        if peer.read_line().startswith(b"AUTH"):
            peer.send(b"235 2.7.0 ok\r\n")
            peer.read_line()

    result = check(serve(xoauth2), username="me", password="secret")
    assert (names(result), result.faults[0].line) == (["nousablemechanismerror"], "auth=OAuth2(username, token)")
    assert result.mechanism is None
    assert result.mechanism_reason.startswith("the server offers none that a login with a password may use: SCRAM-SHA-")
    result = check(serve(xoauth2), username="me", password="token", oauth=True)
    assert (result.stage, result.error, result.mechanism) == ("auth", None, "XOAUTH2")
    for request in ({}, {"username": "me", "oauth": True, "until": "ehlo"}):
        result = check(serve(xoauth2), **request)
        assert (result.stage, result.mechanism) == ("ehlo", "XOAUTH2")
        assert result.mechanism_reason == "the strongest that the server offers for a login with an access token"


def test_a_mechanism_that_needs_a_binding_is_chosen_where_there_is_one(
    serve: Serve, check: Check, ca: trustme.CA
) -> None:
    """In TLS 1.2, as a login would choose it; in TLS 1.3, no Python has a binding yet, and the reason says so."""
    offer = honest(extensions=("PIPELINING", "AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256"))
    result = check(serve(offer))
    reason = "; this connection has no channel binding, which SCRAM-SHA-256-PLUS needs"
    if "tls-exporter" not in ssl.CHANNEL_BINDING_TYPES:
        assert (result.mechanism, reason in result.mechanism_reason) == ("SCRAM-SHA-256", True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert check(serve(offer, tls=context)).mechanism == "SCRAM-SHA-256-PLUS"


def test_a_mechanism_is_named_without_a_login(serve: Serve, check: Check) -> None:
    """A password's if the server takes passwords; none if it takes no login."""
    result = check(serve(honest(extensions=("PIPELINING", "AUTH SCRAM-SHA-256 PLAIN XOAUTH2"))))
    assert (result.mechanism, result.stage) == ("SCRAM-SHA-256", "ehlo")
    assert result.mechanism_reason == "the strongest that the server offers for a login with a password"
    result = check(serve())
    assert (result.mechanism, result.mechanism_reason) == (None, "the server offers no login inside TLS")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"host": "mail.example.com:465"}, "host"),
        ({"port": 0}, "port"),
        ({"pins": ("sha256/x",)}, "pins"),
        ({"ca_file": Path("/nowhere/ca.pem")}, "ca_file"),
        ({"address": "mail.example.com"}, "not an IP address"),
        ({"username": "me"}, "username"),
        ({"password": "secret"}, "username"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_a_wrong_request_is_refused_before_the_network(request_: dict[str, Any], message: str) -> None:
    """By `probe` and by `probe_all`."""
    for call in (probe, probe_all):
        with pytest.raises(ConfigurationError, match=message):
            call(Request(**{"host": "mail.example.com", **request_}))


def test_the_name_in_ehlo_is_the_one_of_the_request(serve: Serve, check: Check) -> None:
    """As the line of the fault about it says."""
    server = serve()
    check(server, local_hostname="app.example.com")
    assert server.secret.startswith(b"EHLO app.example.com\r\n")


def test_missing_roots_are_no_fault_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation is reported before the network is used."""
    monkeypatch.setattr(certifi, "where", lambda: "/nowhere/cacert.pem")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        probe(Request(host="mail.example.com"))


def test_a_refused_token_is_tried_once_more(serve: Serve, check: Check) -> None:
    """Over a second connection if need be, as by a send; both dialogues are shown, the second one from plaintext on."""
    tokens = iter(["token-one", "token-two", "token-two"])
    replies = iter([b"535 5.7.8 old\r\n", b"503 5.5.1 once only\r\n", b"235 2.7.0 ok\r\n"])
    script = honest(
        "starttls", extensions=("AUTH XOAUTH2",), auth=("me", "x"), replies={"AUTH": lambda *_: next(replies)}
    )
    result = check(serve(script), "starttls", username="me", password=lambda: next(tokens), oauth=True)
    assert (result.stage, result.error, result.mechanism) == ("auth", None, "XOAUTH2")
    shown = said(result)
    assert [each for each in shown if "AUTH XOAUTH2 (" in each] == ["~> AUTH XOAUTH2 (not shown)"] * 3
    assert shown.count("-> STARTTLS") == 2


def test_a_wrong_pin_shows_todays_key(serve: Serve, check: Check, ca_file: Path) -> None:
    """The line has the key that the server shows; with it, the check succeeds."""
    server, other = serve(), "sha256/" + "A" * 43 + "="
    result = check(server, pins=(other,))
    assert names(result) == ["certificateerror-pin"]
    line = result.faults[0].line
    assert line == f'policy=TLSPolicy(ca_file="{ca_file}", pins=("{result.chain[0].spki_sha256}",))'
    policy = eval(line.removeprefix("policy="), {"TLSPolicy": TLSPolicy})  # noqa: S307 -- a program would have it
    with SecureMailer("localhost", server.port, policy=policy) as mailer:
        assert mailer.check().tls.peer_spki_sha256 == result.chain[0].spki_sha256
    assert check(server, pins=(other, result.chain[0].spki_sha256)).error is None


def test_a_strict_refusal_names_the_setting(serve: Serve, check: Check, tmp_path: Path) -> None:
    """The line is right: with it, the check succeeds."""
    row = next(each for each in TABLE if each.id == "legacy_ca")
    path = tmp_path / "my ca.pem"
    path.write_bytes(row.trust)
    server = serve(tls=row.certificate.context())
    assert check(server, ca_file=path).faults[0].line == f'policy=TLSPolicy(ca_file="{path}", allow_legacy_ca=True)'
    assert check(server, ca_file=path, allow_legacy_ca=True).error is None


def _flights(turns: list[Turn]) -> int:
    """Return how often the server replied after the client had written."""
    return sum(turn.who == "server" for turn in turns)


TRIPS = {"": 4, "CHUNKING": 4, "PIPELINING": 2, "PIPELINING CHUNKING": 1}


@pytest.mark.parametrize("offer", TRIPS)
def test_the_round_trips_are_those_of_the_next_message(
    serve: Serve, mailer: Mailer, check: Check, message: EmailMessage, offer: str
) -> None:
    """As a server counts them for the second message of a connection."""
    offers, trips = offer.split(), TRIPS[offer]
    del message["Bcc"]
    server = serve(honest(extensions=("8BITMIME", *offers)))
    result = check(server)
    sender = mailer(server)
    sender.send(message)
    log = server.connections[1]
    before = _flights(log.turns)
    sender.send(message)
    assert _flights(log.turns) - before == trips
    assert result.round_trips == trips
    assert result.report is not None
    assert result.report.round_trips == trips
    assert mailer(serve(honest(extensions=offers)), pipelining="off").check().round_trips == 4


def test_warnings_about_what_is_offered(serve: Serve, check: Check, ca: trustme.CA) -> None:
    """Each with its cause; none of them is an error."""

    def odd(peer: Any) -> None:
        peer.send(b"220 mx.test\r\n")
        peer.expect(b"EHLO")
        peer.send(b"250-mx.test\r\n250-AUTH PLAIN LOGIN\r\n250-CHUNKING\r\n250-8BITMIME\r\n250 STARTTLS\r\n")
        peer.expect(b"STARTTLS")
        peer.send(b"220 go\r\n")
        peer.start_tls()
        peer.expect(b"EHLO")
        peer.send(b"250-mx.test\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250 LIMITS MAILMAX=5\r\n")
        peer.expect(b"QUIT")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    result = check(serve(odd, tls=context), "starttls")
    assert {fault.name: fault.level for fault in result.faults} == dict.fromkeys(
        ("tls-1-2", "auth-before-tls", "different-capabilities", "no-pipelining", "small-size"), "warning"
    )
    causes = {fault.name: fault.cause for fault in result.faults}
    assert "(PLAIN LOGIN)" in causes["auth-before-tls"]
    assert "(only before TLS: CHUNKING; only inside TLS: LIMITS SIZE)" in causes["different-capabilities"]
    assert "1000000 bytes" in causes["small-size"]
    assert (result.error, result.stage, result.round_trips) == (None, "ehlo", 4)
    assert result.before_tls is not None
    assert result.after_tls is not None
    assert ("CHUNKING" in result.before_tls, "CHUNKING" in result.after_tls) == (True, False)


def test_inherited_trust_is_a_note(serve: Serve, check: Check, monkeypatch: pytest.MonkeyPatch, ca_file: Path) -> None:
    """It changes nothing: the check fails without `ca_file`, also if the variable names the right one (X18)."""
    server = serve()
    for name in TRUST_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert check(server).notes == ()
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    result = check(server, ca_file=None)
    assert names(result) == ["certificateerror-untrusted"]
    assert re.fullmatch(
        r"SSL_CERT_FILE is set, and changes nothing here: this library trusts certifi [\d.]+", result.notes[0]
    )
    assert result.trust.startswith("certifi ")
    monkeypatch.setenv("SSL_CERT_DIR", "/etc/ssl/certs")
    assert check(server).notes[0].startswith("SSL_CERT_FILE and SSL_CERT_DIR are set, and change nothing here: ")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(ca_file))
    all_set = "SSL_CERT_FILE, SSL_CERT_DIR, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE are set, and change nothing here: "
    assert check(server).notes[0].startswith(all_set)
    for name in TRUST_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    # The library's own variable is for programs that ask for it.
    monkeypatch.setenv("SMTP_CA_FILE", str(ca_file))
    note = "SMTP_CA_FILE is set, and changes nothing here: it is for from_env and send; this command has --ca-file"
    result = check(server, ca_file=None)
    assert (names(result), result.notes) == (["certificateerror-untrusted"], (note,))
    assert check(server, ca_file=ca_file).notes == ()


def test_nothing_from_the_server_reaches_a_terminal_as_it_is(serve: Serve, check: Check, ca: trustme.CA) -> None:
    """Neither from replies nor from certificates: no control character, no text that runs backwards, no surrogate."""
    nasty = "\x1b[2J\u202e\x85\x00"
    raw = nasty.encode().replace(b"\r", b"") + b"\xff\xfe"
    replies = {
        "GREETING": b"220 mx " + raw + b"\r\n",
        "EHLO": b"250-mx " + raw + b"\r\n250-" + raw + b"\r\n250 AUTH PLAIN\r\n",
        "AUTH": b"535 5.7.8 " + raw + b"\r\n",
    }
    certificate = ca.issue_cert("localhost", common_name=nasty.replace("\0", ""), organization_name=nasty[:5])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    result = check(serve(honest(replies=replies, auth=("me", "x")), tls=context), username="me", password="secret")
    assert names(result) == ["authenticationerror", "no-pipelining"]
    shown = _texts(result)
    assert any("\\x1b[2J" in text for text in shown)
    assert [text for text in shown if not text.isprintable()] == []
    assert result.chain[0].subject == "\\x1b[2J\\u202e\\x85"


def _texts(value: object) -> list[str]:
    """Return every text in *value*, except the errors of the library: they escape their own."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for text in _texts(pair)]
    if isinstance(value, tuple | list):
        return [text for each in value for text in _texts(each)]
    if is_dataclass(value) and not isinstance(value, type):
        return [text for each in fields(value) for text in _texts(getattr(value, each.name))]
    return []
