"""
Play a dialogue against a list of answers: no socket, no clock, no thread.

    played = play(deliver(session, submission, "raise"), b"250 ok", b"550 5.1.1 no", b"250 reset")
    assert played.commands == [b"MAIL FROM:<...>", b"RCPT TO:<...>", b"RSET"]
    assert isinstance(played.error, RecipientsRefusedError)

An answer is what a reply says (octets), a value that the dialogue is resumed with, or an error that is thrown into it.
What is written is not answered; `breaks` throws an error at the effect of that number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, TypeVar

from securesmtp._protocol.effects import (
    Answer,
    Block,
    CommandGroup,
    Computation,
    Connect,
    Dialogue,
    Effect,
    IOEffect,
    Opened,
    ReadBinding,
    Receive,
    Send,
    Upgrade,
)
from securesmtp._protocol.sasl import ChannelBinding
from securesmtp._protocol.wire import RawReply, ReplyReader
from securesmtp._values import TLSInfo, TLSMode
from securesmtp.errors import SecureSMTPError

T = TypeVar("T")

TLS = TLSInfo(
    mode=TLSMode.STARTTLS,
    version="TLSv1.3",
    cipher="TLS_AES_256_GCM_SHA384",
    server_name="mx.example.org",
    trust="ca_data",
    peer_sha256="0" * 64,
    peer_spki_sha256="A" * 44,
    not_after=datetime(2030, 1, 1, tzinfo=UTC),
)


@dataclass
class Played(Generic[T]):
    """What a dialogue did: all that it yielded, and how it ended."""

    effects: list[IOEffect] = field(default_factory=list)
    values: list[T] = field(default_factory=list)
    error: SecureSMTPError | None = None
    unused: int = 0

    @property
    def commands(self) -> list[bytes]:
        """The lines that were written, without CRLF."""
        written = [
            (effect.line,) if isinstance(effect, Send) else effect.lines
            for effect in self.effects
            if isinstance(effect, Send | CommandGroup)
        ]
        return [line.data[:-2] for lines in written for line in lines]

    @property
    def content(self) -> bytes:
        """The octets of the content that were written."""
        return b"".join(effect.data for effect in self.effects if isinstance(effect, Block))

    @property
    def value(self) -> T:
        """What the dialogue returned; its error is raised if it did not."""
        if self.error is not None:
            raise self.error
        return self.values[0]

    def failure(self, kind: type[SecureSMTPError]) -> SecureSMTPError:
        """Return the error, of this *kind* and no other, with its sentence, after all answers were used."""
        assert type(self.error) is kind, self.error
        assert isinstance(self.error.args[0], str)
        assert self.unused == 0
        return self.error


def plain_id(value: object) -> str:
    """Return an id without backslashes: pytest escapes those anew when mutmut has it collect twice in one process."""
    return ascii(value).replace("\\", "%")


def raw(text: bytes, reader: ReplyReader | None = None) -> RawReply:
    """Return what the reader makes of one reply; LF stands for CRLF."""
    reader = reader or ReplyReader()
    reader.feed(text.replace(b"\n", b"\r\n") + b"\r\n")
    reply = reader.next()
    assert reply is not None
    assert not reader.pending
    return reply


def opened(greeting: bytes = b"220 mx", tls: TLSInfo | None = None) -> Opened:
    """Return the answer to `Connect`."""
    return Opened(raw(greeting), tls, b"[127.0.0.1]")


def computed(effect: Effect, dialogue: Dialogue[T]) -> IOEffect:
    """Return the first effect that is no computation, having done those before it as a connection does."""
    while isinstance(effect, Computation):
        try:
            answer = effect.perform()
        except Exception as error:  # noqa: BLE001 -- as a connection does
            effect = dialogue.throw(error)
        else:
            effect = dialogue.send(answer)
    return effect


def play(
    dialogue: Dialogue[T],
    *answers: bytes | Opened | TLSInfo | SecureSMTPError,
    breaks: Mapping[int, SecureSMTPError] | None = None,
    binding: ChannelBinding | None = None,
) -> Played[T]:
    """Resume *dialogue* with the *answers* until it ends; the connection has this channel *binding*."""
    played: Played[T] = Played()
    left = list(answers)
    answer: Answer = None
    failure: SecureSMTPError | None = None
    # One reader for all of it, told of the secrets as the link tells it.
    reader = ReplyReader()
    try:
        while True:
            effect = computed(dialogue.send(answer) if failure is None else dialogue.throw(failure), dialogue)
            if isinstance(effect, ReadBinding):
                # Nothing is sent for it, so it is no step of the session.
                effect = computed(dialogue.send(binding), dialogue)
            failure = (breaks or {}).get(len(played.effects))
            played.effects.append(effect)
            answer = None
            if isinstance(effect, Send):
                reader.redact(effect.line)
            if failure is None and isinstance(effect, Connect | Receive | Upgrade):
                given = left.pop(0)
                if isinstance(given, SecureSMTPError):
                    failure = given
                else:
                    answer = (raw(given, reader),) if isinstance(given, bytes) else given
    except StopIteration as stop:
        played.values.append(stop.value)
    except SecureSMTPError as error:
        played.error = error
    played.unused = len(left)
    return played
