"""What a test sees of the messages, what it can assert of them, and what it is told when that fails."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from securesmtp import ConnectError, RecipientsRefusedError, testing
from securesmtp.testing import Attachment, FaultName, MailServer, Received, RecordingMailer


def _message(subject: str = "Welcome", *, to: str = "Ada <ada@example.org>", text: str = "Hello Ada\n") -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Bcc"] = "shop@example.com", to, "archive@example.com"
    made["Subject"] = subject
    made.set_content(text)
    return made


@pytest.fixture
def mailer() -> RecordingMailer:
    """Keep two messages."""
    made = RecordingMailer()
    made.send(_message())
    made.send(_message("Your order №7", to="grace@Example.org", text="Three books\n"))
    return made


# What a message shows


def test_a_message_shows_its_parts() -> None:
    """Text, HTML, files and images, as the sender gave them; an image that the HTML shows is no attachment."""
    made = _message(text="Hällo\n\nAda\n")
    made.add_alternative("<p>Hällo <img src='cid:logo'></p>\n", subtype="html")
    html = made.get_payload(1)
    assert isinstance(html, EmailMessage)
    html.add_related(b"\x89PNG", "image", "png", cid="<logo>")
    made.add_attachment(b"%PDF\r\n\r%", maintype="application", subtype="pdf", filename="Grüße.pdf")
    made.add_attachment("a,b\n", subtype="csv", filename="a.csv")
    inner = _message("inner")
    made.add_attachment(inner)
    mailer = RecordingMailer()
    mailer.send(made)
    (received,) = mailer.messages
    assert received.subject == received.message["Subject"] == "Welcome"
    assert received.text == "Hällo\n\nAda\n"
    assert received.html == "<p>Hällo <img src='cid:logo'></p>\n"
    pdf, csv, eml = received.attachments
    assert pdf == Attachment("Grüße.pdf", "application/pdf", b"%PDF\r\n\r%")
    assert (csv.name, csv.content_type, csv.data.splitlines()) == ("a.csv", "text/csv", [b"a,b"])
    assert (eml.name, eml.content_type) == (None, "message/rfc822")
    assert eml.data.startswith(b"From: shop@example.com\n")
    assert received.recipients == ("ada@example.org", "archive@example.com")
    assert received.message["Bcc"] is None


@pytest.mark.parametrize(
    ("content", "text", "html", "attachments"),
    [
        (b"Subject: x\r\n\r\n", "", None, 0),
        (b"Content-Type: text/html\r\n\r\n<p>\r\n", None, "<p>\n", 0),
        (b"Content-Type: application/pdf\r\n\r\n%PDF\r\n", None, None, 1),
        (b"Content-Type: text/plain; charset=nonsense\r\n\r\nxyz\r\n", "xyz\n", None, 0),
        (b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xff!\r\n", "\ufffd!\n", None, 0),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nxyz\r\n--b--\r\n", "xyz", None, 0),
        (b"Content-Type: multipart/mixed\r\n\r\nno boundary\r\n", None, None, 1),
        (b"\xff\xfe\r\n", "\ufffd\ufffd\n", None, 0),
    ],
    ids=["empty", "html", "file", "charset", "bytes", "mixed", "boundary", "header"],
)
def test_any_message_can_be_looked_at(content: bytes, text: str | None, html: str | None, attachments: int) -> None:
    """A text-only message has no HTML, and a broken one is no crash of the test (T8)."""
    received = Received("a@example.org", ("b@example.org",), content)
    assert (received.text, received.html, len(received.attachments)) == (text, html, attachments)
    assert "a@example.org → b@example.org" in str(received)


def test_the_list_of_messages_stays_the_same_object(mailer: RecordingMailer) -> None:
    """A test may keep it, and compare it with a list (T8)."""
    messages = mailer.messages
    assert len(messages) == 2
    mailer.clear()
    assert messages == []
    assert mailer.messages is messages


# What a test asserts


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, 0),
        ({"subject": "Your order №7"}, 1),
        ({"to": "grace@example.org"}, 1),
        ({"to": ["archive@example.com", "ada@example.org"]}, 0),
        ({"to": "archive@example.com", "count": 2}, 0),
        ({"mail_from": "shop@example.com", "text_contains": "books"}, 1),
    ],
    ids=["any", "subject", "to", "both", "count", "text"],
)
def test_a_message_that_fits_is_returned(mailer: RecordingMailer, wanted: dict[str, Any], found: int) -> None:
    """The first one; addresses are compared without case."""
    assert mailer.assert_sent(**wanted) is mailer.messages[found]


LIST = """2 messages:
  0: shop@example.com → ada@example.org, archive@example.com: 'Welcome'
  1: shop@example.com → grace@Example.org, archive@example.com: 'Your order №7'"""


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (
            {"to": "grace@example.org", "subject": "Your order"},
            (
                f"no message fits, of {LIST}\nmessage 1 fits best:\n"
                "  wanted subject 'Your order'\n     got 'Your order №7'"
            ),
        ),
        (
            {"to": "eve@example.org", "text_contains": "Hi", "html_contains": "<p>"},
            (
                f"no message fits, of {LIST}\nmessage 0 fits best:\n"
                "  wanted to 'eve@example.org'\n     got 'ada@example.org, archive@example.com'\n"
                "  wanted text with 'Hi'\n     got 'Hello Ada\\n'\n"
                "  wanted html with '<p>'\n     got nothing: the message has none"
            ),
        ),
        ({"mail_from": "shop@example.com", "count": 1}, f"2 messages fit, not 1, of {LIST}"),
    ],
    ids=["subject", "all", "count"],
)
def test_a_failure_says_what_differs(mailer: RecordingMailer, wanted: dict[str, Any], text: str) -> None:
    """The messages, and the differences of the one that fits best (T7)."""
    with pytest.raises(AssertionError) as caught:
        mailer.assert_sent(**wanted)
    assert str(caught.value) == text
    # Not the library's own lines.
    assert {entry.path for entry in caught.traceback.filter(caught)} == {Path(__file__)}


def test_to_count_none_is_a_mistake() -> None:
    """There would be nothing to return."""
    with pytest.raises(ValueError, match="assert_nothing_sent"):
        RecordingMailer().assert_sent(to="eve@example.org", count=0)


def test_a_failure_without_messages_and_with_many_is_short() -> None:
    """Neither an empty list nor a page of it; a long text is cut."""
    mailer = RecordingMailer()
    with pytest.raises(AssertionError, match=r"^no message fits, of 0 messages$"):
        mailer.assert_sent(subject="x")
    for number in range(30):
        mailer.send(_message(f"number {number}", text="x" * 900 + "\n"))
    with pytest.raises(AssertionError) as caught:
        mailer.assert_sent(text_contains="y")
    lines = str(caught.value).splitlines()
    assert len(lines) == 25
    assert lines[-4] == "  and 10 more"
    assert len(lines[-1]) < 400


def test_nothing_sent_is_checked(mailer: RecordingMailer) -> None:
    """The failure lists what was."""
    with pytest.raises(AssertionError) as caught:
        mailer.assert_nothing_sent()
    assert str(caught.value) == f"wanted no message, and got {LIST}"
    mailer.clear()
    mailer.assert_nothing_sent()


def test_nothing_sent_fails_while_a_message_is_on_its_way() -> None:
    """Between MAIL and the end of the content (T6)."""
    with MailServer(login=None) as server:
        server.assert_nothing_sent()
        context = ssl.create_default_context(cafile=str(server.ca_file))
        with context.wrap_socket(
            socket.create_connection((server.host, server.port)), server_hostname="localhost"
        ) as tls:
            tls.settimeout(10)
            tls.sendall(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\n")
            while b"250 2.1.0" not in tls.recv(4096):
                pass
            with pytest.raises(AssertionError, match="one is being received"):
                server.assert_nothing_sent()
            tls.sendall(b"RSET\r\n")
            assert tls.recv(100).startswith(b"250")
            server.assert_nothing_sent()


@pytest.mark.parametrize("fault", ["refuses_recipients", "greylists"])
def test_nothing_is_on_its_way_after_a_refused_recipient(fault: FaultName) -> None:
    """The client leaves the transaction open, and keeps its connection; the next fault is played all the same."""
    with MailServer(fault=fault) as server, server.mailer() as mailer:
        with pytest.raises(RecipientsRefusedError):
            mailer.send(_message())
        server.assert_nothing_sent()
        server.fault = "too_busy"
        with pytest.raises(ConnectError, match="421"):
            mailer.send(_message())


def test_a_message_to_the_other_recipients_is_on_its_way() -> None:
    """One was refused, and the content has begun."""
    with MailServer(login=None, refuse=["no@example.org"]) as server:
        context = ssl.create_default_context(cafile=str(server.ca_file))
        with context.wrap_socket(
            socket.create_connection((server.host, server.port)), server_hostname="localhost"
        ) as tls:
            tls.settimeout(10)
            tls.sendall(
                b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<no@example.org>\r\nRCPT TO:<b@example.org>\r\n"
            )
            tls.sendall(b"DATA\r\n")
            got = b""
            while b"354" not in got:
                got += tls.recv(4096)
            with pytest.raises(AssertionError, match="one is being received"):
                server.assert_nothing_sent()


def test_waiting_returns_the_messages_as_soon_as_they_are_there() -> None:
    """From another thread, and long before the limit (T6)."""
    mailer = RecordingMailer()
    thread = threading.Thread(target=lambda: [mailer.send(_message(f"{number}")) for number in range(3)])
    started = time.monotonic()
    thread.start()
    found = mailer.wait_for(3, 60)
    assert time.monotonic() - started < 30
    thread.join()
    assert [each.subject for each in found] == ["0", "1", "2"]
    assert found is not mailer.messages
    assert mailer.wait_for() == found


def test_waiting_in_vain_raises_with_what_came_within_its_limit(mailer: RecordingMailer) -> None:
    """An AssertionError, which no test ignores, in less than 50 ms more than the limit (T6)."""
    started = time.thread_time(), time.monotonic()
    with pytest.raises(AssertionError) as caught:
        mailer.wait_for(3, 0.05)
    assert str(caught.value) == f"waited 0.05 s for 3 messages, and got {LIST}"
    assert time.monotonic() - started[1] >= 0.05
    assert time.thread_time() - started[0] < 0.05


def test_a_recording_mailer_in_threads_keeps_each_message() -> None:
    """Its list and its numbers are shared."""
    mailer = RecordingMailer()
    threads = [threading.Thread(target=lambda: [mailer.send(_message()) for _ in range(10)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mailer.messages) == 80
    receipt = mailer.send(_message())
    assert re.search(r"queued as 81$", receipt.reply.text)


def test_each_message_has_its_own_queue_id() -> None:
    """Over all connections, and also after the messages were forgotten."""
    with MailServer() as server:
        found = []
        for _ in range(2):
            with server.mailer() as mailer:
                found += [mailer.send(_message()).queue_id for _ in range(2)]
            server.clear()
    assert found == ["1", "2", "3", "4"]


def test_the_public_names_are_what_is_there() -> None:
    """Each is imported when it is used; a mistyped one is an error."""
    assert dir(testing) == sorted(testing.__all__)
    assert all(getattr(testing, name) is not None for name in testing.__all__)
    with pytest.raises(AttributeError, match="MailSever"):
        testing.MailSever  # noqa: B018 -- the look-up is the test
