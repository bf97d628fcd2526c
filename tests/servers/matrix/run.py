"""Fill the column of one server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from securesmtp import Outcome
from servers.matrix.cells import MATRIX_FACES, WAYS, Cell, Combination
from servers.matrix.letters import BAD_ALLOW, LONG_LINE, Letter, write
from servers.matrix.mailers import Result, Sender, offered
from servers.matrix.specials import IN_FLIGHT, Run, accepted, idle
from servers.matrix.tally import Tally

if TYPE_CHECKING:
    from faces import Faces
    from servers.real import RealServer

_TRIAL = 5


def combinations(server: RealServer) -> list[Combination]:
    """Return all ways to send to this server."""
    return [Combination(mode, face, way) for mode in server.modes for face in MATRIX_FACES for way in WAYS]


@contextmanager
def senders(server: RealServer, chosen: Sequence[Combination], faces: Faces, ca_file: Path) -> Iterator[list[Sender]]:
    """Make a sender for each combination, and close them."""
    with ExitStack() as stack:
        made = [Sender(server, combination, faces, ca_file) for combination in chosen]
        for each in made:
            stack.callback(each.close)
        yield made


class Column:
    """The cells of one server."""

    def __init__(self, server: RealServer, chosen: Sequence[Combination], faces: Faces, ca_file: Path) -> None:
        """Send to *server* by the *chosen* combinations; those with "session" are dropped where it is not tolerated."""
        self.server, self.chosen, self.faces, self.ca_file = server, chosen, faces, ca_file
        self.tolerated = list(chosen)
        self.tally = Tally(server)
        self.offers: dict[str, set[str]] = {mode: offered(server, mode, ca_file) for mode in server.modes}

    def messages(self, rows: Sequence[str]) -> Iterator[Cell]:
        """Send a letter of each of *rows* over one connection, by each combination; yield a cell for each."""
        for combination in self.chosen:
            with senders(self.server, [combination], self.faces, self.ca_file) as (sender,):
                if combination.way == "session":
                    trial = self.in_flight(sender)
                    yield trial
                    if trial.verdict == "cannot":
                        self.tolerated.remove(combination)
                        continue
                yield from self._messages(sender, rows)

    def _messages(self, sender: Sender, rows: Sequence[str]) -> Iterator[Cell]:
        size = int(self.server.extensions(sender.combination.mode).get("SIZE") or 0)
        letters = write([row for row in rows if row != BAD_ALLOW], self.server, size)
        partial = write([row for row in rows if row == BAD_ALLOW], self.server, size)
        results = sender.send(letters) + (sender.send(partial, partial="allow") if partial else [])
        letters += partial
        self.tally.wait_for(accepted(letters, results))
        for letter, result in zip(letters, results, strict=True):
            cell = self.tally.judge(letter, result, sender.combination, self.offers[sender.combination.mode])
            is_told = letter.row != LONG_LINE or f"<{letter.token}>" in sender.warnings
            yield cell if is_told else replace(cell, verdict="wrong", detail="no event says that the lines are long")

    def in_flight(self, sender: Sender) -> Cell:
        """Send a few messages for which the library tries whether the server takes them overlapping."""
        if "PIPELINING" not in self.offers[sender.combination.mode]:
            return Cell(IN_FLIGHT, self.server.name, sender.combination, "cannot", "does not offer PIPELINING")
        letters = [Letter(IN_FLIGHT, b"%d\r\n" % number) for number in range(_TRIAL)]
        results = sender.send(letters)
        self.tally.wait_for(accepted(letters, results))
        judged = [self._judge_trial(sender, letter, result) for letter, result in zip(letters, results, strict=True)]
        wrong = [cell for cell in judged if cell.verdict == "wrong"]
        if wrong:
            return wrong[0]
        # A trial may leave one message in doubt.
        doubtful = sum(result.outcome is Outcome.UNKNOWN for result in results)
        if doubtful > bool(sender.fell_back):
            return Cell(IN_FLIGHT, self.server.name, sender.combination, "wrong", f"{doubtful} unknown outcomes")
        if sender.fell_back:
            return Cell(IN_FLIGHT, self.server.name, sender.combination, "cannot", sender.fell_back[0])
        return Cell(IN_FLIGHT, self.server.name, sender.combination, "right")

    def _judge_trial(self, sender: Sender, letter: Letter, result: Result) -> Cell:
        if result.outcome is Outcome.UNKNOWN:
            return Cell(letter.row, self.server.name, sender.combination, "cannot", result.reply)
        return self.tally.judge(letter, result, sender.combination, self.offers[sender.combination.mode])

    def connections(self, *rows: Callable[[Run], Iterator[Cell]]) -> Iterator[Cell]:
        """Run some of the special rows, with new mailers for each."""
        for row in rows:
            with senders(self.server, self.tolerated, self.faces, self.ca_file) as made:
                yield from row(Run(made, self.tally, self.offers))

    @contextmanager
    def idle(self) -> Iterator[Callable[[], list[Cell]]]:
        """Send, and return what waits until the server has ended the connections, and sends again."""
        with (
            senders(self.server, self.tolerated, self.faces, self.ca_file) as made,
            idle(Run(made, self.tally, self.offers)) as finish,
        ):
            yield finish
