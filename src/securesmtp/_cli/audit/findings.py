"""What an audit reports: rules, and where a file breaks one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How certain it is that code is insecure."""

    NOTE = 1
    """An option can turn it on or off."""
    WARNING = 2
    """It is insecure by default, or only sometimes secure."""
    ERROR = 3
    """It sends or logs in unverified, or in plaintext."""


@dataclass(frozen=True, slots=True)
class Rule:
    """
    Something that code must not do.

    Attributes:
        id: Its stable name, such as ``SMT101``.
        name: Its name in words with hyphens, such as ``login-without-tls``.
        cwe: The number of the weakness in the CWE list.
        level: The level of a finding, unless the finding says another.
        title: What the code does, in one line.
        reason: Why that is insecure.
        fix: The lines that replace the code.
    """

    id: str
    name: str
    cwe: int
    level: Level
    title: str
    reason: str
    fix: str


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """
    One place that breaks a rule.

    Attributes:
        path: The file, as it was given or found.
        line: The first line of the expression, from 1.
        column: Its first column, from 1.
        end_line: Its last line: `# noqa` on any of these lines counts.
        rule: The rule's id.
        level: How certain it is here.
        message: What this code does, with its own names.
        cell: The number of the notebook's cell, from 1; 0 for a file that is no notebook.
    """

    path: str
    line: int
    column: int
    end_line: int
    rule: str
    level: Level
    message: str
    cell: int = 0
