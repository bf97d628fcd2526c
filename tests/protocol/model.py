"""
A server that may do anything, and knows what it accepted: every sequence of its behaviour up to a stated depth.

How it works: the real `Connection` runs the real dialogues over a `ModelServer` in place of a socket. The server reads
what the client sends, and at each command and content asks a `Chooser` how to behave. `enumerate_cases` runs a case
again and again, until every combination of choices was made. There is no socket, clock or thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, cast

from fuzz.wire import SETTINGS
from protocol.play import TLS
from securesmtp._protocol.effects import Computation
from securesmtp._transport.channel import PAUSE, Channel
from securesmtp._transport.connection import Connection
from securesmtp._values import Outcome, TLSMode
from securesmtp.errors import DeadlineExceededError, SecureSMTPError

if TYPE_CHECKING:
    import socket
    import ssl

    from securesmtp._protocol.delivery import Delivery
    from securesmtp._protocol.effects import Dialogue

# What the server may reply to a command, the first being right: "+" goes on after a 421, the others close after it.
RIGHT = {b"RSET": b"250", b"MAIL": b"250", b"RCPT": b"250", b"DATA": b"354"}
REFUSALS = ("450", "550", "503")
OUT_OF_STEP = {"wrong", "251", "354", "bad"}
CLEAN = {"ok", "wait", *REFUSALS}
ENDS = ("bad", "silent", "interrupt", "interrupt at once", "cut", "half")
COMMAND = ("ok", *REFUSALS, "421", "421+", "wrong", *ENDS)
# 354, and at once a reply to the content, which was not sent yet.
DATA = (*COMMAND, "early 250", "early 552")
CONTENT = ("ok", *REFUSALS, "421", "251", "354", *ENDS)
# When only a part of the content has come.
PART = ("wait", "early 250", "early 552")

# How replies arrive: at once or when the client waits for them, whole or byte by byte.
Arrival = Literal["at once", "when waited for", "byte by byte"]


class Fate(Enum):
    """Whether the server has a message."""

    ACCEPTED = auto()
    NOT_ACCEPTED = auto()
    EITHER = auto()


class Chooser:
    """The choices of one case: those of a prefix, and then the first option each time."""

    def __init__(self, prefix: list[int], deviations: int) -> None:
        self.made: list[tuple[int, int]] = []
        self.names: list[str] = []
        self._prefix, self._left = prefix, deviations

    def choose(self, options: tuple[str, ...]) -> str:
        """Return one of *options*; any but the first is a deviation, and there are only so many of them."""
        number = len(self.made)
        chosen = self._prefix[number] if number < len(self._prefix) else 0
        self.made.append((chosen, len(options) if self._left > 0 else 1))
        self._left -= chosen > 0
        self.names.append(options[chosen])
        return options[chosen]


def enumerate_cases(run: Callable[[Chooser], None], deviations: int) -> int:
    """Call *run* with every combination of at most so many *deviations*, and return how many there are."""
    prefix: list[int] | None = []
    cases = 0
    while prefix is not None:
        chooser = Chooser(prefix, deviations)
        run(chooser)
        cases += 1
        made = chooser.made
        while made and made[-1][0] + 1 >= made[-1][1]:
            made.pop()
        prefix = [*(chosen for chosen, _ in made[:-1]), made[-1][0] + 1] if made else None
    return cases


@dataclass
class Transaction:
    """What the server knows of one transaction: the number of its message, and whether its envelope was accepted."""

    number: int
    # Choices that it made for its commands.
    choices: list[str] = field(default_factory=list)
    # Whether all of the content has come, and it is not the empty one by which a client ends a refused transaction.
    has_content: bool = False
    # Whether its result was sent, and no reply on the connection was out of step until then.
    is_answered: bool = False
    fate: Fate = Fate.NOT_ACCEPTED


class ModelServer:
    """Stand for the socket of a connection, and be the server at its other end."""

    def __init__(self, chooser: Chooser, arrival: Arrival) -> None:
        self.transactions: list[Transaction] = []
        self.closed = False
        self._chooser, self._arrival = chooser, arrival
        self._received = bytearray()
        self._replies, self._arrived = bytearray(), bytearray()
        self._is_silent = self._interrupts = self._interrupts_now = self._has_closed = self._is_end_visible = False
        # The size of the chunk that is awaited, or 0 for a content that ends with a dot.
        self._content: int | None = None
        self._was_asked_early = False
        # Whether a message may be added to a transaction that was not ended.
        self._is_open = False
        # Whether no reply was out of step.
        self._is_clean = True
        # Transactions whose result was sent since the client waited.
        self._unread: list[Transaction] = []
        # How it replied to the RSET before a MAIL that has not come yet.
        self._reset: list[str] = []

    # The client's end.

    def send(self, data: memoryview) -> int:
        assert not self.closed, "something was written after the connection was closed"
        self._received += data
        self._process()
        if self._interrupts_now:
            self._interrupts_now = False
            # Of what has come, the client reads nothing more; and for all that it knows, the rest was written too.
            self._break_step()
            if self._content is not None:
                self.transactions[-1].has_content = True
            raise KeyboardInterrupt
        return len(data)

    def recv(self, most: int) -> bytes:
        if self._arrival != "when waited for":
            self._arrive()
        if self._arrived:
            most = 1 if self._arrival == "byte by byte" else most
            data = bytes(self._arrived[:most])
            del self._arrived[:most]
            return data
        if self._is_end_visible:
            return b""
        raise BlockingIOError

    def wait(self) -> None:
        """Let the client wait: for what is to arrive, for the end of its time, or for an interrupt."""
        self._unread.clear()
        self._arrive()
        if self._arrived or self._is_end_visible:
            return
        assert self._is_silent, f"the client waits for a reply that is not due: {self._chooser.names}"
        if self._interrupts:
            raise KeyboardInterrupt
        error = DeadlineExceededError("timed out", retryable=True)
        error.limit = "command"
        raise error

    def close(self) -> None:
        self.closed = True

    def _arrive(self) -> None:
        self._arrived += self._replies
        self._replies.clear()
        self._is_end_visible = self._has_closed

    # The server's end.

    def _process(self) -> None:
        while self._read_command() if self._content is None else self._read_content():
            pass

    @property
    def _is_gone(self) -> bool:
        """Whether it does nothing any more; what the client sends is noted all the same."""
        return self._is_silent or self._has_closed

    def _read_command(self) -> bool:
        line, end, rest = self._received.partition(b"\r\n")
        if not end:
            return False
        self._received = rest
        verb = bytes(line[:4])
        if found := re.match(rb"MAIL FROM:<m(\d)@", line):
            assert self._is_gone or not self._is_open, "two messages in one transaction"
            self.transactions.append(Transaction(int(found[1]), self._reset))
            self._reset = []
        if verb == b"BDAT":
            self._content, self._was_asked_early = int(line.split()[1]), False
            return True
        if self._is_gone:
            return True
        choice = self._chooser.choose(DATA if verb == b"DATA" else COMMAND)
        # RFC 5321 §4.1.1.2, §4.1.1.5.
        self._is_open = self._is_open if verb in {b"RCPT", b"DATA"} else verb == b"MAIL" and choice == "ok"
        # RSET belongs to the message after it.
        (self._reset if verb == b"RSET" else self.transactions[-1].choices).append(choice)
        if verb == b"DATA" and (choice in {"ok", "early 250", "early 552"}):
            self._content, self._was_asked_early = 0, False
        if choice.startswith("early"):
            self._break_step()
            self._reply(b"354")
            self._reply(choice.removeprefix("early ").encode())
            self._is_silent = True
            return True
        if verb == b"RSET" and choice != "ok":
            # It cannot be refused (RFC 5321 §4.1.1.5).
            self._break_step()
        wrong = b"250" if verb == b"DATA" else b"354"
        self._answer(choice, RIGHT[verb], wrong)
        return True

    def _read_content(self) -> bool:
        size = self._content
        assert size is not None
        if size:
            is_whole, end, is_empty = len(self._received) >= size, size, False
        else:
            is_empty = self._received.startswith(b".\r\n")
            end = 3 if is_empty else self._received.find(b"\r\n.\r\n") + 5
            is_whole = end > 4 or is_empty
        if not is_whole:
            if not self._received or self._was_asked_early or self._is_gone:
                return False
            self._was_asked_early = True
            choice = self._chooser.choose(PART)
            if choice != "wait":
                self._break_step()
                self._reply(choice.removeprefix("early ").encode())
                self._is_silent = True
            return False
        del self._received[:end]
        self._content = None
        transaction = self.transactions[-1]
        transaction.has_content = not is_empty
        if self._is_gone:
            return True
        choice = self._chooser.choose(CONTENT)
        transaction.choices.append(choice)
        if not is_empty:
            if choice == "ok":
                transaction.fate = Fate.ACCEPTED
            elif choice not in {*REFUSALS, "421"}:
                transaction.fate = Fate.EITHER
        self._answer(choice, b"250", b"")
        # RFC 3030 §2: a chunk that was refused leaves the transaction open.
        self._is_open = self._is_open and bool(size) and choice in REFUSALS
        # A server that refuses the envelope and accepts the content contradicts itself.
        is_refused = any(each in REFUSALS for each in transaction.choices[:-1])
        if is_refused and choice == "ok" and not is_empty:
            self._break_step()
        transaction.is_answered = self._is_clean
        self._unread.append(transaction)
        return True

    def _answer(self, choice: str, right: bytes, wrong: bytes) -> None:
        if choice in OUT_OF_STEP:
            self._break_step()
        self._is_clean = self._is_clean and choice in CLEAN
        match choice:
            case "ok":
                self._reply(right)
            case "wrong":
                self._reply(wrong)
            case "421" | "421+":
                self._reply(b"421")
                self._has_closed = choice == "421"
            case "bad":
                self._replies += b"what\r\n"
            case "silent" | "interrupt":
                self._is_silent, self._interrupts = True, choice == "interrupt"
            case "interrupt at once":
                # The client is interrupted when it has written.
                self._interrupts_now = True
                self._reply(right)
            case "cut" | "half":
                self._replies += b"25" if choice == "half" else b""
                self._has_closed = True
            case code:
                self._reply(code.encode())

    def _break_step(self) -> None:
        """Let nothing that the client has not read yet be known to be the reply to what it seems to reply to."""
        self._is_clean = False
        for each in self._unread:
            each.is_answered = False

    def _reply(self, code: bytes) -> None:
        self._replies += code + b" 2.0.0 x\r\n" if code[:1] == b"2" else code + b" x\r\n"


class ModelChannel(Channel):
    """The channel of a connection to a `ModelServer`."""

    def __init__(self, server: ModelServer) -> None:
        super().__init__(SETTINGS[TLSMode.IMPLICIT], cast("ssl.SSLContext", None))
        self.sock = cast("socket.socket", server)


def connect(server: ModelServer) -> Connection:
    """Return a connection to *server* that has TLS, and was greeted."""
    connection = Connection(SETTINGS[TLSMode.IMPLICIT], cast("ssl.SSLContext", None))
    connection.channel = connection.transfer.channel = ModelChannel(server)
    connection.exchange.tls = TLS
    connection.exchange.feed(b"220 mx\r\n")
    assert connection.exchange.next_reply() is not None
    return connection


def drive(connection: Connection, server: ModelServer, dialogue: Dialogue[object]) -> object:
    """Run *dialogue* to its end, and return its value; what it raises is raised."""
    steps = connection.run(dialogue)
    try:
        wanted = next(steps)
        while True:
            if isinstance(wanted, Computation):
                wanted = steps.send(wanted.perform())
                continue
            if wanted == PAUSE:
                wanted = steps.send(None)
                continue
            assert not connection.exchange.ended, "the client waits for a connection that has ended"
            try:
                server.wait()
            except (SecureSMTPError, KeyboardInterrupt) as error:
                wanted = steps.throw(error)
            else:
                wanted = steps.send(None)
    except StopIteration as stop:
        return stop.value


def check(server: ModelServer, results: dict[int, Delivery | BaseException]) -> Iterator[Outcome]:
    """Compare what was reported of each message with what the server knows, and return the outcomes."""
    for number, result in results.items():
        mine = [each for each in server.transactions if each.number == number]
        fates = [each.fate for each in mine if each.fate is not Fate.NOT_ACCEPTED]
        assert len(fates) <= 1, "the server may have accepted a message twice"
        fate = fates[0] if fates else Fate.NOT_ACCEPTED
        if isinstance(result, SecureSMTPError):
            outcome = result.outcome
            assert not result.retryable or fate is Fate.NOT_ACCEPTED, "it may be accepted, and is to be sent again"
        else:
            assert not isinstance(result, BaseException), f"not an error of ours: {result!r}"
            outcome = Outcome.ACCEPTED
        match outcome:
            case Outcome.ACCEPTED:
                assert fate is Fate.ACCEPTED, "reported as accepted"
            case Outcome.UNKNOWN:
                assert any(each.has_content for each in mine), "unknown, but it was not fully sent"
                assert not mine[-1].is_answered, "unknown, but every reply came"
            case _:
                assert fate is Fate.NOT_ACCEPTED, f"reported as {outcome}"
        yield outcome
