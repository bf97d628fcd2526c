"""
What the events of a mailer become: a span and measurements for each send, and a count of connections.

How it works: the event at the end of a send has all that is known of it, so its span is made then, with the time at
which it began. Its parent is the span that is current there: `send` emits its events in the caller's own thread or
task, and the thread and tasks of `send_many` have a copy of the caller's context.
"""

from __future__ import annotations

from datetime import timedelta
from importlib.metadata import version
from time import time_ns
from typing import TYPE_CHECKING, TypeAlias

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, StatusCode

from securesmtp import events

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from securesmtp import Event, Receipt, Reply, TLSInfo

    Attributes: TypeAlias = dict[str, str | int]

# In seconds. The SDK's own begin with 5, because they are meant for milliseconds. RFC 5321 §4.5.3.2.6 lets a server
# think for ten minutes.
_BOUNDARIES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)


class OpenTelemetry:
    """
    Makes spans and metrics of a mailer's events: pass it as *on_event*.

    Each send becomes a span ``smtp.send`` of the kind CLIENT, a child of your current span. So does each message of
    `SecureMailer.send_many`; its parent is the span that was current when you asked for the first result. Spans and
    metrics have no address, no subject and no text of the server. One object can serve several mailers.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        message_id: bool = False,
    ) -> None:
        """
        Use the global providers, which may be set later, unless others are given.

        Args:
            tracer_provider: Makes the spans.
            meter_provider: Makes the metrics.
            message_id: Whether spans have the Message-ID, in ``smtp.message.id``. It may name a host or a person.
        """
        release = version("securesmtp")
        self._tracer = trace.get_tracer("securesmtp", release, tracer_provider)
        meter = metrics.get_meter("securesmtp", release, meter_provider)
        self._has_message_id = message_id
        self._messages = meter.create_counter(
            "smtp.client.messages", "{message}", "Messages by what became of each; a second try counts again."
        )
        self._duration = meter.create_histogram(
            "smtp.client.send.duration",
            "s",
            "Duration of a send, from the call to its receipt or error.",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )
        self._connections = meter.create_up_down_counter(
            "smtp.client.connection.count", "{connection}", "Open connections with verified TLS."
        )
        self._create_time = meter.create_histogram(
            "smtp.client.connection.create_time",
            "s",
            "Duration of opening a connection, up to verified TLS and the server's capabilities.",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )

    def __call__(self, event: Event) -> None:
        """Record *event*."""
        server: Attributes = {"server.address": event.host, "server.port": event.port}
        match event:
            case events.Sent(receipt=receipt):
                self._record(
                    server | {"smtp.outcome": "accepted"}, receipt.elapsed, _of_receipt(receipt), receipt.message_id
                )
            case events.Failed(error=error, elapsed=elapsed) if elapsed is not None:
                result: Attributes = {"smtp.outcome": str(error.outcome), "error.type": type(error).__name__}
                self._record(server | result, elapsed, _of_failure(event), error.message_id)
            case events.Connected(elapsed=elapsed):
                self._connections.add(1, server)
                self._create_time.record(elapsed.total_seconds(), server)
            case events.Closed():
                self._connections.add(-1, server)

    def _record(self, result: Attributes, elapsed: timedelta, details: Attributes, message_id: str | None) -> None:
        """Make a span with *result* and *details*, and measurements with *result* alone, which has few values."""
        context: Context | None = None
        try:
            span = self._span(result, details, elapsed, message_id)
            # So that the SDK can link a measurement to its trace.
            context = trace.set_span_in_context(span)
        finally:
            # A processor of the SDK may raise: the message counts nevertheless.
            self._messages.add(1, result, context)
            self._duration.record(elapsed.total_seconds(), result, context)

    def _span(self, result: Attributes, details: Attributes, elapsed: timedelta, message_id: str | None) -> Span:
        ended = time_ns()
        if self._has_message_id and message_id is not None:
            details["smtp.message.id"] = message_id
        started = ended - elapsed // timedelta(microseconds=1) * 1000
        span = self._tracer.start_span(
            "smtp.send", kind=SpanKind.CLIENT, attributes=result | details, start_time=started
        )
        if "error.type" in result:
            # No exception is recorded: its text may quote an address.
            span.set_status(StatusCode.ERROR, f"{result['smtp.outcome']} in {details['smtp.stage']}")
        span.end(ended)
        return span


def _of_receipt(receipt: Receipt) -> Attributes:
    recipients, refused = len(receipt.recipients), len(receipt.refused)
    counts: Attributes = {"smtp.recipient.count": recipients, "smtp.recipient.refused_count": refused}
    return counts | {"smtp.message.size": receipt.size} | _of_reply(receipt.reply) | _of_tls(receipt.tls)


def _of_failure(event: events.Failed) -> Attributes:
    found: Attributes = {"smtp.stage": str(event.error.stage)}
    if event.recipients is not None and event.size is not None:
        found |= {"smtp.recipient.count": event.recipients, "smtp.message.size": event.size}
    return found | _of_reply(event.error.reply) | _of_tls(event.tls)


def _of_reply(reply: Reply | None) -> Attributes:
    if reply is None:
        return {}
    return {"smtp.reply.code": reply.code} | ({"smtp.reply.enhanced_code": reply.enhanced} if reply.enhanced else {})


def _of_tls(tls: TLSInfo | None) -> Attributes:
    if tls is None:
        return {}
    found: Attributes = {
        "smtp.tls.mode": str(tls.mode),
        "tls.protocol.name": "tls",
        "tls.protocol.version": tls.version.removeprefix("TLSv"),
        "tls.server.hash.sha256": tls.peer_sha256.upper(),
        "tls.server.not_after": tls.not_after.isoformat(),
    }
    # Only the names of TLS 1.3 are the registered ones, which the convention asks for.
    return found | ({"tls.cipher": tls.cipher} if tls.cipher.startswith("TLS_") else {})
