"""The bridge to OpenTelemetry, with the real SDK: which spans and measurements a mailer's sends become."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial as bind
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any, NamedTuple

import anyio
import pytest
import trustme
from anyio.from_thread import BlockingPortal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from conftest import AsyncMailer, Mailer, Run, Serve
from faces import Backend
from scripted import Peer, Script, honest
from securesmtp import AsyncSecureMailer, Envelope, SecureSMTPError
from securesmtp.integrations.opentelemetry import OpenTelemetry, _bridge

PAGE = Path(__file__).parents[2] / "docs/how-to/watch-it.md"
MESSAGE_ID = "<a secret id@example.com>"
DATA = f"From: me@example.com\r\nSubject: a secret subject\r\nMessage-ID: {MESSAGE_ID}\r\n\r\nx\r\n".encode()
ENHANCED = "smtp.reply.enhanced_code"
SENDER, RECIPIENTS = "me@example.com", ["you@example.net", "nobody@example.net"]
TLS_ATTRIBUTES = [
    *("smtp.tls.mode", "tls.cipher", "tls.protocol.name", "tls.protocol.version"),
    *("tls.server.hash.sha256", "tls.server.not_after"),
]


@dataclass
class Telemetry:
    """An SDK that keeps everything in memory."""

    kept: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def __post_init__(self) -> None:
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.kept))
        self.meters = MeterProvider([self.reader])

    def bridge(self, **options: Any) -> OpenTelemetry:
        return OpenTelemetry(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def caller(self) -> Any:
        return self.tracers.get_tracer("the caller").start_as_current_span("the caller's span")

    @property
    def spans(self) -> list[ReadableSpan]:
        return [span for span in self.kept.get_finished_spans() if span.name == "smtp.send"]

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        metrics = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]

    def exported(self) -> str:
        """Return all that an exporter would write."""
        data = self.reader.get_metrics_data()
        return "\n".join([*(span.to_json() for span in self.kept.get_finished_spans()), data.to_json() if data else ""])


@pytest.fixture
def telemetry(caplog: pytest.LogCaptureFixture) -> Iterator[Telemetry]:
    """Set up the SDK, and check at the end that each connection which was counted has ended; the bridge never fails."""
    made = Telemetry()
    yield made
    assert [each for each in caplog.get_records("call") if each.getMessage() == "on_event raised"] == []
    assert {point.value for point in made.points("smtp.client.connection.count")} <= {0}
    made.tracers.shutdown()
    made.meters.shutdown()


def _cut(peer: Peer, _: bytes) -> bytes:
    peer.cut()
    return b""


def _refuse_one(_: Peer, line: bytes) -> bytes:
    return b"550 5.1.1 <nobody@example.net>: no such user\r\n" if b"nobody@" in line else b"250 2.1.5 ok\r\n"


class End(NamedTuple):
    """How a send ends: what the server does, and the attributes beside those of the server and of the message."""

    script: Script
    attributes: dict[str, str | int]
    options: Mapping[str, Any] = MappingProxyType({})
    """Arguments of the mailer, and of the send: "partial"."""
    has_tls: bool = True


def _failed(outcome: str, error: str, stage: str, code: int = 0, enhanced: str = "") -> dict[str, str | int]:
    reply: dict[str, str | int] = {"smtp.reply.code": code, "smtp.reply.enhanced_code": enhanced}
    found: dict[str, str | int] = {"smtp.outcome": outcome, "error.type": error, "smtp.stage": stage}
    return found | {key: value for key, value in reply.items() if value}


PASSWORD = {"username": "me", "password": "a secret password"}
ENDS = {
    "accepted": End(
        honest(),
        {"smtp.outcome": "accepted", "smtp.recipient.refused_count": 0, "smtp.reply.code": 250, ENHANCED: "2.0.0"},
    ),
    "without an enhanced code": End(
        honest(replies={"CONTENT": b"250 ok\r\n"}),
        {"smtp.outcome": "accepted", "smtp.recipient.refused_count": 0, "smtp.reply.code": 250},
    ),
    "accepted for one": End(
        honest(replies={"RCPT": _refuse_one}),
        {"smtp.outcome": "accepted", "smtp.recipient.refused_count": 1, "smtp.reply.code": 250, ENHANCED: "2.0.0"},
        {"partial": "allow"},
    ),
    "no recipient": End(
        honest(replies={"RCPT": _refuse_one}), _failed("refused", "RecipientsRefusedError", "rcpt", 550, "5.1.1")
    ),
    "no sender": End(
        honest(replies={"MAIL": b"451 4.7.1 me@example.com: later\r\n"}),
        _failed("refused", "SenderRefusedError", "mail", 451, "4.7.1"),
    ),
    "no content": End(
        honest(replies={"CONTENT": b"554 a secret subject\r\n"}), _failed("refused", "DataRefusedError", "content", 554)
    ),
    "lost after the content": End(
        honest(replies={"CONTENT": _cut}), _failed("unknown", "OutcomeUnknownError", "content")
    ),
    "lost before": End(honest(replies={"MAIL": _cut}), _failed("not sent", "ConnectError", "mail")),
    "no login": End(
        honest(auth=("me", "right")),
        _failed("not sent", "AuthenticationError", "auth", 535, "5.7.8"),
        PASSWORD,
        has_tls=False,
    ),
    "no greeting": End(
        honest(replies={"GREETING": b"554 mx.test\r\n"}),
        _failed("not sent", "ConnectError", "greeting", 554),
        {},
        has_tls=False,
    ),
    "no STARTTLS": End(
        honest("starttls", replies={"EHLO": b"250 mx.test\r\n"}),
        _failed("not sent", "DowngradeError", "starttls"),
        {"tls": "starttls"},
        has_tls=False,
    ),
}


@pytest.mark.faces("send", sample=(3, 1))
@pytest.mark.parametrize("name", ENDS)
def test_each_end_of_a_send_is_a_span_and_two_measurements(
    serve: Serve, mailer: Mailer, telemetry: Telemetry, name: str
) -> None:
    """With these attributes and no other; a metric has only those with few values. None of them is private."""
    end = ENDS[name]
    server, options = serve(end.script), dict(end.options)
    partial = options.pop("partial", "raise")
    with mailer(server, on_event=telemetry.bridge(), **options) as mine:
        is_bad = "error.type" in end.attributes
        with pytest.raises(SecureSMTPError) if is_bad else nullcontext():
            mine.send_bytes(DATA, mail_from=SENDER, recipients=RECIPIENTS, partial=partial)
    (span,) = telemetry.spans
    attributes, where = dict(span.attributes or {}), {"server.address": "localhost", "server.port": server.port}
    tls = {key: str(attributes.pop(key)) for key in list(attributes) if "tls." in key}
    assert attributes == where | {"smtp.recipient.count": 2, "smtp.message.size": len(DATA)} | end.attributes
    assert (span.kind, span.parent, span.events) == (SpanKind.CLIENT, None, ())
    few = {key: end.attributes[key] for key in ("smtp.outcome", "error.type") if key in end.attributes}
    assert span.status.status_code is (StatusCode.ERROR if is_bad else StatusCode.UNSET)
    if is_bad:
        assert span.status.description == f"{attributes['smtp.outcome']} in {attributes['smtp.stage']}"
    (count,), (duration,) = telemetry.points("smtp.client.messages"), telemetry.points("smtp.client.send.duration")
    assert (dict(count.attributes), count.value) == (where | few, 1)
    assert (dict(duration.attributes), duration.count) == (where | few, 1)
    if end.has_tls:
        assert sorted(tls) == TLS_ATTRIBUTES
        assert (tls["smtp.tls.mode"], tls["tls.protocol.name"], tls["tls.protocol.version"]) == (
            "implicit",
            "tls",
            "1.3",
        )
        assert tls["tls.cipher"].startswith("TLS_")
        (opened,) = telemetry.points("smtp.client.connection.create_time")
        assert (dict(opened.attributes), opened.count) == (where, 1)
    else:
        assert tls == {}
    exported = telemetry.exported()
    private = ("me@", "you@", "nobody@", "example.", "secret", "no such user", "mx.test", "right")
    assert [each for each in private if each in exported] == []


@pytest.mark.parametrize("is_asked", [False, True])
def test_the_message_id_is_there_if_asked_for(
    serve: Serve, mailer: Mailer, telemetry: Telemetry, *, is_asked: bool
) -> None:
    """On spans only, also on that of a failure; raw bytes without one have none."""
    refuse = iter([b"550 no\r\n"])
    server = serve(honest(replies={"MAIL": lambda *_: next(refuse, b"250 ok\r\n")}))
    with mailer(server, on_event=telemetry.bridge(message_id=is_asked)) as mine:
        with pytest.raises(SecureSMTPError):
            mine.send_bytes(DATA, mail_from=SENDER, recipients=RECIPIENTS)
        mine.send_bytes(DATA, mail_from=SENDER, recipients=RECIPIENTS)
        mine.send_bytes(b"Subject: none\r\n\r\n", mail_from=SENDER, recipients=RECIPIENTS)
    ids = [(span.attributes or {}).get("smtp.message.id") for span in telemetry.spans]
    assert ids == [MESSAGE_ID, MESSAGE_ID, None] if is_asked else [None, None, None]
    assert [set(point.attributes) for point in telemetry.points("smtp.client.messages")] == [
        {"server.address", "server.port", "smtp.outcome", "error.type"},
        {"server.address", "server.port", "smtp.outcome"},
    ]


OFFER = ("PIPELINING", "8BITMIME", "CHUNKING")
PIPELINING = pytest.mark.parametrize("pipelining", ["message", "session"])


def _letters(count: int) -> Iterator[Envelope]:
    return (Envelope(SENDER, RECIPIENTS, DATA + b"%d\r\n" % number) for number in range(count))


@PIPELINING
def test_in_send_many_each_span_is_a_child_of_the_callers(
    serve: Serve, mailer: Mailer, telemetry: Telemetry, pipelining: str
) -> None:
    """In `send` too, and in the context in which the first result is asked for, although another thread sends."""
    server = serve(honest(extensions=OFFER), overlaps=True)
    with mailer(server, pipelining=pipelining, on_event=telemetry.bridge()) as mine:
        results = mine.send_many(_letters(9))
        with telemetry.caller() as span:
            assert [result.outcome for result in results] == ["accepted"] * 9
            mine.send_bytes(DATA, mail_from=SENDER, recipients=RECIPIENTS)
    assert [each.parent for each in telemetry.spans] == [span.get_span_context()] * 10


@PIPELINING
def test_in_a_task_each_span_is_a_child_of_the_tasks(
    serve: Serve, async_mailer: AsyncMailer, telemetry: Telemetry, run: Run, pipelining: str
) -> None:
    """Of two tasks that share a mailer, each has its own; so have the messages of its `send_many`."""
    server = serve(honest(extensions=OFFER), overlaps=True)
    parents = list[int]()

    async def send(mine: AsyncSecureMailer) -> None:
        with telemetry.caller() as span:
            parents.append(span.get_span_context().span_id)
            async with mine.send_many(_letters(4)) as results:
                assert [result.outcome async for result in results] == ["accepted"] * 4
            await mine.send_bytes(DATA, mail_from=SENDER, recipients=RECIPIENTS)

    async def send_twice() -> None:
        bridge = telemetry.bridge()
        async with (
            async_mailer(server, pipelining=pipelining, on_event=bridge) as mine,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(send, mine)
            tasks.start_soon(send, mine)

    run(send_twice)
    found = Counter(each.parent.span_id for each in telemetry.spans if each.parent is not None)
    assert found == dict.fromkeys(parents, 5)
    assert len(parents) == 2


def test_a_cancelled_send_is_a_span_with_its_outcome(
    serve: Serve, async_mailer: AsyncMailer, telemetry: Telemetry, run: Run
) -> None:
    """Although the cancellation itself is lost in most task groups."""
    cancels = SimpleQueue[Callable[[], object]]()

    def cancel(_: Peer, __: bytes) -> bytes:
        cancels.get_nowait()()
        return b""

    async def send() -> None:
        async with (
            BlockingPortal() as portal,
            async_mailer(serve(honest(replies={"CONTENT": cancel})), on_event=telemetry.bridge()) as mine,
        ):
            with anyio.CancelScope() as scope:
                cancels.put(bind(portal.start_task_soon, scope.cancel))
                await mine.send_bytes(DATA, mail_from=SENDER, recipients=RECIPIENTS)
            assert scope.cancelled_caught

    run(send)
    (span,) = telemetry.spans
    assert dict(span.attributes or {}).items() >= _failed("unknown", "OutcomeUnknownError", "content").items()


def test_a_connection_ends_with_its_event_loop(
    serve: Serve, async_mailer: AsyncMailer, telemetry: Telemetry, backend: Backend
) -> None:
    """A mailer that is used in one loop after the other counts those of the last alone."""
    mine = async_mailer(serve(), on_event=telemetry.bridge())

    async def send() -> int:
        await mine.send_bytes(DATA, mail_from=SENDER, recipients=RECIPIENTS)
        (point,) = telemetry.points("smtp.client.connection.count")
        return int(point.value)

    assert [anyio.run(send, backend=backend) for _ in range(3)] == [1, 1, 1]
    anyio.run(mine.close, backend=backend)


def test_a_span_has_the_duration_of_the_send(serve: Serve, mailer: Mailer, telemetry: Telemetry) -> None:
    """It lies inside that of its parent; its measurement is in seconds, and leads to it."""
    with mailer(serve(), on_event=telemetry.bridge()) as mine, telemetry.caller() as parent:
        receipt = mine.send_bytes(DATA, mail_from=SENDER, recipients=RECIPIENTS)
    (span,) = telemetry.spans
    times = [parent.start_time or 0, span.start_time or 0, span.end_time or 0, parent.end_time or 0]
    assert times == sorted(times)
    assert times[2] - times[1] == receipt.elapsed // timedelta(microseconds=1) * 1000
    (point,) = telemetry.points("smtp.client.send.duration")
    assert point.sum == receipt.elapsed.total_seconds()
    assert point.explicit_bounds[:3] == (0.01, 0.025, 0.05)
    assert [exemplar.span_id for exemplar in point.exemplars] == [span.context.span_id]


def test_a_check_is_no_send(serve: Serve, mailer: Mailer, telemetry: Telemetry) -> None:
    """Neither a good nor a bad one is a span or counts; its connection counts while it is open."""
    with mailer(serve(honest(auth=("me", "right"))), on_event=telemetry.bridge(), **PASSWORD) as mine:
        assert mine.check().login is False
    with mailer(serve(), on_event=telemetry.bridge()) as mine:
        assert mine.check().login is None
    mine = mailer(serve(honest(replies={"GREETING": b"554 no\r\n"})), on_event=telemetry.bridge())
    with pytest.raises(SecureSMTPError):
        mine.check()
    assert telemetry.spans == []
    assert telemetry.points("smtp.client.messages") == []
    assert [point.count for point in telemetry.points("smtp.client.connection.create_time")] == [1, 1]


@pytest.mark.faces("send")
@pytest.mark.parametrize("way", ["aborted", "closed by the server", "used up"])
def test_each_connection_is_counted_until_it_ends(serve: Serve, mailer: Mailer, telemetry: Telemetry, way: str) -> None:
    """The fixture checks that none is left; how a send ends it, the ends above show."""
    last = b"250 ok\r\n421 4.4.2 idle\r\n" if way == "closed by the server" else b"250 ok\r\n"
    server = serve(honest(replies={"CONTENT": last}))
    with mailer(server, on_event=telemetry.bridge(), max_messages=1 if way == "used up" else None) as mine:
        for _ in range(2):
            mine.send_bytes(DATA, mail_from=SENDER, recipients=RECIPIENTS)
        assert [point.value for point in telemetry.points("smtp.client.connection.count")] == [1]
        mine.close(abort=way == "aborted")
    (opened,) = telemetry.points("smtp.client.connection.create_time")
    assert opened.count == len(server.connections) == (1 if way == "aborted" else 2)


def test_an_older_tls_has_no_registered_cipher_name(
    serve: Serve, mailer: Mailer, telemetry: Telemetry, server_tls: ssl.SSLContext, ca: trustme.CA
) -> None:
    """OpenSSL's names of TLS 1.2's ciphers are not those that the convention asks for."""
    older = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(older)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    with mailer(serve(tls=older), on_event=telemetry.bridge()) as mine:
        mine.send_bytes(DATA, mail_from=SENDER, recipients=RECIPIENTS)
    (span,) = telemetry.spans
    assert dict(span.attributes or {})["tls.protocol.version"] == "1.2"
    assert "tls.cipher" not in dict(span.attributes or {})


def test_the_global_providers_may_be_set_later() -> None:
    """As a program does that makes its mailer when it is imported; without any SDK, nothing happens."""
    program = """
from datetime import timedelta
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from securesmtp import ConnectError, events
from securesmtp.integrations.opentelemetry import OpenTelemetry, _bridge
failed = events.Failed("mail.example.com", 465, ConnectError("no"), timedelta(seconds=1))
bridge, kept, reader = OpenTelemetry(), InMemorySpanExporter(), InMemoryMetricReader()
bridge(failed)
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(kept))
metrics.set_meter_provider(MeterProvider([reader]))
bridge(failed)
(span,) = kept.get_finished_spans()
(scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
print(span.name, sorted(span.attributes), sorted(metric.name for metric in scope.metrics), scope.scope.name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    names = ["smtp.client.messages", "smtp.client.send.duration"]
    attributes = ["error.type", "server.address", "server.port", "smtp.outcome", "smtp.stage"]
    assert (done.stdout, done.stderr) == (f"smtp.send {attributes} {names} securesmtp\n", "")


def test_the_page_names_each_attribute_and_each_metric() -> None:
    """And no other."""
    pattern = re.compile(r"\b(?:smtp|tls|server|error)\.[\w.]*\w\b")
    source, page = (path.read_text("utf-8") for path in (Path(_bridge.__file__), PAGE))
    section = page.partition("(opentelemetry)=")[2].partition("\n(")[0]
    written = {name for text in re.findall(r'"([^"]*)"', source) for name in pattern.findall(text)}
    assert written == {name for text in re.findall(r"`([^`]*)`", section) for name in pattern.findall(text)}


class _Broken(SpanProcessor):
    def on_start(self, span: object, parent_context: object = None) -> None:
        message = "the exporter's queue is broken"
        raise RuntimeError(message)


def test_a_message_counts_although_the_sdk_makes_no_span_of_it(serve: Serve, mailer: Mailer) -> None:
    """Otherwise a broken exporter of traces would look like a service that sends nothing."""
    broken = Telemetry()
    broken.tracers.add_span_processor(_Broken())
    mine = mailer(serve(), on_event=broken.bridge())
    mine.send_bytes(DATA, mail_from=SENDER, recipients=RECIPIENTS)
    assert [point.value for point in broken.points("smtp.client.messages")] == [1]
    assert [point.count for point in broken.points("smtp.client.send.duration")] == [1]
    mine.close()
    broken.tracers.shutdown()
    broken.meters.shutdown()
