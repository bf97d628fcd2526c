"""
Print what a person must do before the first release; `nox -s release -- --final` fails while there is something.

Nobody has registered an address yet, and pages still say that the library is in no package index.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CONTACT: Final = "security@example.com"
_UNPUBLISHED: Final = re.compile(
    r"not\s+in\s+any\s+package\s+index|in\s+no\s+package\s+index|package\s+index\s+yet|"
    r"(until|when)\s+the\s+library\s+is\s+in\s+a\s+package\s+index|There is none yet",
    re.IGNORECASE,
)


def unfinished(root: Path = ROOT) -> list[str]:
    """Return one line for each thing that is left to do."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    left = [
        f"pyproject.toml: {name} is a placeholder: register the address, then run `python docs/links.py`"
        for name, address in project["urls"].items()
        if re.match(r"https://example\.(com|org|net)\b", address)
    ]
    if CONTACT in (root / "SECURITY.md").read_text("utf-8"):
        left.append(f"SECURITY.md: {CONTACT} is a placeholder: put the address there that reports are read at")
    heading = rf"^## {re.escape(project['version'])} \(\d{{4}}-\d\d-\d\d\)$"
    if not re.search(heading, (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE):
        left.append(f"CHANGELOG.md: no heading is `## {project['version']} (YYYY-MM-DD)`")
    pages = [root / "README.md", root / "SECURITY.md", *sorted((root / "docs").rglob("*.md"))]
    return left + [
        f"{page.relative_to(root)}: it says {' '.join(found[0].split())!r}"
        for page in pages
        if (found := _UNPUBLISHED.search(page.read_text("utf-8"))) and "_build" not in page.parts
    ]


def main() -> int:
    """Print what is left; return the exit code."""
    left = unfinished()
    sys.stdout.writelines(f"{line}\n" for line in left)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
