"""`Receipt.queue_id` is what the real server itself calls the message."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from conftest import Mailer
from servers.real import ALICE, RealServer
from servers.sink import NEXT_HOPS_ID


def _is_logged(server: RealServer, queue_id: str, before: str) -> bool:
    """Wait until the server, in other processes, logs *queue_id* once more than it had *before*."""
    end = time.monotonic() + 20
    while server.log().count(queue_id) <= before.count(queue_id):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


# With "off", the content goes with DATA. Otherwise Postfix and Exim get it with BDAT, and reply in another form.
@pytest.mark.parametrize("pipelining", ["off", "message"])
@pytest.mark.parametrize(
    "name", ["postfix", "exim", "opensmtpd", "dovecot", "dovecot24", "sendmail", "courier", "haraka"]
)
def test_the_queue_id_is_in_the_servers_log(
    request: pytest.FixtureRequest, make_mailer: Mailer, ca_file: Path, name: str, pipelining: str
) -> None:
    """It is in the Received field as well, but for Dovecot, which passes on the reply of the next server."""
    server: RealServer = request.getfixturevalue(name)
    server.deliver(0)
    before = server.log()
    login = {"username": ALICE.username, "password": ALICE.password}
    with make_mailer(
        server.host, server.implicit_port, tls="implicit", ca_file=ca_file, pipelining=pipelining, **login
    ) as mailer:
        receipt = mailer.send_bytes(b"Subject: x\n\n", mail_from=ALICE.username, recipients=["a@example.test"])
    (delivered,) = server.deliver(1)
    assert receipt.queue_id is not None, receipt.reply
    assert _is_logged(server, receipt.queue_id, before)
    if name.startswith("dovecot"):
        assert receipt.queue_id == NEXT_HOPS_ID
    else:
        found = re.findall(r"\bid ([^\s;]+)", delivered.trace)
        # Courier's reply leaves out the number of the file, with which the id begins.
        assert [each.partition(".")[2] if name == "courier" else each for each in found] == [receipt.queue_id]


@pytest.mark.parametrize("name", ["chasquid", "smtp_server", "aiosmtpd"])
def test_a_reply_without_an_id_gives_none(
    request: pytest.FixtureRequest, make_mailer: Mailer, ca_file: Path, name: str
) -> None:
    """Whatever the server says in its place."""
    server: RealServer = request.getfixturevalue(name)
    login = {"username": ALICE.username, "password": ALICE.password}
    with make_mailer(server.host, server.implicit_port, tls="implicit", ca_file=ca_file, **login) as mailer:
        receipt = mailer.send_bytes(b"Subject: x\r\n\r\n", mail_from=ALICE.username, recipients=["a@example.test"])
    server.deliver(1)
    assert (receipt.reply.code, receipt.queue_id) == (250, None)
