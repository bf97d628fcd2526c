"""Delivery status notifications of a real Postfix."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from conftest import Mailer
from scripted import Mode
from securesmtp import DSN
from servers.real import ALICE, RealServer

pytestmark = pytest.mark.faces("real servers", sample=(2, 1))


def test_a_report_of_success_arrives(postfix: RealServer, make_mailer: Mailer, mode: Mode, ca_file: Path) -> None:
    """Postfix reads the ENVID and ORCPT as they were given, and reports for whom it was asked."""
    message = EmailMessage()
    message["From"], message["Subject"] = ALICE.username, "report on it"
    message.set_content("Hello")
    plus, quiet = '"a+b c=d"@example.test', "quiet@example.test"
    dsn = DSN(notify={plus: {"success", "failure"}, quiet: "never"}, ret="headers", envid="order 7+1=8", orcpt=True)
    port = postfix.implicit_port if mode == "implicit" else postfix.starttls_port
    options = {"username": ALICE.username, "password": ALICE.password, "ca_file": ca_file, "timeout": 20, "tls": mode}
    postfix.deliver(0)
    with make_mailer(postfix.host, port, **options) as mailer:
        receipt = mailer.send(message, recipients=[plus, quiet], dsn=dsn)
    assert not receipt.dsn_left_out
    delivered = {each.mail_from: each for each in postfix.deliver(2)}
    assert set(delivered[ALICE.username].recipients) == {plus, quiet}
    assert delivered[""].recipients == (ALICE.username,)
    report = message_from_bytes(delivered[""].content, policy=policy.default)
    assert report.get_content_type() == "multipart/report"
    about, *each = next(
        part for part in report.walk() if part.get_content_type() == "message/delivery-status"
    ).iter_parts()
    assert about["Original-Envelope-Id"] == "order 7+1=8"
    assert [(one["Action"], one["Original-Recipient"]) for one in each] == [("relayed", f"rfc822;{plus}")]
    assert any(part.get_content_type() in {"text/rfc822-headers", "message/rfc822-headers"} for part in report.walk())
