"""A message for a task queue: made once, as JSON, and sent once."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Self

import pytest

from memory_ledger import MemoryLedger
from securesmtp import Envelope, LedgerError, MessageError, Outcome, QueuedMessage, SendResult, _queued
from securesmtp.errors import ConfigurationError
from securesmtp.ledger import SQLiteLedger, State
from securesmtp.testing import MailServer


def _prepare(message: EmailMessage | Envelope, ledger: MemoryLedger, key: str | None = "invoice-1") -> QueuedMessage:
    return QueuedMessage.prepare(message, ledger, key=key)


def test_it_goes_through_json_and_is_what_a_mailer_sends(message: EmailMessage) -> None:
    """Bcc is in the envelope alone; Date and Message-ID are those that it was given when it was prepared."""
    ledger = MemoryLedger()
    queued = _prepare(message, ledger)
    again = QueuedMessage.from_dict(json.loads(json.dumps(queued.as_dict())))
    assert again == queued
    with MailServer() as server, server.mailer() as mailer:
        result = again.send(mailer, ledger, deadline=20)
    (received,) = server.messages
    assert result.outcome is Outcome.ACCEPTED
    assert received.content == queued.content
    assert received.recipients == ("you@example.org", "blind@example.org")
    assert b"blind" not in queued.content
    assert b"\r\nDate: " in queued.content
    assert queued.message_id == result.message_id == received.message["Message-ID"]


def test_its_repr_has_no_address_and_no_content(message: EmailMessage) -> None:
    """A task queue logs it."""
    assert repr(_prepare(message, MemoryLedger())) == "QueuedMessage(key='invoice-1')"


def test_it_is_prepared_until_it_is_sent(message: EmailMessage) -> None:
    """So a message that is lost in the queue can be found (PITFALLS-1, Q7)."""
    ledger = MemoryLedger()
    queued = _prepare(message, ledger)
    assert [(entry.key, entry.message_id) for entry in ledger.entries(State.PREPARED)] == [
        ("invoice-1", queued.message_id)
    ]


def test_the_same_message_prepared_again_is_the_same_one(message: EmailMessage) -> None:
    """Its Date and boundary are new, its Message-ID is not; what the caller gave is compared (PITFALLS-1, Q17)."""
    ledger = MemoryLedger()
    message.add_attachment(b"1", maintype="application", subtype="pdf")
    first, second = _prepare(message, ledger), _prepare(message, ledger)
    assert (second.message_id, second.digest) == (first.message_id, first.digest)
    assert second.content != first.content
    with MailServer() as server, server.mailer() as mailer:
        results = [each.send(mailer, ledger, deadline=20) for each in (first, second, first)]
    assert [result.from_ledger for result in results] == [False, True, True]
    assert {result.receipt for result in results} == {results[0].receipt}
    assert len(server.messages) == 1


def test_fifty_at_once_are_one_send(message: EmailMessage, tmp_path: Path) -> None:
    """Fifty web requests for the same thing, each with a worker (PITFALLS-1, Q17)."""
    start = threading.Barrier(50)
    results = list[SendResult]()
    with SQLiteLedger(tmp_path / "ledger", longest_send=60) as ledger, MailServer() as server:
        mailer = server.mailer()

        def request() -> None:
            start.wait()
            results.append(QueuedMessage.prepare(message, ledger, key="1").send(mailer, ledger, deadline=20))

        threads = [threading.Thread(target=request) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Those that came while it was sent, and ask again.
        results += [QueuedMessage.prepare(message, ledger, key="1").send(mailer, ledger, deadline=20)]
    assert len(results) == 51
    assert len(server.messages) == 1
    assert [result.from_ledger for result in results].count(False) == 1
    assert {result.outcome for result in results} <= {Outcome.ACCEPTED, Outcome.UNKNOWN}
    assert {result.message_id for result in results} == {results[-1].message_id}


def test_other_content_under_the_same_key_is_an_error(message: EmailMessage) -> None:
    """Where it is prepared, and where it is sent."""
    ledger = MemoryLedger()
    queued = _prepare(message, ledger)
    message.replace_header("Subject", "another one")
    with pytest.raises(MessageError, match="its key 'invoice-1' is that of another message, which is prepared"):
        _prepare(message, ledger)
    with MailServer() as server, server.mailer() as mailer:
        result = replace(queued, digest="another").send(mailer, ledger, deadline=20)
    assert isinstance(result.error, MessageError)
    assert server.messages == []


@pytest.mark.parametrize(
    ("key", "message_id", "found"),
    [(None, "<1@example.org>", "<1@example.org>"), ("2", "<1@example.org>", "2"), ("2", None, "2")],
    ids=["Message-ID", "key and Message-ID", "key"],
)
@pytest.mark.parametrize("as_bytes", [False, True], ids=["message", "bytes"])
def test_its_name_is_the_key_or_the_message_id(
    message: EmailMessage, key: str | None, message_id: str | None, found: str, *, as_bytes: bool
) -> None:
    """As in `send_many`."""
    if message_id is not None:
        message["Message-ID"] = message_id
    given: EmailMessage | Envelope = message
    del message["Bcc"]
    if as_bytes:
        given = Envelope("me@example.org", ["you@example.org"], message.as_bytes())
    assert _prepare(given, MemoryLedger(), key).key == found


@pytest.mark.parametrize("key", [None, "", 7, "x" * 1000], ids=["none", "empty", "a number", "too long"])
def test_a_message_without_a_name_is_refused(message: EmailMessage, key: Any) -> None:
    """A Message-ID that is made here is no name: the next one would differ."""
    with pytest.raises(MessageError, match="key"):
        _prepare(message, MemoryLedger(), key)


def test_a_message_id_that_cannot_be_written_again_is_an_error(message: EmailMessage) -> None:
    """A signed message is not changed."""
    ledger = MemoryLedger()
    message["DKIM-Signature"] = "v=1; a=rsa-sha256; d=example.org; s=1; bh=; h=from; b="
    message["Message-ID"] = "<1@example.org>"
    _prepare(message, ledger)
    message.replace_header("Message-ID", "<2@example.org>")
    with pytest.raises(MessageError, match=r"an earlier try has given it the Message-ID '<1@example\.org>'"):
        _prepare(message, ledger)


def test_what_is_in_progress_is_not_sent(message: EmailMessage) -> None:
    """The claim of another worker is open: nobody knows how it ends (PITFALLS-1, Q6)."""
    ledger = MemoryLedger()
    queued = _prepare(message, ledger)
    item = ledger.look_up("invoice-1")
    assert item is not None
    ledger.claim([item], "another")  # type: ignore[list-item]  # an entry has what an item has
    with MailServer() as server, server.mailer() as mailer:
        result = queued.send(mailer, ledger, deadline=20)
    assert (result.outcome, result.from_ledger) == (Outcome.UNKNOWN, True)
    assert server.messages == []
    assert ledger.states() == {"invoice-1": State.CLAIMED}


def test_the_deadline_bounds_all_tries_together(message: EmailMessage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a later run, over another server; the ledger may allow more, or less."""
    ledger, now, deadlines = MemoryLedger(longest_send=3600), [100.0], list[float]()
    monkeypatch.setattr(_queued, "monotonic", lambda: now[0])

    class Mailer:
        def send_many(self, messages: Any, *, ledger: Any = None, **_: Any) -> Iterator[SendResult]:
            for seconds in (0, 12, 8):
                now[0] += seconds
                deadlines.append(ledger.longest_send)
            yield SendResult(0, None, Outcome.NOT_SENT)

    queued = _prepare(message, ledger)
    queued.send(Mailer(), ledger, deadline=20)
    ledger.longest_send = 5
    queued.send(Mailer(), ledger, deadline=9)
    assert deadlines == [20, 8, 0.001, 5, 0.001, 0.001]


@pytest.mark.parametrize("deadline", [0, -1, "30", None, True], ids=repr)
def test_a_wrong_deadline_is_refused(message: EmailMessage, deadline: Any) -> None:
    """Before anything is claimed."""
    ledger = MemoryLedger()
    queued = _prepare(message, ledger)
    with MailServer() as server, server.mailer() as mailer, pytest.raises(ConfigurationError, match="deadline"):
        queued.send(mailer, ledger, deadline=deadline)
    assert ledger.states() == {"invoice-1": State.PREPARED}


@pytest.mark.parametrize(
    ("method", "outcome", "state"),
    [("claim", Outcome.NOT_SENT, State.PREPARED), ("finish", Outcome.ACCEPTED, State.CLAIMED)],
)
def test_a_ledger_that_fails_leaves_a_true_result(
    message: EmailMessage, method: str, outcome: Outcome, state: State
) -> None:
    """Before the message is sent, and after it."""
    ledger = MemoryLedger()
    queued = _prepare(message, ledger)

    def fail(name: str) -> None:
        if name == method:
            raise LedgerError("full")

    ledger.before = fail
    with MailServer() as server, server.mailer() as mailer:
        result = queued.send(mailer, ledger, deadline=20)
    assert (result.outcome, result.retryable) == (outcome, outcome is Outcome.NOT_SENT)
    assert len(server.messages) == (outcome is Outcome.ACCEPTED)
    assert ledger.states() == {"invoice-1": state}


def test_a_ledger_that_cannot_be_read_is_an_error(message: EmailMessage) -> None:
    """Nothing was sent."""
    ledger = MemoryLedger()
    queued = _prepare(message, ledger)

    def fail(name: str) -> None:
        raise LedgerError("gone")

    ledger.before = fail
    with MailServer() as server, server.mailer() as mailer, pytest.raises(LedgerError, match="gone"):
        queued.send(mailer, ledger, deadline=20)
    assert server.messages == []


def test_an_interrupt_is_raised_when_the_ledger_has_the_end(message: EmailMessage) -> None:
    """Such as a time limit of the task queue: the message that is being sent is finished."""
    ledger = MemoryLedger()
    queued = _prepare(message, ledger)
    with MailServer() as server, server.mailer() as mailer:

        class Results:
            def __init__(self, results: Iterator[SendResult]) -> None:
                self.results, self.interrupts = results, [KeyboardInterrupt]

            def __iter__(self) -> Self:
                return self

            def __next__(self) -> SendResult:
                if self.interrupts:
                    raise self.interrupts.pop()
                return next(self.results)

        class Interrupted:
            def send_many(self, *messages: Any, **options: Any) -> Results:
                return Results(mailer.send_many(*messages, **options))

        with pytest.raises(KeyboardInterrupt):
            queued.send(Interrupted(), ledger, deadline=20)
    assert ledger.states() == {"invoice-1": State.ACCEPTED}
    assert len(server.messages) == 1


_ASKED_NOTHING = {
    "dsn": None,
    "require_tls": False,
    "binary": False,
    "deliver_by": None,
    "priority": None,
    "hold": None,
}


def _valid() -> dict[str, Any]:
    return {
        "mail_from": "me@example.org",
        "recipients": ["you@example.org"],
        "content": b64encode(b"Subject: 1\r\n\r\n").decode(),
        "key": "1",
        "digest": "ab" * 32,
        "message_id": None,
        **_ASKED_NOTHING,
    }


def test_data_of_a_later_version_can_be_read() -> None:
    """What it adds is ignored."""
    assert QueuedMessage.from_dict({**_valid(), "later": 1}).as_dict() == _valid()


def test_data_of_an_earlier_version_can_be_read() -> None:
    """It asks for nothing."""
    data = {name: value for name, value in _valid().items() if name not in _ASKED_NOTHING}
    assert QueuedMessage.from_dict(data).as_dict() == _valid()


@pytest.mark.parametrize(
    "wrong",
    [
        {"dsn": {"notify": "sometimes"}},
        {"dsn": "never"},
        {"require_tls": 1},
        {"require_tls": None},
        {"binary": "yes"},
        {"deliver_by": 3600},
        {"deliver_by": {"within": 3600}},
        {"deliver_by": {"within": 3600.5, "if_late": "return", "trace": False}},
        {"deliver_by": {"within": -(10**30), "if_late": "return", "trace": False}},
        {"deliver_by": {"within": 3600, "if_late": "R", "trace": False}},
        {"priority": 10},
        {"priority": 1.0},
        {"hold": 0},
        {"hold": True},
        {"hold": 10**30},
        {"hold": "tomorrow"},
        {"hold": "2026-12-01T00:00:00Z\r\nDATA"},
        {"mail_from": None},
        {"recipients": "you@example.org"},
        {"recipients": [1]},
        {"recipients": None},
        {"content": "é"},
        {"content": "YQ=é="},
        {"content": "a"},
        {"content": 5},
        {"key": 5},
        {"key": ""},
        {"key": "x" * 999},
        {"key": "\ud800"},
        {"digest": None},
        {"digest": "ab"},
        {"digest": "\0" * 64},
        {"digest": "ab" * 32 + "\n"},
        {"message_id": 5},
        {"message_id": ""},
        {"message_id": "<1@x>\r\nBcc: <2@x>"},
        {"message_id": "\ud800"},
        {"message_id": "x" * 999},
    ],
    ids=lambda wrong: ascii(wrong)[:50],
)
def test_other_data_are_refused(wrong: dict[str, Any]) -> None:
    """Each attribute has one type, and a ledger can keep what goes into it: a stranger may have written them."""
    with pytest.raises(ValueError, match="cannot make a QueuedMessage from this data"):
        QueuedMessage.from_dict({**_valid(), **wrong})


@pytest.mark.parametrize("name", sorted(_valid().keys() - _ASKED_NOTHING.keys()))
def test_data_that_miss_a_part_are_refused(name: str) -> None:
    """Nothing is made up."""
    data = _valid()
    del data[name]
    with pytest.raises(ValueError, match="cannot make a QueuedMessage from this data"):
        QueuedMessage.from_dict(data)
