"""All rules, by their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit import rules_go, rules_logging, rules_settings

if TYPE_CHECKING:
    from securesmtp._cli.audit.findings import Rule

_MODULES: Final = (rules_logging, rules_settings, rules_go)
RULES: Final[dict[str, Rule]] = {rule.id: rule for module in _MODULES for rule in module.RULES}
