"""
The results of a check as a monitoring plugin prints them: Nagios, Icinga, Naemon, Checkmk.

The first line is the verdict; the lines after it are the details. All performance data is at the end, after the only
``|``: that is the one place where all of these programs find it.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from securesmtp._cli.check.plugin import plugin_line
from securesmtp._cli.check.verdict import worst
from securesmtp._cli.check.wording import describe, faulty_first, summarise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from securesmtp._cli.check.verdict import Checked, Thresholds

# Lines of details: Nagios cuts the whole at 8 KiB by default, and the data is at its end.
_MOST_LINES = 16


def to_nagios(results: Sequence[Checked], thresholds: Thresholds) -> str:
    """Return the plugin's output, with a line end."""
    code = worst(each.code for each in results)
    if len(results) == 1:
        lines = [plugin_line(f"SMTP {code.name} - {results[0].label}: {describe(results[0])}"), *_faults(results[0])]
    else:
        lines = [plugin_line(f"SMTP {code.name} - {summarise(results)}")]
        for each in faulty_first(results):
            lines += [plugin_line(f"[{each.code.name}] {each.label}: {describe(each)}"), *_faults(each)]
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES} more lines; run the command in a terminal"]
    data = [part for each in results for part in _data(each, thresholds, alone=len(results) == 1)]
    lines[-1] += f" | {' '.join(data)}"
    return "".join(f"{line}\n" for line in lines)


def _faults(checked: Checked) -> Iterator[str]:
    """Yield what to do about each fault. The line before has the cause of the first."""
    for position, fault in enumerate(checked.faults):
        cause = f"{fault.level}: {fault.cause}. " if position else ""
        yield plugin_line(f"{cause}Fix: {fault.fix}")
        for line in (fault.line or "").splitlines():
            yield plugin_line(f"  {line}")


def _data(checked: Checked, thresholds: Thresholds, *, alone: bool) -> Iterator[str]:
    """Yield what graphs are made from. A value that is not known is left out: a word in its place breaks parsers."""
    result = checked.result
    where = "" if alone else f"{_label(checked)} "
    if checked.days_left is not None:
        # With fewer days than that left (a range, as the guidelines define it). Days have no unit of measurement there.
        yield f"'{where}days_left'={checked.days_left};{thresholds.warning}:;{thresholds.critical}:"
    yield f"'{where}time'={result.elapsed.total_seconds():.3f}s;;;0"


def _label(checked: Checked) -> str:
    """Return the name of a server in data: without ``::``, which Icinga takes for its separator of groups."""
    result = checked.result
    host = result.host if ":" not in result.host else ipaddress.ip_address(result.host).exploded
    label = f"{host}:{result.port}"
    if checked.per_address and result.address not in {None, result.host}:
        label += f" {ipaddress.ip_address(result.address).exploded}"
    return label
