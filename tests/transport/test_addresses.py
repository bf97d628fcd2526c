"""A host with several addresses (RFC 8305): the rule by itself, and real connections on loopback."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.message import EmailMessage

import anyio
import pytest
from anyio.to_thread import run_sync
from hypothesis import given
from hypothesis import strategies as st

from conftest import Mailer, Run, Serve
from scripted import Peer, honest
from securesmtp import (
    AsyncSecureMailer,
    ConnectError,
    DeadlineExceededError,
    Outcome,
    SecureMailer,
    SecureSMTPError,
    Stage,
    Timeouts,
    TLSPolicy,
)
from securesmtp._protocol.dialogue import open_session
from securesmtp._transport.addresses import ATTEMPT_DELAY, AddressInfo, AttemptSchedule, order_addresses
from securesmtp._transport.channel import Channel, WaitForAny
from securesmtp._transport.link import Link
from securesmtp._transport.process import current_process
from securesmtp._transport.tls import build_context
from securesmtp._values import TLSMode
from securesmtp.events import Connecting, Event

pytestmark = pytest.mark.faces("several addresses", sample=(4, 1))


def _info(host: str, port: int = 25, name: str = "") -> AddressInfo:
    if ":" in host:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, name, (host, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, name, (host, port))


@pytest.mark.parametrize(
    ("found", "tried"),
    [
        ([], []),
        (["::1", "::2", "::3", "1.1.1.1", "1.1.1.2"], ["::1", "1.1.1.1", "::2", "1.1.1.2", "::3"]),
        (["1.1.1.1", "1.1.1.2", "::1"], ["1.1.1.1", "::1", "1.1.1.2"]),
        (["1.1.1.1", "1.1.1.1", "1.1.1.2"], ["1.1.1.1", "1.1.1.2"]),
        ([f"1.1.1.{n}" for n in range(200)], [f"1.1.1.{n}" for n in range(32)]),
    ],
    ids=["none", "IPv6 first", "IPv4 first", "repeated", "too many"],
)
def test_families_alternate_in_the_resolvers_order(found: list[str], tried: list[str]) -> None:
    """RFC 8305 §4; each address once, and a forged DNS response with thousands of addresses is cut."""
    addresses = [_info(host, name="canonical" if index == 0 else "") for index, host in enumerate(found)]
    assert [info[4][0] for info in order_addresses(addresses)] == tried


def test_the_next_attempt_starts_after_the_delay_or_a_failure() -> None:
    """RFC 8305 §5: after 250 ms and not before, or at once when the newest attempt failed."""
    schedule = AttemptSchedule(["a", "b", "c", "d"])
    assert (schedule.delay(10.0), schedule.next_attempt(10.0)) == (0.0, "a")
    assert schedule.next_attempt(10.0) is None
    assert schedule.delay(10.1) == pytest.approx(0.15)
    assert schedule.next_attempt(10.24) is None
    assert schedule.next_attempt(10.25) == "b"
    # The newest attempt, "b", has not failed.
    schedule.mark_failed("a")
    assert schedule.next_attempt(10.3) is None
    schedule.mark_failed("b")
    assert schedule.next_attempt(10.3) == "c"
    assert schedule.delay(11.0) == 0.0
    assert schedule.next_attempt(11.0) == "d"
    assert schedule.delay(11.0) is None
    schedule.mark_failed("d")
    assert (schedule.next_attempt(99.0), schedule.delay(99.0)) == (None, None)


@given(st.integers(0, 8), st.lists(st.tuples(st.integers(0, 512), st.booleans()), max_size=60))
def test_each_address_is_tried_once_and_never_two_within_the_delay(count: int, steps: list[tuple[int, bool]]) -> None:
    """In order, whatever fails when (RFC 8305 §5): two attempts within the delay need a failure in between."""
    schedule, now = AttemptSchedule(range(count)), 0.0
    tried: list[tuple[int, float]] = []
    failed_since = True
    for passed, fails in steps:
        now += passed / 1024
        if fails and tried:
            schedule.mark_failed(tried[-1][0])
            failed_since = True
        address = schedule.next_attempt(now)
        if address is not None:
            assert address == len(tried)
            assert failed_since or now - tried[-1][1] >= ATTEMPT_DELAY
            tried.append((address, now))
            failed_since = False
        else:
            # The caller waits for this long, and not for nothing.
            delay = schedule.delay(now)
            assert delay is None if len(tried) == count else 0 < (delay or 0) <= ATTEMPT_DELAY


@pytest.fixture
def silent() -> Iterator[list[AddressInfo]]:
    """Listen at three addresses with a full backlog, so that a SYN gets no reply."""
    with ExitStack() as stack:
        infos = []
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            full = stack.enter_context(socket.socket())
            full.bind((host, 0))
            full.listen(0)
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.settimeout(0)
                filler.connect_ex(full.getsockname())
            # Readable as soon as the kernel has the first of them in the queue.
            assert select.select([full], [], [], 5)[0]
            infos.append(_info(*full.getsockname()))
        yield infos


@contextmanager
def _refusing(host: str) -> Iterator[AddressInfo]:
    """Reserve a port on which nothing listens."""
    with socket.socket() as free:
        free.bind((host, 0))
        yield _info(*free.getsockname())


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """List every socket with which a link starts to connect."""
    started: list[socket.socket] = []
    begin = Channel._begin_attempt

    def begin_and_record(channel: Channel, info: AddressInfo) -> socket.socket:
        try:
            return begin(channel, info)
        finally:
            started.append(channel._connecting[-1])

    monkeypatch.setattr(Channel, "_begin_attempt", begin_and_record)
    return started


def _resolve(monkeypatch: pytest.MonkeyPatch, *found: AddressInfo) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: list(found))


def _closed(sockets: list[socket.socket]) -> bool:
    return all(sock.fileno() == -1 for sock in sockets)


def test_a_silent_address_costs_one_delay(
    serve: Serve,
    mailer: Mailer,
    monkeypatch: pytest.MonkeyPatch,
    silent: list[AddressInfo],
    sockets: list[socket.socket],
) -> None:
    """RFC 8305: two silent addresses cost two delays, not two thirds of the time limit of a minute."""
    server = serve()
    _resolve(monkeypatch, *silent[:2], _info("127.0.0.1", server.port), silent[2])
    mine = mailer(server, timeout=Timeouts(connect=60))
    began = time.monotonic()
    report = mine.check()
    assert time.monotonic() - began < 15
    assert report.addresses == ("127.0.0.1", "127.0.0.2", "127.0.0.3")
    assert (report.address, server.port) == ("127.0.0.1", mine._settings.port)
    # The last one was not tried.
    assert len(sockets) == 3
    assert _closed(sockets[:2])


def test_silent_addresses_share_one_limit(
    make_mailer: Mailer,
    message: EmailMessage,
    monkeypatch: pytest.MonkeyPatch,
    silent: list[AddressInfo],
    sockets: list[socket.socket],
) -> None:
    """One limit for all of them (TMO-01); the error reports each address, and no socket stays open."""
    with (
        _refusing("127.0.0.4") as refusing,
        make_mailer("three.example", 25000, timeout=Timeouts(connect=0.8)) as mailer,
    ):
        queries: list[object] = []

        def resolve(host: str, port: int, **_: object) -> object:
            queries.append((host, port))
            return [silent[0], refusing, silent[1]]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        with pytest.raises(DeadlineExceededError) as caught:
            mailer.send(message)
    assert (caught.value.limit, caught.value.stage, caught.value.retryable) == ("connect", Stage.CONNECT, True)
    assert "connect): 127.0.0.1: no answer; 127.0.0.4: Connection refused; 127.0.0.2: no answer" in caught.value.args[0]
    assert queries == [("three.example", 25000)]
    assert len(sockets) == 3
    assert _closed(sockets)


def test_the_error_for_one_silent_address_does_not_repeat_the_address(
    make_mailer: Mailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo]
) -> None:
    """The error names the host."""
    _resolve(monkeypatch, silent[0])
    with make_mailer("one.example", timeout=Timeouts(connect=0.3)) as mailer, pytest.raises(TimeoutError) as caught:
        mailer.send(message)
    assert "127.0.0.1" not in str(caught.value)


def test_the_error_reports_each_address(
    make_mailer: Mailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch, sockets: list[socket.socket]
) -> None:
    """With the hint for a refused connection, although IPv6 is unreachable."""
    with _refusing("127.0.0.1") as one, _refusing("127.0.0.2") as two, make_mailer("two.example") as mailer:
        # An IPv6 address for documentation, which is not routed (RFC 3849).
        _resolve(monkeypatch, one, _info("2001:db8::1"), two)
        monkeypatch.setattr(socket.socket, "connect", _without_ipv6(socket.socket.connect))
        with pytest.raises(ConnectError) as caught:
            mailer.send(message)
    error = caught.value
    assert error.args[0] == (
        "the connection failed: 127.0.0.1: Connection refused; 2001:db8::1: Network is unreachable; "
        "127.0.0.2: Connection refused"
    )
    assert (error.stage, error.retryable, "465" in str(error.hint)) == (Stage.CONNECT, True, True)
    assert isinstance(error.__cause__, ConnectionRefusedError)
    assert len(sockets) == 3
    assert _closed(sockets)


def test_errors_of_addresses_keep_no_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback keeps the callers' frames, and so the message, as long as the error exists."""
    link = Link(SecureMailer("localhost", 1, timeout=5)._settings, build_context(TLSPolicy()))
    _resolve(monkeypatch, _info("127.0.0.1", 1), _info("2001:db8::1"))
    monkeypatch.setattr(socket.socket, "connect", _without_ipv6(socket.socket.connect))
    with pytest.raises(ConnectError) as caught:
        link.run(open_session(TLSMode.IMPLICIT, None))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.__traceback__ is None


def _without_ipv6(connect: object) -> object:
    def refuse(sock: socket.socket, address: tuple[object, ...]) -> None:
        if sock.family == socket.AF_INET6:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        connect(sock, address)  # type: ignore[operator]

    return refuse


def test_the_error_for_one_address_does_not_repeat_the_address(
    make_mailer: Mailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the host; a host name without an address has an error of its own."""
    with _refusing("127.0.0.1") as one, make_mailer("one.example") as mailer:
        _resolve(monkeypatch, one)
        with pytest.raises(ConnectError) as caught:
            mailer.send(message)
        assert caught.value.args[0] == "the connection failed: Connection refused"
        _resolve(monkeypatch)
        with pytest.raises(ConnectError) as caught:
            mailer.send(message)
        assert caught.value.args[0] == "the connection failed: the name has no address"
        assert (caught.value.hint, caught.value.__cause__) == (None, None)


def test_two_addresses_that_connect_at_once_leave_one_connection(
    serve: Serve, mailer: Mailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch, sockets: list[socket.socket]
) -> None:
    """The first in order wins and the other is closed; another client leaked a socket here."""
    server, other = serve(), serve()
    monkeypatch.setattr("securesmtp._transport.addresses.ATTEMPT_DELAY", 0.0)
    _resolve(monkeypatch, _info("127.0.0.1", server.port), _info("127.0.0.1", other.port))
    assert mailer(server).send(message).reply.code == 250
    assert (len(server.accepted), len(other.accepted)) == (1, 0)
    assert [sock.fileno() >= 0 for sock in sockets] == [True, False]


def test_attempts_overlap_from_one_source_port(
    serve: Serve, mailer: Mailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo]
) -> None:
    """The source port is configured; the silent attempt still uses it when the next one starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.9", 0))
        source = free.getsockname()
    sources: list[object] = []

    def script(peer: Peer) -> None:
        sources.append(peer.sock.getpeername())
        honest()(peer)

    server = serve(script)
    _resolve(monkeypatch, silent[0], _info("127.0.0.1", server.port))
    mailer(server, source_address=source).send(message)
    assert sources == [source]


def test_a_source_address_of_the_other_family_fails_for_one_address_only(
    serve: Serve, mailer: Mailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next address is tried at once, without the delay."""
    server = serve()
    monkeypatch.setattr("securesmtp._transport.addresses.ATTEMPT_DELAY", 1000.0)
    _resolve(monkeypatch, _info("::1", server.port), _info("127.0.0.1", server.port))
    assert mailer(server, source_address=("127.0.0.2", 0)).send(message).reply.code == 250


@pytest.mark.parametrize("during", ["start", "wait"])
def test_an_interrupt_leaves_no_socket(
    monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], sockets: list[socket.socket], during: str
) -> None:
    """Ctrl-C during several attempts closes all of them."""
    link = Link(SecureMailer("localhost", 1, timeout=5)._settings, build_context(TLSPolicy()))
    _resolve(monkeypatch, *silent)
    begin, ticks = Channel._begin_attempt, []

    def interrupted(channel: Channel, info: AddressInfo) -> socket.socket:
        ticks.append(info)
        sock = begin(channel, info)
        if len(ticks) == 2:
            raise KeyboardInterrupt
        return sock

    def waits(link: Link, wanted: WaitForAny) -> list[object]:
        raise KeyboardInterrupt

    if during == "start":
        monkeypatch.setattr(Channel, "_begin_attempt", interrupted)
    else:
        monkeypatch.setattr(Link, "_wait_for_any", waits)
    with pytest.raises(KeyboardInterrupt):
        link.run(open_session(TLSMode.IMPLICIT, None))
    assert len(sockets) == (2 if during == "start" else 1)
    assert _closed(sockets)
    assert not link.connection.channel._connecting
    gc.collect()


def test_a_cancellation_leaves_no_socket(
    run: Run, monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], sockets: list[socket.socket]
) -> None:
    """All attempts of a task are closed; another client leaked those that had lost (aiohappyeyeballs issue 142)."""
    _resolve(monkeypatch, *silent)
    mailer = AsyncSecureMailer("localhost", 1, timeout=60)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(mailer.check)
            await run_sync(_wait_until, lambda: len(sockets) == 2)
            group.cancel_scope.cancel()
        await mailer.close()

    run(main)
    assert len(sockets) == 2
    assert _closed(sockets)
    assert not mailer._pools[current_process()].slots.check_slots


def test_an_aborted_link_starts_no_further_attempt(
    monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], sockets: list[socket.socket]
) -> None:
    """An abort from another thread takes effect before the next attempt."""
    link = Link(SecureMailer("localhost", 1, timeout=5)._settings, build_context(TLSPolicy()))
    _resolve(monkeypatch, *silent)
    begin = Channel._begin_attempt

    def aborting(channel: Channel, info: AddressInfo) -> socket.socket:
        channel.abort()
        return begin(channel, info)

    monkeypatch.setattr(Channel, "_begin_attempt", aborting)
    with pytest.raises(SecureSMTPError, match="the mailer was closed") as caught:
        link.run(open_session(TLSMode.IMPLICIT, None))
    assert (caught.value.stage, len(sockets)) == (Stage.CONNECT, 1)
    assert _closed(sockets)


def test_closing_with_abort_ends_a_running_attempt(
    make_mailer: Mailer, monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], sockets: list[socket.socket]
) -> None:
    """At a silent server: the send fails with the right error, long before its time limit (issue 12, 16)."""
    mine = make_mailer("localhost", 1, timeout=60)
    _resolve(monkeypatch, silent[0])
    thread, caught = _start(lambda: mine.send_bytes(b"\r\n", mail_from="a@b.example", recipients=["c@d.example"]))
    _wait_until(lambda: any(slot.link and slot.link.connection.channel._connecting for slot in mine._pool.slots))
    mine.close(abort=True)
    thread.join(10)
    assert [(error.stage, error.outcome) for error in caught] == [(Stage.CONNECT, Outcome.NOT_SENT)]
    assert _closed(sockets)


def test_closing_with_abort_ends_a_check_that_is_connecting(
    make_mailer: Mailer, monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], sockets: list[socket.socket]
) -> None:
    """A check has a connection of its own, outside the pool's (issue 12, 16)."""
    mine = make_mailer("localhost", 1, timeout=60)
    _resolve(monkeypatch, silent[0])
    thread, caught = _start(mine.check)
    _wait_until(
        lambda: any(slot.link and slot.link.connection.channel._connecting for slot in mine._pool.slots.check_slots)
    )
    mine.close(abort=True)
    thread.join(10)
    assert [error.stage for error in caught] == [Stage.CONNECT]
    assert _closed(sockets)
    assert not mine._pool.slots.check_slots


@pytest.mark.parametrize("what", ["send", "check"])
def test_closing_with_abort_prevents_an_attempt_that_is_about_to_start(
    monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], sockets: list[socket.socket], what: str
) -> None:
    """While the certificates are loaded there is no socket yet that could be closed."""
    _resolve(monkeypatch, silent[0])

    def on_event(event: Event) -> None:
        if isinstance(event, Connecting):
            closing.start()
            _wait_until(lambda: mine._pool.slots.is_aborted)

    mine = SecureMailer("localhost", 1, timeout=60, on_event=on_event)
    closing = threading.Thread(target=mine.close, kwargs={"abort": True}, daemon=True)
    acts = {
        "send": lambda: mine.send_bytes(b"\r\n", mail_from="a@b.example", recipients=["c@d.example"]),
        "check": mine.check,
    }
    thread, caught = _start(acts[what])
    thread.join(10)
    closing.join(10)
    assert [error.stage for error in caught] == [Stage.CONNECT]
    assert "the mailer was closed" in str(caught[0])
    assert _closed(sockets)


def test_closing_with_abort_prevents_a_link_that_is_about_to_be_made(
    monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], sockets: list[socket.socket]
) -> None:
    """While the certificates are loaded there is no link yet that could be aborted."""
    _resolve(monkeypatch, silent[0])

    def closes(policy: TLSPolicy) -> ssl.SSLContext:
        closing = threading.Thread(target=mine.close, kwargs={"abort": True}, daemon=True)
        closing.start()
        _wait_until(lambda: mine._pool.slots.is_aborted)
        return build_context(policy)

    monkeypatch.setattr("securesmtp._transport.slots.build_context", closes)
    mine = SecureMailer("localhost", 1, timeout=60)
    with pytest.raises(ConnectError, match="the mailer was closed") as caught:
        mine.send_bytes(b"\r\n", mail_from="a@b.example", recipients=["c@d.example"])
    assert caught.value.stage is Stage.CONNECT
    assert not sockets


def _start(act: Callable[[], object]) -> tuple[threading.Thread, list[SecureSMTPError]]:
    caught = list[SecureSMTPError]()

    def run() -> None:
        with pytest.raises(SecureSMTPError, match="the mailer was closed") as error:
            act()
        caught.append(error.value)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, caught


def _wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
