"""Mail to a real server through real proxies: microsocks, Dante and tinyproxy."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from conftest import Mailer
from leaks import shown
from scripted import Mode
from securesmtp import Outcome, ProxyError
from servers.proxies import KINDS, LOGIN, Proxy, running_proxy
from servers.real import ALICE, RealServer

pytestmark = pytest.mark.faces("real servers", sample=(4, 1))


@pytest.fixture(params=KINDS)
def proxy(request: pytest.FixtureRequest, postfix: RealServer, mode: Mode, tmp_path: Path) -> Iterator[Proxy]:
    """Run each of the proxies in turn, which lets through to the server."""
    with running_proxy(request.param, tmp_path, postfix.port(mode)) as running:
        yield running


def options_for(proxy: str, mode: Mode, ca_file: Path) -> dict[str, Any]:
    """Return the arguments of a mailer that logs in at the server, through *proxy*."""
    login = {"username": ALICE.username, "password": ALICE.password}
    return {"tls": mode, "ca_file": ca_file, "timeout": 20, "proxy": proxy, **login}


def test_mail_arrives_through_a_real_proxy(  # noqa: PLR0913, PLR0917 -- fixtures
    proxy: Proxy, postfix: RealServer, make_mailer: Mailer, mode: Mode, ca_file: Path, message: EmailMessage
) -> None:
    """One by one, and a large one."""
    large = EmailMessage()
    large["From"], large["To"] = ALICE.username, "you@example.test"
    large.add_attachment(b"x" * 2_000_000, "application", "octet-stream")
    postfix.deliver(0)
    with make_mailer(postfix.host, postfix.port(mode), **options_for(proxy.url(), mode, ca_file)) as mine:
        receipts = [mine.send(message, mail_from=ALICE.username), mine.send(large)]
    assert len(postfix.deliver(2)) == 2, proxy.log.read_text()
    assert {receipt.tls.server_name for receipt in receipts} == {postfix.host}


@pytest.mark.parametrize("proxy", [name for name, kind in KINDS.items() if kind.has_login], indirect=True)
@pytest.mark.parametrize("mode", ["implicit"], indirect=True)
@pytest.mark.parametrize("login", [None, (LOGIN[0], "wrong-" + LOGIN[1])], ids=["none", "wrong"])
def test_a_real_proxy_refuses_a_login(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    proxy: Proxy,
    postfix: RealServer,
    make_mailer: Mailer,
    mode: Mode,
    ca_file: Path,
    message: EmailMessage,
    login: tuple[str, str] | None,
) -> None:
    """The error says so, and that nothing was sent."""
    options = options_for(proxy.url(login), mode, ca_file)
    words = "requires a login" if login is None else "refused the login"
    with (
        make_mailer(postfix.host, postfix.port(mode), **options) as mine,
        pytest.raises(ProxyError, match=words) as caught,
    ):
        mine.send(message)
    assert (caught.value.outcome, caught.value.retryable) == (Outcome.NOT_SENT, False)
    assert LOGIN[1] not in shown(caught.value)


@pytest.mark.parametrize("proxy", ["dante", "tinyproxy"], indirect=True)
@pytest.mark.parametrize("mode", ["implicit"], indirect=True)
def test_a_real_proxy_refuses_a_port(
    proxy: Proxy, postfix: RealServer, make_mailer: Mailer, ca_file: Path, message: EmailMessage
) -> None:
    """One replies 403, the other 2; microsocks has no rules."""
    options = options_for(proxy.url(), "starttls", ca_file)
    with (
        make_mailer(postfix.host, postfix.port("starttls"), **options) as mine,
        pytest.raises(ProxyError, match=r"\(403\)|its rules do not allow it") as caught,
    ):
        mine.send(message)
    assert "must allow this host and port" in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize("mode", ["implicit"], indirect=True)
def test_a_real_proxy_cannot_reach_a_server(proxy: Proxy, make_mailer: Mailer, ca_file: Path) -> None:
    """Nothing listens there: that may be temporary."""
    name = next(name for name, kind in KINDS.items() if kind is proxy.kind)
    with running_proxy(name, proxy.log.parent, 1) as other:
        options = options_for(other.url(), "implicit", ca_file)
        with make_mailer("localhost", 1, **options) as mine, pytest.raises(ProxyError) as caught:
            mine.send_bytes(b"Subject: x\r\n\r\n", mail_from="a@example.test", recipients=["b@example.test"])
    assert (caught.value.outcome, caught.value.retryable) == (Outcome.NOT_SENT, True), str(caught.value)
