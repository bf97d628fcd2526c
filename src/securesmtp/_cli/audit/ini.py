"""Settings of `logging.config.fileConfig`: a section for each handler, whose arguments are a Python expression."""

from __future__ import annotations

import ast
import re
from configparser import ConfigParser
from configparser import Error as ConfigError
from typing import Final

from securesmtp._cli.audit.findings import Finding
from securesmtp._cli.audit.rules_logging import judge

_NAMES: Final = ("mailhost", "fromaddr", "toaddrs", "subject", "credentials", "secure", "timeout")


def check_ini(path: str, text: str) -> list[Finding]:
    """Return the findings in a file; a file that is no ini file, or has no SMTPHandler, has none."""
    if "SMTPHandler" not in text:
        return []
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except ConfigError:
        return []
    findings = []
    for name in parser.sections():
        section = parser[name]
        if name.startswith("handler_") and section.get("class", "").endswith("SMTPHandler"):
            place = re.search(rf"^\[{re.escape(name)}\]", text, re.MULTILINE)
            line = text.count("\n", 0, place.start()) + 1 if place else 1
            faults = judge(ast.Constant(""), _arguments(section.get("args"), section.get("kwargs")))
            findings += [Finding(path, line, 1, line, fault.rule.id, fault.level, fault.message) for fault in faults]
    return findings


def _arguments(args: str | None, kwargs: str | None) -> dict[str, ast.expr]:
    """Return the expressions of a handler's arguments; what cannot be read is not given."""
    nodes: dict[str, ast.expr] = {}
    for text in (args, kwargs):
        try:
            tree = ast.parse((text or "()").strip(), mode="eval").body
        except SyntaxError:
            continue
        match tree:
            case ast.Tuple(elts=elements):
                nodes |= dict(zip(_NAMES, elements, strict=False))
            case ast.Dict(keys=keys, values=values):
                nodes |= {
                    str(key.value): value
                    for key, value in zip(keys, values, strict=True)
                    if isinstance(key, ast.Constant)
                }
    return nodes
