"""Slots: which connection is used again, what is done on one, and when its events are emitted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from types import MemberDescriptorType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Mailer, Serve
from scripted import honest
from securesmtp import AuthenticationError, Event, SecureMailer
from securesmtp._transport.link import Link
from securesmtp._transport.pool import Pool
from securesmtp._transport.slots import Lease, SlotState, pick_slot
from securesmtp.events import Authenticated, Closed, Connected, Connecting, Sent

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


def test_one_assignment_ends_a_lease(serve: Serve, mailer: Mailer) -> None:
    """No call is involved that an interrupt could strike in: the next send gets the slot without a notification."""
    assert isinstance(vars(Lease)["done"], MemberDescriptorType)
    mine = mailer(serve(), max_connections=1)
    lease = Lease()
    slot = mine._pool.acquire(lease, None)
    sender = threading.Thread(target=_send, args=(mine,))
    sender.start()
    sender.join(0.3)
    assert sender.is_alive()
    assert not slot.is_free
    lease.done = True
    sender.join(5)
    assert not sender.is_alive()
    assert slot.is_free


def _checking_lock(monkeypatch: pytest.MonkeyPatch, pools: list[Pool], seen: list[str], name: str) -> None:
    original: Callable[..., object] = getattr(Link, name)

    def checked(link: Link, *args: Any) -> object:
        assert not any(pool._lock._is_owned() for pool in pools), name  # type: ignore[attr-defined]
        seen.append(name)
        return original(link, *args)

    monkeypatch.setattr(Link, name, checked)


def test_nothing_is_read_or_written_under_the_lock(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on a connection that is used nor on one that is closed; and no event is emitted there."""
    pools: list[Pool] = []
    seen: list[str] = []

    def on_event(event: Event) -> None:
        assert not any(pool._lock._is_owned() for pool in pools), event  # type: ignore[attr-defined]
        seen.append(type(event).__name__)

    for name in ("run", "goodbye", "is_idle", "close", "abort"):
        _checking_lock(monkeypatch, pools, seen, name)
    mine = mailer(serve(connections=10), max_messages=2, on_event=on_event)
    pools.append(mine._pool)
    for _ in range(5):
        _send(mine)
    mine._pool.discard_idle()
    _send(mine)
    lease = Lease()
    mine._pool.acquire(lease, None)
    mine.close(abort=True)
    lease.done = True
    mine.close()
    assert {"run", "goodbye", "is_idle", "close", "abort", "Closed", "Sent"} <= set(seen)


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
