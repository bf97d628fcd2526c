"""The page that says what is stable: true of the modules, the ledgers and the version."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import securesmtp
import securesmtp_pytest

PAGE = (Path(__file__).parent.parent / "docs/project/stability.md").read_text("utf-8")
MODULES = re.findall(r"^\| `(securesmtp[\w.]*)` \|", PAGE, re.MULTILINE)
# A folder for integrations, and what Django imports by itself.
NO_INTERFACE = r"securesmtp\.(__main__|integrations(\.django\.(apps|management.*))?)"


def test_the_page_lists_each_public_module() -> None:
    """Neither one that is private, nor one that does not exist."""
    found = (each.name for each in pkgutil.walk_packages(securesmtp.__path__, "securesmtp.", onerror=lambda _: None))
    public = [name for name in found if "._" not in name and not re.fullmatch(NO_INTERFACE, name)]
    assert sorted(MODULES) == sorted(["securesmtp", *public])


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_names_what_is_public(name: str) -> None:
    """In `__all__`, without private names."""
    module = importlib.import_module(name)
    assert module.__all__
    assert [each for each in module.__all__ if each.startswith("_") or not hasattr(module, each)] == []


def test_the_methods_on_the_page_exist() -> None:
    """In each result and error."""
    methods = re.findall(r"`(\w+)\(\)`", PAGE)
    assert methods
    for kind in (securesmtp.Receipt, securesmtp.SendResult, securesmtp.ServerReport, securesmtp.SecureSMTPError):
        assert [name for name in methods if not hasattr(kind, name)] == []


def test_the_fixtures_on_the_page_are_those_of_the_plugin() -> None:
    """They are the only ones."""
    fixtures = [name for name, each in vars(securesmtp_pytest).items() if type(each).__name__.startswith("Fixture")]
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| the pytest plugin")]
    assert sorted(re.findall(r"`(\w+)`", row)) == sorted(fixtures)
