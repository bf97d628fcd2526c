"""What a release checks before anything is published: the archives, the SBOM, and what a person must fill in first."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from release.archives import different_files, sdist_faults, wheel_faults, wheel_sources
from release.final import CONTACT, unfinished
from release.sbom import sbom_faults

ROOT = Path(__file__).parent.parent
FILES = {
    "LICENSE": "MIT",
    "docs/troubleshooting.md": "# Troubleshooting",
    "docs/man/securesmtp.1": ".TH",
    "docs/plot.svg": "<svg/>",
    "pyproject.toml": '[project]\nname = "securesmtp"\nversion = "1.2"\nlicense = "MIT"\nrequires-python = ">=3.11"\n'
    '[project.urls]\nDocumentation = "https://docs.test/"\n',
    "src/securesmtp/__init__.py": "",
    "src/securesmtp/py.typed": "",
}
TRACKED = set(FILES)
INFO = "securesmtp-1.2.dist-info"
METADATA = (
    "Name: securesmtp\nVersion: 1.2\nLicense-Expression: MIT\nRequires-Python: >=3.11\n\n"
    "[page](https://docs.test/troubleshooting.html#x), ![plot](https://docs.test/_images/plot.svg)\n"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a folder with a small project."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def _member(file: str, text: str, **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(f"securesmtp-1.2/{file}")
    member.size, member.mtime = len(text), 100
    for attribute, value in changes.items():
        setattr(member, attribute, value)
    return member, text.encode()


def _sdist(tree: Path, *more: tuple[tarfile.TarInfo, bytes], without: str = "") -> Path:
    """Write an sdist with *more* in the place of what has the same name."""
    members = {name: _member(name, text) for name, text in {**FILES, "PKG-INFO": METADATA}.items() if name != without}
    members |= {member.name.removeprefix("securesmtp-1.2/"): (member, text) for member, text in more}
    with tarfile.open(tree / "securesmtp-1.2.tar.gz", "w:gz") as archive:
        for member, text in members.values():
            archive.addfile(member, io.BytesIO(text))
    return tree / "securesmtp-1.2.tar.gz"


def test_an_sdist_with_the_files_of_git_has_no_fault(tree: Path) -> None:
    """Beside them, it has its metadata."""
    assert sdist_faults(_sdist(tree), TRACKED, tree) == []


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        (_member("secret.key", "k"), "sdist: secret.key must not be in it"),
        (_member("LICENSE", "BSD"), "sdist: LICENSE is not as git has it"),
        (_member("LICENSE", "MIT", uname="me"), "sdist: LICENSE belongs to a user of the machine"),
        (_member("LICENSE", "MIT", gid=1000), "sdist: LICENSE belongs to a user of the machine"),
        (_member("LICENSE", "MIT", mode=0o666), "sdist: LICENSE has the mode 666"),
        (_member("LICENSE", "MIT", mtime=101), "sdist: not all files have the same time"),
        (_member("../LICENSE", "", name="LICENSE"), "sdist: LICENSE is not a file below securesmtp-1.2/"),
        (
            _member("link", "", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            "sdist: securesmtp-1.2/link is not a file below securesmtp-1.2/",
        ),
    ],
    ids=["more", "changed", "user", "group", "mode", "time", "elsewhere", "link"],
)
def test_what_is_wrong_in_an_sdist_is_found(tree: Path, member: tuple[tarfile.TarInfo, bytes], fault: str) -> None:
    """One fault, one line."""
    assert fault in sdist_faults(_sdist(tree, member), TRACKED, tree)


def test_a_file_that_an_sdist_lacks_is_found(tree: Path) -> None:
    """Without it, nobody could build or test from the sdist."""
    sdist = _sdist(tree, without="docs/troubleshooting.md")
    assert sdist_faults(sdist, TRACKED, tree) == ["sdist: docs/troubleshooting.md is missing"]


def _wheel(tree: Path, change: Callable[[dict[str, str]], object] = dict) -> Path:
    members = {name: FILES[source] for name, source in wheel_sources(TRACKED, INFO).items()}
    members |= {f"{INFO}/{name}": "" for name in ("RECORD", "WHEEL", "entry_points.txt")}
    members[f"{INFO}/METADATA"] = METADATA
    change(members)
    with zipfile.ZipFile(tree / "securesmtp-1.2-py3-none-any.whl", "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return tree / "securesmtp-1.2-py3-none-any.whl"


def test_a_wheel_of_the_package_has_no_fault(tree: Path) -> None:
    """With the manual, the page for `securesmtp explain`, and the licence."""
    assert wheel_faults(_wheel(tree), TRACKED, tree) == []


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({"tests/x.py": ""}, ["wheel: tests/x.py must not be in it"]),
        ({f"{INFO}/licenses/LICENSE": "BSD"}, [f"wheel: {INFO}/licenses/LICENSE is not as LICENSE"]),
        ({f"{INFO}/METADATA": METADATA.replace("1.2", "1.3")}, ["wheel: Version is 1.3, not 1.2"]),
        ({f"{INFO}/METADATA": METADATA.replace("MIT", "BSD")}, ["wheel: License-Expression is BSD, not MIT"]),
        ({f"{INFO}/METADATA": METADATA.replace("3.11", "3.9")}, ["wheel: Requires-Python is >=3.9, not >=3.11"]),
        (
            {f"{INFO}/METADATA": METADATA.replace("https://docs.test/t", "docs/t")},
            ["description: docs/troubleshooting.html#x is not a whole address"],
        ),
        (
            {f"{INFO}/METADATA": METADATA.replace("troubleshooting", "help")},
            ["description: docs/ has nothing for https://docs.test/help.html#x"],
        ),
        (
            {f"{INFO}/METADATA": METADATA.replace("plot.", "other.")},
            ["description: docs/ has nothing for https://docs.test/_images/other.svg"],
        ),
    ],
    ids=["more", "changed", "version", "licence", "python", "relative link", "no page", "no picture"],
)
def test_what_is_wrong_in_a_wheel_is_found(tree: Path, change: dict[str, str], faults: list[str]) -> None:
    """One fault, one line."""
    assert wheel_faults(_wheel(tree, lambda members: members.update(change)), TRACKED, tree) == faults


def test_a_wheel_without_its_types_is_found(tree: Path) -> None:
    """Also if git does not have the file either."""
    wheel = _wheel(tree, lambda members: members.pop("securesmtp/py.typed"))
    fault = "wheel: without securesmtp/py.typed, type checkers ignore the types"
    assert wheel_faults(wheel, TRACKED, tree) == ["wheel: securesmtp/py.typed is missing", fault]
    assert wheel_faults(wheel, TRACKED - {"src/securesmtp/py.typed"}, tree) == [fault]


def test_builds_that_are_not_the_same_bytes_are_found(tmp_path: Path) -> None:
    """Or not the same files."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (one / "a.whl").write_bytes(b"a")
    (one / "a.tar.gz").write_bytes(b"a")
    shutil.copytree(one, other)
    assert different_files(one, other) == []
    (other / "a.whl").write_bytes(b"b")
    (other / "a.tar.gz").unlink()
    assert different_files(one, other) == [
        "second build: a.tar.gz is missing",
        "a.whl: the two builds differ",
    ]


PROJECT: dict[str, Any] = {
    "name": "securesmtp",
    "version": "1.2",
    "dependencies": ["idna>=3.7"],
    "optional-dependencies": {"keyring": ["keyring>=25"], "demo": ["securesmtp[keyring]"]},
}


def _sbom(**versions: str) -> str:
    components = [{"name": name, "version": version} for name, version in versions.items()]
    root = {"component": {"name": "securesmtp", "version": "1.2"}}
    return json.dumps({"bomFormat": "CycloneDX", "metadata": root, "components": components})


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (_sbom(idna="3.7", Keyring="25.1"), []),
        (_sbom(idna="3.7"), ["sbom: no keyring"]),
        (_sbom(idna="3.6", keyring="25"), ["sbom: idna>=3.7 is not met by 3.6"]),
        (_sbom(idna="3.7", keyring="25").replace('"1.2"', '"1.1"'), ["sbom: it is not of securesmtp 1.2"]),
        (_sbom(idna="3.7", keyring="25", x="file:///x"), ["sbom: it has a path of the machine that made it"]),
        (_sbom(idna="3.7", keyring="25", x="/x"), ["sbom: it has a path of the machine that made it"]),
    ],
    ids=["right", "missing", "too old", "other version", "address", "path"],
)
def test_an_sbom_has_each_requirement_and_nothing_of_the_machine(text: str, faults: list[str]) -> None:
    """Of the library and of its extras."""
    assert sbom_faults(text, PROJECT) == faults


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Return a folder in which nothing is left to do before a release."""
    urls = '[project.urls]\nDocumentation = "https://docs.test/"\nRepository = "https://code.test/x"\n'
    (tmp_path / "pyproject.toml").write_text(f'[project]\nversion = "0.1.0"\n{urls}')
    (tmp_path / "SECURITY.md").write_text("Write to security@code.test.")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.1.0 (2027-01-02)\n")
    (tmp_path / "README.md").write_text("pip install securesmtp")
    (tmp_path / "docs").mkdir()
    return tmp_path


def test_nothing_is_left_to_do_for_a_finished_release(finished: Path) -> None:
    """Then, `nox -s release -- --final` passes."""
    assert unfinished(finished) == []


@pytest.mark.parametrize(
    ("file", "before", "after", "line"),
    [
        ("pyproject.toml", "code.test", "example.com", "pyproject.toml: Repository is a placeholder"),
        ("pyproject.toml", "docs.test", "example.org", "pyproject.toml: Documentation is a placeholder"),
        ("SECURITY.md", "security@code.test", CONTACT, f"SECURITY.md: {CONTACT} is a placeholder"),
        ("SECURITY.md", "Write", "There is none yet. Write", "SECURITY.md: it says 'There is none yet'"),
        ("CHANGELOG.md", "0.1.0 (2027-01-02)", "Unreleased", "CHANGELOG.md: no heading is `## 0.1.0 (YYYY-MM-DD)`"),
        ("README.md", "pip", "It is not in any\npackage index.", "README.md: it says 'not in any package index'"),
        ("docs/a.md", "", "Until the library is in a package index", "docs/a.md: it says 'Until the library is"),
    ],
    ids=["repository", "docs", "contact", "no release", "changelog", "readme", "page"],
)
def test_what_a_person_must_do_first_is_named(finished: Path, file: str, before: str, after: str, line: str) -> None:
    """One line for each thing."""
    path = finished / file
    path.write_text(path.read_text().replace(before, after) if path.exists() else after)
    (left,) = unfinished(finished)
    assert left.startswith(line)


def test_the_sdist_and_the_wheel_take_their_files_from_this_tree() -> None:
    """So the check names each file that the build is to take."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (data,) = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].items()
    assert data in {(source, name) for name, source in wheel_sources({"src/securesmtp/py.typed"}, INFO).items()}
