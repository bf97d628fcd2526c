"""The task in one process: each delivery is made by the test, as a worker makes it."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded
from celery.signals import before_task_publish
from celery.utils.saferepr import saferepr

from memory_ledger import MemoryLedger
from securesmtp import ConfigurationError, Envelope, LedgerError, Outcome, QueuedMessage, SecureMailer, SendResult
from securesmtp.errors import MessageError
from securesmtp.integrations.celery import MailTask, TryAgainError, mail_task
from securesmtp.integrations.celery._task import Rules
from securesmtp.ledger import SQLiteLedger, State
from securesmtp.testing import FAULTS, MailServer

SECRET = "secret-of-the-mailer"


@dataclass
class World:
    """
    A server, a ledger, and a task.

    Attributes:
        before_reply: Called when the server has a message and has not confirmed it.
        published: The headers and the body of each message for the broker.
    """

    server: MailServer
    app: Celery
    stack: ExitStack
    before_reply: list[Callable[[], object]]
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    published: list[tuple[dict[str, Any], Any]] = field(default_factory=list)

    def task(self, **options: Any) -> MailTask:
        """Make a task."""
        options.setdefault("mailer", self.mailer)
        made = mail_task(self.app, ledger=lambda: self.ledger, name=str(uuid4()), retry_backoff=8.0, **options)
        self.stack.callback(made.close)
        return made

    def mailer(self, timeout: float = 5) -> SecureMailer:
        """Make a mailer, which the task closes."""
        return SecureMailer("localhost", self.server.port, **self.server.options(timeout=timeout))

    def message(self, **fields: str) -> EmailMessage:
        """Return a message."""
        made = EmailMessage()
        fields = {"From": "me@example.org", "To": "you@example.net", "Subject": "Hello", **fields}
        for name, value in fields.items():
            made[name] = value
        made.set_content("the body\n")
        return made

    def publish(self, task: MailTask, key: str = "invoice-1", **options: Any) -> dict[str, Any]:
        """Give a message to Celery; return the argument of the task."""
        task.send_later(self.message(), key=key, **options)
        return self.argument()

    def argument(self) -> dict[str, Any]:
        """Return what the broker has got last, as it comes back."""
        (argument,) = json.loads(json.dumps(self.published[-1][1]))[0]
        assert isinstance(argument, dict)
        return argument

    @contextmanager
    def sending(self, send: Callable[[], object]) -> Iterator[threading.Thread]:
        """Call *send* in a thread; the server has the message, and confirms it at the end of the block."""
        arrived, go_on = threading.Event(), threading.Event()
        self.before_reply += [arrived.set, lambda: go_on.wait(60)]
        thread = threading.Thread(target=send)
        thread.start()
        try:
            assert arrived.wait(60)
            yield thread
        finally:
            go_on.set()
            thread.join()

    def deliver(self, task: MailTask, argument: Any, **request: Any) -> SendResult:
        """Run the task as a worker does, and return its result."""
        # As the queue of a broker.
        where = {"exchange": "", "routing_key": "celery"}
        request = {
            "id": "1",
            "called_directly": False,
            "args": [argument],
            "kwargs": {},
            "delivery_info": where,
        } | request
        task.push_request(**request)
        try:
            return SendResult.from_dict(json.loads(json.dumps(task.run(argument))))
        finally:
            task.request_stack.pop()


def _seconds(retry: Retry) -> float:
    assert isinstance(retry.when, float)
    return retry.when


class Closable:
    """A mailer's other method."""

    def close(self, **_: Any) -> None:
        """It has no connection."""


@pytest.fixture
def world() -> Iterator[World]:
    """Make them; nothing is published but in memory."""
    with ExitStack() as stack:
        hooks = list[Callable[[], object]]()
        server = MailServer(login=("me", SECRET), on_message=lambda _: [hook() for hook in hooks])
        stack.enter_context(server)
        # kombu has one pool for all with the same address.
        app = Celery("tests", broker=f"memory://{uuid4()}", backend="cache+memory://", set_as_current=False)
        stack.callback(app.close)
        made = World(server, app, stack, hooks)

        def note(headers: Any, body: Any, **_: Any) -> None:
            made.published.append((headers, body))

        before_task_publish.connect(note)
        stack.callback(before_task_publish.disconnect, note)
        yield made


def test_a_message_is_sent_once_however_often_it_is_delivered(world: World) -> None:
    """The broker delivers again what was not acknowledged."""
    task = world.task()
    argument = world.publish(task)
    results = [world.deliver(task, argument) for _ in range(3)]
    assert [(result.outcome, result.from_ledger) for result in results] == [
        (Outcome.ACCEPTED, False),
        (Outcome.ACCEPTED, True),
        (Outcome.ACCEPTED, True),
    ]
    assert {result.receipt for result in results} == {results[0].receipt}
    assert [received.subject for received in world.server.messages] == ["Hello"]


def test_what_is_published_twice_is_sent_once(world: World) -> None:
    """The caller repeats too: the task's id is no key (PITFALLS-1, Q17)."""
    task = world.task()
    arguments = [world.publish(task) for _ in range(2)]
    results = [world.deliver(task, argument) for argument in arguments]
    assert [result.outcome for result in results] == [Outcome.ACCEPTED, Outcome.ACCEPTED]
    assert len(world.server.messages) == 1


def test_other_content_under_the_same_key_is_not_published(world: World) -> None:
    """The caller learns it at once."""
    task = world.task()
    world.publish(task)
    with pytest.raises(MessageError, match="with other content"):
        task.send_later(world.message(Subject="Another"), key="invoice-1")
    assert len(world.published) == 1


def test_an_envelope_has_its_own_addresses(world: World) -> None:
    """As in `send_many`."""
    task = world.task()
    task.send_later(Envelope("bounces@example.org", ["me@example.net"], world.message(), key="1"))
    world.deliver(task, world.argument())
    (received,) = world.server.messages
    assert (received.mail_from, received.recipients) == ("bounces@example.org", ("me@example.net",))


@pytest.mark.parametrize(
    "fault",
    [
        "refuses_recipients",
        "greylists",
        "full",
        "bad_login",
        "too_busy",
        "silent",
        "drops_after_content",
        "expired",
    ],
)
def test_it_tries_again_exactly_if_that_is_safe(world: World, fault: Any) -> None:
    """What is unknown, or refused for good, is the result of the task."""
    world.server.fault = fault
    task = world.task(mailer=lambda: world.mailer(0.5 if fault == "silent" else 5))
    argument = world.publish(task)
    if FAULTS[fault].retryable:
        with pytest.raises(Retry) as caught:
            world.deliver(task, argument)
        assert isinstance(caught.value.exc, TryAgainError)
        assert 4 <= _seconds(caught.value) <= 8
        assert world.argument() == argument
        world.server.fault = None
        result = world.deliver(task, world.argument(), retries=1)
        assert (result.outcome, result.from_ledger) == (Outcome.ACCEPTED, False)
    else:
        result = world.deliver(task, argument)
        assert result.outcome is FAULTS[fault].outcome
        assert type(result.error).__name__ == FAULTS[fault].error
        assert len(world.published) == 1
        # Nor does it if the same is delivered again.
        world.server.fault = None
        again = world.deliver(task, argument)
        assert again.outcome is (Outcome.ACCEPTED if result.outcome is Outcome.NOT_SENT else result.outcome)
    assert len(world.server.messages) == (world.ledger.states()["invoice-1"] in {State.ACCEPTED, State.UNKNOWN})


def test_the_last_try_returns_its_result(world: World) -> None:
    """After that, the ledger has it as refused."""
    world.server.fault = "full"
    task = world.task(max_retries=3)
    argument = world.publish(task)
    with pytest.raises(Retry):
        world.deliver(task, argument, retries=2)
    result = world.deliver(task, argument, retries=3)
    assert (result.outcome, result.retryable) == (Outcome.REFUSED, True)


@pytest.mark.parametrize("retries", [0, 1, 2, 5, 40, 10**6])
def test_the_pauses_double_up_to_the_longest_and_differ(retries: int) -> None:
    """Many messages that failed together are not tried again together."""
    rules = Rules(30, "raise", 60, 30, 1800)
    pauses = [rules.delay(retries, 10**6) for _ in range(200)]
    most = min(30 * 2**retries, 1800) if retries < 20 else 1800
    assert all(most / 2 <= pause <= most for pause in pauses)
    assert max(pauses) - min(pauses) > most / 4


@pytest.mark.parametrize(("options", "longest"), [({"visibility_timeout": 10}, 5), ({}, 1800)], ids=["set", "default"])
def test_no_pause_is_longer_than_half_of_the_visibility_timeout(
    world: World, options: dict[str, Any], longest: float
) -> None:
    """Redis would deliver the waiting task a second time, and there would be two of them."""
    world.app.conf.broker_transport_options = options
    world.server.fault = "full"
    task = world.task(retry_backoff_max=86_400.0)
    argument = world.publish(task)
    with pytest.raises(Retry) as caught:
        world.deliver(task, argument, retries=15)
    assert longest / 2 <= _seconds(caught.value) <= longest


@pytest.mark.parametrize("request_", [{"is_eager": True}, {"called_directly": True}], ids=["eager", "called"])
def test_without_a_worker_there_is_one_try(world: World, request_: dict[str, Any]) -> None:
    """Celery would try again at once, all in one web request (PITFALLS-1, Q18)."""
    world.server.fault = "greylists"
    task = world.task()
    result = world.deliver(task, world.publish(task), **request_)
    assert (result.outcome, result.retryable) == (Outcome.REFUSED, True)
    assert len(world.published) == 1


def test_an_eager_application_sends_at_once(world: World) -> None:
    """With `task_always_eager`, as in tests."""
    world.app.conf.task_always_eager = True
    world.server.fault = "greylists"
    task = world.task()
    results = [SendResult.from_dict(task.send_later(world.message(), key="1").get()) for _ in range(2)]
    assert [result.outcome for result in results] == [Outcome.REFUSED, Outcome.ACCEPTED]


LIMITS = [
    (30, None, None, None),
    (30, 31, 32, None),
    (30, 30, 60, "soft_time_limit=30 is not above the deadline of 30 s"),
    (30, 10, 60, "soft_time_limit=10 is not above the deadline of 30 s"),
    (30, 60, 20, "time_limit=20 is not above the deadline of 30 s"),
]


@pytest.mark.parametrize(("deadline", "soft", "hard", "error"), LIMITS)
def test_the_deadline_is_below_celerys_limits(
    world: World, deadline: float, soft: float | None, hard: float | None, error: str | None
) -> None:
    """So the send ends first, and its outcome is known (PITFALLS-1, Q3)."""
    options: dict[str, Any] = {"deadline": deadline, "soft_time_limit": soft, "time_limit": hard}
    if error is not None:
        with pytest.raises(ConfigurationError, match=error):
            world.task(**options)
        return
    task = world.task(**options)
    assert task.soft_time_limit is not None
    assert task.time_limit is not None
    assert deadline < task.soft_time_limit < task.time_limit


@pytest.mark.parametrize("limit", ["soft_time_limit", "time_limit"])
def test_a_limit_of_a_call_is_checked_before_anything_is_written(world: World, limit: str) -> None:
    """In the caller."""
    task = world.task()
    with pytest.raises(ConfigurationError, match=f"{limit}=5 is not above the deadline"):
        task.send_later(world.message(), key="1", **{limit: 5})
    assert (world.published, world.ledger.states()) == ([], {})


@pytest.mark.parametrize(
    ("limits", "deadline"),
    [(None, 30), ([50, 40], 30), ([50, 30], 20), ([50, 12], 6), ([4, None], 2), ([None, None], 30), ([35, 31], 30)],
    ids=repr,
)
def test_a_task_that_was_published_with_shorter_limits_has_a_shorter_deadline(
    world: World, limits: list[float | None] | None, deadline: float
) -> None:
    """As before a deployment that has changed them: the send still ends first."""
    deadlines = list[float]()

    class Mailer(Closable):
        def send_many(self, messages: Any, *, deadline: float, **_: Any) -> Iterator[SendResult]:
            deadlines.append(deadline)
            yield SendResult(0, None, Outcome.ACCEPTED)

    task = world.task(mailer=Mailer)
    world.deliver(task, world.publish(task), timelimit=limits)
    assert deadlines == [deadline]


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGALRM)


@pytest.fixture
def soft_limit() -> Iterator[Callable[[], None]]:
    """Return a function that makes Celery's soft limit strike the test's thread."""

    def strike(*_: object) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGALRM, strike)
    yield _interrupt
    signal.signal(signal.SIGALRM, before)


def test_a_soft_limit_during_the_send_leaves_its_outcome(world: World, soft_limit: Callable[[], None]) -> None:
    """It strikes while the server has the content and has not confirmed it (PITFALLS-1, Q1)."""
    world.before_reply.append(soft_limit)
    task = world.task()
    argument = world.publish(task)
    assert world.deliver(task, argument).outcome is Outcome.ACCEPTED
    assert len(world.server.messages) == 1


def test_a_soft_limit_before_the_send_is_one_try(world: World) -> None:
    """Nothing was claimed."""

    def slow() -> SecureMailer:
        raise SoftTimeLimitExceeded

    task = world.task(mailer=slow)
    argument = world.publish(task)
    with pytest.raises(Retry):
        world.deliver(task, argument)
    assert world.ledger.states() == {"invoice-1": State.PREPARED}


def test_a_soft_limit_before_the_claim_is_one_try(world: World) -> None:
    """The ledger was asked, and has not answered."""
    task = world.task()
    argument = world.publish(task)
    limits = [SoftTimeLimitExceeded()]

    def strike(_: str) -> None:
        if limits:
            raise limits.pop()

    world.ledger.before = strike
    with pytest.raises(Retry):
        world.deliver(task, argument)
    assert world.ledger.states() == {"invoice-1": State.PREPARED}
    assert world.deliver(task, argument, retries=1).outcome is Outcome.ACCEPTED


def test_the_receipt_of_another_message_is_not_its_own(world: World) -> None:
    """The first one was refused, and the key given to another one; then the broker delivers the first one again."""
    world.server.fault = "refuses_recipients"
    task = world.task(max_retries=0)
    first = world.publish(task)
    assert world.deliver(task, first).outcome is Outcome.REFUSED
    world.server.fault = None
    task.send_later(world.message(Subject="Corrected"), key="invoice-1")
    assert world.deliver(task, world.argument()).outcome is Outcome.ACCEPTED
    errors = [LedgerError("down")]

    def fail(_: str) -> None:
        if errors:
            raise errors.pop()

    world.ledger.before = fail
    result = world.deliver(task, first)
    assert (result.outcome, result.receipt) == (Outcome.NOT_SENT, None)


def test_an_open_claim_is_waited_for(world: World) -> None:
    """Whatever the number of tries: how the other worker's send ends is the result of this one too (PITFALLS-1, Q6)."""
    task = world.task(max_retries=0)
    argument = world.publish(task)
    queued = QueuedMessage.from_dict(argument)
    world.ledger.claim([queued], "another")  # type: ignore[list-item]  # it has what an item has
    with pytest.raises(Retry) as caught:
        world.deliver(task, argument, retries=100)
    # Not "unknown": that is never tried again.
    assert re.fullmatch(r"<invoice-1>: in progress elsewhere since \d{4}-\d\d-\d\d [\d:]{8} UTC", str(caught.value.exc))
    assert world.server.messages == []


def test_a_claim_that_cannot_be_read_again_is_waited_for(world: World) -> None:
    """The last try would say that the message was not sent, while another worker sends it."""
    task, looked_up = world.task(max_retries=0), list[str]()
    argument = world.publish(task)
    queued = QueuedMessage.from_dict(argument)
    world.ledger.claim([queued], "another")  # type: ignore[list-item]  # it has what an item has

    def fail(name: str) -> None:
        looked_up.extend([name] * (name == "look_up"))
        if len(looked_up) > 1:
            raise LedgerError("the database is down")

    world.ledger.before = fail
    with pytest.raises(Retry) as caught:
        world.deliver(task, argument)
    assert len(looked_up) == 2
    assert str(caught.value.exc) == "<invoice-1>: perhaps in progress elsewhere: the ledger cannot be read"


def test_two_deliveries_at_once_are_one_send(world: World) -> None:
    """The second comes while the first one's content is at the server."""
    task = world.task()
    argument = world.publish(task)
    first = list[SendResult]()
    with world.sending(lambda: first.append(world.deliver(task, argument))), pytest.raises(Retry):
        world.deliver(task, argument)
    second = world.deliver(task, argument, retries=1)
    assert [(each.outcome, each.from_ledger) for each in (*first, second)] == [
        (Outcome.ACCEPTED, False),
        (Outcome.ACCEPTED, True),
    ]
    assert len(world.server.messages) == 1


@pytest.mark.parametrize("method", ["look_up", "claim"])
def test_a_ledger_that_is_down_means_another_try(world: World, method: str) -> None:
    """Nothing was sent."""
    task = world.task(max_retries=1)
    argument = world.publish(task)

    def fail(name: str) -> None:
        if name == method:
            raise LedgerError("the database is down")

    world.ledger.before = fail
    with pytest.raises(Retry):
        world.deliver(task, argument)
    assert world.deliver(task, argument, retries=1).outcome is Outcome.NOT_SENT
    assert world.server.messages == []


def test_a_mailer_that_cannot_be_made_means_another_try(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong setting of a worker does not use up the queue, and the log says what is wrong."""

    def wrong() -> SecureMailer:
        raise ConfigurationError("SMTP_HOST is not set")

    task = world.task(mailer=wrong, max_retries=1)
    argument = world.publish(task)
    with caplog.at_level(logging.WARNING), pytest.raises(Retry):
        world.deliver(task, argument)
    assert "no mailer or no ledger for <invoice-1>" in caplog.text
    assert "SMTP_HOST is not set" in caplog.text
    assert world.deliver(task, argument, retries=1).outcome is Outcome.NOT_SENT


def test_a_try_that_the_broker_does_not_take_is_delivered_again(world: World) -> None:
    """Otherwise Celery would drop the task, and nobody would send the message."""
    world.server.fault = "full"
    world.app = Celery("tests", broker="amqp://127.0.0.1:1//", set_as_current=False)
    world.stack.callback(world.app.close)
    once = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    world.app.conf.update(task_publish_retry=False, broker_transport_options=once)
    task = world.task()
    argument = QueuedMessage.prepare(world.message(), world.ledger, key="1").as_dict()
    with pytest.raises(Reject) as caught:
        world.deliver(task, argument)
    assert vars(caught.value)["requeue"]


def test_neither_logs_nor_events_have_an_address_or_the_body(world: World) -> None:
    """Celery writes the arguments into headers, which its logs and events show (PITFALLS-1, Q5)."""
    world.server.fault = "greylists"
    task = world.task()
    argument = world.publish(task)
    with pytest.raises(Retry) as caught:
        world.deliver(task, argument)
    shown = [(headers["argsrepr"], headers["kwargsrepr"]) for headers, _ in world.published]
    assert shown == [("(<invoice-1>)", "{}")] * 2
    assert str(caught.value.exc) == "<invoice-1>: refused: RecipientsRefusedError (rcpt, 451 4.7.1)"


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (None, None),
        ("drops_after_content", "unknown: OutcomeUnknownError (content)"),
        ("refuses_recipients", "refused: RecipientsRefusedError (rcpt, 550 5.1.1)"),
        ("bad_login", "not sent: AuthenticationError (auth, 535 5.7.8)"),
        ("too_busy", "not sent: ConnectError (greeting, 421 4.3.2)"),
    ],
)
def test_what_ends_without_being_accepted_is_a_warning(
    world: World, caplog: pytest.LogCaptureFixture, fault: Any, text: str | None
) -> None:
    """Celery's own line calls it a success, at INFO, which a worker does not show unless it is asked to."""
    world.server.fault = fault
    task = world.task(max_retries=0)
    argument = world.publish(task)
    with caplog.at_level(logging.WARNING):
        world.deliver(task, argument)
    lines = [record.getMessage() for record in caplog.records if "the task of" in record.getMessage()]
    assert lines == ([] if text is None else [f"the task of <invoice-1> has ended: {text}"])
    assert "example.net" not in caplog.text


def test_what_a_killed_worker_left_is_a_warning(world: World, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """No event says it, because nobody lived to see it."""
    path = tmp_path / "ledger"
    with SQLiteLedger(path) as ledger:
        task = mail_task(world.app, mailer=world.mailer, ledger=lambda: ledger)
        argument = world.publish(task)
        ledger.claim([QueuedMessage.from_dict(argument)], "killed")  # type: ignore[list-item]  # it has what an item has
        task.close()
    with SQLiteLedger(path, exclusive=True) as ledger, caplog.at_level(logging.WARNING):
        assert world.deliver(task, argument).outcome is Outcome.UNKNOWN
        task.close()
    assert "the task of <invoice-1> has ended: unknown: OutcomeUnknownError (unknown)" in caplog.text
    assert world.server.messages == []


@pytest.mark.parametrize(
    "key",
    ["newsletter to you@example.net", None, "1\nCRITICAL forged", "1\x1b[2J"],
    ids=["an address", "a Message-ID", "a line", "a command of a terminal"],
)
def test_a_key_that_a_log_must_not_have_is_not_shown(world: World, key: str | None) -> None:
    """Its digest is, which the ledger has too."""
    task = world.task()
    message = world.message(**{"Message-ID": "<1@example.net>"})
    task.send_later(message, key=key)
    ((headers, _),) = world.published
    assert headers["argsrepr"] == f"(<{world.argument()['digest'][:16]}>)"


@pytest.mark.parametrize("arguments", [None, (), ("text",), ({},)], ids=repr)
def test_other_arguments_are_not_shown_either(world: World, arguments: Any) -> None:
    """Whoever calls it."""
    task = world.task(typing=False)
    task.apply_async(arguments)
    ((headers, _),) = world.published
    assert headers["argsrepr"] in {"(…)", "(<None>)"}


@pytest.mark.parametrize("fault", [None, "refuses_recipients", "bad_login", "drops_after_content"])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_the_result_survives_celery(world: World, fault: Any, serializer: str) -> None:
    """An error would be rebuilt from its text alone (PITFALLS-1, Q4); and what is logged of it has no address."""
    world.server.fault = fault
    task = world.task()
    argument = world.publish(task)
    task.push_request(id="1", called_directly=False, args=[argument])
    try:
        returned = task.run(argument)
    finally:
        task.request_stack.pop()
    there = (json if serializer == "json" else pickle).dumps(returned)
    result = SendResult.from_dict((json if serializer == "json" else pickle).loads(there))
    entry = world.ledger.look_up("invoice-1")
    assert entry is not None
    assert entry.result is not None
    assert result.as_dict() == entry.result.as_dict()
    shown = saferepr(returned, task.resultrepr_maxsize)
    assert shown == f"{{'outcome': '{result.outcome}', ...}}"


def test_the_broker_never_has_the_password(world: World) -> None:
    """The worker has it."""
    task = world.task()
    world.publish(task)
    assert SECRET not in repr(world.published)


def test_a_process_has_one_mailer_and_closes_it(world: World) -> None:
    """All tasks of a process share its connections."""
    made = list[SecureMailer]()

    def make() -> SecureMailer:
        made.append(world.mailer())
        return made[-1]

    task = world.task(mailer=make)
    for number in range(3):
        world.deliver(task, world.publish(task, key=str(number)))
    task.close()
    (mailer,) = made
    with pytest.raises(ConfigurationError, match="closed"):
        mailer.send(world.message())
    # A task after that makes another one.
    assert world.deliver(task, world.publish(task, key="4")).outcome is Outcome.ACCEPTED
    assert len(made) == 2


def test_a_ledger_that_can_be_closed_is(world: World, tmp_path: Path) -> None:
    """Such as that of SQLite, whose lock other processes wait for."""
    ledgers = [SQLiteLedger(tmp_path / "ledger")]
    task = mail_task(world.app, mailer=world.mailer, ledger=lambda: ledgers[0])
    task.send_later(world.message(), key="1")
    task.close()
    with pytest.raises(LedgerError, match="closed"):
        ledgers[0].look_up("1")


def test_closing_waits_only_so_long(world: World) -> None:
    """Then it ends what is being sent, whose outcome is known (PITFALLS-1, Q19)."""
    task = world.task(close_timeout=0.05, deadline=300)
    argument = world.publish(task)
    results = list[SendResult]()
    with world.sending(lambda: results.append(world.deliver(task, argument))) as thread:
        task.close()
        thread.join()
    assert [result.outcome for result in results] == [Outcome.UNKNOWN]
