"""The bar on a terminal, the lines in a log, and how a run ends by signals (PITFALLS-2 L17)."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import signal
import struct
import termios
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

import pytest
from rich.console import Console

from securesmtp import Outcome
from securesmtp._cli.send.progress import Progress, duration, is_terminal, terminal_width
from securesmtp._cli.send.stop import Pace, Stop
from securesmtp._cli.send.tally import Tally


@dataclass
class Clock:
    """A clock that stands still unless it is moved, and a sleep that moves it."""

    now: float = 100.0
    naps: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


def half_done(clock: Clock) -> Tally:
    """Return a run of 1,200 messages, of which an earlier one has sent 200, after 50 seconds."""
    tally = Tally(total=1200, clock=clock)
    tally.start()
    tally.earlier[Outcome.ACCEPTED] = 200
    tally.now.update({Outcome.ACCEPTED: 490, Outcome.REFUSED: 8, Outcome.UNKNOWN: 2})
    clock.now += 50
    return tally


@pytest.fixture
def terminal() -> Iterator[tuple[TextIO, int]]:
    """Open a terminal of 80 columns; return its stream, and where what it shows is read."""
    shown, stream = pty.openpty()
    with os.fdopen(stream, "w", encoding="utf-8") as file:
        fcntl.ioctl(file, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        yield file, shown
    os.close(shown)


def read_to_end(shown: int) -> str:
    """Return what the terminal has shown until its line is removed: a terminal hands it on in pieces."""
    data = b""
    while b"\x1b[?25h" not in data or not data.endswith(b"\x1b[2K"):
        data += os.read(shown, 100_000)
    return data.decode()


@pytest.fixture
def no_terminal_variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Leave only what a test sets."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return monkeypatch


def sending(tally: Tally, stream: TextIO, **options: bool) -> Progress:
    """Return the progress of a run that sends."""
    progress = Progress(tally, stream, is_quiet=False, is_stopping=lambda: options.get("stopping", False))
    progress.is_sending = True
    return progress


def test_the_line_says_what_is_known() -> None:
    """Tried of those to try, each outcome, the rate and the time left; what an earlier run sent does not count."""
    text = sending(half_done(Clock()), io.StringIO()).text().plain
    assert text == "500/1,000  490 accepted  8 refused  2 unknown  10.0/s  50 s left"


def test_a_line_before_the_first_result_has_no_time() -> None:
    """Nothing is known of it yet."""
    tally = Tally(total=3, clock=Clock())
    tally.start()
    assert sending(tally, io.StringIO()).text().plain == "0/3  0 accepted  0 refused  0 unknown  0.0/s"


def test_a_run_that_is_about_to_end_says_so() -> None:
    """In place of the time."""
    text = sending(half_done(Clock()), io.StringIO(), stopping=True).text().plain
    assert text.endswith("10.0/s  stopping: Ctrl-C again ends it at once")


def test_messages_that_were_not_sent_are_shown_if_there_are_any() -> None:
    """Mostly there are none."""
    tally = half_done(Clock())
    tally.now[Outcome.NOT_SENT] = 3
    assert "  3 not sent  " in sending(tally, io.StringIO()).text().plain


def test_a_log_gets_a_line_every_thirty_seconds() -> None:
    """And no bar, whatever FORCE_COLOR says."""
    clock, log = Clock(), io.StringIO()
    progress = sending(half_done(clock), log)
    with progress.showing():
        for seconds in (0, 29, 1, 0, 29, 1):
            clock.now += seconds
            progress.update()
    assert [line.split("  ")[0] for line in log.getvalue().splitlines()] == ["500/1,000"] * 2
    assert "\x1b" not in log.getvalue()


def test_nothing_is_shown_if_quiet() -> None:
    """Not even in a log."""
    clock, log = Clock(), io.StringIO()
    progress = Progress(half_done(clock), log, is_quiet=True)
    with progress.showing():
        clock.now += 100
        progress.update()
    assert log.getvalue() == ""


def test_a_check_is_shown_too() -> None:
    """It takes as long as making all messages."""
    progress = Progress(Tally(), io.StringIO(), is_quiet=False)
    progress.checked = 3200
    assert progress.text().plain == "checked 3,200 messages, none is sent yet"


def test_a_terminal_has_a_bar(terminal: tuple[TextIO, int], no_terminal_variables: pytest.MonkeyPatch) -> None:
    """It is drawn in its width, and removed at the end."""
    stream, shown = terminal
    with sending(half_done(Clock()), stream).showing():
        pass
    text = read_to_end(shown)
    assert "━" in text
    assert "500/1,000" in text
    assert "\x1b[2K" in text.rpartition("500/1,000")[2]


NO_BARS = {"dumb": {"TERM": "dumb"}, "unknown": {"TERM": "unknown"}}


@pytest.mark.parametrize("variables", NO_BARS.values(), ids=NO_BARS)
def test_a_dumb_terminal_has_no_bar(
    terminal: tuple[TextIO, int], no_terminal_variables: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """It cannot draw a line again."""
    for name, value in variables.items():
        no_terminal_variables.setenv(name, value)
    assert not is_terminal(terminal[0], Console(file=terminal[0]))


def test_a_forced_colour_makes_no_terminal(no_terminal_variables: pytest.MonkeyPatch) -> None:
    """Rich takes a log for one then."""
    no_terminal_variables.setenv("FORCE_COLOR", "1")
    console = Console(file=io.StringIO())
    assert console.is_terminal
    assert not is_terminal(io.StringIO(), console)


def test_without_colour_there_is_a_bar(terminal: tuple[TextIO, int], no_terminal_variables: pytest.MonkeyPatch) -> None:
    """NO_COLOR is about colours only."""
    no_terminal_variables.setenv("NO_COLOR", "1")
    stream, shown = terminal
    with sending(half_done(Clock()), stream).showing():
        pass
    text = read_to_end(shown)
    assert "━" in text
    assert "\x1b[3" not in text


@pytest.mark.parametrize("columns", [20, 60, 80, 200])
def test_the_bar_takes_the_width_of_standard_error(
    terminal: tuple[TextIO, int], no_terminal_variables: pytest.MonkeyPatch, columns: int
) -> None:
    """Not that of standard input or output; a narrow terminal has the words alone, cut to its width."""
    stream = terminal[0]
    fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    assert terminal_width(stream) == columns
    console = Console(file=io.StringIO(), width=columns)
    console.print(sending(half_done(Clock()), stream).line())
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 1
    assert len(lines[0]) <= columns
    assert ("━" in lines[0]) is (columns >= 80)


def test_what_is_no_terminal_has_a_width() -> None:
    """The usual one."""
    assert terminal_width(io.StringIO()) == 80


DURATIONS = {0: "0 s", 59.6: "1 min 00 s", 200: "3 min 20 s", 3600: "1 h 00 min", 90061: "25 h 01 min"}


@pytest.mark.parametrize(("seconds", "text"), DURATIONS.items())
def test_a_duration_is_written_as_people_write_it(seconds: float, text: str) -> None:
    """In two units at most."""
    assert duration(seconds) == text


def test_the_first_signal_is_kept_and_the_second_interrupts() -> None:
    """So that no reply is lost between the server and the ledger."""
    stop = Stop()
    before = signal.getsignal(signal.SIGINT)
    with stop.listening():
        assert not stop.is_requested
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_requested
        assert stop.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As nohup ignores SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = Stop()
        with stop.listening():
            signal.raise_signal(signal.SIGHUP)
        assert not stop.is_requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_pace_is_kept() -> None:
    """The first goes at once; a slow server is not made up for by a burst."""
    clock = Clock()
    pace, stop = Pace(2.0, clock, clock.sleep), Stop()
    times = []
    for late in (0.0, 0.0, 7.0, 0.0):
        clock.now += late
        pace.wait_for_turn(stop)
        times.append(round(clock.now - 100, 6))
    assert times == [0.0, 2.0, 9.0, 11.0]
    assert max(clock.naps) <= 0.1


def test_without_a_rate_nobody_waits() -> None:
    """Not even for a moment."""
    clock = Clock()
    for _ in range(3):
        Pace(None, clock, clock.sleep).wait_for_turn(Stop())
    assert clock.naps == []


def test_a_wait_for_its_turn_ends_with_the_run() -> None:
    """A rate of one an hour must not keep Ctrl-C waiting for an hour."""
    clock, stop = Clock(), Stop()

    def wait(seconds: float) -> None:
        clock.sleep(seconds)
        stop.reason = "enough"

    pace = Pace(3600.0, clock, wait)
    pace.wait_for_turn(stop)
    stop.reason = None
    pace.wait_for_turn(stop)
    assert clock.now < 101
