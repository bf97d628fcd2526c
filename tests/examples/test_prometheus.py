"""The Prometheus example, as Prometheus sees it: over HTTP, from a program that sends."""

from __future__ import annotations

import re
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIServer

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

import prometheus_metrics
from examples.worlds import WORLDS, Enter, World
from scripted import Peer
from securesmtp import SecureMailer, SecureSMTPError

# By name, outcome and error.
Samples = dict[tuple[str, str, str], float]


@pytest.fixture(autouse=True)
def no_samples() -> None:
    """Forget what other tests have counted: the metrics are those of the process."""
    prometheus_metrics.SENDS.clear()
    prometheus_metrics.SEND_SECONDS.clear()
    prometheus_metrics.CONNECT_SECONDS.clear()
    prometheus_metrics.CONNECTIONS.clear()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Note the port that the program's endpoint gets, and stop it at the end."""
    ports, start = list[int](), prometheus_client.start_http_server
    endpoints = list[tuple[WSGIServer, threading.Thread]]()

    def started(port: int, address: str) -> None:
        endpoints.append(start(port, address))
        ports.append(endpoints[-1][0].server_port)

    monkeypatch.setattr(prometheus_metrics, "start_http_server", started)
    yield ports
    for server, thread in endpoints:
        server.shutdown()
        server.server_close()
        thread.join()


def _scrape(port: int) -> tuple[str, Samples]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {
        (sample.name, sample.labels.get("outcome", ""), sample.labels.get("error", "")): sample.value
        for sample in samples
        if sample.labels.get("host") == "localhost" and not sample.name.endswith(("_bucket", "_created"))
    }
    return text, found


def test_the_program_serves_its_metrics_while_it_sends(
    enter: Enter, endpoint: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each send counts by outcome and error, and with its duration; no address is in the answer."""

    def rcpt(peer: Peer, line: bytes) -> bytes:
        if b"lost@" in line:
            peer.cut()
        return b"550 5.1.1 no such user\r\n" if b"nobody@" in line else b"250 2.1.5 ok\r\n"

    enter(World({"RCPT": rcpt}, {}))
    scraped = list[tuple[str, Samples]]()

    def lines() -> Iterator[str]:
        for name in ("you", "nobody", "you", "lost"):
            yield f"{name}@example.net\n"
        scraped.append(_scrape(endpoint[0]))

    monkeypatch.setattr(sys, "argv", ["prometheus_metrics.py", "0"])
    monkeypatch.setattr(sys, "stdin", lines())
    prometheus_metrics.main()
    ((text, samples),) = scraped
    accepted, refused = ("mail_sends_total", "accepted", ""), ("mail_sends_total", "refused", "RecipientsRefusedError")
    lost = ("mail_sends_total", "not sent", "ConnectError")
    assert [samples[each] for each in (accepted, refused, lost)] == [2, 1, 1]
    assert samples["mail_send_seconds_count", "accepted", ""] == 2
    assert samples["mail_send_seconds_count", "refused", ""] == 1
    assert samples["mail_send_seconds_sum", "accepted", ""] > 0
    # The server has cut one, and none is open until the next send.
    assert samples["mail_connections", "", ""] == 0
    assert samples["mail_connect_seconds_count", "", ""] == 1
    assert "example.net" not in text
    assert [line.split(" localhost:")[0] for line in capsys.readouterr().out.splitlines()] == ["refused", "not sent"]


def test_an_open_connection_counts_and_a_check_does_not(enter: Enter) -> None:
    """A check that fails is no send."""
    enter(WORLDS["wrong-password"])
    with SecureMailer.from_env(on_event=prometheus_metrics.observe) as mailer:
        assert mailer.check().login is False
    enter(WORLDS["busy"])
    with SecureMailer.from_env(on_event=prometheus_metrics.observe) as mailer, pytest.raises(SecureSMTPError):
        mailer.check()
    enter(WORLDS["normal"])
    with SecureMailer.from_env(on_event=prometheus_metrics.observe) as mailer:
        mailer.send_bytes(b"Subject: x\r\n\r\nx\r\n", mail_from="me@example.com", recipients=["you@example.net"])
        values = prometheus_client.REGISTRY.get_sample_value
        assert values("mail_connections", {"host": "localhost"}) == 1
    assert values("mail_connections", {"host": "localhost"}) == 0
    (family,) = prometheus_metrics.SENDS.collect()
    counts = {
        (sample.labels["outcome"], sample.labels["error"]): sample.value
        for sample in family.samples
        if sample.name == "mail_sends_total"
    }
    assert counts == dict.fromkeys(prometheus_metrics.AWAITED, 0) | {("accepted", ""): 1}


def test_what_an_alert_of_the_page_waits_for_is_a_series_from_the_beginning() -> None:
    """Prometheus sees no increase in a series that begins with 1."""
    page = (Path(__file__).parents[2] / "docs/how-to/watch-it.md").read_text("utf-8")
    (errors,) = re.findall(r'error=~"([^"]+)"', page)
    awaited = {error for outcome, error in prometheus_metrics.AWAITED if outcome == "not sent"}
    assert awaited == set(errors.split("|"))
    assert {*re.findall(r'outcome="(\w+)"', page)} <= {outcome for outcome, _ in prometheus_metrics.AWAITED}
