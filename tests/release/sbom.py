"""Check the SBOM that `nox -s release` has written: `python tests/release/sbom.py FILE` prints each fault."""

from __future__ import annotations

import json
import sys
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]


def sbom_faults(text: str, project: dict[str, Any]) -> list[str]:
    """
    Return what is wrong with the SBOM *text* of *project*, the table of pyproject.toml.

    It must name the project's version, and a version of each requirement that the project allows. It must show nothing
    of the machine that made it.
    """
    sbom = json.loads(text)
    root, faults = sbom["metadata"]["component"], []
    if sbom["bomFormat"] != "CycloneDX" or (root["name"], root["version"]) != (project["name"], project["version"]):
        faults.append(f"sbom: it is not of {project['name']} {project['version']}")
    versions = {canonicalize_name(each["name"]): each["version"] for each in sbom["components"]}
    for text_of_one in chain(project["dependencies"], *project["optional-dependencies"].values()):
        requirement = Requirement(text_of_one)
        if (name := canonicalize_name(requirement.name)) == project["name"]:
            continue
        if not requirement.specifier.contains(version := versions.get(name, "0")):
            faults.append(f"sbom: {text_of_one} is not met by {version}" if name in versions else f"sbom: no {name}")
    if '"file:' in text or '"/' in text:
        faults.append("sbom: it has a path of the machine that made it")
    return faults


def main(file: str) -> int:
    """Print the faults; return the exit code."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    faults = sbom_faults(Path(file).read_text("utf-8"), project)
    sys.stdout.writelines(f"{line}\n" for line in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
