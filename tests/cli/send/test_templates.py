"""Templates: what is wrong is found when they are loaded, and a cell is text, not HTML (PITFALLS-2 L14)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from securesmtp import ConfigurationError, MessageError
from securesmtp._cli.send.templates import Templates, is_html

CELLS = {"name": "Ada <b>", "Straße": "Weg 1", "First Name": "Ada", "price": "5"}


def load(text: str, *, jinja: bool = False, html: bool = False, folder: Path = Path()) -> str:
    """Fill *text* with `CELLS`."""
    return Templates(list(CELLS), folder, is_jinja=jinja).load(text, "mail.txt", is_html=html).fill(CELLS)


FILLED = {
    "name": ("Dear $name,", False, False, "Dear Ada <b>,"),
    "braces": ("${name}s", False, False, "Ada <b>s"),
    "dollar": ("$$5", False, False, "$5"),
    "another alphabet": ("$Straße", False, False, "Weg 1"),
    "blanks in a name": ("${First Name}", False, False, "Ada"),
    "escaped in HTML": ("<p>$name</p>", False, True, "<p>Ada &lt;b&gt;</p>"),
    "Jinja": ("Dear {{ name }},\n", True, False, "Dear Ada <b>,\n"),
    "Jinja: any name": ("{{ row['First Name'] }}", True, False, "Ada"),
    "Jinja: a condition": ("{% if price == '5' %}five{% endif %}", True, False, "five"),
    "Jinja: escaped in HTML": ("{{ name }}", True, True, "Ada &lt;b&gt;"),
    "Jinja: not escaped when told": ("{{ name | safe }}", True, True, "Ada <b>"),
    "Jinja: no dollar": ("$5 $name", True, False, "$5 $name"),
}


@pytest.mark.parametrize(("text", "jinja", "html", "filled"), FILLED.values(), ids=FILLED)
def test_a_template_is_filled(text: str, jinja: bool, html: bool, filled: str) -> None:  # noqa: FBT001
    """Cells are escaped where the result is HTML, by either kind of template."""
    assert load(text, jinja=jinja, html=html) == filled


WRONG = {
    "$5": ("Dear $name,\nit costs $5 only", False, "line 2: '$5 only' is not a placeholder"),
    "$ at the end": ("5 $", False, "'$' is not a placeholder"),
    "no such column": ("\n\n$namex", False, "line 3: there is no column 'namex'"),
    "no such column in braces": ("${first name}", False, "there is no column 'first name'"),
    "a brace that is not closed": ("${name", False, "is not a placeholder"),
    "Jinja": ("a\n{% if %}", True, "line 2: "),
}


@pytest.mark.parametrize(("text", "jinja", "reason"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_found_before_any_row(text: str, jinja: bool, reason: str) -> None:  # noqa: FBT001
    """The error names the line."""
    with pytest.raises(MessageError) as caught:
        Templates(list(CELLS), Path(), is_jinja=jinja).load(text, "mail.txt")
    assert reason in str(caught.value)


RAISES = {
    "an undefined name": "{{ namex }}",
    "an undefined name in a condition": "{% if namex %}x{% endif %}",
    "division": "{{ 1 / 0 }}",
    "a wrong type": "{{ name + 1 }}",
    "a way out of the sandbox": "{{ name.__class__.__mro__ }}",
    "a change of the row": "{% set _ = row.update(name='Bob') %}",
    "a missing file": "{% include 'none.html' %}",
}


@pytest.mark.parametrize("text", RAISES.values(), ids=RAISES)
def test_jinja_that_raises_is_an_error_of_the_row(text: str) -> None:
    """No exception of a template ends the check of the other rows."""
    with pytest.raises(MessageError, match=r"^mail\.txt: "):
        load(text, jinja=True)


def test_jinja_includes_files_of_its_folder(tmp_path: Path) -> None:
    """Not others."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "inner" / "foot.html").write_text("{{ name }}")
    assert load("{% include 'foot.html' %}", jinja=True, html=True, folder=tmp_path / "inner") == "Ada &lt;b&gt;"
    with pytest.raises(MessageError, match="TemplateNotFound"):
        load("{% include '../secret.txt' %}", jinja=True, folder=tmp_path / "inner")


NAMES = {"a.html": True, "a.HTM": True, "a.txt": False, "a.html.j2": True, "a.txt.jinja2": False, "html": False}


@pytest.mark.parametrize(("name", "html"), NAMES.items())
def test_the_name_says_whether_it_becomes_html(tmp_path: Path, name: str, html: bool) -> None:  # noqa: FBT001
    """Before the ending of Jinja2."""
    path = tmp_path / name
    path.write_text("\ufeff$name", "utf-8")
    assert is_html(path) is html
    assert Templates(list(CELLS), tmp_path, is_jinja=False).read(path).fill(CELLS) == (
        "Ada &lt;b&gt;" if html else "Ada <b>"
    )


def test_a_template_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """It is missing, or in another encoding."""
    templates = Templates([], tmp_path, is_jinja=False)
    with pytest.raises(MessageError, match="cannot be read"):
        templates.read(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    with pytest.raises(MessageError, match="is not UTF-8"):
        templates.read(tmp_path / "latin.txt")


def test_without_jinja_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not an extra of ours."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigurationError, match="Jinja2 is not installed"):
        Templates([], Path(), is_jinja=True)
