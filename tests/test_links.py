"""The addresses of documentation and repository: pyproject.toml has them, and all other files have the same."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINKS = runpy.run_path(str(ROOT / "docs/links.py"))
URLS: dict[str, str] = LINKS["addresses"]()


def test_each_file_has_the_addresses_of_the_project() -> None:
    """After a change in pyproject.toml, `python docs/links.py` writes them."""
    texts = {path: path.read_text("utf-8") for path in LINKS["files"]()}
    found = {
        (str(path.relative_to(ROOT)), address)
        for path, text in texts.items()
        for address in re.findall(r"https?://[^\s\"')>]*securesmtp[^\s\"')>]*", text)
    }
    assert [each for each in sorted(found) if not each[1].startswith(tuple(URLS.values()))] == []
    assert {path for path, _ in found} >= {"README.md", "src/securesmtp/errors.py", "src/securesmtp/_cli/explain.py"}
    assert LINKS["changes"](URLS) == {}


def test_a_new_address_is_written_everywhere(tmp_path: Path) -> None:
    """And nothing else is changed."""
    for path in LINKS["files"]():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    urls = {"Documentation": "https://docs.test/latest/", "Repository": "https://code.test/mail"}
    written: dict[Path, str] = LINKS["changes"](urls, tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in written} >= {"README.md", "docs/tutorial.md"}
    for path, text in written.items():
        back = text
        for name, address in urls.items():
            assert URLS[name] not in text
            back = back.replace(address, URLS[name])
        assert back == path.read_text("utf-8")
        path.write_text(text, "utf-8")
    assert LINKS["changes"](urls, tmp_path) == {}


def test_a_file_without_the_address_that_is_replaced_is_an_error(tmp_path: Path) -> None:
    """Otherwise the old address would stay, and nobody would see it."""
    (tmp_path / "src/securesmtp").mkdir(parents=True)
    (tmp_path / "src/securesmtp/errors.py").touch()
    with pytest.raises(ValueError, match=r"errors\.py: no address matches"):
        LINKS["changes"](URLS, tmp_path)


def test_the_contact_for_vulnerabilities_is_in_one_file() -> None:
    """The owner of the project fills it in there."""
    found = re.search(r"privately to \*\*(\S+@\S+)\*\*", (ROOT / "SECURITY.md").read_text("utf-8"))
    assert found is not None
    assert [path.name for path in LINKS["files"]() if found[1] in path.read_text("utf-8")] == ["SECURITY.md"]
