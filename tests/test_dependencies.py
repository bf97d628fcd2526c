"""The page of dependencies and licences: made from pyproject.toml, and true of the packages."""

from __future__ import annotations

import importlib.metadata
import runpy
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"
MADE = runpy.run_path(str(DOCS / "dependencies.py"))
PYPROJECT: dict[str, Any] = MADE["read"]("../pyproject.toml")
NOTES: dict[str, Any] = MADE["read"]("project/dependencies.toml")
PROJECT = PYPROJECT["project"]
ALWAYS = set(MADE["requirements"]({"": PROJECT["dependencies"]}))
INSTALLED = ALWAYS | set(MADE["requirements"](PROJECT["optional-dependencies"], PROJECT["name"]))


def test_the_page_is_made_from_the_project_and_the_notes() -> None:
    """After a change of either, `python docs/dependencies.py` writes it again."""
    assert (DOCS / "project/dependencies.md").read_text("utf-8") == MADE["page"](PYPROJECT, NOTES)


def test_there_is_a_note_for_each_requirement_and_no_other() -> None:
    """What a user installs has a reason and a way out, a tool has a reason."""
    assert set(NOTES["installed"]) == INSTALLED
    groups = {**PYPROJECT["dependency-groups"], "build-system": PYPROJECT["build-system"]["requires"]}
    assert set(NOTES["tools"]) == set(MADE["requirements"](groups)) - INSTALLED
    assert {frozenset(note) for note in NOTES["installed"].values()} == {frozenset({"licence", "why", "without"})}


@pytest.mark.parametrize("name", sorted(INSTALLED))
def test_a_licence_is_the_one_that_the_package_declares(name: str) -> None:
    """As an expression, or by its name in the older fields."""
    metadata = importlib.metadata.metadata(name)
    licence = NOTES["installed"][name]["licence"]
    if "License-Expression" in metadata:
        assert metadata["License-Expression"] == licence
    else:
        declared = f"{metadata.get_all('License')} {metadata.get_all('Classifier')}"
        assert licence.partition("-")[0].partition(" ")[0] in declared


@pytest.mark.parametrize("name", sorted(ALWAYS))
def test_what_is_always_installed_needs_nothing_else(name: str) -> None:
    """As the page says."""
    assert [each for each in importlib.metadata.requires(name) or [] if "extra ==" not in each] == []
