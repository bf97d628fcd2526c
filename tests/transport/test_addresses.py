"""A host with several addresses (RFC 8305): the rule by itself, and what the link makes of it on loopback."""

from __future__ import annotations

import errno
import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Mailer, Serve
from scripted import Peer, honest
from securesmtp import (
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
from securesmtp._transport.addresses import ATTEMPT_DELAY, AddressInfo, AttemptSchedule, in_order_of_attempts
from securesmtp._transport.link import Link
from securesmtp._transport.tls import build_context
from securesmtp._values import TLSMode
from securesmtp.events import Connecting, Event


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
def test_families_take_turns_in_the_resolvers_order(found: list[str], tried: list[str]) -> None:
    """RFC 8305 §4; each once, and a forged answer with thousands of addresses makes a bounded number of attempts."""
    addresses = [_info(host, name="canonical" if index == 0 else "") for index, host in enumerate(found)]
    assert [info[4][0] for info in in_order_of_attempts(addresses)] == tried


def test_a_silent_attempt_is_overtaken_after_the_delay() -> None:
    """RFC 8305 §5: 250 ms, and not before; a failed attempt is not waited for."""
    schedule = AttemptSchedule(["a", "b", "c", "d"])
    assert (schedule.delay(10.0), schedule.next_attempt(10.0)) == (0.0, "a")
    assert schedule.next_attempt(10.0) is None
    assert schedule.delay(10.1) == pytest.approx(0.15)
    assert schedule.next_attempt(10.24) is None
    assert schedule.next_attempt(10.25) == "b"
    # That of "b" is still under way, and has its delay.
    schedule.failed("a")
    assert schedule.next_attempt(10.3) is None
    schedule.failed("b")
    assert schedule.next_attempt(10.3) == "c"
    assert schedule.delay(11.0) == 0.0
    assert schedule.next_attempt(11.0) == "d"
    assert schedule.delay(11.0) is None
    schedule.failed("d")
    assert (schedule.next_attempt(99.0), schedule.delay(99.0)) == (None, None)


@given(st.integers(0, 8), st.lists(st.tuples(st.integers(0, 512), st.booleans()), max_size=60))
def test_every_address_is_tried_once_in_order_and_never_two_within_the_delay(
    count: int, steps: list[tuple[int, bool]]
) -> None:
    """Whatever fails when (RFC 8305 §5): two attempts within the delay need a failure in between."""
    schedule, now = AttemptSchedule(range(count)), 0.0
    tried: list[tuple[int, float]] = []
    failed_since = True
    for passed, fails in steps:
        now += passed / 1024
        if fails and tried:
            schedule.failed(tried[-1][0])
            failed_since = True
        address = schedule.next_attempt(now)
        if address is not None:
            assert address == len(tried)
            assert failed_since or now - tried[-1][1] >= ATTEMPT_DELAY
            tried.append((address, now))
            failed_since = False
        else:
            # What the driver waits for is when there is something to do.
            delay = schedule.delay(now)
            assert delay is None if len(tried) == count else 0 < (delay or 0) <= ATTEMPT_DELAY


@pytest.fixture
def silent() -> Iterator[list[AddressInfo]]:
    """Listen at three addresses with a full queue: SYN is not answered there."""
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
            infos.append(_info(*full.getsockname()))
        # Until the kernel has the first of them in the queue.
        time.sleep(0.05)
        yield infos


@contextmanager
def _refusing(host: str) -> Iterator[AddressInfo]:
    """Hold a port where nobody listens."""
    with socket.socket() as free:
        free.bind((host, 0))
        yield _info(*free.getsockname())


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """List every socket with which a link begins to connect."""
    sockets: list[socket.socket] = []
    begin = Link._begin_connect

    def remembered(link: Link, info: AddressInfo) -> socket.socket:
        try:
            return begin(link, info)
        finally:
            sockets.append(link._connecting[-1])

    monkeypatch.setattr(Link, "_begin_connect", remembered)
    return sockets


def _resolve(monkeypatch: pytest.MonkeyPatch, *found: AddressInfo) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: list(found))


def _closed(sockets: list[socket.socket]) -> bool:
    return all(sock.fileno() == -1 for sock in sockets)


def test_a_silent_address_delays_the_next_and_nothing_else(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], made: list[socket.socket]
) -> None:
    """RFC 8305: two silent addresses cost two delays, not two thirds of the limit, which is a minute here."""
    server = serve()
    _resolve(monkeypatch, *silent[:2], _info("127.0.0.1", server.port), silent[2])
    mine = mailer(server, timeout=Timeouts(connect=60))
    began = time.monotonic()
    report = mine.check()
    assert time.monotonic() - began < 15
    assert report.addresses == ("127.0.0.1", "127.0.0.2", "127.0.0.3")
    assert (report.address, server.port) == ("127.0.0.1", mine._settings.port)
    # The last one was not tried.
    assert len(made) == 3
    assert _closed(made[:2])


def test_silent_addresses_share_one_limit(
    message: EmailMessage, monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], made: list[socket.socket]
) -> None:
    """One limit for all of them (TMO-01); the error says what each address answered, and no socket stays open."""
    with (
        _refusing("127.0.0.4") as refusing,
        SecureMailer("three.example", 25000, timeout=Timeouts(connect=0.8)) as mailer,
    ):
        asked: list[object] = []

        def resolve(host: str, port: int, **_: object) -> object:
            asked.append((host, port))
            return [silent[0], refusing, silent[1]]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        with pytest.raises(DeadlineExceededError) as caught:
            mailer.send(message)
    assert (caught.value.limit, caught.value.stage, caught.value.retryable) == ("connect", Stage.CONNECT, True)
    assert "(127.0.0.1: no answer; 127.0.0.4: Connection refused; 127.0.0.2: no answer)" in caught.value.args[0]
    assert asked == [("three.example", 25000)]
    assert len(made) == 3
    assert _closed(made)


def test_one_silent_address_is_a_time_limit_as_it_always_was(
    message: EmailMessage, monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo]
) -> None:
    """Nothing is added: the host stands for it."""
    _resolve(monkeypatch, silent[0])
    with SecureMailer("one.example", timeout=Timeouts(connect=0.3)) as mailer, pytest.raises(TimeoutError) as caught:
        mailer.send(message)
    assert "127.0.0.1" not in str(caught.value)


def test_the_error_says_what_each_address_answered(
    message: EmailMessage, monkeypatch: pytest.MonkeyPatch, made: list[socket.socket]
) -> None:
    """With the hint for the one that refused, though another family cannot be used at all."""
    with _refusing("127.0.0.1") as one, _refusing("127.0.0.2") as two, SecureMailer("two.example") as mailer:
        # Of a family that the system knows and cannot route: documentation addresses (RFC 3849).
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
    assert len(made) == 3
    assert _closed(made)


def test_the_answers_of_addresses_keep_no_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame keeps what called it, and so the message, for as long as somebody keeps the error."""
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


def test_one_address_is_an_error_as_it_always_was(message: EmailMessage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the address, which the configured host stands for; a name without any says so."""
    with _refusing("127.0.0.1") as one, SecureMailer("one.example") as mailer:
        _resolve(monkeypatch, one)
        with pytest.raises(ConnectError) as caught:
            mailer.send(message)
        assert caught.value.args[0] == "the connection failed: Connection refused"
        _resolve(monkeypatch)
        with pytest.raises(ConnectError) as caught:
            mailer.send(message)
        assert caught.value.args[0] == "the connection failed: the name has no address"
        assert (caught.value.hint, caught.value.__cause__) == (None, None)


def test_two_addresses_that_answer_in_one_tick_leave_one_connection(
    serve: Serve, mailer: Mailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch, made: list[socket.socket]
) -> None:
    """The first in order wins, the other is closed: a race of two winners leaked a socket elsewhere."""
    server, other = serve(), serve()
    monkeypatch.setattr("securesmtp._transport.addresses.ATTEMPT_DELAY", 0.0)
    _resolve(monkeypatch, _info("127.0.0.1", server.port), _info("127.0.0.1", other.port))
    assert mailer(server).send(message).reply.code == 250
    assert (len(server.accepted), len(other.accepted)) == (1, 0)
    assert [sock.fileno() >= 0 for sock in made] == [True, False]


def test_attempts_overlap_from_one_source_port(
    serve: Serve, mailer: Mailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo]
) -> None:
    """Bound by the caller: the silent attempt before it still has it."""
    with socket.socket() as free:
        free.bind(("127.0.0.9", 0))
        source = free.getsockname()
    callers: list[object] = []

    def script(peer: Peer) -> None:
        callers.append(peer.sock.getpeername())
        honest()(peer)

    server = serve(script)
    _resolve(monkeypatch, silent[0], _info("127.0.0.1", server.port))
    mailer(server, source_address=source).send(message)
    assert callers == [source]


def test_a_source_address_of_the_other_family_fails_for_its_address_alone(
    serve: Serve, mailer: Mailer, message: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next address is tried at once."""
    server = serve()
    _resolve(monkeypatch, _info("::1", server.port), _info("127.0.0.1", server.port))
    assert mailer(server, source_address=("127.0.0.2", 0)).send(message).reply.code == 250


@pytest.mark.parametrize("strikes", ["start", "wait"])
def test_an_interrupt_leaves_no_socket(
    monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], made: list[socket.socket], strikes: str
) -> None:
    """Ctrl-C while attempts are under way closes them all."""
    link = Link(SecureMailer("localhost", 1, timeout=5)._settings, build_context(TLSPolicy()))
    _resolve(monkeypatch, *silent)
    begin, ticks = Link._begin_connect, []

    def interrupted(link: Link, info: AddressInfo) -> socket.socket:
        ticks.append(info)
        sock = begin(link, info)
        if len(ticks) == 2:
            raise KeyboardInterrupt
        return sock

    def aborted(self: Link, stage: Stage) -> None:
        raise KeyboardInterrupt

    if strikes == "start":
        monkeypatch.setattr(Link, "_begin_connect", interrupted)
    else:
        link._step(Stage.CONNECT, "connect")
        monkeypatch.setattr(Link, "_step", lambda *_: None)
        monkeypatch.setattr(Link, "_refuse_if_aborted", aborted)
    with pytest.raises(KeyboardInterrupt):
        link.run(open_session(TLSMode.IMPLICIT, None))
    assert len(made) == (2 if strikes == "start" else 1)
    assert _closed(made)
    assert not link._connecting
    gc.collect()


def test_an_aborted_link_begins_no_further_attempt(
    monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], made: list[socket.socket]
) -> None:
    """Between two attempts, from another thread."""
    link = Link(SecureMailer("localhost", 1, timeout=5)._settings, build_context(TLSPolicy()))
    _resolve(monkeypatch, *silent)
    begin = Link._begin_connect

    def aborting(link: Link, info: AddressInfo) -> socket.socket:
        link.abort()
        return begin(link, info)

    monkeypatch.setattr(Link, "_begin_connect", aborting)
    with pytest.raises(SecureSMTPError, match="abort") as caught:
        link.run(open_session(TLSMode.IMPLICIT, None))
    assert (caught.value.stage, len(made)) == (Stage.CONNECT, 1)
    assert _closed(made)


def test_closing_with_abort_ends_an_attempt_that_is_under_way(
    monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], made: list[socket.socket]
) -> None:
    """Of a server that does not answer at all; the send says so, long before its limit (issue 12, 16)."""
    mine = SecureMailer("localhost", 1, timeout=60)
    _resolve(monkeypatch, silent[0])
    thread, caught = _started(lambda: mine.send_bytes(b"\r\n", mail_from="a@b.example", recipients=["c@d.example"]))
    _until(lambda: any(slot.link is not None and slot.link._connecting for slot in mine._pool.slots))
    mine.close(abort=True)
    thread.join(10)
    assert [(error.stage, error.outcome) for error in caught] == [(Stage.CONNECT, Outcome.NOT_SENT)]
    assert _closed(made)


def test_closing_with_abort_ends_a_check_that_connects(
    monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], made: list[socket.socket]
) -> None:
    """Its connection is its own, beside those of the sends (issue 12, 16)."""
    mine = SecureMailer("localhost", 1, timeout=60)
    _resolve(monkeypatch, silent[0])
    thread, caught = _started(mine.check)
    _until(lambda: any(slot.link is not None and slot.link._connecting for slot in mine._pool.slots.check_slots))
    mine.close(abort=True)
    thread.join(10)
    assert [error.stage for error in caught] == [Stage.CONNECT]
    assert _closed(made)
    assert not mine._pool.slots.check_slots


@pytest.mark.parametrize("what", ["send", "check"])
def test_closing_with_abort_ends_an_attempt_that_is_just_about_to_begin(
    monkeypatch: pytest.MonkeyPatch, silent: list[AddressInfo], made: list[socket.socket], what: str
) -> None:
    """The certificates are loaded before the first one, which takes its time: there is no socket yet to be ended."""
    _resolve(monkeypatch, silent[0])

    def on_event(event: Event) -> None:
        if isinstance(event, Connecting):
            closing.start()
            _until(lambda: mine._pool.slots.is_aborted)

    mine = SecureMailer("localhost", 1, timeout=60, on_event=on_event)
    closing = threading.Thread(target=mine.close, kwargs={"abort": True}, daemon=True)
    acts = {
        "send": lambda: mine.send_bytes(b"\r\n", mail_from="a@b.example", recipients=["c@d.example"]),
        "check": mine.check,
    }
    thread, caught = _started(acts[what])
    thread.join(10)
    closing.join(10)
    assert [error.stage for error in caught] == [Stage.CONNECT]
    assert "abort" in str(caught[0])
    assert _closed(made)


def _started(act: Callable[[], object]) -> tuple[threading.Thread, list[SecureSMTPError]]:
    caught = list[SecureSMTPError]()

    def run() -> None:
        with pytest.raises(SecureSMTPError, match="abort") as error:
            act()
        caught.append(error.value)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, caught


def _until(is_true: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.01)
