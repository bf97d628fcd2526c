"""
Fill templates from the cells of a row: with `string.Template`, or with Jinja2 where it is installed.

A template that becomes HTML gets its cells escaped, with either of them: a cell is text, and a ``<`` in a name is not a
tag. What is wrong with a template is found when it is loaded, before any row is filled in.
"""

from __future__ import annotations

import re
from html import escape as escape_html
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Protocol

from securesmtp._cli.send.rows import unreadable_error
from securesmtp._shown import quote
from securesmtp.errors import ConfigurationError, MessageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

HTML_ENDINGS = frozenset({".html", ".htm", ".xhtml"})
JINJA_ENDINGS = frozenset({".j2", ".jinja", ".jinja2"})


class Filler(Protocol):
    """A template that was loaded."""

    def fill(self, cells: Mapping[str, str]) -> str:
        """
        Return the template with *cells* in it.

        Raises:
            MessageError: It cannot be filled with these.
        """


class Templates:
    """
    The templates of one run, all of one kind.

    Attributes:
        is_jinja: Whether they are Jinja2's.
    """

    def __init__(self, columns: Collection[str], folder: Path, *, is_jinja: bool) -> None:
        """
        Prepare to load templates.

        Args:
            columns: The names that a template may use.
            folder: Where a Jinja2 template finds what it includes or extends.
            is_jinja: Whether they are Jinja2's.

        Raises:
            ConfigurationError: Jinja2 is not installed.
        """
        self.is_jinja = is_jinja
        self._columns = columns
        self._environments = _jinja_environments(folder) if is_jinja else {}

    def read(self, path: Path) -> Filler:
        """
        Load the template in the file *path*; it becomes HTML if its name says so.

        Raises:
            MessageError: The file cannot be read, or is not a template.
        """
        try:
            text = path.read_text("utf-8-sig")
        except OSError as error:
            raise unreadable_error(path, error) from None
        except UnicodeDecodeError:
            message = f"{path} is not UTF-8"
            raise MessageError(message, hint="save it as UTF-8") from None
        return self.load(text, str(path), is_html=is_html(path))

    def load(self, text: str, what: str, *, is_html: bool = False) -> Filler:
        """
        Load the template *text*; *what* names it in errors.

        Raises:
            MessageError: It is not a template, or a ``string.Template`` with a name that is not a column.
        """
        if self.is_jinja:
            return _Jinja(self._environments[is_html], text, what)
        return _Standard(text, what, self._columns, is_html=is_html)


class _Names(Template):
    """A template whose names are those of columns: of any alphabet, and between braces with blanks."""

    idpattern = r"[^\W\d]\w*"
    braceidpattern = r"[^{}]+"
    flags = re.NOFLAG


class _Standard:
    def __init__(self, text: str, what: str, columns: Collection[str], *, is_html: bool) -> None:
        self._template, self._is_html = _Names(text), is_html
        for found in _Names.pattern.finditer(text):
            place = f"{what}, line {text.count(chr(10), 0, found.start()) + 1}"
            name = found["named"] or found["braced"]
            if found["invalid"] is not None:
                shown = quote(text[found.start() : found.start() + 10].partition("\n")[0])
                message = f"{place}: {shown} is not a placeholder"
                raise MessageError(message, hint="write $$ for a dollar sign, and ${name} for a column")
            if name is not None and name not in columns:
                message = f"{place}: there is no column {quote(name)}"
                raise MessageError(message, hint=f"the columns are: {', '.join(columns)}; $$ is a dollar sign")

    def fill(self, cells: Mapping[str, str]) -> str:
        if self._is_html:
            cells = {name: escape_html(cell) for name, cell in cells.items()}
        return self._template.substitute(cells)


class _Jinja:
    def __init__(self, environment: Any, text: str, what: str) -> None:  # noqa: ANN401 -- Jinja2 may not be installed
        from jinja2 import TemplateError, TemplateSyntaxError

        self._error = TemplateError
        try:
            self._template = environment.from_string(text)
        except TemplateSyntaxError as error:
            message = f"{what}, line {error.lineno}: {error.message}"
            raise MessageError(message, hint="it is a template of Jinja2") from None
        self._what = what

    def fill(self, cells: Mapping[str, str]) -> str:
        try:
            filled: str = self._template.render({"row": cells, **cells})
        except Exception as error:  # noqa: BLE001 -- a template is a program, which may raise anything
            message = f"{self._what}: {type(error).__name__}: {error}"
            raise MessageError(message, hint="test for it in the template, or fix the row") from None
        return filled


def is_html(path: Path) -> bool:
    """Return whether the template in *path* becomes HTML: its name ends with ``.html``, or ``.html.j2``."""
    return (Path(path.stem) if is_jinja(path) else path).suffix.lower() in HTML_ENDINGS


def is_jinja(path: Path) -> bool:
    """Return whether the name of *path* says that it is a template of Jinja2."""
    return path.suffix.lower() in JINJA_ENDINGS


def _jinja_environments(folder: Path) -> dict[bool, Any]:
    """Return an environment for templates that become HTML, and one for others."""
    try:
        from jinja2 import FileSystemLoader, StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError:
        message = "Jinja2 is not installed"
        raise ConfigurationError(message, hint="pip install jinja2, or write a template with $name") from None
    return {
        # Immutable: a template cannot change the row for the next template, or for the ledger.
        html: ImmutableSandboxedEnvironment(
            autoescape=html,
            undefined=StrictUndefined,
            loader=FileSystemLoader(folder, encoding="utf-8-sig"),
            keep_trailing_newline=True,
        )
        for html in (True, False)
    }
