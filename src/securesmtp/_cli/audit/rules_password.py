"""Passwords: in the source, and in debug output (SMT3xx)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.arguments import text_of
from securesmtp._cli.audit.findings import Level, Rule
from securesmtp._cli.audit.judge import Observation
from securesmtp._cli.audit.values import NONE, Const, Unknown, Value

if TYPE_CHECKING:
    from securesmtp._cli.audit.families import Call

SOURCE: Final = Rule(
    "SMT301",
    "password-in-source",
    798,
    Level.ERROR,
    "A password is written in the source",
    "Everybody who can read the code, its history or its packages has the password, and it is hard to change.",
    'password = os.environ["SMTP_PASSWORD"]',
)
DEBUG: Final = Rule(
    "SMT302",
    "password-in-debug-output",
    532,
    Level.ERROR,
    "set_debuglevel() prints the password",
    "The debug output holds the AUTH command with the password in base64; it ends in logs.",
    "server.set_debuglevel(0)  # to see the dialogue without the password: securesmtp check --transcript",
)
RULES: Final = (SOURCE, DEBUG)

# What examples write where a password belongs. A real password is hardly ever one of these.
_PLACEHOLDER = re.compile(
    r"""(?ix)
    ^\W*$                                                    # nothing, stars, dots
    | ^[x*.\-_?#]+$
    | ^[<{\[$%(].*[>}\])]$ | ^\$\w+$ | ^%\w+%$ | \{\{ | \$\{ | %\(   # <password>, ${PASSWORD}, {{ password }}
    | ^<.* | \.\.\.
    | your | my[\W_]*(app[\W_]*)?(pass|pwd|secret) | (pass(word|wd)?|pwd|secret|credentials?)[\W_]*(here|goes)
    | ^(e?mail|gmail|smtp|user|account|sender|app|the|some|a|test|dummy|fake)?[\W_]*(16[\W_]?(digit|char\w*)[\W_]*)?
      (app(lication)?[\W_]*)?(specific[\W_]*)?(pass(word|wd|phrase|code)?|pwd|pw|secret|token|credentials?|key)$
    | change[\W_]*(me|this|it) | replace[\W_]*(me|this|with) | placeholder | insert | enter[\W_] | fill[\W_]*in
    | ^to[\W_]?do\b | ^redacted | ^removed | ^hidden | ^none$ | ^null$ | ^example | ^dummy | ^test$ | ^foo$ | ^bar$
    | ^access$
    """
)

# What a setting with a password is called.
_KEY = re.compile(r"(?i)pass|pwd|pw\b|secret|token|key|cred")


def is_placeholder(text: str) -> bool:
    """Whether a text stands where a password is to be written."""
    return _PLACEHOLDER.search(text.strip()) is not None


def _is_option(value: Unknown) -> bool:
    """Whether what looks like a default is the name of an option: `config.get("mail", "app-pw")`."""
    getter, opening, keys = value.symbol.rpartition("([")
    is_environment = "os.environ" in getter or "os.getenv" in getter
    return bool(opening) and not is_environment and _KEY.search(keys) is None


def check(call: Call, password: Value | None) -> None:
    """Report a literal that is used as a password."""
    level = Level.ERROR
    if isinstance(password, Unknown) and password.default is not None:
        if _is_option(password):
            return
        password, level = password.default, Level.WARNING
    text = text_of(password) if password is not None else None
    if text is None or is_placeholder(text) or not isinstance(password, Const):
        return
    where = password.node if password.node is not None and hasattr(password.node, "lineno") else call.node
    message = "the password of the mail account is written here"
    if level is Level.WARNING:
        message = "the default password of the mail account is written here"
    call.notes.report(SOURCE, where, message, level)


def check_command(call: Call, command: Value) -> None:
    """Report an AUTH command whose credentials are in the source."""
    more = call.argument(1, "args")
    words = (text_of(command) or "").split() + ((text_of(more) or "").split() if more is not None else [])
    if text_of(command) is not None and len(words) > 2:  # noqa: PLR2004 -- AUTH, mechanism, credentials
        call.notes.report(SOURCE, call.node, "the credentials of the mail account are written here")


def check_debug(call: Call) -> None:
    """Observe whether a login is printed."""
    level = call.get("debuglevel")
    noted = call.get("@debuglevel")
    if level is None:
        return
    where = noted.node if isinstance(noted, Const) and noted.node is not None else call.node
    for path, is_on in call.machine.test_value(level, call.node, call.path.copy()):
        call.notes.observe(
            path,
            Observation(
                topic="debug",
                sink=call.node,
                rule=DEBUG,
                is_bad=is_on,
                where=where,
                message="set_debuglevel() before a login prints the password in base64",
            ),
        )


__all__ = ["NONE", "RULES", "check", "check_command", "check_debug", "is_placeholder"]
