"""All rules, by their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit import rules_go
from securesmtp._cli.audit.registry import FAMILIES

if TYPE_CHECKING:
    from securesmtp._cli.audit.findings import Rule

_ALL: Final = (*(rule for family in FAMILIES for rule in family.rules), *rules_go.RULES)
RULES: Final[dict[str, Rule]] = {rule.id: rule for rule in sorted(_ALL, key=lambda rule: rule.id)}
