"""
``securesmtp send`` for many messages: a table with a template, or files; one process, a ledger, a summary.

How it works: all messages are made once, to find what is wrong with any of them while nothing is sent yet. Then they
are made again, one at a time, and go to `SecureMailer.send_many`, which writes each claim and each outcome into the
ledger. What the ledger says was accepted, or may have arrived, is left out. So a run that was killed goes on with the
same command.
"""

from __future__ import annotations

import sys
import warnings
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING

from securesmtp._cli.exit_codes import ExitCode
from securesmtp._cli.output import print_note, print_text
from securesmtp._cli.send.check import can_send, check, is_sound
from securesmtp._cli.send.ledger_view import write_results
from securesmtp._cli.send.many_options import ManyOptions
from securesmtp._cli.send.outcome import exit_code, print_error
from securesmtp._cli.send.plan import Draft, make_plan
from securesmtp._cli.send.preview import preview
from securesmtp._cli.send.progress import Progress
from securesmtp._cli.send.rows import Fault
from securesmtp._cli.send.stop import Pace, Stop
from securesmtp._cli.send.summary import code_of, json_summary, summary
from securesmtp._cli.send.tally import Tally
from securesmtp._compose.addresses import AddressWarning
from securesmtp._shown import escape
from securesmtp._submissions import entry_digest
from securesmtp._values import Outcome, Stage
from securesmtp.errors import MessageError, SecureSMTPError
from securesmtp.ledger import SQLiteLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from securesmtp._cli.send.check import Check
    from securesmtp._cli.send.plan import Plan
    from securesmtp._cli.send.sources import Ready
    from securesmtp._envelope import Envelope
    from securesmtp._mailer import SecureMailer
    from securesmtp._values import SendResult

__all__ = ["Draft", "run"]
# Ledgers that a note names.
_NAMED = 3
# At these stages it is not the message that is wrong: the next one would fail in the same way.
_BEFORE_MAIL = frozenset({Stage.CONNECT, Stage.HANDSHAKE, Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.AUTH})


def run(draft: Draft, many: Mapping[str, object], open_mailer: Callable[[int | None], SecureMailer]) -> int:
    """
    Send what *draft* and *many* say, and return the exit code.

    Args:
        draft: The options that one message has too.
        many: The other options; see `ManyOptions`.
        open_mailer: Makes the mailer, with so many connections, or with the usual number. It is closed here.

    Raises:
        click.UsageError: Options are missing, or do not fit together.
    """
    options = ManyOptions.read(many)
    try:
        plan = make_plan(draft, options)
        with warnings.catch_warnings():
            # A name that looks like another address is in the table as it was made.
            warnings.simplefilter("ignore", AddressWarning)
            mailing = _Mailing(draft, options, plan)
            with mailing.stop.listening():
                return mailing.preview() if draft.dry_run else mailing.send(open_mailer)
    except SecureSMTPError as error:
        print_error(str(error), error.outcome)
        return exit_code(error)


class _Mailing:
    """
    One run.

    Attributes:
        stop: Ends it.
    """

    def __init__(self, draft: Draft, options: ManyOptions, plan: Plan) -> None:
        self.stop = Stop()
        self._draft, self._options, self._plan = draft, options, plan
        self._tally = Tally()
        self._progress = Progress(
            self._tally, sys.stderr, is_quiet=draft.quiet, is_stopping=lambda: self.stop.is_requested
        )
        # Where the messages come from that were given to `send_many` and have no result yet.
        self._waiting: deque[Ready] = deque()

    def preview(self) -> int:
        """Check all and show the first; return the exit code."""
        with ExitStack() as stack:
            path = self._plan.ledger
            # Not for itself: a run may be at work.
            is_used = path.exists() or path.with_name(f"{path.name}-lock").exists()
            found, code = self._check(stack.enter_context(SQLiteLedger(path)) if is_used else None)
        if code is not None:
            return code
        if found.first is not None and not self._draft.quiet:
            print_text(preview(found.first))
        tally = self._tally
        print_text(f"{tally.to_try:,} of {tally.total:,} messages would be sent. Nothing was sent.\n")
        return ExitCode.OK

    def send(self, open_mailer: Callable[[int | None], SecureMailer]) -> int:
        """Check all, send what is to be sent, and say what became of it; return the exit code."""
        with ExitStack() as stack:

            def open_ledger() -> SQLiteLedger:
                resend = self._plan.resend
                return stack.enter_context(SQLiteLedger(self._plan.ledger, exclusive=True, resend=resend))

            ledger = open_ledger() if self._plan.ledger.exists() else None
            code = self._check(ledger)[1]
            if code is not None:
                return code
            # Only now, so that a faulty table leaves no file behind.
            return self._send_and_report(ledger or open_ledger(), open_mailer)

    def _send_and_report(self, ledger: SQLiteLedger, open_mailer: Callable[[int | None], SecureMailer]) -> int:
        failure = self._send_all(ledger, open_mailer)
        self._report()
        if failure is not None:
            print_error(str(failure))
        has_results = self._write_results(ledger)
        if self.stop.signal is not None:
            # As shells report it.
            return 128 + self.stop.signal
        code = code_of(self._tally)
        if code is ExitCode.OK and failure is not None:
            code = exit_code(failure)
        return ExitCode.NO_RESULTS if code is ExitCode.OK and not has_results else code

    def _check(self, ledger: SQLiteLedger | None) -> tuple[Check, int | None]:
        """Return what was found, and the exit code if nothing is to be sent."""
        if not self._draft.quiet:
            print_note(self._plan.title)
            if ledger is None and (others := _others(self._plan.ledger)):
                print_note(others)
        with self._progress.showing():
            found = check(self._plan, ledger, self._tally, self._progress, self.stop)
        if self.stop.signal is not None:
            print_note("Nothing was sent.")
            return found, 128 + self.stop.signal
        return found, None if is_sound(found, self._plan) else ExitCode.DATA

    def _send_all(self, ledger: SQLiteLedger, open_mailer: Callable[[int | None], SecureMailer]) -> Exception | None:
        """Send what is to be sent; return what ended that early, other than its results."""
        tally, draft = self._tally, self._draft
        tally.start()
        self._progress.is_sending = True
        if not tally.to_try:
            return None
        try:
            with open_mailer(self._options.connections) as mailer, self._progress.showing():
                messages = self._messages(ledger)
                for result in mailer.send_many(messages, partial=draft.partial, deadline=draft.deadline, ledger=ledger):
                    self._take(result)
            if not self.stop.is_requested and tally.tried < tally.to_try:
                # Such as a table that somebody has cut.
                return _changed_error(f"{tally.to_try - tally.tried:,} messages are missing")
        except SecureSMTPError as error:
            return error
        except KeyboardInterrupt:
            print_note("Ended at once: the next run says what is doubtful.")
        return None

    def _messages(self, ledger: SQLiteLedger) -> Iterator[Envelope]:
        """Make the messages again, and yield those that this run is to send, each at its time."""
        pace = Pace(self._options.rate)
        is_first_run = next(ledger.entries(), None) is None
        for number, ready in enumerate(self._plan.source, 1):
            if self.stop.is_requested:
                return
            if isinstance(ready, Fault) or number > self._tally.total:
                raise _changed_error(str(ready) if isinstance(ready, Fault) else f"{ready.place} is new")
            entry = None if is_first_run else ledger.look_up(ready.key)
            if entry is not None and not can_send(entry, entry_digest(ready.envelope), self._plan.resend):
                continue
            pace.wait_for_turn(self.stop)
            if self.stop.is_requested:
                return
            self._waiting.append(ready)
            yield ready.envelope

    def _take(self, result: SendResult) -> None:
        ready, tally = self._waiting.popleft(), self._tally
        tally.add(ready.place, ready.key, result)
        self._progress.update()
        if result.outcome is Outcome.NOT_SENT and getattr(result.error, "stage", None) in _BEFORE_MAIL:
            self.stop.reason = "no message can be sent"
        if tally.failures >= (self._options.stop_after or tally.failures + 1):
            self.stop.reason = f"stopped after {tally.failures} failures"

    def _report(self) -> None:
        if self._draft.as_json:
            print_text(json_summary(self._tally, self._plan.ledger))
        elif not self._draft.quiet or self._tally.codes:
            print_text(summary(self._tally, self._plan.ledger, sys.stdout))
        if self.stop.reason is not None:
            print_note(f"Stopped early: {self.stop.reason}.")

    def _write_results(self, ledger: SQLiteLedger) -> bool:
        """Return whether the table of results could be written, if one is wanted."""
        if self._options.results is None:
            return True
        try:
            write_results(ledger.entries(), self._options.results)
        except SecureSMTPError as error:
            # Its outcome is not that of any message.
            print_error(str(error))
            return False
        return True


def _changed_error(reason: str) -> MessageError:
    message = f"the input has changed while it was being sent: {reason}"
    return MessageError(message, hint="the same command again goes on with what it is now")


def _others(ledger: Path) -> str:
    """Return a note on the other ledgers of the folder, the latest first: a table that was renamed has a new one."""
    files = (path for path in ledger.parent.glob("*.ledger") if path.is_file())
    found = sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
    if not found:
        return ""
    names = ", ".join(escape(path.name) for path in found[:_NAMED])
    names += f" and {len(found) - _NAMED} more" * (len(found) > _NAMED)
    note = f"{ledger} is new, so nothing counts as sent. The ledgers of its folder are {names}."
    return f"{note} Hint: --ledger FILE goes on with one of them"
