"""Each program has exactly the findings that its comments name, in each style of import and as a subclass."""

from __future__ import annotations

import pytest

from cli.audit.programs import STYLES, Found, Program, programs
from securesmtp._cli.audit.engine import check_source


def _found(source: str, expected: Found) -> Found:
    findings = check_source(source.encode(), "program.py")
    # A level that is not named may be any.
    any_level = {(line, rule) for line, rule, level in expected if not level}
    return [
        (each.line, each.rule, "" if (each.line, each.rule) in any_level else each.level.name.lower())
        for each in findings
        if each.rule != "SMT121"
    ]


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.name)
def test_program_has_the_findings_that_its_comments_name(program: Program) -> None:
    """PITFALLS-2 A9: every case in each style of import, and with clients that are made from subclasses."""
    for style, change in STYLES.items():
        written = Program(program.name, change(program.source))
        assert (style, _found(written.source, written.expected)) == (style, written.expected)
