"""Which files an audit reads: exactly the given ones, and under a given folder those that can hold code."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from securesmtp._cli.audit.report import NotChecked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Language = Literal["python", "notebook", "go", "ini"]

STDIN: Final = "-"
_LANGUAGES: Final[dict[str, Language]] = {
    ".py": "python",
    ".pyi": "python",
    ".pyw": "python",
    ".ipynb": "notebook",
    ".go": "go",
    ".cfg": "ini",
    ".conf": "ini",
    ".ini": "ini",
}
# Systems read no longer "#!" line.
_FIRST_LINE: Final = 256
# Code of others, and what tools generate. A virtual environment is also recognised by its pyvenv.cfg.
_EXCLUDED: Final = frozenset(
    {
        ".eggs",
        ".git",
        ".hg",
        ".ipynb_checkpoints",
        ".mypy_cache",
        ".nox",
        ".pytest_cache",
        ".ruff_cache",
        ".svn",
        ".tox",
        ".venv",
        "__pycache__",
        "__pypackages__",
        "node_modules",
        "site-packages",
        "venv",
    }
)


@dataclass(slots=True)
class Walk:
    """
    The files of an audit.

    Attributes:
        exclude: Patterns of paths and of names that are left out under folders, as in ``fnmatch``.
        not_checked: Paths that do not exist, and folders that cannot be listed; complete after `files`.
    """

    exclude: tuple[str, ...] = ()
    not_checked: list[NotChecked] = field(default_factory=list)

    def files(self, paths: Iterable[str]) -> list[str]:
        """
        Return the files to read, each once, sorted within each folder.

        A given file is read whatever its name is: pre-commit has applied its own `exclude`. Under a folder, links are
        not followed.
        """
        return list(dict.fromkeys(file for path in paths for file in self._under(path)))

    def _under(self, path: str) -> Iterator[str]:
        if path == STDIN:
            yield path
            return
        try:
            is_folder = stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 -- a path that is shown as it was given
        except (OSError, ValueError) as error:
            self._cannot_read(path, error)
            return
        if is_folder:
            yield from self._walk(path)
        else:
            yield os.path.normpath(path)

    def _walk(self, top: str) -> Iterator[str]:
        waiting = [os.path.normpath(top)]
        excluded = _EXCLUDED
        # "./build/" is what the shell's completion writes.
        patterns = [os.path.normpath(pattern) for pattern in self.exclude]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self._cannot_read(folder, error)
                continue
            if any(entry.name == "pyvenv.cfg" for entry in listed):
                if folder != os.path.normpath(top):
                    continue
                # An environment that is given is meant, with its packages.
                excluded = _EXCLUDED - {"site-packages"}
            folders = []
            for entry in listed:
                path = os.path.normpath(entry.path)
                if any(fnmatch(path, pattern) or fnmatch(entry.name, pattern) for pattern in patterns):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in excluded:
                        folders.append(path)
                elif entry.is_file(follow_symlinks=False) and _holds_code(entry):
                    yield path
            waiting += reversed(folders)

    def _cannot_read(self, path: str, error: OSError | ValueError) -> None:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self.not_checked.append(NotChecked(path, 0, reason))


def _holds_code(entry: os.DirEntry[str]) -> bool:
    """Whether a file has a suffix of code; without any, whether it is a Python script, as jobs of cron are."""
    suffix = Path(entry.name).suffix
    if suffix or entry.name.startswith("."):
        return suffix in _LANGUAGES
    try:
        with open(entry.path, "rb") as file:  # noqa: PTH123 -- the entry's path is a str
            return _is_script(file.read(_FIRST_LINE))
    except OSError:
        # Nothing says that this is code.
        return False


def _is_script(source: bytes) -> bool:
    first, _, _ = source[:_FIRST_LINE].partition(b"\n")
    return first.startswith(b"#!") and b"python" in first


def language_of(path: str, source: bytes) -> Language | None:
    """Return the language of a file, by its name or by its first line; None for a file of another kind."""
    suffix = Path(path).suffix.lower()
    if suffix in _LANGUAGES:
        return _LANGUAGES[suffix]
    return "python" if path == STDIN or _is_script(source) else None
