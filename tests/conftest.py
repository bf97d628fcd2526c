"""Fixtures for all tests: a CA, TLS contexts, scripted servers, mailers; and how much of a family each run tries."""

from __future__ import annotations

import gc
import logging
import os
import signal
import ssl
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import ExitStack
from email.message import EmailMessage
from hashlib import blake2s
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from hypothesis import settings

from audit import audit
from databases import PostgreSQL, RabbitMQ, Redis, running
from faces import BACKENDS, Backend, Face, Faces, faces_of, sample
from leaks import Watch
from proxies import SCHEMES, Relay
from scripted import Mode, Script, ScriptedServer, honest
from securesmtp import AsyncSecureMailer, SecureMailer

Serve = Callable[..., ScriptedServer]
Mailer = Callable[..., SecureMailer]
AsyncMailer = Callable[..., AsyncSecureMailer]
Run = Callable[..., Any]
Positions = Callable[[int], list[int]]


# pyproject.toml selects "sampled", `nox -s exhaustive` "complete", and `.ci/run` "few" on all Pythons but the first. No
# deadline: a busy machine is not a failure.
settings.register_profile("few", deadline=None, max_examples=30)
settings.register_profile("sampled", deadline=None, max_examples=100)
settings.register_profile("complete", deadline=None, max_examples=300)


def thorough(fast: int, complete: int) -> list[object]:
    """Return two amounts of work as parameters: for every run, and for `pytest -m exhaustive`."""
    return [pytest.param(fast, id="sampled"), pytest.param(complete, id="complete", marks=pytest.mark.exhaustive)]


def examples(complete: int) -> int:
    """Return how many examples a property tries: a third of *complete*; all with `--hypothesis-profile=complete`."""
    return max(1, complete * settings().max_examples // 300)


def unmeasured() -> dict[str, str]:
    """Return the environment of a child process in which coverage does not start."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def in_share(nodeid: str, share: str) -> bool:
    """
    Return whether this test is in the *share* "K/N": a test is in one of N, and in the same on every machine.

    "K/N/COMMIT" divides the tests differently for each commit.
    """
    number, shares, *commit = share.split("/")
    # Not a checksum: those put all even numbers into the same share.
    digest = blake2s("/".join([*commit, nodeid]).encode()).digest()
    return int.from_bytes(digest) % int(shares) == int(number) - 1


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options for `nox -s faces`, for `.ci/run` and for tests through a proxy."""
    parser.addoption("--through", choices=SCHEMES, help="the fixture `mailer` makes mailers that go through a proxy")
    parser.addoption("--all-faces", action="store_true", help="every test marked `faces` with each of them")
    parser.addoption("--share", metavar="K/N[/COMMIT]", help="the tests of run K (1 to N), when N runs divide them")


def pytest_configure() -> None:
    """Let SIGINT end what it is sent to: what a shell starts in the background ignores it, and so do its children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that is marked `faces` with each of them."""
    mark = metafunc.definition.get_closest_marker("faces")
    if "face" in metafunc.fixturenames and mark is not None:
        metafunc.parametrize("face", faces_of(mark), indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without the garbage collector, which then leaves alone what was made: it took a tenth of the CPU."""
    gc.disable()
    try:
        return (yield)
    finally:
        # First, so that what nobody closed is still reported.
        gc.collect()
        gc.freeze()
        gc.enable()


# First, because the next ones select by marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to `-m exhaustive` and to `--all-faces` what a default run does not try, and to other shares theirs."""
    left_out = set[pytest.Item]()
    for item, is_never_tried in sample(items, everything=config.getoption("all_faces")):
        item.add_marker(pytest.mark.exhaustive)
        if is_never_tried:
            left_out.add(item)
    if config.option.share is not None:
        left_out.update(item for item in items if not in_share(item.nodeid, config.option.share))
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def faces() -> Iterator[Faces]:
    """Make mailers of every kind; their event loops end with the session."""
    with ExitStack() as stack:
        yield Faces(stack)


@pytest.fixture
def face(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Face:
    """Return how the mailers of this test wait, and note it for `faces_table.py`."""
    chosen: Face = getattr(request, "param", "sync")
    mark = request.node.get_closest_marker("faces")
    if mark is not None:
        record_property("face", chosen)
        record_property("kind", mark.args[0])
    return chosen


@pytest.fixture
def make_mailer(faces: Faces, face: Face) -> Mailer:
    """Return the class of the mailers of this test: it takes the arguments of `SecureMailer` and has its methods."""
    return faces.maker(face)


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """Make the CA that the mailers trust."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the CA as PEM."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def server_tls(ca: trustme.CA) -> ssl.SSLContext:
    """Make the TLS context of a server with a valid certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(params=["implicit", "starttls"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Run the test in both TLS modes."""
    chosen: Mode = request.param
    return chosen


@pytest.fixture(params=thorough(13, 1))
def positions(request: pytest.FixtureRequest) -> Positions:
    """Choose where to cut a session of so many octets: at every 13th octet and the last, or at every octet."""
    stride: int = request.param
    return lambda octets: sorted({*range(0, octets, stride), octets - 1})


@pytest.fixture(params=thorough(3, 1))
def stride(request: pytest.FixtureRequest) -> int:
    """Choose how many cases of a family to try: every third, or all."""
    chosen: int = request.param
    return chosen


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function: from then on the thread that calls it can start no other."""
    barred, start = set[int](), threading.Thread.start

    def starts(thread: threading.Thread) -> None:
        if threading.get_ident() in barred:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    return lambda: barred.add(threading.get_ident())


@pytest.fixture
def serve(server_tls: ssl.SSLContext) -> Iterator[Serve]:
    """Start scripted servers that stop at the end of the test, and audit what their clients wrote."""
    with ExitStack() as stack:

        def start(*scripts: Script, **options: object) -> ScriptedServer:
            options.setdefault("tls", server_tls)
            server = ScriptedServer(*scripts or (honest(),), **options)  # type: ignore[arg-type]
            # Registered first, so it runs last: when the server has stopped.
            stack.callback(audit, server)
            return stack.enter_context(server)

        yield start


@pytest.fixture(scope="session")
def proxy_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Run the proxy of `--through`, and return its URL."""
    scheme = request.config.getoption("--through")
    with ExitStack() as stack:
        yield None if scheme is None else stack.enter_context(Relay(scheme)).url


@pytest.fixture
def mailer(
    make_mailer: Mailer, ca_file: Path, caplog: pytest.LogCaptureFixture, proxy_url: str | None
) -> Iterator[Mailer]:
    """Make mailers for scripted servers; fail if anything they raise, return or log has a password."""
    caplog.set_level(logging.DEBUG)
    with ExitStack() as stack:

        def make(server: ScriptedServer, **options: object) -> SecureMailer:
            if "policy" not in options:
                options.setdefault("ca_file", ca_file)
            options.setdefault("timeout", 5)
            if proxy_url is not None and "connect" not in options:
                options.setdefault("proxy", proxy_url)
            watch = Watch(options)
            made = make_mailer("localhost", server.port, **options)
            if isinstance(made, SecureMailer):
                made._submit = watch.watching()(made._submit)  # type: ignore[method-assign]
            else:
                made.mailer._submit = watch.awaiting(made.mailer._submit)
            made._core.report_receipt = watch.receipt(made._core.report_receipt)  # type: ignore[method-assign]
            made.check = watch.report(made.check)  # type: ignore[method-assign]
            made.send_many = watch.results(made.send_many)  # type: ignore[method-assign]
            stack.callback(lambda: watch.search(caplog.text))
            return stack.enter_context(made)

        yield make


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """Run a PostgreSQL."""
    yield from running(PostgreSQL)


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """Run a Redis."""
    yield from running(Redis)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """Run a RabbitMQ."""
    yield from running(RabbitMQ)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Run the test on asyncio and on trio."""
    chosen: Backend = request.param
    return chosen


@pytest.fixture
def run(backend: Backend, caplog: pytest.LogCaptureFixture) -> Run:
    """Run an async function in an event loop; fail if the loop reports an exception that nobody has caught."""

    def call(function: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        found = anyio.run(function, *arguments, backend=backend)
        gc.collect(1)
        assert [each for each in caplog.records if (each.name, each.levelname) == ("asyncio", "ERROR")] == []
        return found

    return call


@pytest.fixture
def async_mailer(ca_file: Path) -> AsyncMailer:
    """Make async mailers for scripted servers; the test closes them."""

    def make(server: ScriptedServer, port: int | None = None, **options: object) -> AsyncSecureMailer:
        options = {"ca_file": ca_file, "timeout": 5, **options}
        return AsyncSecureMailer("localhost", port or server.port, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def message() -> EmailMessage:
    """Return a message with a Bcc, a non-ASCII subject and a line that starts with a dot."""
    made = EmailMessage()
    made["From"] = "me@example.org"
    made["To"] = "you@example.org"
    made["Bcc"] = "blind@example.org"
    made["Subject"] = "Grüße"
    made.set_content("Hello\n.leading dot\n")
    return made
