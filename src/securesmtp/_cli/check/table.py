"""The result of a check for people: the verdict first, then each fault with its fix, then what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from securesmtp._cli.check.wording import (
    HEADLINE,
    days_word,
    describe,
    faulty_first,
    found,
    login_word,
    option_for,
    summarise,
)
from securesmtp._cli.exit_codes import CheckCode
from securesmtp._shown import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO

    from securesmtp._cli.check.result import CheckResult
    from securesmtp._cli.check.verdict import Checked

# Colours of the terminal's own palette, which its theme has made readable on its background.
_COLOURS = {CheckCode.OK: "green", CheckCode.WARNING: "yellow", CheckCode.CRITICAL: "red"}
_MARKS = {CheckCode.OK: "✓", CheckCode.WARNING: "!", CheckCode.CRITICAL: "✗"}
_ASCII_MARKS = {CheckCode.OK: "+", CheckCode.WARNING: "!", CheckCode.CRITICAL: "x"}
_LEVELS = {"error": CheckCode.CRITICAL, "warning": CheckCode.WARNING}
# Below that, a name and its value are not side by side.
_NARROW = 60
# The columns before a name, and those of the names.
_INDENT, _NAMES = 2, 13
# Output that is no terminal's is not wrapped: whoever reads it does that, and a line to copy stays whole.
_UNWRAPPED = 100_000
# Characters of a value from a server.
_MOST_SHOWN = 2000


class _Console(Console):
    """A console that leaves a closed pipe to the command."""

    def on_broken_pipe(self) -> None:
        """
        Raise it again: Rich would end the process with the exit code of a warning.

        Raises:
            BrokenPipeError: Always.
        """
        raise BrokenPipeError


class TableWriter:
    """Writes results to *file*, as wide as the terminal is."""

    def __init__(self, file: TextIO, *, plain: bool = False) -> None:
        """Find out what the terminal can show; *plain* is for a file, without colours."""
        # FORCE_COLOR is for the terminal.
        terminal = False if plain else None
        self._console = _Console(file=file, highlight=False, markup=False, emoji=False, force_terminal=terminal)
        if not file.isatty():
            self._console.width = _UNWRAPPED
        self._encoding = self._console.encoding
        self._marks = _MARKS if self._encoding.startswith("utf") else _ASCII_MARKS

    def write(self, results: Sequence[Checked], *, transcript: bool) -> None:
        """Write all *results*."""
        if len(results) == 1:
            self._write_one(results[0], transcript=transcript)
            return
        self._line((summarise(results), "bold"))
        self._console.print()
        self._console.print(self._overview(results))
        for each in faulty_first(results):
            if each.faults or transcript:
                self._console.print()
                self._line((f"{self._marks[each.code]} ", _bold(each.code)), (each.label, "bold"))
                self._write_faults(each)
                if transcript:
                    self._write_transcript(each.result)

    def _write_one(self, checked: Checked, *, transcript: bool) -> None:
        code = checked.code
        self._line((f"{self._marks[code]} {checked.label} ", _bold(code)), (HEADLINE[code], _bold(code)))
        if code is CheckCode.OK:
            self._line((f"  {describe(checked)}", ""))
        if checked.faults:
            self._console.print()
        self._write_faults(checked)
        self._console.print()
        self._write_details(found(checked))
        if transcript:
            self._write_transcript(checked.result)

    def _write_faults(self, checked: Checked) -> None:
        narrow = self._console.width < _NARROW
        for position, fault in enumerate(checked.faults):
            if position:
                self._console.print()
            colour = _COLOURS[_LEVELS[fault.level]]
            self._write_details([("cause", fault.cause), ("fix", fault.fix)], colour=colour)
            for line in (fault.line or "").splitlines():
                # As one line, however long, so that it can be copied from the terminal.
                name = "" if narrow else f"{'write':{_NAMES}}"
                parts = (f"{'':{_INDENT}}", (name, "dim"), (self._shown(line), "bold"))
                self._console.print(Text.assemble(*parts), soft_wrap=True)
            option = option_for(fault, checked)
            self._write_details([("here", option)] if option else [])
            self._write_details([("more", f"securesmtp explain {fault.name}")])

    def _write_details(self, rows: Iterable[tuple[str, str]], *, colour: str = "") -> None:
        """Write rows of a name and a text, the first text in *colour*, side by side where there is room."""
        narrow = self._console.width < _NARROW
        for name, value in rows:
            text = Text(self._shown(value), colour)
            if narrow:
                text = Text.assemble((f"{name or '…'}: ", "dim"), text)
            indent = _INDENT if narrow else _INDENT + _NAMES
            lines = text.wrap(self._console, self._console.width - indent, overflow="fold")
            for position, line in enumerate(lines):
                line.rstrip()
                label = "" if narrow or position else name
                self._console.print(Text.assemble(f"{'':{_INDENT}}", (f"{label:{indent - _INDENT}}", "dim"), line))
            colour = ""

    def _overview(self, results: Sequence[Checked]) -> Table:
        wide = self._console.width >= _NARROW
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
        for name in ("", "server", "days", "TLS", "login", "round trips", "seconds")[: None if wide else 3]:
            right = name in {"days", "round trips", "seconds"}
            table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=right)
        for each in results:
            result, session, trips = each.result, each.result.session, each.result.round_trips
            cells = (
                days_word(each),
                "-" if session is None else session.version.removeprefix("TLSv"),
                login_word(result),
                "-" if trips is None else str(trips),
                f"{result.elapsed.total_seconds():.2f}",
            )
            mark = Text(self._marks[each.code], _bold(each.code))
            table.add_row(mark, Text(self._shown(each.label)), *cells[: None if wide else 1])
        return table

    def _write_transcript(self, result: CheckResult) -> None:
        self._console.print()
        for line in result.transcript:
            style = "red" if "*" in line.hint else "dim" if line.hint == "===" else ""
            self._console.print(Text(f"{line.hint:<3} {self._shown(line.text)}", style), soft_wrap=True)

    def _line(self, *parts: tuple[str, str]) -> None:
        text = Text.assemble(*((self._shown(part), style) for part, style in parts))
        for line in text.wrap(self._console, self._console.width, overflow="fold"):
            line.rstrip()
            self._console.print(line)

    def _shown(self, text: str) -> str:
        """Return *text* as this terminal can show it: one line, printable, in its encoding."""
        return escape(text, _MOST_SHOWN).encode(self._encoding, "backslashreplace").decode(self._encoding)


def _bold(code: CheckCode) -> str:
    return f"bold {_COLOURS[code]}"
