"""What arrived from one server, letter by letter; and whether it is what was sent."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from securesmtp import Outcome
from servers.matrix.cells import Cell
from servers.matrix.letters import BAD_RAISE, LONG_LINE, OVER_SIZE, in_ascii, reported_tokens, token_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servers.matrix.cells import Combination
    from servers.matrix.letters import Letter
    from servers.matrix.mailers import Result
    from servers.real import RealServer
    from servers.sink import Delivered

# Seconds until an accepted message must have arrived; OpenSMTPD takes one.
WITHIN = 60.0
# Haraka's, which another run would change.
_ID = r" \([-\w.]+\)$"


class Tally:
    """Collects what a server delivers."""

    def __init__(self, server: RealServer) -> None:
        """Forget what was delivered before."""
        self.server = server
        server.deliver(0)
        self.arrived: dict[str, list[Delivered]] = defaultdict(list)
        self.reported: set[str] = set()

    def wait_for(self, letters: Iterable[Letter], within: float = WITHIN) -> None:
        """Wait until each letter, and each report that it asks for, has arrived, or *within* seconds have gone by."""
        end = time.monotonic() + within
        missing = list(letters)
        while True:
            for delivered in self.server.delivered_now():
                token = token_of(delivered.content)
                if token is None or not delivered.mail_from:
                    self.reported.update(reported_tokens(delivered.content))
                elif not self._is_second_delivery(delivered, self.arrived[token]):
                    self.arrived[token].append(delivered)
            missing = [letter for letter in missing if not self._is_complete(letter)]
            if not missing or time.monotonic() > end:
                return
            time.sleep(0.01)

    @staticmethod
    def _is_second_delivery(delivered: Delivered, before: list[Delivered]) -> bool:
        """
        Whether the server delivers what it has delivered, as it does if it is stopped before it has noted that.

        The Received field has the number of the queue and the time, so a message that was sent twice has two of them.
        """
        return any(each.trace and delivered == each for each in before)

    def _is_complete(self, letter: Letter) -> bool:
        has_arrived = not Counter(letter.arrives_at) - self._recipients(letter.token)
        return has_arrived and not self._lacks_report(letter)

    def _lacks_report(self, letter: Letter) -> bool:
        return letter.dsn is not None and self.server.can("report") and letter.token not in self.reported

    def _recipients(self, token: str) -> Counter[str]:
        return Counter(in_ascii(address) for each in self.arrived[token] for address in each.recipients)

    def judge(self, letter: Letter, result: Result, combination: Combination, offers: set[str]) -> Cell:
        """Compare what the library says with what arrived."""

        def cell(verdict: str, detail: str = "") -> Cell:
            return Cell(letter.row, self.server.name, combination, verdict, detail)  # type: ignore[arg-type]

        copies = self.arrived[letter.token]
        if result.outcome is not Outcome.ACCEPTED:
            told = f"{type(result.error).__name__}, {result.outcome.name}: {result.reply}"
            if copies:
                return cell("wrong", f"arrived: {told}")
            if letter.needs and letter.needs not in offers and result.outcome is Outcome.NOT_SENT:
                return cell("cannot", f"does not offer {letter.needs}")
            is_true = result.outcome in {Outcome.NOT_SENT, Outcome.REFUSED}
            if letter.row in {BAD_RAISE, OVER_SIZE} and is_true:
                return cell("right", result.reply)
            return cell("wrong", told)
        if self._recipients(letter.token) != Counter(letter.arrives_at):
            return cell("wrong", f"accepted for {letter.arrives_at}, arrived at {self._recipients(letter.token)}")
        if self._lacks_report(letter):
            return cell("wrong", f"no report of success within {WITHIN:.0f} s")
        differences = {letter.difference(each.content, self.server) for each in copies} - {""}
        if differences:
            return cell("wrong", "; ".join(differences))
        if letter.row == LONG_LINE and self.server.expected(letter.octets) != letter.octets:
            return cell("cannot", f"breaks the lines, and replies {re.sub(_ID, '', result.reply)}")
        return cell("right", result.reply)

    def doubles(self) -> list[str]:
        """Return the tokens of messages that arrived twice at a recipient."""
        self.wait_for(())
        return [token for token in self.arrived if max(self._recipients(token).values(), default=0) > 1]
