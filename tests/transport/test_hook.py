"""`connect=`: the caller's function opens the connection, and TLS, the name check and the limits stay the library's."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
import trustme

from conftest import AsyncMailer, Mailer, Positions, Run, Serve
from faces import Face
from leaks import shown
from proxies import copy_until_closed
from scripted import Ending, Mode, ScriptedServer, honest
from securesmtp import (
    AsyncSecureMailer,
    CertificateError,
    ConfigurationError,
    ConnectError,
    DeadlineExceededError,
    Outcome,
    SecureMailer,
    SecureSMTPError,
)

RAW = b"Subject: x\r\n\r\nhello\r\n"
LARGE = b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" * 20_000
ENVELOPE: dict[str, Any] = {"mail_from": "a@b.example", "recipients": ["c@d.example"]}
PASSWORD = "hunter2secret"
Hook = Callable[[str, int, float], Any]


@pytest.fixture
def hook(face: Face) -> Callable[[Hook], Hook]:
    """Return a function that makes the hook of a plain one: for an async mailer, a coroutine function."""

    def of(function: Hook) -> Hook:
        async def connect(host: str, port: int, seconds: float) -> Any:
            return function(host, port, seconds)

        return function if face == "sync" else connect

    return of


@pytest.fixture
def through_unix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], str]]:
    """Return a function: it listens at a Unix socket for one connection to a port, and returns the path."""
    with ExitStack() as stack:

        def listen(port: int) -> str:
            path = str(tmp_path_factory.mktemp("unix") / "s")
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen()

            def serve() -> None:
                client, _ = listener.accept()
                with client, socket.create_connection(("127.0.0.1", port)) as server:
                    copy_until_closed(client, server)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            stack.callback(thread.join, 20)
            return path

        yield listen


def unix_socket(path: str) -> socket.socket:
    """Return a connection to *path*."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock


@pytest.mark.faces("hooks", sample=(4, 1))
@pytest.mark.parametrize("content", [RAW, LARGE], ids=["small", "large"])
def test_mail_goes_over_a_unix_socket(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve,
    mailer: Mailer,
    hook: Callable[[Hook], Hook],
    through_unix: Callable[[int], str],
    mode: Mode,
    content: bytes,
) -> None:
    """The function gets the host, the port and the seconds that are left."""
    server = serve(honest(mode))
    path, seen = through_unix(server.port), list[tuple[str, int, float]]()

    def connect(host: str, port: int, seconds: float) -> socket.socket:
        seen.append((host, port, seconds))
        return unix_socket(path)

    mine = mailer(server, tls=mode, connect=hook(connect))
    receipt = mine.send_bytes(content, **ENVELOPE)
    mine.close()
    assert receipt.tls.server_name == "localhost"
    assert [accepted.content for accepted in server.accepted] == [content]
    assert [each[:2] for each in seen] == [("localhost", server.port)]
    assert 0 < seen[0][2] <= 5
    assert (server.plain + server.secret).startswith(b"EHLO [127.0.0.1]\r\n")


class OfAMachine(socket.socket):
    """Names its peer as an AF_VSOCK socket does; a system without virtual machines has no other."""

    def getpeername(self) -> tuple[int, int]:
        """Return a number of a machine, and a port."""
        return 2, 1024


@pytest.mark.faces("hooks", sample=(4, 1))
def test_mail_goes_over_a_socket_that_is_not_tcp(
    serve: Serve, mailer: Mailer, hook: Callable[[Hook], Hook], through_unix: Callable[[int], str]
) -> None:
    """Also if its peer has two parts, as that of TCP."""
    server = serve(honest())

    def connect(_: str, port: int, __: float) -> socket.socket:
        sock = OfAMachine(socket.AF_UNIX)
        sock.connect(through_unix(port))
        return sock

    mine = mailer(server, connect=hook(connect))
    mine.send_bytes(RAW, **ENVELOPE)
    mine.close()
    assert [accepted.content for accepted in server.accepted] == [RAW]


@pytest.mark.faces("hooks", sample=(4, 1))
def test_a_report_names_the_address_that_was_connected_to(
    serve: Serve, mailer: Mailer, hook: Callable[[Hook], Hook]
) -> None:
    """It is that of the socket."""
    server = serve()
    mine = mailer(server, connect=hook(lambda _, port, seconds: socket.create_connection(("127.0.0.1", port), seconds)))
    assert mine.check().address == "127.0.0.1"
    mine.close()


@pytest.mark.faces("hooks", sample=(4, 1))
def test_the_certificate_is_checked(serve: Serve, mailer: Mailer, hook: Callable[[Hook], Hook]) -> None:
    """Whatever the function has connected to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    server = serve(tls=context)
    connect = hook(lambda _, port, __: socket.create_connection(("127.0.0.1", port)))
    mine = mailer(server, username="me", password=PASSWORD, connect=connect)
    with pytest.raises(CertificateError):
        mine.send_bytes(RAW, **ENVELOPE)
    mine.close()
    assert server.secret == b""


RAISED: dict[str, tuple[Exception, type[SecureSMTPError], str]] = {
    "OSError": (ConnectionRefusedError(111, "no"), ConnectError, "connect raised ConnectionRefusedError"),
    "TimeoutError": (TimeoutError("x"), ConnectError, "connect raised TimeoutError"),
    "another": (ValueError(f"proxy said {PASSWORD}"), ConnectError, "connect raised ValueError"),
    "ours": (ConfigurationError("no tunnel"), ConfigurationError, "no tunnel"),
}


@pytest.mark.faces("hooks", sample=(4, 1))
@pytest.mark.parametrize("case", RAISED)
def test_what_the_function_raises_is_the_cause(
    serve: Serve, mailer: Mailer, hook: Callable[[Hook], Hook], case: str
) -> None:
    """There is no connection, so nothing was sent; its text may have a secret, and is not ours to show."""
    raised, kind, words = RAISED[case]

    def connect(*_: object) -> None:
        raise raised

    server = serve()
    mine = mailer(server, connect=hook(connect))
    with pytest.raises(kind, match=words) as caught:
        mine.send_bytes(RAW, **ENVELOPE)
    mine.close()
    assert (caught.value.outcome, PASSWORD in str(caught.value)) == (Outcome.NOT_SENT, False)
    assert caught.value is raised or caught.value.__cause__ is raised


def _tls_socket(port: int) -> socket.socket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(
        socket.create_connection(("127.0.0.1", port)), do_handshake_on_connect=False, suppress_ragged_eofs=False
    )


RETURNED: dict[str, tuple[Callable[[int], object], str]] = {
    "None": (lambda _: None, "None"),
    "a path": (lambda _: "/run/smtp", "a str"),
    "TLS": (_tls_socket, "a socket with TLS"),
    "UDP": (lambda _: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "not a stream"),
    "not connected": (lambda _: socket.socket(), "not connected"),
}


@pytest.mark.faces("hooks", sample=(4, 1))
@pytest.mark.parametrize("case", RETURNED)
def test_what_is_no_connected_socket_is_refused(
    serve: Serve, mailer: Mailer, hook: Callable[[Hook], Hook], case: str
) -> None:
    """And closed, if it is a socket."""
    make, words = RETURNED[case]
    made = list[object]()
    server = serve(lambda peer: peer.sleep_until_peer_closes())

    def connect(_: str, port: int, __: float) -> object:
        made.append(make(port))
        return made[-1]

    mine = mailer(server, connect=hook(connect))
    with pytest.raises(ConfigurationError, match=words) as caught:
        mine.send_bytes(RAW, **ENVELOPE)
    mine.close()
    assert caught.value.outcome is Outcome.NOT_SENT
    assert [each.fileno() for each in made if isinstance(each, socket.socket)] in ([], [-1])


def test_an_async_function_needs_an_async_mailer() -> None:
    """It is found when the mailer is made."""

    async def connect(*_: object) -> socket.socket:
        raise NotImplementedError

    with pytest.raises(ConfigurationError, match="AsyncSecureMailer"):
        SecureMailer("mail.example", connect=connect)  # type: ignore[arg-type]


def test_an_error_of_this_library_is_raised_as_it_is(run: Run, async_mailer: AsyncMailer, serve: Serve) -> None:
    """Not as the cause of another, or of itself."""
    server = serve()

    async def connect(*_: object) -> socket.socket:
        raise ConfigurationError("no tunnel")

    async def main() -> None:
        async with async_mailer(server, connect=connect) as mine:
            with pytest.raises(ConfigurationError, match="no tunnel") as caught:
                await mine.send_bytes(RAW, **ENVELOPE)
            assert caught.value.__cause__ is None

    run(main)


def test_a_plain_function_is_refused_by_an_async_mailer(run: Run, async_mailer: AsyncMailer, serve: Serve) -> None:
    """It would block the loop."""
    server = serve()

    async def main() -> None:
        async with async_mailer(server, connect=lambda *_: 5) as mine:
            with pytest.raises(ConfigurationError, match="a int, which cannot be awaited"):
                await mine.send_bytes(RAW, **ENVELOPE)

    run(main)


def test_the_socket_of_a_plain_function_is_closed(run: Run, async_mailer: AsyncMailer, serve: Serve) -> None:
    """Nobody else has it."""
    server, made = serve(), list[socket.socket]()

    def connect(_: str, port: int, __: float) -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", port)))
        return made[-1]

    async def main() -> None:
        async with async_mailer(server, connect=connect) as mine:
            with pytest.raises(ConfigurationError, match="a socket, which cannot be awaited"):
                await mine.send_bytes(RAW, **ENVELOPE)

    run(main)
    assert [each.fileno() for each in made] == [-1]


def test_a_stream_is_closed_if_too_many_files_are_open(
    run: Run, async_mailer: AsyncMailer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then there are no two sockets to join it to."""
    server, made = serve(), list[anyio.abc.ByteStream]()

    def no_more_files() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def connect(_: str, port: int, __: float) -> anyio.abc.ByteStream:
        made.append(await anyio.connect_tcp("127.0.0.1", port))
        monkeypatch.setattr(socket, "socketpair", no_more_files)
        return made[-1]

    async def main() -> None:
        async with async_mailer(server, connect=connect) as mine:
            with pytest.raises(ConnectError, match=os.strerror(errno.EMFILE)):
                await mine.send_bytes(RAW, **ENVELOPE)
            monkeypatch.undo()
            with pytest.raises(anyio.ClosedResourceError):
                await made[0].send(b"x")

    run(main)


@pytest.mark.faces("hooks")
def test_the_limit_holds_for_the_function(serve: Serve, mailer: Mailer, face: Face) -> None:
    """A plain function sees to it itself, and what it returns too late is closed; an async one is cancelled."""
    server = serve(lambda peer: peer.sleep_until_peer_closes())
    late = threading.Event()

    def connect(_: str, port: int, seconds: float) -> socket.socket:
        late.wait(seconds + 0.05)
        return socket.create_connection(("127.0.0.1", port))

    async def never(*_: object) -> socket.socket:
        await anyio.sleep_forever()
        raise AssertionError

    mine = mailer(server, connect=connect if face == "sync" else never)
    with pytest.raises(DeadlineExceededError) as caught:
        mine.send_bytes(RAW, deadline=0.2, **ENVELOPE)
    mine.close()
    assert (caught.value.limit, caught.value.outcome) == ("deadline", Outcome.NOT_SENT)
    server.joined(10)


def _is_closed(stream: anyio.abc.ByteStream) -> bool:
    sock: socket.socket = stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610 -- not Django's
    return sock.fileno() < 0


@pytest.mark.parametrize("content", [RAW, LARGE], ids=["small", "large"])
def test_mail_goes_over_a_stream(run: Run, async_mailer: AsyncMailer, serve: Serve, mode: Mode, content: bytes) -> None:
    """An anyio stream has no socket that can be polled; QUIT gets through before it is closed."""
    server, streams = serve(honest(mode)), list[anyio.abc.ByteStream]()

    async def connect(_: str, port: int, __: float) -> anyio.abc.ByteStream:
        streams.append(await anyio.connect_tcp("127.0.0.1", port))
        return streams[-1]

    async def main() -> None:
        async with async_mailer(server, tls=mode, connect=connect) as mine:
            for _ in range(2):
                await mine.send_bytes(content, **ENVELOPE)
        await anyio.to_thread.run_sync(server.joined)
        # The task that copies closes it last.
        with anyio.fail_after(20):
            while not _is_closed(streams[0]):  # noqa: ASYNC110 -- of another task
                await anyio.sleep(0.01)

    run(main)
    assert [accepted.content for accepted in server.accepted] == [content] * 2
    assert server.secret.endswith(b"QUIT\r\n")
    assert len(streams) == 1


@pytest.mark.parametrize("ending", ["cut", "reset", "close"])
def test_the_outcome_is_true_if_a_stream_is_cut_at_any_byte(
    run: Run, async_mailer: AsyncMailer, serve: Serve, positions: Positions, ending: Ending
) -> None:
    """The end of the stream is the end of the connection."""
    whole = serve(honest())

    async def connect(_: str, port: int, __: float) -> anyio.abc.ByteStream:
        return await anyio.connect_tcp("127.0.0.1", port)

    async def send(server: ScriptedServer) -> Outcome:
        async with async_mailer(server, connect=connect) as mine:
            try:
                await mine.send_bytes(RAW, **ENVELOPE)
            except SecureSMTPError as error:
                return error.outcome
        return Outcome.ACCEPTED

    async def main() -> set[Outcome]:
        assert await send(whole) is Outcome.ACCEPTED
        seen = set[Outcome]()
        for count in positions(whole.connections[0].written):
            server = serve(honest(), cut_with=ending, cut_after_written=count)
            outcome = await send(server)
            await anyio.to_thread.run_sync(server.joined)
            assert outcome is Outcome.UNKNOWN or (outcome is Outcome.ACCEPTED) == bool(server.accepted), count
            seen.add(outcome)
        return seen

    assert {Outcome.NOT_SENT, Outcome.UNKNOWN} <= run(main)


def test_a_stream_is_closed_with_its_loop(run: Run, async_mailer: AsyncMailer, serve: Serve) -> None:
    """A mailer that nobody has closed leaves no task and no socket behind."""
    server = serve(honest())

    async def connect(_: str, port: int, __: float) -> anyio.abc.ByteStream:
        return await anyio.connect_tcp("127.0.0.1", port)

    mailers = list[AsyncSecureMailer]()

    async def main() -> None:
        mailers.append(async_mailer(server, connect=connect))
        await mailers[0].send_bytes(RAW, **ENVELOPE)

    run(main)
    server.joined(10)
    with pytest.warns(ResourceWarning, match="unclosed <AsyncSecureMailer localhost"):
        mailers[0].__del__()


def test_a_leaked_password_of_the_function_is_in_no_frame_of_ours(serve: Serve, mailer: Mailer) -> None:
    """The cause has it, because it is the caller's own exception; the library's text does not."""
    server = serve()

    def connect(*_: object) -> socket.socket:
        raise RuntimeError(PASSWORD)

    mine = mailer(server, connect=connect)
    with pytest.raises(ConnectError) as caught:
        mine.send_bytes(RAW, **ENVELOPE)
    mine.close()
    caught.value.__cause__ = caught.value.__context__ = None
    assert PASSWORD not in shown(caught.value)
