"""One line of a monitoring plugin."""

from __future__ import annotations

from securesmtp._cli.exit_codes import CheckCode
from securesmtp._shown import escape

# Characters of one line; see `nagios`.
_MOST_SHOWN = 200


def plugin_line(text: str) -> str:
    """Return *text* as one line that no program can take for data."""
    return escape(text, _MOST_SHOWN).replace("|", "/")


def usage_error(text: str) -> str:
    """Return the plugin's output if nothing could be checked."""
    return plugin_line(f"SMTP {CheckCode.UNKNOWN.name} - {text}") + "\n"
