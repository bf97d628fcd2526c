"""The account of one connection by itself: no socket, no dialogue, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from securesmtp._protocol.effects import Block, CommandGroup
from securesmtp._protocol.exchange import Exchange
from securesmtp._protocol.wire import Line, line
from securesmtp._values import Stage, TLSInfo
from securesmtp.errors import ConnectError, DowngradeError, ProtocolError, SecureSMTPError, TLSError

NOOP, DATA, BDAT = line(b"NOOP"), line(b"DATA"), line(b"BDAT", b"9", b"LAST")
CODES = (200, 250, 354, 421, 450, 550)


def inside_tls() -> Exchange:
    """Return an exchange that has read its greeting, inside TLS."""
    exchange = Exchange()
    exchange.tls = cast("TLSInfo", object())
    exchange.feed(b"220 mx\r\n")
    assert exchange.next_reply() is not None
    return exchange


def write(exchange: Exchange, data: memoryview) -> None:
    """Write all of *data*, as a socket with room does."""
    exchange.release(data)
    exchange.written += len(data)


def flush(exchange: Exchange) -> bool:
    """Write everything held, and return whether no reply may come before it is written."""
    data, alone = exchange.take_buffer()
    write(exchange, data)
    return alone


# Replies that are read together.

_LINES = (b"250 ok", b"250 2.1.5 ok", b"550 no", b"354 go", b"421 bye", b"250-two\r\n250 lines", b"wrong")


@given(
    groups=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    replies=st.lists(st.sampled_from(_LINES), max_size=14),
    most=st.integers(0, 4),
    cut=st.integers(0, 120),
    unwritten=st.sampled_from([0, 0, 1, 7]),
    keeps=st.booleans(),
)
@example(groups=[3], replies=[b"250 ok", b"550 no", b"250 ok"], most=4, cut=16, unwritten=0, keeps=True)
def test_replies_that_are_read_together_are_those_that_are_read_one_by_one(  # noqa: PLR0913 -- one case
    groups: list[int], replies: list[bytes], most: int, cut: int, unwritten: int, *, keeps: bool
) -> None:
    """Never one that is not due, or that came before its command was written; and each error comes at its place."""
    data = b"".join(text + b"\r\n" for text in replies)

    def run(*, together: bool) -> list[object]:
        exchange, seen = inside_tls(), list[object]()
        for size in groups:
            exchange.queue_group(CommandGroup((NOOP,) * size, Stage.MAIL))
            flush(exchange)
        # The end of the last group was not written yet, and one more is held back.
        exchange.written -= unwritten
        exchange.queue_group(CommandGroup((NOOP,), Stage.MAIL))
        try:
            exchange.feed(data[:cut])
            if keeps:
                exchange.keep_replies()
            exchange.feed(data[cut:])
            while (reply := exchange.next_reply()) is not None:
                more = exchange.remembered_replies(most) if together else []
                assert len(more) <= most
                seen += [reply, *more]
        except ProtocolError as error:
            seen.append(error.args)
        return [*seen, exchange.replies_due, exchange.is_closing]

    assert run(together=True) == run(together=False)


def test_only_replies_that_came_before_are_read_together() -> None:
    """They are well-formed, so no error is raised for a reply that nobody has asked for."""
    exchange = inside_tls()
    exchange.queue_group(CommandGroup((NOOP,) * 6, Stage.MAIL))
    flush(exchange)
    exchange.feed(b"250 a\r\n250 a\r\n250 a\r\n250 b\r\n250 a\r\nwrong\r\n")
    texts = [str(exchange.next_reply()), len(exchange.remembered_replies(1)), len(exchange.remembered_replies(9))]
    assert texts[1:] == [1, 1]
    assert exchange.next_reply() is not None
    assert len(exchange.remembered_replies(9)) == 1
    assert exchange.remembered_replies(9) == []
    with pytest.raises(ProtocolError):
        exchange.next_reply()


# The gate.


@pytest.mark.parametrize("data", [b"MAIL FROM:<a@b>\r\n", b"AUTH PLAIN x\r\n", b"QUIT\r\n", b"EHLO x\r\nMAIL\r\n"])
def test_the_gate_lets_only_ehlo_and_starttls_pass_in_the_clear(data: bytes) -> None:
    """Any other command is refused, and so is one after an EHLO in the same bytes (STLS-01)."""
    exchange = Exchange()
    with pytest.raises(TLSError, match="in the clear"):
        exchange.release(exchange.queue_command(Line(data)))


@pytest.mark.parametrize("data", [b"EHLO x\r\n", b"STARTTLS\r\n"])
def test_the_gate_lets_each_command_pass_once(data: bytes) -> None:
    """A second EHLO or STARTTLS in the clear is refused."""
    exchange = Exchange()
    write(exchange, exchange.queue_command(Line(data)))
    with pytest.raises(TLSError, match="in the clear"):
        exchange.release(exchange.queue_command(Line(data)))


@given(st.lists(st.sampled_from(["EHLO x", "ehlo x", "STARTTLS", "STARTTLS x", "AUTH PLAIN x", "MAIL", "NOOP"])))
def test_one_ehlo_and_one_starttls_pass_in_the_clear(commands: list[str]) -> None:
    """Whatever is queued: each passes at most once, nothing else does, and nothing passes after a refusal."""
    exchange = Exchange()
    passed: list[str] = []
    for command in commands:
        try:
            write(exchange, exchange.queue_command(line(command.encode("ascii"))))
        except SecureSMTPError:
            continue
        passed.append(command.partition(" ")[0])
    assert sorted(passed) == sorted(set(passed))
    assert set(passed) <= {"EHLO", "STARTTLS"}
    allowed = [command.startswith(("EHLO", "STARTTLS")) for command in commands]
    verbs = [command.partition(" ")[0] for command in commands]
    first_refused = next((n for n, ok in enumerate(allowed) if not ok or verbs[n] in verbs[:n]), len(commands))
    assert passed == verbs[:first_refused]


def test_no_command_is_written_after_one_that_was_not_written_whole() -> None:
    """The server would read it as the rest of that one."""
    exchange = inside_tls()
    exchange.release(exchange.queue_command(NOOP))
    exchange.written += 3
    with pytest.raises(ConnectError, match="before a command was fully sent") as caught:
        exchange.release(exchange.queue_command(NOOP))
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ([None], ""),
        ([ConnectError("gone")], ": gone"),
        ([None, ConnectError("gone")], ": gone"),
        ([ConnectError("gone"), ConnectError("late")], ": gone"),
        ([ConnectError("gone"), None], ": gone"),
    ],
)
def test_nothing_passes_the_gate_after_the_end(errors: list[SecureSMTPError | None], reason: str) -> None:
    """The error has the first reason for the end."""
    exchange = inside_tls()
    assert not exchange.ended
    for error in errors:
        exchange.end(error)
    assert (exchange.ended, exchange.close_reason) == (True, reason)
    with pytest.raises(ConnectError, match="the connection is closed") as caught:
        exchange.release(exchange.queue_command(NOOP))
    assert (caught.value.args, caught.value.retryable) == ((f"the connection is closed{reason}",), True)


def test_the_end_drops_what_is_held_and_keeps_what_has_come() -> None:
    """A held command was not written, so no reply is due to it; a reply that came before the end can be read."""
    exchange = inside_tls()
    exchange.queue_group(CommandGroup((NOOP, NOOP), Stage.MAIL))
    flush(exchange)
    exchange.queue_group(CommandGroup((NOOP,), Stage.MAIL))
    exchange.feed(b"250 first\r\n")
    assert exchange.keep_replies()
    exchange.feed(b"250 second\r\n250 third\r\n")
    exchange.end()
    assert (exchange.replies_due, exchange.commands_unanswered, exchange.has_held_bytes) == (2, 2, False)
    assert [str(raw.reply()) for raw in iter(exchange.next_reply, None)] == ["250 first", "250 second"]
    assert exchange.has_surplus


# What is held, and what may come while it is written.


def test_a_group_and_its_chunk_are_held_until_the_content_ends() -> None:
    """They are written in one go, and any of their replies may come while they are written (RFC 2920 §3.1)."""
    exchange = inside_tls()
    exchange.queue_group(CommandGroup((NOOP, BDAT), Stage.MAIL))
    assert (exchange.has_held_bytes, exchange.has_held_commands, exchange.replies_due) == (True, True, 0)
    assert not exchange.queue_content(Block(b"content\r\n", coalesce=True))
    data, alone = exchange.take_buffer()
    assert (bytes(data), alone) == (NOOP.data + BDAT.data + b"content\r\n", False)
    assert (exchange.has_held_bytes, exchange.has_held_commands, exchange.replies_due) == (False, False, 2)


@pytest.mark.parametrize(("size", "coalesce", "now"), [(65535, True, False), (65536, True, True), (1, False, True)])
def test_a_block_of_content_is_held_only_if_small(size: int, *, coalesce: bool, now: bool) -> None:
    """Without *coalesce* it is written at once; with it, from 64 KiB on."""
    exchange = inside_tls()
    exchange.queue_group(CommandGroup((DATA,), Stage.DATA))
    flush(exchange)
    exchange.feed(b"354 go\r\n")
    assert exchange.next_reply() is not None
    assert exchange.queue_content(Block(b"x" * size, coalesce)) is now
    # The end of a content that is held is due no reply yet; one that is to be written now is.
    assert (exchange.has_held_commands, exchange.replies_due) == ((False, 1) if now else (True, 0))
    assert flush(exchange)


def test_a_reply_to_a_held_content_is_early_not_unsolicited() -> None:
    """A server may refuse a content before it has its end; the refusal is read before the rest is written."""
    exchange = inside_tls()
    exchange.queue_group(CommandGroup((DATA,), Stage.DATA))
    flush(exchange)
    exchange.feed(b"354 go\r\n")
    assert exchange.next_reply() is not None
    exchange.queue_content(Block(b"x\r\n.\r\n", coalesce=True))
    exchange.feed(b"552 too large\r\n")
    exchange.check_unsolicited(Stage.MAIL)
    assert exchange.take_buffer()[1]
    assert exchange.is_answered_early
    reply = exchange.next_reply()
    assert reply is not None
    assert reply.code == 552


def test_only_the_reply_to_the_bytes_being_written_ends_the_write() -> None:
    """For a content and the group after it, that is the reply to the content; for a group alone, the last one."""
    exchange = inside_tls()
    exchange.queue_group(CommandGroup((NOOP, DATA), Stage.DATA))
    assert not exchange.take_buffer()[1]
    assert not exchange.next_reply_ends_write
    exchange.written = exchange.position
    exchange.feed(b"250 ok\r\n354 go\r\n")
    assert [raw.code for raw in (exchange.next_reply(), exchange.next_reply()) if raw] == [250, 354]
    exchange.queue_content(Block(b"x\r\n.\r\n", coalesce=True))
    exchange.queue_group(CommandGroup((NOOP, NOOP), Stage.MAIL))
    data, alone = exchange.take_buffer()
    assert alone
    exchange.release(data)
    exchange.written += len(b"x\r\n.\r")
    assert exchange.next_reply_ends_write
    exchange.written += 1
    assert not exchange.next_reply_ends_write


@pytest.mark.parametrize("held", [False, True])
def test_a_command_alone_is_answered_by_the_next_reply(*, held: bool) -> None:
    """Its reply ends the write. A group that is still held is an error: the command would be written before it."""
    exchange = inside_tls()
    if held:
        exchange.queue_group(CommandGroup((NOOP, NOOP), Stage.MAIL))
    data = exchange.queue_command(NOOP)
    assert (exchange.replies_due, exchange.commands_unanswered, exchange.next_reply_ends_write) == (1, 1, True)
    if held:
        with pytest.raises(ConnectError, match="before a command was fully sent"):
            exchange.release(data)
    else:
        exchange.release(data)


# What is received.


def test_a_positive_reply_to_a_command_that_was_not_written_is_an_error() -> None:
    """A refusal is not: a server may refuse what it has not read. The rest of the replies belong to their commands."""
    for words, is_early in ((b"250", True), (b"354", True), (b"450", False), (b"550", False)):
        exchange = inside_tls()
        exchange.queue_group(CommandGroup((NOOP, NOOP, NOOP), Stage.MAIL))
        data, _ = exchange.take_buffer()
        exchange.release(data)
        exchange.written += len(NOOP.data) * 2 - 1
        exchange.feed(b"250 one\r\n" + words + b" two\r\n")
        if is_early:
            with pytest.raises(ProtocolError, match=f'^the reply "{words.decode()} two" came before'):
                exchange.keep_replies()
        else:
            assert exchange.keep_replies()
        first = exchange.next_reply()
        assert first is not None
        assert (first.code, exchange.has_kept_replies) == (250, not is_early)


def test_a_server_that_closes_stays_closing() -> None:
    """Replies to what was in flight may follow the 421 (RFC 5321 §3.8)."""
    exchange = inside_tls()
    exchange.queue_group(CommandGroup((NOOP, NOOP), Stage.MAIL))
    flush(exchange)
    exchange.feed(b"421 bye\r\n250 ok\r\n")
    for _ in range(2):
        assert exchange.next_reply() is not None
        assert exchange.is_closing


@pytest.mark.parametrize(
    ("sent", "inside_tls", "kind", "text"),
    [
        (b"421 bye\r\n", False, DowngradeError, "unsolicited reply in plaintext"),
        (b"421 bye\r\n", True, ConnectError, "the server closes the session"),
        (b"250 ok\r\n", True, ProtocolError, "unsolicited reply"),
        (b"25", True, ProtocolError, "unsolicited reply"),
    ],
)
def test_an_unsolicited_reply_is_an_error_with_its_stage(
    sent: bytes, kind: type[SecureSMTPError], text: str, *, inside_tls: bool
) -> None:
    """In plaintext it is an attack; inside TLS the server closes the session or is at fault."""
    exchange = Exchange()
    exchange.feed(b"220 mx\r\n")
    assert exchange.next_reply() is not None
    exchange.tls = cast("TLSInfo", object()) if inside_tls else None
    exchange.check_unsolicited(Stage.RCPT)
    exchange.feed(sent)
    with pytest.raises(kind, match=text) as caught:
        exchange.check_unsolicited(Stage.RCPT)
    assert type(caught.value) is kind
    assert caught.value.stage is Stage.RCPT


@pytest.mark.parametrize("text", [b"334 " + b"x" * 8000, b"250 " + b"x" * 2000], ids=["334", "250"])
def test_kept_replies_have_a_limit_in_all(text: bytes) -> None:
    """A 334 counts twice: its challenge is kept as it came (issue 12, 1)."""
    exchange = inside_tls()
    exchange.queue_group(CommandGroup((NOOP,) * 200, Stage.RCPT))
    flush(exchange)

    def flood() -> None:
        for _ in range(200):
            exchange.feed(text + b"\r\n")
            exchange.keep_replies()

    with pytest.raises(ProtocolError, match="longer than any server needs"):
        flood()
    kept = exchange._kept
    assert sum(len(raw.challenge) + sum(map(len, raw.lines)) for raw in kept) < (1 << 18) + 200 * 256 + 12288


def test_reading_kept_replies_makes_room_for_more() -> None:
    """The limit is for what is kept at the same time, not for a connection."""
    exchange = inside_tls()
    exchange.queue_group(CommandGroup((NOOP,) * 400, Stage.RCPT))
    flush(exchange)
    for _ in range(400):
        exchange.feed(b"250 " + b"x" * 2000 + b"\r\n")
        assert exchange.keep_replies()
        assert exchange.next_reply() is not None
    assert (exchange.is_idle, exchange.has_kept_replies) == (True, False)


def test_start_of_tls_forgets_the_clear() -> None:
    """RFC 3207 §4.2."""
    exchange = Exchange()
    exchange.feed(b"220 mx\r\n250 injected\r\n")
    assert exchange.next_reply() is not None
    assert exchange.has_unread
    exchange.begin_tls()
    assert not exchange.has_unread


# The last one is not complete.
REPLIES = [b"250-one\r\n250 two", b"550 5.1.1 no", b"354 go", b"250 2.0.0 queued", b"421 bye", b"25"]


def _pieces(by: str) -> list[bytes]:
    sent = b"\r\n".join(REPLIES)
    if by == "whole":
        return [sent]
    return sent.splitlines(keepends=True) if by == "line" else [bytes([each]) for each in sent]


@pytest.mark.parametrize("keeps", [False, True], ids=["read", "kept"])
@pytest.mark.parametrize("by", ["whole", "line", "byte"])
def test_how_the_bytes_are_split_makes_no_difference(by: str, *, keeps: bool) -> None:
    """Each reply is paired with its command, whether it is read as it comes or kept first; the rest is a surplus."""
    exchange = inside_tls()
    exchange.queue_group(CommandGroup((NOOP, NOOP, DATA), Stage.DATA))
    flush(exchange)
    seen: list[tuple[str, int, bool]] = []

    def read() -> None:
        while (raw := exchange.next_reply()) is not None:
            seen.append((str(raw.reply()), exchange.replies_due, exchange.is_closing))
            if raw.code == 354:
                # Its content, and a command behind it.
                exchange.queue_content(Block(b"x\r\n.\r\n"))
                exchange.queue_group(CommandGroup((NOOP,), Stage.MAIL))
                flush(exchange)

    for piece in _pieces(by):
        exchange.feed(piece)
        if keeps:
            exchange.keep_replies()
        else:
            read()
    read()
    assert seen == [
        ("250 one two", 2, False),
        ("550 5.1.1 no", 1, False),
        ("354 go", 1, False),
        ("250 2.0.0 queued", 1, False),
        ("421 bye", 0, True),
    ]
    assert (exchange.replies_due, exchange.is_idle, exchange.has_unread, exchange.has_surplus) == (0, True, True, True)
    exchange.drop_unread()
    assert not exchange.has_unread


# Every sequence of calls.


@dataclass
class Command:
    """
    One command of the model.

    Attributes:
        end: Where it ends in the stream, content included.
        takes_content: Whether a content may follow.
    """

    end: int
    takes_content: bool = False


class Account(RuleBasedStateMachine):
    """
    Sequences of calls, against a model: the commands without a reply, and what the server has sent.

    The calls come as a connection makes them: one write at a time, a content only where one is expected. What the
    server sends has no such rule.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exchange = inside_tls()
        self.start = self.exchange.position
        self.unanswered: list[Command] = []
        self.held = 0
        self.is_writing = False
        self.unwritten = memoryview(b"")
        self.stream = bytearray()
        self.has_failed = False

    def _is_ready(self) -> bool:
        return not self.unwritten and not self.has_failed

    def _length(self) -> int:
        return self.exchange.position

    @precondition(lambda self: self._is_ready() and not self.unanswered and not self.exchange.has_held_bytes)
    @rule()
    def queue_command(self) -> None:
        data = self.exchange.queue_command(NOOP)
        self.unanswered, self.held = [Command(self._length())], 0
        self._release(data)

    @precondition(_is_ready)
    @rule(commands=st.integers(0, 3), last=st.sampled_from([NOOP, DATA, BDAT]))
    def queue_group(self, commands: int, last: Line) -> None:
        lines, at = (NOOP,) * commands + (last,), self._length()
        self.exchange.queue_group(CommandGroup(lines, Stage.MAIL))
        for each in lines:
            at += len(each.data)
            self.unanswered.append(Command(at, takes_content=each is BDAT))
        self.held += len(lines)

    @precondition(lambda self: self._is_ready() and self.unanswered and self.unanswered[-1].takes_content)
    @rule(size=st.integers(0, 9), coalesce=st.booleans())
    def queue_content(self, size: int, *, coalesce: bool) -> None:
        before = self.exchange.has_held_commands
        now = self.exchange.queue_content(Block(b"x" * size, coalesce))
        assert now is not coalesce
        self.unanswered[-1].end = self._length()
        if coalesce:
            self.unanswered[-1].takes_content = False
            self.held += not before
        else:
            self.take_buffer()

    @precondition(_is_ready)
    @rule()
    def take_buffer(self) -> None:
        data, alone = self.exchange.take_buffer()
        self.held = 0
        assert not self.exchange.has_held_bytes
        if data or not self.exchange.ended:
            assert alone or len(self.unanswered) > 1
            self._release(data)

    def _release(self, data: memoryview) -> None:
        if self.exchange.ended:
            with pytest.raises(ConnectError, match="the connection is closed"):
                self.exchange.release(data)
            self.unanswered = self.unanswered[: self.exchange.commands_unanswered]
            self.has_failed = True
        else:
            self.exchange.release(data)
            self.unwritten = data

    @precondition(lambda self: self.unwritten and not self.exchange.ended)
    @rule(share=st.floats(0, 1))
    def write(self, share: float) -> None:
        size = round(len(self.unwritten) * share)
        self.exchange.written += size
        self.unwritten = self.unwritten[size:]

    @precondition(lambda self: not self.has_failed)
    @rule(codes=st.lists(st.sampled_from(CODES), min_size=1, max_size=4), cut=st.integers(0, 8))
    def feed(self, codes: list[int], cut: int) -> None:
        sent = b"".join(b"%d x\r\n" % code for code in codes)
        self.stream += sent
        self.exchange.feed(sent[:cut])
        self.exchange.feed(sent[cut:])

    def _next_code(self, command: Command) -> int | None:
        """Take one reply from the stream; None if *command* must not be answered with it."""
        code, self.stream = int(self.stream[:3]), self.stream[len(b"250 x\r\n") :]
        return None if code < 400 and command.end > self.exchange.written else code

    @precondition(lambda self: not self.has_failed)
    @rule()
    def keep_replies(self) -> None:
        # What is kept was checked, and is paired when it is read: the stream of the model does not see the difference.
        exchange = self.exchange
        kept = len(exchange._kept)
        room = self.unanswered[kept : len(self.unanswered) - self.held]
        codes = [int(each[:3]) for each in bytes(self.stream).splitlines()[kept:]]
        too_soon = any(code < 400 and each.end > exchange.written for code, each in zip(codes, room, strict=False))
        if too_soon:
            with pytest.raises(ProtocolError, match="came before"):
                exchange.keep_replies()
            self.has_failed = True
        else:
            assert exchange.keep_replies() is bool(codes and room)
            assert len(exchange._kept) == kept + min(len(codes), len(room))

    @precondition(lambda self: not self.has_failed)
    @rule()
    def next_reply(self) -> None:
        exchange = self.exchange
        if len(self.unanswered) == self.held or not self.stream:
            assert exchange.next_reply() is None
            return
        command = self.unanswered[0]
        code = self._next_code(command)
        if code is None:
            with pytest.raises(ProtocolError, match="came before"):
                exchange.next_reply()
            self.has_failed = True
            return
        raw = exchange.next_reply()
        assert raw is not None
        assert raw.code == code
        assert exchange.is_closing or code != 421
        if code != 354:
            self.unanswered.pop(0)
        elif len(self.unanswered) == 1 and not self.unwritten:
            command.takes_content = True
        else:
            # No dialogue goes on after a 354 to anything but the last command.
            exchange.end()
            self.unanswered, self.held, self.has_failed = self.unanswered[: exchange.commands_unanswered], 0, True

    @rule()
    def end(self) -> None:
        due = self.exchange.replies_due
        self.exchange.end()
        self.unanswered, self.held = self.unanswered[:due], 0
        self.unwritten = memoryview(b"")

    @invariant()
    def is_as_the_model_says(self) -> None:
        exchange = self.exchange
        assert exchange.replies_due == len(self.unanswered) - self.held >= 0
        assert exchange.commands_unanswered == len(self.unanswered)
        assert exchange.has_held_commands == (self.held > 0)
        assert self.start <= exchange.written <= exchange.position
        # Commands without a reply that were not written: they are held, or are what is being written now.
        if not exchange.ended and not self.has_failed:
            held_or_unwritten = len(exchange._write_buffer) + len(self.unwritten)
            assert exchange.position - exchange.written == held_or_unwritten
            assert exchange.has_surplus == (len(self.stream) // 7 > len(exchange._kept) >= exchange.replies_due)


TestAccount = Account.TestCase
