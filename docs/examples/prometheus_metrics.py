"""
Metrics for Prometheus: import `observe`, and pass it to a mailer as on_event.

As a program, it greets each address that it reads from standard input, and serves the
metrics at http://localhost:9125/metrics: `python prometheus_metrics.py 9125 < file`.
"""

import os
import sys
from email.message import EmailMessage

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from securesmtp import Event, SecureMailer, events
from securesmtp.errors import SecureSMTPError

# A server may think for ten minutes before it accepts a message (RFC 5321).
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)

SENDS = Counter(
    "mail_sends_total",
    "Sends by what became of the message, and by error",
    ["host", "outcome", "error"],
)
# What alerts wait for. Prometheus sees no increase in a series that begins with 1, so
# these begin with 0, when a connection is opened.
AWAITED = (
    ("accepted", ""),
    ("unknown", "OutcomeUnknownError"),
    ("not sent", "AuthenticationError"),
    ("not sent", "CertificateError"),
    ("not sent", "DowngradeError"),
)
SEND_SECONDS = Histogram(
    "mail_send_seconds",
    "From the call to the receipt or the error",
    ["host", "outcome"],
    buckets=SECONDS,
)
CONNECT_SECONDS = Histogram(
    "mail_connect_seconds",
    "To open a connection with verified TLS",
    ["host"],
    buckets=SECONDS,
)
CONNECTIONS = Gauge(
    "mail_connections",
    "Open connections",
    ["host"],
    # If several worker processes share one endpoint.
    multiprocess_mode="livesum",
)


def observe(event: Event) -> None:
    """Count *event*. No label is an address: each would be a series of its own."""
    host = event.host
    match event:
        case events.Sent(receipt=receipt):
            SENDS.labels(host, "accepted", "").inc()
            SEND_SECONDS.labels(host, "accepted").observe(
                receipt.elapsed.total_seconds()
            )
        # `elapsed` is None if check() has failed, which is no send.
        case events.Failed(error=error, elapsed=elapsed) if elapsed is not None:
            SENDS.labels(host, error.outcome, type(error).__name__).inc()
            SEND_SECONDS.labels(host, error.outcome).observe(elapsed.total_seconds())
        case events.Connecting():
            for outcome, name in AWAITED:
                SENDS.labels(host, outcome, name)
        case events.Connected(elapsed=elapsed):
            CONNECTIONS.labels(host).inc()
            CONNECT_SECONDS.labels(host).observe(elapsed.total_seconds())
        case events.Closed():
            CONNECTIONS.labels(host).dec()


def main() -> None:
    start_http_server(int(sys.argv[1]), "127.0.0.1")
    with SecureMailer.from_env(deadline=45, on_event=observe) as mailer:
        for line in sys.stdin:
            message = EmailMessage()
            message["From"], message["To"] = os.environ["MAIL_FROM"], line.strip()
            message["Subject"] = "Hello"
            message.set_content("Is it there?")
            try:
                mailer.send(message)
            except SecureSMTPError as error:
                print(error.outcome, error)


if __name__ == "__main__":
    main()
