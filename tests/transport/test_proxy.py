"""Mail through a proxy, over real sockets and real TLS: in each mode, cut at every octet, and with hostile proxies."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme

from conftest import AsyncMailer, Mailer, Positions, Run
from leaks import Watch, shown
from proxies import ANSWERS, SCHEMES, Relay, Scheme, greets_at_once, tunnelled
from scripted import Chunking, Ending, Mode, Peer, Script, ScriptedServer, honest
from securesmtp import (
    CertificateError,
    CertificateReason,
    ConfigurationError,
    ConnectError,
    DeadlineExceededError,
    Outcome,
    ProxyError,
    SecureMailer,
    SecureSMTPError,
    Timeouts,
    TLSPolicy,
    WrongTLSModeError,
)
from securesmtp._protocol.proxy import Tunnel, Write
from securesmtp._protocol.proxy.effects import write
from securesmtp._transport.channel import WRITE
from securesmtp._transport.tunnel import pass_tunnel

RAW = b"Subject: x\r\n\r\nhello\r\n"
ENVELOPE: dict[str, Any] = {"mail_from": "a@b.example", "recipients": ["c@d.example"]}
# No resolver knows it: only the proxy is asked for it.
NOWHERE = "mail.nowhere.invalid"
PASSWORD = "hunter2secret"


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> Scheme:
    """Run the test with each kind of proxy."""
    chosen: Scheme = request.param
    return chosen


@pytest.fixture
def relay(scheme: Scheme) -> Iterator[Relay]:
    """Run a proxy."""
    with Relay(scheme) as running:
        yield running


@pytest.fixture(scope="session")
def nowhere_tls(ca: trustme.CA) -> ssl.SSLContext:
    """Make the TLS context of a server whose name no resolver knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(NOWHERE).configure_cert(context)
    return context


def url(scheme: Scheme, port: int, login: str = "") -> str:
    """Return the URL of a proxy on this machine."""
    return f"{scheme}://{login}127.0.0.1:{port}"


@pytest.mark.faces("proxies", sample=(4, 1))
def test_mail_goes_through_a_proxy_that_looks_up_the_name(  # noqa: PLR0913, PLR0917 -- fixtures
    make_mailer: Mailer, ca_file: Path, nowhere_tls: ssl.SSLContext, mode: Mode, relay: Relay, message: EmailMessage
) -> None:
    """The name goes to the proxy, and the certificate must be for it; EHLO does not say our address."""
    with ScriptedServer(honest(mode), tls=nowhere_tls) as server:
        with make_mailer(NOWHERE, server.port, tls=mode, ca_file=ca_file, proxy=relay.url) as mine:
            receipts = [mine.send(message), *(result.receipt for result in mine.send_many([message, message]))]
        assert {receipt.tls.server_name for receipt in receipts if receipt is not None} == {NOWHERE}
        assert len(server.accepted) == 3
        first = (server.plain + server.secret).partition(b"\r\n")[0]
    assert first == b"EHLO [127.0.0.1]"
    assert relay.targets[0] == f"{NOWHERE}:{server.port}"


@pytest.mark.faces("proxies", sample=(4, 1))
@pytest.mark.parametrize("word", [PASSWORD, "x" + PASSWORD], ids=["right", "wrong"])
def test_a_login_at_the_proxy(
    mailer: Mailer, server_tls: ssl.SSLContext, scheme: Scheme, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong one is the proxy's error, not the server's, and nothing shows it."""
    with ScriptedServer(honest(), tls=server_tls) as server, Relay(scheme, ("me", PASSWORD)) as proxy:
        mine = mailer(server, proxy=url(scheme, proxy.port, f"me:{word}@"))
        if word == PASSWORD:
            mine.send_bytes(RAW, **ENVELOPE)
            assert len(server.accepted) == 1
        else:
            with pytest.raises(ProxyError, match="refused the login") as caught:
                mine.send_bytes(RAW, **ENVELOPE)
            assert (caught.value.outcome, caught.value.retryable) == (Outcome.NOT_SENT, False)
            assert PASSWORD not in shown(caught.value)
        mine.close()
    assert PASSWORD not in repr(mine) + caplog.text


@pytest.mark.faces("proxies", sample=(4, 1))
@pytest.mark.parametrize("chunking", ["whole", "by_byte"])
def test_no_octet_behind_the_answer_is_lost_or_read_twice(
    mailer: Mailer, server_tls: ssl.SSLContext, scheme: Scheme, chunking: Chunking
) -> None:
    """The greeting comes in the same segment as the answer, or each octet in its own."""
    greeting = b"220-mx.test\r\n220 ESMTP\r\n"

    def greeted(peer: Peer) -> None:
        peer.expect(b"EHLO")
        peer.send(b"250-mx.test\r\n250 STARTTLS\r\n")
        peer.expect(b"STARTTLS")
        peer.send(b"220 go\r\n")
        peer.start_tls()
        peer.expect(b"EHLO")
        peer.send(b"250 mx.test\r\n")
        peer.expect(b"MAIL")
        peer.send(b"550 no\r\n")

    with ScriptedServer(greets_at_once(scheme, greeted, greeting), tls=server_tls, chunking=chunking) as server:
        mine = mailer(server, tls="starttls", proxy=url(scheme, server.port))
        with pytest.raises(SecureSMTPError, match="550 no"):
            mine.send_bytes(RAW, **ENVELOPE)
        mine.close()


@pytest.mark.faces("cuts at every byte", sample=(6, 6))
@pytest.mark.parametrize("ending", ["cut", "reset"])
@pytest.mark.parametrize("side", ["cut_after_read", "cut_after_written"])
def test_the_outcome_is_true_if_a_proxied_connection_is_cut_at_any_byte(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    mailer: Mailer, server_tls: ssl.SSLContext, positions: Positions, side: str, ending: Ending, scheme: Scheme
) -> None:
    """Those of the proxy are among them: all of these are not sent."""
    mode: Mode = "implicit" if scheme == "http" else "starttls"
    script = tunnelled(scheme, honest(mode))
    with ScriptedServer(script, tls=server_tls) as whole:
        mine = mailer(whole, tls=mode, proxy=url(scheme, whole.port))
        mine.send_bytes(RAW, **ENVELOPE)
        mine.close()
        log = whole.connections[0]
        octets = len(whole.plain + whole.secret) if side == "cut_after_read" else log.written
    seen, blamed = set[Outcome](), dict[int, bool]()
    of_the_proxy = sum(map(len, ANSWERS[scheme]))
    for count in sorted({*positions(octets), *range(0, of_the_proxy, 3)}):
        with ScriptedServer(script, tls=server_tls, cut_with=ending, **{side: count}) as server:
            mine = mailer(server, tls=mode, proxy=url(scheme, server.port))
            try:
                mine.send_bytes(RAW, **ENVELOPE)
                outcome = Outcome.ACCEPTED
            except SecureSMTPError as error:
                outcome = error.outcome
                blamed[count] = isinstance(error, ProxyError) and "127.0.0.1" in error.args[0] and error.retryable
            mine.close()
            server.joined()
            assert len(server.accepted) <= 1
            assert outcome is Outcome.UNKNOWN or (outcome is Outcome.ACCEPTED) == bool(server.accepted), count
        seen.add(outcome)
    assert {Outcome.NOT_SENT, Outcome.UNKNOWN} <= seen
    # As long as the proxy has not replied, it is the proxy's fault, and after that it is not.
    if side == "cut_after_written":
        assert {count for count, it in blamed.items() if it} == {count for count in blamed if count < of_the_proxy}


@pytest.mark.faces("proxies", sample=(4, 1))
@pytest.mark.parametrize("flip", [0x80, 0x0A])
def test_a_proxy_that_changes_any_byte_of_its_answer_gets_no_mail_in_the_clear(
    mailer: Mailer, server_tls: ssl.SSLContext, scheme: Scheme, flip: int, stride: int
) -> None:
    """It ends in an error or in TLS with the right server, never in anything else."""
    whole = b"".join(ANSWERS[scheme])
    for at in range(0, len(whole), stride if scheme == "socks5h" else 4 * stride):
        bad = whole[:at] + bytes((whole[at] ^ flip,)) + whole[at + 1 :]
        answers = (bad[:2], bad[2:]) if scheme == "socks5h" else (bad,)
        with ScriptedServer(tunnelled(scheme, honest(), answers), tls=server_tls, timeout=5) as server:
            mine = mailer(server, proxy=url(scheme, server.port), timeout=0.3)
            try:
                mine.send_bytes(RAW, **ENVELOPE)
                outcome = Outcome.ACCEPTED
            except SecureSMTPError as error:
                outcome = error.outcome
            mine.close()
            server.stop()
            assert outcome is (Outcome.ACCEPTED if server.accepted else Outcome.NOT_SENT), at
            assert b"MAIL" not in server.plain
            for log in server.connections:
                log.failure = None


def _silent(peer: Peer) -> None:
    peer.sleep_until_peer_closes()


def _drips(peer: Peer) -> None:
    peer.read_some()
    peer.drip(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100, 0.02)


@pytest.mark.faces("proxies", sample=(4, 1))
@pytest.mark.parametrize("script", [_silent, _drips])
def test_one_limit_holds_over_the_proxy_and_its_answer(mailer: Mailer, script: Script) -> None:
    """The field `connect`; the hint names the proxy."""
    with ScriptedServer(script) as server:
        mine = mailer(server, proxy=url("http", server.port), timeout=Timeouts(connect=0.4))
        with pytest.raises(DeadlineExceededError, match=f"through the proxy 127.0.0.1:{server.port}") as caught:
            mine.send_bytes(RAW, **ENVELOPE)
        assert (caught.value.limit, caught.value.outcome) == ("connect", Outcome.NOT_SENT)
        mine.close()


def test_the_deadline_of_a_send_holds_for_the_proxy_too(mailer: Mailer) -> None:
    """It is the sooner one."""
    with ScriptedServer(_silent) as server:
        mine = mailer(server, proxy=url("socks5h", server.port))
        with pytest.raises(DeadlineExceededError) as caught:
            mine.send_bytes(RAW, deadline=0.2, **ENVELOPE)
        assert caught.value.limit == "deadline"
        mine.close()


@pytest.mark.faces("proxies", sample=(4, 1))
def test_a_close_ends_the_wait_for_a_proxy(mailer: Mailer) -> None:
    """As it ends any other wait; that is no fault of the proxy."""
    came = threading.Event()

    def waits(peer: Peer) -> None:
        peer.read_some()
        came.set()
        peer.sleep_until_peer_closes()

    with ScriptedServer(waits) as server:
        mine = mailer(server, proxy=url("socks5h", server.port), timeout=30)
        errors = list[BaseException]()

        def send() -> None:
            try:
                mine.send_bytes(RAW, **ENVELOPE)
            except SecureSMTPError as error:
                errors.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        assert came.wait(20)
        mine.close(abort=True)
        thread.join(20)
        assert [type(error) for error in errors] == [ConnectError]
        assert "mailer was closed" in str(errors[0])


def test_a_proxy_that_closes_is_named(mailer: Mailer, scheme: Scheme) -> None:
    """In the middle of its answer; the server is not to blame."""

    def closes(peer: Peer) -> None:
        peer.read_some()
        peer.send(ANSWERS[scheme][0][:1])

    with ScriptedServer(closes) as server:
        mine = mailer(server, proxy=url(scheme, server.port))
        with pytest.raises(
            ProxyError, match=f"the proxy 127.0.0.1:{server.port}: the proxy closed the connection"
        ) as caught:
            mine.send_bytes(RAW, **ENVELOPE)
        # A proxy of the other kind does so, too.
        assert {"http": "is it an HTTP one?", "socks5h": "is it a SOCKS 5 one?"}[scheme] in str(caught.value)
        mine.close()


def test_a_cancelled_task_leaves_no_connection_to_the_proxy(run: Run, async_mailer: AsyncMailer) -> None:
    """In the middle of the proxy's answer."""

    async def main(server: ScriptedServer) -> None:
        mine = async_mailer(server, proxy=url("http", server.port), timeout=30)
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: mine.send_bytes(RAW, **ENVELOPE))
            while not server.connections or not server.connections[0].plain:  # noqa: ASYNC110 -- of another thread
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        await mine.close()

    with ScriptedServer(_silent) as server:
        run(main, server)
        server.joined(10)


@pytest.mark.faces("proxies", sample=(4, 1))
def test_a_proxy_that_is_not_there(mailer: Mailer, server_tls: ssl.SSLContext, scheme: Scheme) -> None:
    """The error is about the proxy, not about the server's port."""
    with ScriptedServer(tls=server_tls) as gone:
        port = gone.port
    with ScriptedServer(tls=server_tls) as server:
        mine = mailer(server, proxy=url(scheme, port))
        with pytest.raises(ProxyError, match=f"the proxy 127.0.0.1:{port}.*Connection refused.*of the proxy") as caught:
            mine.send_bytes(RAW, **ENVELOPE)
        assert (caught.value.retryable, caught.value.stage, caught.value.port) == (True, "connect", server.port)
        mine.close()
        assert server.connections == []


@pytest.mark.faces("proxies", sample=(4, 1))
def test_a_name_of_a_proxy_that_does_not_exist(mailer: Mailer, server_tls: ssl.SSLContext) -> None:
    """It is the proxy's name that is looked up."""
    with ScriptedServer(tls=server_tls) as server:
        mine = mailer(server, proxy="http://proxy.nowhere.invalid:8080")
        with pytest.raises(ProxyError, match=r"the proxy proxy\.nowhere\.invalid:8080"):
            mine.send_bytes(RAW, **ENVELOPE)
        mine.close()


@pytest.mark.faces("proxies", sample=(4, 1))
def test_a_proxy_that_cannot_reach_the_server(mailer: Mailer, server_tls: ssl.SSLContext, relay: Relay) -> None:
    """A later try may succeed."""
    with ScriptedServer(honest(), tls=server_tls) as server:
        pass
    mine = mailer(server, proxy=relay.url)
    with pytest.raises(ProxyError, match=r"refused the connection|replied 502") as caught:
        mine.send_bytes(RAW, **ENVELOPE)
    assert caught.value.retryable
    mine.close()


@pytest.mark.faces("proxies", sample=(4, 1))
def test_a_proxy_cannot_be_the_server(mailer: Mailer, scheme: Scheme) -> None:
    """With a certificate of its own it gets as far as any attacker."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with ScriptedServer(tunnelled(scheme, honest()), tls=context) as server:
        mine = mailer(server, proxy=url(scheme, server.port), username="me", password=PASSWORD)
        with pytest.raises(CertificateError) as caught:
            mine.send_bytes(RAW, **ENVELOPE)
        assert caught.value.reason in {CertificateReason.SELF_SIGNED, CertificateReason.UNTRUSTED}
        mine.close()
        assert server.secret == b""


def test_the_certificate_is_checked_for_the_server_not_for_the_proxy(
    ca_file: Path, nowhere_tls: ssl.SSLContext, relay: Relay
) -> None:
    """The proxy chooses where the connection goes, and gains nothing by it."""
    with (
        ScriptedServer(honest(), tls=nowhere_tls) as server,
        SecureMailer("other.invalid", server.port, policy=TLSPolicy(ca_file=ca_file), proxy=relay.url) as mine,
        pytest.raises(CertificateError) as caught,
    ):
        mine.send_bytes(RAW, **ENVELOPE)
    assert caught.value.reason is CertificateReason.NAME_MISMATCH


def test_a_server_in_the_clear_behind_a_proxy(mailer: Mailer, scheme: Scheme) -> None:
    """As without one: bytes that come before TLS are not lost, and are no TLS."""

    def speaks_first(peer: Peer) -> None:
        peer.read_some()

    with ScriptedServer(greets_at_once(scheme, speaks_first, b"220 mx.test ESMTP\r\n")) as server:
        mine = mailer(server, proxy=url(scheme, server.port))
        with pytest.raises(WrongTLSModeError, match="speaks plaintext"):
            mine.send_bytes(RAW, **ENVELOPE)
        mine.close()


def test_no_error_shows_a_password_that_a_proxy_repeats(mailer: Mailer, caplog: pytest.LogCaptureFixture) -> None:
    """It knows the password, and may put it into what looks like the server's greeting."""
    greeting = f"550 no {PASSWORD} here\r\n".encode()
    with ScriptedServer(greets_at_once("http", _silent, greeting)) as server:
        mine = mailer(server, tls="starttls", proxy=url("http", server.port, f"me:{PASSWORD}@"))
        watch = Watch({"username": "me", "password": PASSWORD})
        with pytest.raises(ConnectError, match="550 no") as caught:
            mine.send_bytes(RAW, **ENVELOPE)
        mine.close()
        watch.search(shown(caught.value) + caplog.text)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
def test_the_environment_chooses_no_proxy(
    mailer: Mailer, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Only the argument does."""
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    with ScriptedServer(honest(), tls=server_tls) as server:
        mine = mailer(server)
        assert mine.send_bytes(RAW, **ENVELOPE).reply.code == 250
        mine.close()


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "proxy and connect": ({"proxy": "http://p.test:1", "connect": print}, "connect or proxy, not both"),
    "connect and source": ({"connect": print, "source_address": ("127.0.0.1", 0)}, "connect or source_address"),
    "connect": ({"connect": "unix:/x"}, "connect is a str"),
    "proxy's host": ({"proxy": "http://a..b:1"}, "the proxy's host"),
    "not a URL": ({"proxy": 5}, "is a int, not a str"),
    "a URL": ({"proxy": f"http://me:{PASSWORD}@a@b:1"}, "percent-encode"),
}


@pytest.mark.faces("proxies", sample=(4, 1))
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_found_before_the_network(make_mailer: Mailer, case: str) -> None:
    """And no frame of the error has the password."""
    options, words = WRONG[case]
    with pytest.raises(ConfigurationError, match=words) as caught:
        make_mailer("mail.example", **options)
    assert PASSWORD not in shown(caught.value)


class SlowChannel:
    """A channel that takes one byte at a time, and has no room before each."""

    def __init__(self) -> None:
        self.peer, self.written, self.has_room = "server", bytearray(), False

    def write(self, data: memoryview) -> int:
        self.has_room = not self.has_room
        if self.has_room:
            return 0
        self.written += data[:1]
        return 1


def test_a_request_is_written_whole_when_there_is_no_room() -> None:
    """It is far smaller than any buffer of a kernel, so that this is tried without one."""
    channel = SlowChannel()

    def dialogue() -> Tunnel:
        yield from write(Write(b"CONNECT"))

    assert list(pass_tunnel(channel, dialogue())) == [WRITE] * 7  # type: ignore[arg-type] # what it needs of one
    assert (bytes(channel.written), channel.peer) == (b"CONNECT", "server")
