"""Programs, and what is to be found in them, by comments such as `#! SMT101:error`: the folder `programs`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "programs"
_EXPECTED = re.compile(r"#! (.*)$")
Found = list[tuple[int, str, str]]


@dataclass(frozen=True)
class Program:
    """A program; each expected finding is its line, its rule and its level, which may be empty."""

    name: str
    source: str

    @property
    def expected(self) -> Found:
        found: Found = []
        for number, line in enumerate(self.source.splitlines(), 1):
            match = _EXPECTED.search(line)
            for each in match[1].split() if match is not None else ():
                rule, _, level = each.partition(":")
                found.append((number, rule, level))
        return found


def programs() -> list[Program]:
    """Return all programs, in the order of their files."""
    found = []
    for path in sorted(FOLDER.glob("*.txt")):
        for part in re.split(r"(?m)^### ", path.read_text("utf-8"))[1:]:
            name, _, source = part.partition("\n")
            found.append(Program(f"{path.stem}/{name}", source))
    return found


def _renamed(source: str) -> str:
    for module in ("smtplib", "ssl"):
        source = re.sub(rf"(?m)^(\s*)import {module}$", rf"\1import {module} as _{module}", source)
        source = re.sub(rf"(?<![\w.\"'])(?<!import )(?<!from ){module}(?![\w\"'])", f"_{module}", source)
    return source


def _imported(source: str, prefix: str = "") -> str:
    for module in ("smtplib", "ssl"):
        if re.search(
            rf"(?m)^\s*{module}\.\w+ = |from {module} import|(?<![\w.\"'])(?<!import ){module}(?![\w.\"'])", source
        ):
            # It sets attributes of the module, uses the module itself, or has a style of its own.
            continue
        used = sorted(set(re.findall(rf"(?<![\w.\"']){module}\.(\w+)", source)))
        names = ", ".join(f"{name} as {prefix}{name}" if prefix else name for name in used)
        if names:
            source = re.sub(rf"(?m)^(\s*)import {module}$", rf"\1from {module} import {names}", source)
            source = re.sub(rf"(?<![\w.\"']){module}\.(\w+)", rf"{prefix}\1", source)
    return source


def _subclassed(source: str) -> str:
    if not re.search(r"(?m)^import smtplib$", source):
        return source
    source = re.sub(r"(?<!\()\bsmtplib\.(SMTP|SMTP_SSL|LMTP)\(", r"Own\1(", source)
    lines = [f"class Own{name}(smtplib.{name}): pass" for name in ("SMTP", "SMTP_SSL", "LMTP")]
    return re.sub(r"(?m)^import smtplib$", "\n".join(["import smtplib", *lines]), source)


STYLES: dict[str, Callable[[str], str]] = {
    "import": lambda source: source,
    "import-as": _renamed,
    "from-import": _imported,
    "from-import-as": lambda source: _imported(source, "_"),
    "subclass": _subclassed,
}
