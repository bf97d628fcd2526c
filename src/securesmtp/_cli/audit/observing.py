"""What rules on libraries share: each option of a call on each path, and what it means there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from securesmtp._cli.audit.findings import Level
from securesmtp._cli.audit.judge import Observation
from securesmtp._cli.audit.rules_smtplib import is_loopback
from securesmtp._cli.audit.rules_ssl import verdict_on
from securesmtp._cli.audit.values import Const, Object, Unknown, Value

if TYPE_CHECKING:
    import ast

    from securesmtp._cli.audit.families import Call
    from securesmtp._cli.audit.findings import Rule
    from securesmtp._cli.audit.paths import Path


@dataclass(frozen=True, slots=True)
class Subject:
    """
    What the observations of a call are about.

    Attributes:
        call: The call.
        host: The server; None if it is not given.
    """

    call: Call
    host: Value | None

    @property
    def is_loopback(self) -> bool:
        """Whether the server is a literal of this machine."""
        return self.host is not None and is_loopback(self.host)

    @property
    def most(self) -> Level:
        """The highest level: a host that is this machine by default is a warning."""
        is_local = isinstance(self.host, Unknown) and self.host.default is not None and is_loopback(self.host.default)
        return Level.WARNING if is_local else Level.ERROR

    def observe(self, rule: Rule, path: Path, message: str, *, is_bad: bool, where: ast.AST | None = None) -> None:
        """Note whether the call breaks a rule on a path."""
        self.call.notes.observe(
            path,
            Observation(
                sink=self.call.node,
                topic=f"CWE-{rule.cwe}",
                rule=rule,
                is_bad=is_bad and not self.is_loopback,
                where=where or self.call.node,
                message=message,
                most=self.most,
            ),
        )

    def observe_context(self, rule: Rule, context: Value | None, path: Path, message: str) -> None:
        """Note whether a context is missing, or does not verify."""
        for after, verdict in verdict_on(context, self.call.machine, path):
            self.call.notes.observe(
                after,
                Observation(
                    sink=self.call.node,
                    topic=f"CWE-{rule.cwe}",
                    rule=verdict.rule or rule,
                    is_bad=(verdict.is_missing or verdict.rule is not None) and not self.is_loopback,
                    where=verdict.where or self.call.node,
                    message=verdict.message or message,
                    most=Level.WARNING if verdict.is_default else self.most,
                ),
            )

    def split(self, value: Value | None, path: Path, *, default: bool) -> list[tuple[Path, bool]]:
        """Return the paths on which an option is on and off; *default* is what it is if it is not given."""
        if value is None:
            return [(path, default)]
        return self.call.machine.test_value(value, self.call.node, path)


def is_given(value: Value | None) -> bool:
    """Return whether an argument is given and is not None."""
    return value is not None and not (isinstance(value, Const) and value.value is None)


def items_of(value: Value | None, path: Path) -> dict[str, Value] | None:
    """Return the items of a dictionary display by their keys; None for anything else."""
    if not (isinstance(value, Object) and value.qual == "dict"):
        return None
    fields = path.fields(value.key)
    return {name[2:-2]: item for name, item in fields.items() if name.startswith(("['", '["'))}


def first_of(value: Value | None, path: Path) -> Value | None:
    """Return the first item of a tuple or list, or the value itself."""
    if isinstance(value, Object) and value.qual == "sequence":
        return path.fields(value.key).get("[0]")
    return value
