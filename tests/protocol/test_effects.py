"""What a dialogue asks of its connection: typed answers, and none of the caller's code inside a dialogue."""

from __future__ import annotations

from collections.abc import Callable
from email.message import EmailMessage

import pytest

from protocol.play import TLS, computed
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.building import from_message
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.content import Content
from securesmtp._protocol.delivery import deliver
from securesmtp._protocol.dialogue import Session, authenticate
from securesmtp._protocol.effects import (
    Adapt,
    Answer,
    Block,
    CommandGroup,
    Dialogue,
    Effect,
    FetchPassword,
    ReadBinding,
    adapt,
    connect,
    fetch_password,
    receive,
    upgrade,
)
from securesmtp._protocol.message import Submission
from securesmtp._protocol.sasl import Password
from securesmtp._secret import Secret
from securesmtp._values import Stage

SESSION = Session(TLS, Capabilities({"PIPELINING": ""}, ("PLAIN",)))
SUBMISSION = Submission(
    Mailbox.parse("a@b.example"),
    (Mailbox.parse("c@d.example"),),
    Content.from_bytes(b"Subject: x\r\n\r\nbody-of-it\r\n"),
)


def test_the_callers_code_runs_outside_of_the_dialogue() -> None:
    """The password callable, and the serialising of the caller's message, are the connection's to perform."""
    calls: list[str] = []

    def password() -> str:
        calls.append("password")
        return "hunter2-secret"

    login = authenticate(SESSION, Password("user", password))
    assert isinstance(next(login), ReadBinding)
    effect = login.send(None)
    assert isinstance(effect, FetchPassword)
    assert calls == []
    computed(effect, login)
    assert calls == ["password"]
    delivery = deliver(SESSION, eight_bit(), "raise", "message")
    effect = next(delivery)
    assert isinstance(effect, Adapt)
    assert isinstance(computed(effect, delivery), CommandGroup)
    # This one runs none of it.
    assert isinstance(next(deliver(SESSION, SUBMISSION, "raise", "message")), CommandGroup)


def test_what_the_callers_code_raises_is_raised_in_the_dialogue() -> None:
    """As if the dialogue had called it, whatever it is: the dialogue may handle it and go on."""

    def broken() -> str:
        raise ZeroDivisionError

    def handles() -> Dialogue[None]:
        try:
            yield from fetch_password(broken)
        except ZeroDivisionError:
            yield Block(b"handled")

    dialogue = handles()
    effect = next(dialogue)
    assert isinstance(effect, FetchPassword)
    assert computed(effect, dialogue) == Block(b"handled")
    dialogue_without_handler = fetch_password(broken)
    next(dialogue_without_handler)
    with pytest.raises(ZeroDivisionError):
        computed(effect, dialogue_without_handler)


def eight_bit() -> Submission:
    """Return a message that the server of `SESSION` accepts only in another form."""
    message = EmailMessage()
    message["From"], message["To"] = "a@b.example", "c@d.example"
    message.set_content("Grüße\n", cte="8bit")
    return from_message(message, None, None, date=lambda: "Tue, 24 Nov 2026 12:00:00 +0000", token=lambda: "token")


@pytest.mark.parametrize(
    "effect",
    [
        FetchPassword(Secret("hunter2-secret")),
        FetchPassword("hunter2-secret".strip),
        Adapt(SUBMISSION, SESSION.capabilities),
        Block(b"body-of-it"),
    ],
    ids=["Secret", "callable", "message", "block"],
)
def test_an_effect_shows_nothing_of_a_password_or_message(effect: Effect) -> None:
    """It is in the frames of a traceback."""
    assert "hunter2" not in repr(effect)
    assert "body-of-it" not in repr(effect)


@pytest.mark.parametrize(
    "dialogue",
    [
        connect,
        upgrade,
        lambda: receive(Stage.MAIL),
        lambda: fetch_password(Secret("hunter2-secret")),
        lambda: adapt(eight_bit(), SESSION.capabilities),
    ],
    ids=["connect", "upgrade", "receive", "fetch_password", "adapt"],
)
@pytest.mark.parametrize("answer", [None, True, "hunter2-secret"])
def test_an_answer_of_another_type_is_a_fault(dialogue: Callable[[], Dialogue[object]], answer: Answer) -> None:
    """A driver that mixes up its answers fails at once, with the types and not the values."""
    started = dialogue()
    next(started)
    with pytest.raises(TypeError, match=f"with {type(answer).__name__}, not ") as caught:
        started.send(answer)
    assert "hunter2" not in str(caught.value)
