"""Slots: which connection is used again, what is done on one, and when its events are emitted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial as bind
from threading import get_ident
from types import MemberDescriptorType
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Mailer, Serve, examples
from protocol.play import TLS, opened, play, raw
from scripted import honest
from securesmtp import AuthenticationError, Event, ProtocolError, SecureMailer, TLSPolicy
from securesmtp._protocol.dialogue import Session, reset
from securesmtp._protocol.effects import Answer, Dialogue
from securesmtp._transport import slots as slots_module
from securesmtp._transport.connection import Connection
from securesmtp._transport.link import Link
from securesmtp._transport.password import PasswordCalls
from securesmtp._transport.pool import Pool
from securesmtp._transport.slot import Lease, Slot, SlotState, pick_slot
from securesmtp._transport.slots import Slots
from securesmtp._transport.steps import ThreadWaiter, drive, perform
from securesmtp._transport.tls import build_context
from securesmtp.events import Authenticated, ChunkingRefused, Closed, Connected, Connecting, Sent

REMAINING = st.none() | st.integers(-1, 3)
SLOTS = st.lists(st.builds(SlotState, st.booleans(), REMAINING, st.floats(0, 100)), max_size=6)


def _send(mailer: SecureMailer) -> None:
    mailer.send_bytes(b"Subject: x\r\n\r\nx\r\n", mail_from="a@b.example", recipients=["c@d.example"])


@given(SLOTS, st.floats(0.1, 100))
def test_the_most_recently_used_connection_is_picked(slots: list[SlotState], max_idle: float) -> None:
    """Never one in use; an expired one is closed, and its slot is picked only if no connection is usable."""
    picked, expired = pick_slot(slots, max_idle)
    free = {number for number, slot in enumerate(slots) if slot.is_free}
    old = {n for n in free if (left := slots[n].remaining) is not None and (left <= 0 or slots[n].idle >= max_idle)}
    good = {n for n in free - old if slots[n].remaining is not None}
    assert set(expired) == old
    if picked is None:
        assert not free
    elif good:
        assert picked in good
        assert all(slots[picked].idle <= slots[n].idle for n in good)
    else:
        assert picked in free


def _acquire(mine: SecureMailer, lease: Lease) -> Slot[Link]:
    return drive(mine._pool.acquire(lease, None, ThreadWaiter), perform)


class _Link:
    is_open = True


@settings(max_examples=examples(200))
@given(
    st.lists(
        st.tuples(st.sampled_from(["claim", "end", "too many", "wait"]), st.integers(0, 2)), min_size=30, max_size=30
    )
)
def test_a_slot_that_is_claimed_without_the_rule_is_the_one_that_the_rule_picks(steps: list[tuple[str, int]]) -> None:
    """Whatever is in use, has expired or has carried enough messages, and nothing stays open that the rule closes."""
    now, taken = [100.0], list[Slot[Any]]()
    options = SecureMailer("localhost", 1, max_connections=3, max_idle=10)._settings
    slots: Slots[Any] = Slots(options, None, None, cast("Any", None), cast("Any", None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots_module, "monotonic", lambda: now[0])
        for step, number in steps:
            # Never twice the same time, by which the rule could not tell which was used last.
            now[0] += 6 * number + 0.01 if step == "wait" else 0.01
            if step == "claim":
                free = [slot for slot in slots if slot.is_free]
                picked, expired = pick_slot([slot.state(now[0]) for slot in free], options.max_idle)
                links = [free[each].link for each in expired]
                slot, closing = slots.claim(Lease(get_ident()))
                assert slot is (None if picked is None else free[picked])
                assert [link for link, _ in closing] == links
                if slot is not None:
                    slot.messages_left = slot.messages_left - 1 if slot.link else number
                    slot.link = slot.link or _Link()
                    taken.append(slot)
            elif step != "wait" and taken:
                slot = taken.pop(number % len(taken))
                slots.mark_used(slot, slot.link)
                if step == "too many":
                    slot.messages_left = 0
                cast("Lease", slot.lease).done = True


def test_one_assignment_ends_a_lease(serve: Serve, mailer: Mailer) -> None:
    """No call is involved that an interrupt could strike in: the next send gets the slot without a notification."""
    assert isinstance(vars(Lease)["done"], MemberDescriptorType)
    mine = mailer(serve(), max_connections=1)
    lease = Lease(get_ident())
    slot = _acquire(mine, lease)
    sender = threading.Thread(target=_send, args=(mine,))
    sender.start()
    sender.join(0.3)
    assert sender.is_alive()
    assert not slot.is_free
    lease.done = True
    sender.join(5)
    assert not sender.is_alive()
    assert slot.is_free


def _checking_lock(monkeypatch: pytest.MonkeyPatch, pools: list[Pool], seen: list[str], owner: type, name: str) -> None:
    original: Callable[..., object] = getattr(owner, name)

    def checked(self: object, *args: Any) -> object:
        assert not any(pool._lock._is_owned() for pool in pools), name  # type: ignore[attr-defined]
        seen.append(name)
        return original(self, *args)

    monkeypatch.setattr(owner, name, checked)


def test_nothing_is_read_or_written_under_the_lock(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on a connection that is used nor on one that is closed; and no event is emitted there."""
    pools: list[Pool] = []
    seen: list[str] = []

    def on_event(event: Event) -> None:
        assert not any(pool._lock._is_owned() for pool in pools), event  # type: ignore[attr-defined]
        seen.append(type(event).__name__)

    for name in ("run", "close_gracefully", "is_idle", "abort"):
        _checking_lock(monkeypatch, pools, seen, Link, name)
    _checking_lock(monkeypatch, pools, seen, Connection, "close")
    mine = mailer(serve(connections=10), max_messages=2, on_event=on_event)
    pools.append(mine._pool)
    for _ in range(5):
        _send(mine)
    mine._pool.discard_idle()
    _send(mine)
    lease = Lease(get_ident())
    _acquire(mine, lease)
    mine.close(abort=True)
    lease.done = True
    mine.close()
    assert {"run", "close_gracefully", "is_idle", "close", "abort", "Closed", "Sent"} <= set(seen)


@pytest.mark.parametrize("when", [Connecting, Connected, Authenticated, Sent, Closed])
@pytest.mark.parametrize("password", ["secret", "wrong"])
def test_each_connection_is_reported_open_once_and_closed_once(
    serve: Serve, mailer: Mailer, when: type[Event], password: str
) -> None:
    """In this order, whichever event's handler is interrupted; and the mailer goes on."""
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, when) and sum(isinstance(each, when) for each in events) == 1:
            raise KeyboardInterrupt

    server = serve(honest(auth=("me", "secret")))
    passwords = iter([password, "secret", "secret"])
    mine = mailer(server, username="me", password=lambda: next(passwords), on_event=on_event, max_connections=1)
    for _ in range(2):
        with suppress(KeyboardInterrupt, AuthenticationError):
            _send(mine)
    _send(mine)
    try:
        mine.close()
    except KeyboardInterrupt:
        assert when is Closed
    states = [type(event) for event in events if isinstance(event, Connected | Closed)]
    assert states == [Connected, Closed] * (len(states) // 2)
    assert len(states) >= 2
    assert server.accepted


def _slots(events: list[Event], *, max_messages: int = 100) -> Slots[Link]:
    mine = SecureMailer("localhost", username="me", password="secret", max_messages=max_messages)
    return Slots(mine._settings, None, events.append, bind(Link, mine._settings), PasswordCalls(1).fetch)


def _rset(_slot: Slot[Link], session: Session) -> Dialogue[Session]:
    yield from reset()
    return session


GREETED = (opened(tls=TLS), b"250-mx\n250-CHUNKING\n250 AUTH PLAIN")


def test_a_visit_connects_and_logs_in_only_without_a_session() -> None:
    """It is one dialogue, with the event of each step emitted before the next effect."""
    events: list[Event] = []
    slots, slot, seen = _slots(events, max_messages=7), Slot[Link](), list[list[str]]()

    def visit() -> Dialogue[Session]:
        dialogue = slots.visit(slot, _rset)
        answer: Answer = None
        while True:
            try:
                effect = dialogue.send(answer)
            except StopIteration as stop:
                return cast("Session", stop.value)
            seen.append([type(effect).__name__, *(type(event).__name__ for event in events)])
            events.clear()
            answer = yield effect

    first = play(visit(), *GREETED, b"235 ok", b"250 ok")
    assert first.commands[1].startswith(b"AUTH PLAIN ")
    assert first.commands[0].startswith(b"EHLO ")
    assert first.commands[2:] == [b"RSET"]
    assert [names[1:] for names in seen if names[1:]] == [["Connecting"], ["Connected"], ["Authenticated"]]
    assert (slot.session, slot.messages_left) == (first.value, 7)
    again = play(visit(), b"250 ok")
    assert again.commands == [b"RSET"]
    assert again.value is first.value


def test_a_visit_with_a_refused_login_had_no_session_and_pauses_logins() -> None:
    """While they are paused, no connection is opened, except for a visit that is told to ignore the pause."""
    events: list[Event] = []
    slots, slot = _slots(events), Slot[Link]()
    refused = play(slots.visit(slot, _rset), *GREETED, b"454 4.7.0 too many")
    assert refused.failure(AuthenticationError).retryable
    assert slot.session is None
    assert [type(event) for event in events] == [Connecting, Connected, Closed]
    paused = play(slots.visit(slot, _rset))
    assert "no login was attempted" in paused.failure(AuthenticationError).args[0]
    assert paused.effects == []
    play(slots.visit(slot, _rset, ignore_pause=True), *GREETED, b"235 ok", b"250 ok")
    assert slot.session is not None
    # That login has ended the pause.
    assert play(slots.visit(Slot[Link](), _rset), *GREETED, b"235 ok", b"250 ok").error is None


def test_a_check_returns_a_refused_login_with_the_session() -> None:
    """Its connection is closed; any other failure is raised."""
    events: list[Event] = []
    slots = _slots(events)
    session, refusal = play(slots.check(Slot[Link]()), *GREETED, b"535 5.7.8 no").value
    assert session.capabilities.auth == ("PLAIN",)
    assert refusal is not None
    assert [type(event) for event in events] == [Connecting, Connected, Closed]
    assert play(slots.check(Slot[Link]()), *GREETED, b"235 ok").value[1] is None
    assert isinstance(play(slots.check(Slot[Link]()), *GREETED, b"250 ok").error, ProtocolError)


def test_a_refusal_of_bdat_is_remembered_for_later_connections() -> None:
    """It is reported once, however many connections have met it."""
    events: list[Event] = []
    slots, link = _slots(events), Link(SecureMailer("localhost")._settings, build_context(TLSPolicy()))
    used = [Slot[Link](), Slot[Link]()]
    sessions = [play(slots.visit(slot, _rset), *GREETED, b"235 ok", b"250 ok").value for slot in used]
    for session in sessions:
        assert session.can_chunk
        session.chunking_refused = raw(b"500 what?").reply()
    shown = [event for slot in used * 2 for event in slots.mark_used(slot, link)]
    assert sum(isinstance(event, ChunkingRefused) for event in shown) == 1
    later = play(slots.visit(Slot[Link](), _rset), *GREETED, b"235 ok", b"250 ok").value
    assert later.chunking_refused is sessions[0].chunking_refused


def test_a_connection_that_another_thread_closes_after_a_send_is_reported_closed_once(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the other thread's from the moment that the lease is done, whatever the send has left to do."""
    events: list[Event] = []
    mine = mailer(serve(), on_event=events.append)

    class _ClosedAtOnce(Lease):
        __slots__ = ("_done",)
        _done: bool

        @property
        def done(self) -> bool:
            return self._done

        @done.setter
        def done(self, done: bool) -> None:
            self._done = done
            if done:
                other = threading.Thread(target=mine._pool.discard_idle)
                other.start()
                other.join()

    monkeypatch.setattr("securesmtp._send_steps.Lease", _ClosedAtOnce)
    _send(mine)
    assert [str(event).rpartition(" ")[2] for event in events if isinstance(event, Closed)] == ["usable"]


def test_each_expired_connection_is_closed_although_an_interrupt_strikes_in_on_event() -> None:
    """None is left open, and each is reported; the interrupt is raised."""

    class _Expired(Link):
        is_open = True

        def close_gracefully(self, dialogue: Dialogue[None]) -> None:
            dialogue.close()
            self.is_open = False

    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == 1:
            raise KeyboardInterrupt

    mine = SecureMailer("localhost", max_connections=3, on_event=on_event)
    links = [_Expired(mine._settings, build_context(TLSPolicy())) for _ in range(3)]
    for slot, link in zip(mine._pool.slots, links, strict=True):
        slot.link, slot.messages_left, slot.last_used = link, 1, float("-inf")
    with pytest.raises(KeyboardInterrupt):
        _acquire(mine, Lease(get_ident()))
    assert not any(link.is_open for link in links)
    assert [type(event) for event in events] == [Closed] * 3
