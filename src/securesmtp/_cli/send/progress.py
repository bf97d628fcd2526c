"""
Show on standard error how far a run is: a bar on a terminal, a line every 30 seconds anywhere else.

FORCE_COLOR makes rich take a log file for a terminal, so whether there is one is asked of the stream itself.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from securesmtp._cli.output import write
from securesmtp._values import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import TextIO

    from securesmtp._cli.send.tally import Tally

# Seconds between two lines in a log.
INTERVAL: Final = 30.0
_NARROWEST_BAR: Final = 10
_STYLES: Final = {
    Outcome.ACCEPTED: "green",
    Outcome.REFUSED: "red",
    Outcome.NOT_SENT: "red",
    Outcome.UNKNOWN: "yellow",
}


class Progress:
    """
    How far a run is, shown while its ``with`` block runs.

    Args:
        tally: What is shown.
        stream: Where.
        is_quiet: Show nothing.
        is_stopping: Whether the run is about to end.
    """

    def __init__(
        self, tally: Tally, stream: TextIO, *, is_quiet: bool, is_stopping: Callable[[], bool] = lambda: False
    ) -> None:
        """Find out whether there is a terminal."""
        self._tally, self._stream, self._is_quiet, self._is_stopping = tally, stream, is_quiet, is_stopping
        self._console = Console(file=stream, highlight=False)
        self._is_live = not is_quiet and is_terminal(stream, self._console)
        self._next_line = 0.0
        self.checked = 0
        """How many messages were checked; the run begins to send when all are."""
        self.is_sending = False

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show it in a ``with`` block."""
        self._next_line = self._tally.clock() + INTERVAL
        live: AbstractContextManager[object] = nullcontext()
        if self._is_live:
            live = Live(
                get_renderable=self.line,
                console=self._console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
            )
        with live:
            yield

    def update(self) -> None:
        """Write a line if the last one is old enough, and there is no bar."""
        if self._is_live or self._is_quiet or self._tally.clock() < self._next_line:
            return
        self._next_line = self._tally.clock() + INTERVAL
        write(self._stream, f"{self.text()}\n")

    def line(self) -> Table | Text:
        """Return the bar, and how far the run is; as much of it as the terminal is wide."""
        self._console.width = terminal_width(self._stream)
        text = self.text()
        room = self._console.width - text.cell_len - 3
        if not self.is_sending or room < _NARROWEST_BAR:
            text.truncate(self._console.width - 1, overflow="ellipsis")
            return text
        grid = Table.grid(padding=(0, 1))
        grid.add_row(ProgressBar(self._tally.to_try or 1, self._tally.tried, width=room, complete_style="green"), text)
        return grid

    def text(self) -> Text:
        """Return how far the run is, in words."""
        if not self.is_sending:
            return Text(f"checked {self.checked:,} messages, none is sent yet")
        tally = self._tally
        text = Text(f"{tally.tried:,}/{tally.to_try:,}")
        for outcome, style in _STYLES.items():
            count = tally.now[outcome]
            if count or outcome is not Outcome.NOT_SENT:
                text.append("  ").append(f"{count:,} {outcome}", style if count else "")
        text.append(f"  {tally.rate:.1f}/s")
        if self._is_stopping():
            return text.append("  stopping: Ctrl-C again ends it at once")
        if tally.seconds_left is not None:
            text.append(f"  {duration(tally.seconds_left)} left")
        return text


def is_terminal(stream: TextIO, console: Console) -> bool:
    """Return whether *stream* is a terminal on which a line can be drawn again."""
    return stream.isatty() and not console.is_dumb_terminal


def terminal_width(stream: TextIO) -> int:
    """Return the columns of the terminal that *stream* is, now; 80 if it is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def duration(seconds: float) -> str:
    """Return *seconds* as people write them: ``2 h 05 min``, ``3 min 20 s``, ``7 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
