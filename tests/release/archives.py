"""
What must hold for an sdist and a wheel before they are published; `nox -s release` runs it.

`python tests/release/archives.py DIST AGAIN` compares the two builds in these folders byte for byte, and the files in
them with the files that git has. It prints each fault, and fails if there is one.
"""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
# Only for the repository's host, and for programs that read it from there.
_NOT_IN_SDIST: Final = {".pre-commit-hooks.yaml", ".readthedocs.yaml"}
_INFO: Final = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def tracked_files(root: Path = ROOT) -> set[str]:
    """Return the names of all files that git has."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    return set(filter(None, listed.split("\0")))


def wheel_sources(tracked: set[str], info: str) -> dict[str, str]:
    """Return the name of the source of each file of the wheel that has one; *info* is the wheel's dist-info."""
    sources = {name.removeprefix("src/"): name for name in tracked if name.startswith("src/")}
    sources["securesmtp/_cli/troubleshooting.md"] = "docs/troubleshooting.md"
    sources[f"{info}/licenses/LICENSE"] = "LICENSE"
    data = info.replace(".dist-info", ".data")
    manual = [name for name in tracked if name.startswith("docs/man/")]
    return sources | {f"{data}/data/share/man/man1/{name.removeprefix('docs/man/')}": name for name in manual}


def _compared(what: str, found: set[str], expected: set[str]) -> list[str]:
    return [f"{what}: {name} is missing" for name in sorted(expected - found)] + [
        f"{what}: {name} must not be in it" for name in sorted(found - expected)
    ]


def sdist_faults(sdist: Path, tracked: set[str], root: Path = ROOT) -> list[str]:
    """Return what is wrong with the files of *sdist*: they are those of git, and belong to nobody."""
    top = sdist.name.removesuffix(".tar.gz") + "/"
    faults, found, times = [], {}, set()
    with tarfile.open(sdist) as archive:
        for member in archive:
            name = member.name.removeprefix(top)
            if not member.isfile() or not member.name.startswith(top):
                faults.append(f"sdist: {member.name} is not a file below {top}")
                continue
            file = archive.extractfile(member)
            found[name] = file.read() if file else b""
            times.add(member.mtime)
            if (member.uid, member.gid, member.uname, member.gname) != (0, 0, "", ""):
                faults.append(f"sdist: {name} belongs to a user of the machine")
            if member.mode not in {0o644, 0o755}:
                faults.append(f"sdist: {name} has the mode {member.mode:o}")
    if len(times) > 1:
        faults.append("sdist: not all files have the same time")
    expected = tracked - _NOT_IN_SDIST
    faults += _compared("sdist", set(found), expected | {"PKG-INFO"})
    different = [name for name in expected & set(found) if (root / name).read_bytes() != found[name]]
    return faults + [f"sdist: {name} is not as git has it" for name in sorted(different)]


def _description_faults(description: str, documentation: str, root: Path) -> list[str]:
    """Return which links of the package index's page lead nowhere: it shows no files beside it."""
    faults, pages = [], root / "docs"
    known = {f"{path.relative_to(pages).with_suffix('.html')}" for path in pages.rglob("*.md")}
    known |= {f"_images/{path.name}" for path in pages.rglob("*.svg")}
    for link in re.findall(r"\]\((\S+?)\)", description):
        if not link.startswith("https://"):
            faults.append(f"description: {link} is not a whole address")
        elif link.startswith(documentation) and link.removeprefix(documentation).partition("#")[0] not in known:
            faults.append(f"description: docs/ has nothing for {link}")
    return faults


def wheel_faults(wheel: Path, tracked: set[str], root: Path = ROOT) -> list[str]:
    """Return what is wrong with the files of *wheel*: the package, the manual, and metadata, and nothing else."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    info = f"{project['name']}-{project['version']}.dist-info"
    sources = wheel_sources(tracked, info)
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    faults = _compared("wheel", set(found), {*sources, *(f"{info}/{name}" for name in _INFO)})
    if "securesmtp/py.typed" not in found:
        faults.append("wheel: without securesmtp/py.typed, type checkers ignore the types")
    for name, source in sorted(sources.items()):
        if name in found and (root / source).exists() and found[name] != (root / source).read_bytes():
            faults.append(f"wheel: {name} is not as {source}")
    metadata = email.message_from_bytes(found.get(f"{info}/METADATA", b""))
    faults += _description_faults(str(metadata.get_payload()), project["urls"]["Documentation"], root)
    names = {"Version": "version", "License-Expression": "license", "Requires-Python": "requires-python"}
    return faults + [
        f"wheel: {name} is {metadata[name]}, not {project[key]}"
        for name, key in names.items()
        if metadata[name] != project[key]
    ]


def different_files(one: Path, other: Path) -> list[str]:
    """Return which of the archives in two folders are not the same bytes."""
    archives, others = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (one, other))
    faults = _compared("second build", set(others), set(archives))
    common = sorted(archives.keys() & others.keys())
    return faults + [f"{name}: the two builds differ" for name in common if archives[name] != others[name]]


def main(dist: str, again: str) -> int:
    """Print the faults of the archives in *dist*, and what is different in *again*; return the exit code."""
    tracked = tracked_files()
    (sdist,), (wheel,) = Path(dist).glob("*.tar.gz"), Path(dist).glob("*.whl")
    faults = sdist_faults(sdist, tracked) + wheel_faults(wheel, tracked) + different_files(Path(dist), Path(again))
    sys.stdout.writelines(f"{line}\n" for line in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
