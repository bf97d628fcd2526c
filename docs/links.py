"""
Write the addresses of pyproject.toml's `[project.urls]` into the files that repeat them.

Change an address in pyproject.toml, then run `python docs/links.py`, and `nox -s pictures` for the pictures of errors.
tests/test_links.py fails while a file has another address.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT: Final = Path(__file__).parent.parent
# Where the address that is replaced is read.
_NOW: Final = {
    "Documentation": ("src/securesmtp/errors.py", r'"(https://\S+/)troubleshooting\.html"'),
    "Repository": ("docs/how-to/audit.md", r"- repo: (\S+)\n"),
}
_SUFFIXES: Final = {".md", ".py", ".toml", ".yml", ".yaml"}


def addresses(root: Path = ROOT) -> dict[str, str]:
    """Return the address of each name in `[project.urls]`."""
    urls: dict[str, str] = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["urls"]
    return urls


def files(root: Path = ROOT) -> Iterator[Path]:
    """Yield each file that may repeat an address."""
    for folder in (root, root / ".github", root / "docs", root / "src"):
        found = folder.glob("*") if folder == root else folder.rglob("*")
        yield from (path for path in found if path.suffix in _SUFFIXES and "_build" not in path.parts)


def changes(urls: Mapping[str, str], root: Path = ROOT) -> dict[Path, str]:
    """Return the new text of each file in which an address is not that of *urls*."""
    replaced = {}
    for name, (file, pattern) in _NOW.items():
        found = re.search(pattern, (root / file).read_text("utf-8"))
        if found is None:
            message = f"{file}: no address matches {pattern}"
            raise ValueError(message)
        replaced[found[1]] = urls[name]
    texts = {path: path.read_text("utf-8") for path in files(root)}
    old = re.compile("|".join(re.escape(address) for address in sorted(replaced, key=len, reverse=True)))
    written = {path: old.sub(lambda match: replaced[match[0]], text) for path, text in texts.items()}
    return {path: text for path, text in written.items() if text != texts[path]}


def main() -> None:
    """Write the files."""
    for path, text in changes(addresses()).items():
        path.write_text(text, "utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
