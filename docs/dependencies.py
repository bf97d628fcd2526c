"""
Write the page of dependencies and licences, from pyproject.toml and from what dependencies.toml says about each.

`python docs/dependencies.py` writes it; tests/test_dependencies.py compares it with both files.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DOCS: Final = Path(__file__).parent
PAGE: Final = DOCS / "project/dependencies.md"
_BOUNDS: Final = (
    "A lower bound names the oldest version that is safe and has what the library uses; where it is not obvious, a "
    "comment in `pyproject.toml` says why. What you install has no upper bounds: you get the fixes of others without a "
    "release of ours. The tests use the newest versions, and of anyio the oldest as well."
)
_AUDIT: Final = (
    "`nox -s audit` asks the package index whether a vulnerability is known in what the library and its extras install "
    "today. The workflow `audit.yml` does so once a week. It is not part of `.ci/run`, for two reasons: the answer may "
    "change without a change of ours, and a mirror of the index may have packages but no answers. `pip-audit` skips "
    "a package about which it gets no answer; the session is strict, and fails."
)
_SBOM: Final = (
    "A release comes with an SBOM (CycloneDX, JSON), made by `nox -s release`. It names the versions that were"
    " installed with all extras on the day of the release. [What is stable](stability.md) says when a bound is raised."
)


def read(name: str) -> dict[str, Any]:
    """Return the TOML file *name*, a path from the folder of the docs."""
    return tomllib.loads((DOCS / name).read_text("utf-8"))


def requirements(tables: dict[str, list[Any]], own: str = "") -> dict[str, tuple[Requirement, list[str]]]:
    """Return each requirement of *tables* by its name, and the keys that have it; without *own* and whole groups."""
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for key, texts in tables.items():
        for requirement in (Requirement(text) for text in texts if isinstance(text, str)):
            if requirement.name != own:
                found.setdefault(requirement.name, (requirement, []))[1].append(key)
    return found


def _shown(requirement: Requirement) -> str:
    bounds = sorted(map(str, requirement.specifier), reverse=True)
    return f"`{requirement.name}{','.join(bounds)}`"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(list(head))}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def page(pyproject: dict[str, Any], notes: dict[str, Any]) -> str:
    """Return the page."""
    project, groups = pyproject["project"], pyproject["dependency-groups"]
    about, tools = notes["installed"], notes["tools"]
    always = requirements({"": project["dependencies"]})
    extras = requirements(project["optional-dependencies"], project["name"])
    development = requirements({**groups, "build-system": pyproject["build-system"]["requires"]})
    by_licence: dict[str, list[str]] = defaultdict(list)
    for name in sorted({**always, **extras}):
        by_licence[about[name]["licence"]].append(name)
    lines = [
        "<!-- Made by `python docs/dependencies.py`. -->",
        "",
        "# Dependencies and licences",
        "",
        f"securesmtp itself has the licence {project['license']}. {_BOUNDS}",
        "",
        "## Always installed",
        "",
        "Without extras, you get these packages, and they need no others.",
        "",
        *_table(
            ("requirement", "licence", "why it is there", "without it"),
            (
                (_shown(requirement), about[name]["licence"], about[name]["why"], about[name]["without"])
                for name, (requirement, _) in sorted(always.items())
            ),
        ),
        "",
        "## Installed by extras",
        "",
        "Each of these may bring packages of its own; the SBOM of a release lists all of them.",
        "",
        *_table(
            ("requirement", "extra", "licence", "why it is there", "without it"),
            (
                (
                    _shown(requirement),
                    ", ".join(f"`{each}`" for each in keys),
                    about[name]["licence"],
                    about[name]["why"],
                    about[name]["without"],
                )
                for name, (requirement, keys) in sorted(extras.items())
            ),
        ),
        "",
        "## By licence",
        "",
        "The packages above are installed beside securesmtp; nothing of them is copied into it.",
        "",
        *_table(
            ("licence", "packages"),
            ((licence, ", ".join(f"`{name}`" for name in names)) for licence, names in sorted(by_licence.items())),
        ),
        "",
        "## For work on the library",
        "",
        "What you install needs none of these; `build-system` makes it. Without another one, what uses it goes.",
        "",
        *_table(
            ("requirement", "group", "licence", "what for"),
            (
                (_shown(requirement), ", ".join(f"`{each}`" for each in keys), *tools[name])
                for name, (requirement, keys) in sorted(development.items())
                if name not in about
            ),
        ),
        "",
        "## Known vulnerabilities",
        "",
        _AUDIT,
        "",
        _SBOM,
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(read("../pyproject.toml"), read("project/dependencies.toml")), "utf-8")


if __name__ == "__main__":
    main()
