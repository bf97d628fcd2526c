"""
Draw what the Prometheus example shows of a real run, in two minutes: `python -m bench.watching FOLDER`.

Four threads send up to ten messages a second each, over real TLS, to a server that slows down, refuses, loses its
replies, dies and comes back. The curves are what Grafana draws of one sample a second, with the queries of the page.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from email.message import EmailMessage
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import pyplot
from prometheus_client import REGISTRY

from bench.plots import TEXT, set_style
from prometheus_metrics import observe
from securesmtp import SecureMailer, SecureSMTPError, TLSPolicy
from securesmtp.testing import MailServer
from securesmtp.testing._faults import FaultName

THREADS, INTERVAL = 4, 0.1
# Seconds over which a rate is taken, as in `rate(…[5s])`.
WINDOW = 5
COLOURS = {"accepted": "#2a7de1", "refused": "#c9a227", "unknown": "#9b5de5", "not sent": "#d1495b"}
QUANTILES = {0.5: ("half of them", "#2a7de1"), 0.95: ("95 %", "#c9a227"), 0.99: ("99 %", "#d1495b")}


class Phase(NamedTuple):
    """What the server does for so many seconds."""

    name: str
    seconds: int
    fault: FaultName | None = None
    is_alive: bool = True


PHASES = (
    Phase("healthy", 20),
    Phase("slow", 20, "slow"),
    Phase("refuses", 15, "refuses_recipients"),
    Phase("replies lost", 15, "drops_after_content"),
    Phase("dead", 15, is_alive=False),
    Phase("back", 20),
)
# By name of the metric, and outcome or bound of the bucket.
Sample = dict[tuple[str, str], float]


def _sample() -> Sample:
    found: Sample = defaultdict(float)
    for each in (sample for family in REGISTRY.collect() for sample in family.samples):
        if each.name in {"mail_sends_total", "mail_connections"}:
            found[each.name, each.labels.get("outcome", "")] += each.value
        elif each.name == "mail_send_seconds_bucket" and each.labels["outcome"] == "accepted":
            found[each.name, each.labels["le"]] += each.value
    return found


def _send(mailer: SecureMailer, is_over: threading.Event) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "me@example.com", "you@example.net", "Hello"
    message.set_content("Is it there?\n" * 100)
    while not is_over.wait(INTERVAL):
        with suppress(SecureSMTPError):
            mailer.send(message)


@contextmanager
def _senders(mailer: SecureMailer) -> Iterator[None]:
    is_over = threading.Event()
    threads = [threading.Thread(target=_send, args=(mailer, is_over)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def _watch() -> list[Sample]:
    """Return a sample for each second of the run."""
    server, samples = MailServer(delay=0.15), [_sample()]
    with ExitStack() as stack, server:
        # The port and the CA stay when the server dies.
        user, password = server.login or ("", "")
        options: dict[str, Any] = {"username": user, "password": password, "policy": TLSPolicy(ca_data=server.ca_pem)}
        mailer = stack.enter_context(SecureMailer(server.host, server.port, on_event=observe, **options))
        stack.enter_context(_senders(mailer))
        start = time.monotonic()
        for phase in PHASES:
            server.fault = phase.fault
            if not phase.is_alive:
                server.__exit__(None, None, None)
            for _ in range(phase.seconds):
                time.sleep(max(0.0, start + len(samples) - time.monotonic()))
                samples.append(_sample())
            if not phase.is_alive:
                server.__enter__()
    return samples


def _rates(samples: list[Sample], key: tuple[str, str]) -> list[float]:
    values = [sample[key] for sample in samples]
    return [
        (value - values[max(0, second - WINDOW)]) / min(WINDOW, second) for second, value in enumerate(values) if second
    ]


def _quantile(share: float, buckets: list[tuple[float, float]]) -> float:
    """Return what `histogram_quantile` does: *buckets* are the upper bounds, and the values up to each."""
    rank = share * buckets[-1][1]
    if not rank:
        return float("nan")
    for (low, below), (bound, count) in pairwise([(0.0, 0.0), *buckets]):
        if count >= rank:
            return low + (bound - low) * (rank - below) / (count - below)
    raise AssertionError("the last bucket has all values")


def _panel(axes: Any, title: str) -> None:
    axes.set_title(title, color=TEXT, fontsize=10, loc="left")
    axes.tick_params(colors=TEXT, length=0, labelsize=8)
    axes.grid(visible=True, axis="y", color=TEXT, alpha=0.25)
    for side in axes.spines.values():
        side.set_visible(False)
    begin = 0
    for number, phase in enumerate(PHASES):
        if number % 2:
            axes.axvspan(begin, begin + phase.seconds, color=TEXT, alpha=0.12, linewidth=0)
        begin += phase.seconds
    axes.set_xlim(0, begin)
    axes.set_ylim(bottom=0)
    _, labels = axes.get_legend_handles_labels()
    if labels:
        axes.legend(frameon=False, labelcolor=TEXT, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def draw(samples: list[Sample], path: Path) -> None:
    """Draw three panels, one above the other."""
    seconds = list(range(1, len(samples)))
    bounds = sorted(
        {float(bound) for sample in samples for name, bound in sample if name == "mail_send_seconds_bucket"}
    )
    buckets = {bound: _rates(samples, ("mail_send_seconds_bucket", _label(bound, samples))) for bound in bounds}
    figure, (sends, times, connections) = pyplot.subplots(3, figsize=(7.2, 6), sharex=True)
    for outcome, colour in COLOURS.items():
        sends.plot(seconds, _rates(samples, ("mail_sends_total", outcome)), color=colour, label=outcome)
    _panel(sends, "sends a second, by outcome")
    for share, (label, colour) in QUANTILES.items():
        curve = [_quantile(share, [(bound, buckets[bound][second - 1]) for bound in bounds]) for second in seconds]
        times.plot(seconds, curve, color=colour, label=label)
    _panel(times, "seconds until a message was accepted, at most")
    connections.plot(seconds, [sample["mail_connections", ""] for sample in samples[1:]], color=COLOURS["accepted"])
    _panel(connections, "open connections")
    begin = 0
    for phase in PHASES:
        sends.text(
            begin + phase.seconds / 2,
            1.2,
            phase.name,
            transform=sends.get_xaxis_transform(),
            color=TEXT,
            fontsize=9,
            ha="center",
        )
        begin += phase.seconds
    connections.set_xlabel("seconds", color=TEXT, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


def _label(bound: float, samples: list[Sample]) -> str:
    """Return *bound* as the metric writes it."""
    return next(
        text
        for sample in samples
        for name, text in sample
        if name == "mail_send_seconds_bucket" and float(text) == bound
    )


def main() -> None:
    """Run for as long as the phases take, and draw."""
    set_style()
    samples = _watch()
    draw(samples, Path(sys.argv[1]) / "metrics.svg")
    for outcome in COLOURS:
        print(f"{outcome}: {samples[-1]['mail_sends_total', outcome]:.0f}")


if __name__ == "__main__":
    main()
