"""
The dialogue of a check, as swaks prints one, without any credential.

How it works: a dialogue asks its connection for one effect after the other. `Transcript.follow` passes them on, and
notes what is said. Nothing of a login is shown but the name of its mechanism: neither a response, whose length would
tell that of a password, nor a challenge, which belongs to it. A server that repeats a credential elsewhere does not get
it in here either: replies are redacted where they are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from securesmtp._cli.check.result import Line
from securesmtp._protocol.effects import Opened, Send
from securesmtp._protocol.replies import is_auth_continue, is_refusal
from securesmtp._protocol.wire import RawReply
from securesmtp._shown import escape
from securesmtp._values import Stage, TLSInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._protocol.effects import Answer, Dialogue, Effect

T = TypeVar("T")
_NOT_SHOWN = "(not shown)"


class Transcript:
    """
    What both sides of a connection have said.

    Attributes:
        lines: So far.
        is_encrypted: Whether a TLS session is open.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.lines: list[Line] = []
        self.is_encrypted = False

    def note(self, text: str) -> None:
        """Add something that happened."""
        self._add("===", text)

    def note_error(self, error: BaseException) -> None:
        """Add an error of this library, whose text is safe to show."""
        self._add("***", str(error.args[0]))

    def note_session(self, tls: TLSInfo) -> None:
        """Add that a TLS session was verified; what follows is inside it."""
        self.is_encrypted = True
        self.note(f"TLS started: {tls.version}, {tls.cipher}, verified for {tls.server_name} by {tls.trust}")

    def follow(self, dialogue: Dialogue[T], note_answer: Callable[[Effect, Answer], None]) -> Dialogue[T]:
        """Run *dialogue*, note what is said in it, and tell *note_answer* the answer to each effect."""
        try:
            effect = next(dialogue)
            while True:
                if isinstance(effect, Send):
                    self._add("~>" if self.is_encrypted else "->", _shown(effect))
                try:
                    answer = yield effect
                except Exception as error:  # noqa: BLE001 -- the dialogue decides what it means
                    effect = dialogue.throw(error)
                else:
                    self._note_answer(answer)
                    note_answer(effect, answer)
                    effect = dialogue.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value

    def _note_answer(self, answer: Answer) -> None:
        match answer:
            case Opened(greeting=greeting):
                self._note_reply(greeting)
            case TLSInfo():
                self.note_session(answer)
            case (RawReply(), *_):
                for reply in answer:
                    self._note_reply(reply)

    def _note_reply(self, reply: RawReply) -> None:
        marks = ("<**", "<~*") if is_refusal(reply.code) else ("<-", "<~")
        lines = (_NOT_SHOWN.encode(),) if is_auth_continue(reply.code) else reply.lines
        for number, text in enumerate(lines, 1):
            self._add(marks[self.is_encrypted], f"{reply.code}{' ' if number == len(lines) else '-'}{escape(text)}")

    def _add(self, hint: str, text: str) -> None:
        self.lines.append(Line(hint, escape(text)))


def _shown(effect: Send) -> str:
    if effect.stage is not Stage.AUTH:
        return _NOT_SHOWN if effect.line.secrets else effect.line.data[:-2].decode("ascii", "backslashreplace")
    # Not a variable for the whole line, which a traceback would show.
    if not effect.line.data.startswith(b"AUTH "):
        return _NOT_SHOWN
    mechanism = effect.line.data[:-2].split(b" ")[1].decode("ascii")
    return f"AUTH {mechanism} {_NOT_SHOWN}" if effect.line.data.count(b" ") > 1 else f"AUTH {mechanism}"
