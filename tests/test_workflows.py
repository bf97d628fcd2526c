"""The workflows of the repository's host: what zizmor and actionlint cannot know about this project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORKFLOWS = {path.name: path.read_text("utf-8") for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PYTHONS = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if "Python :: 3." in each]
JOB = re.compile(r"^  (?=[a-z]+:\n    name: )", re.MULTILINE)


def _jobs(workflow: str) -> list[str]:
    return JOB.split(workflow.partition("\njobs:\n")[2])[1:]


def test_each_action_has_one_commit_and_names_its_version() -> None:
    """A tag can be moved; Dependabot raises the commit and the comment together."""
    used = re.findall(r"^ +(?:- )?uses: (.*)$", "".join(WORKFLOWS.values()), re.MULTILINE)
    assert len(used) > 10
    for each in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)
    assert len(set(used)) == len({each.partition("@")[0] for each in used})


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_no_permissions_and_each_job_names_its_own(name: str) -> None:
    """A job that may write or get a token checks nothing out."""
    workflow = WORKFLOWS[name]
    assert "\npermissions: {}\n" in workflow
    jobs = _jobs(workflow)
    assert len(jobs) == workflow.count("    runs-on: ")
    for job in jobs:
        assert "timeout-minutes: " in job
        allowed = re.search(r"^    permissions:\n((?:      .*\n)+)", job, re.MULTILINE)
        if allowed is None:
            assert "    permissions: {}\n" in job
            continue
        if "write" in allowed[1]:
            assert name == "release.yml"
            assert "actions/checkout@" not in job
        else:
            assert allowed[1] == "      contents: read\n"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_text_from_outside_is_part_of_a_command(name: str) -> None:
    """It is handed on in the environment."""
    assert re.findall(r"^ +(?:- )?run: .*\$\{\{.*$", WORKFLOWS[name], re.MULTILINE) == []
    assert "pull_request_target" not in WORKFLOWS[name]
    assert "secrets." not in WORKFLOWS[name]


def test_the_suite_runs_on_each_python_of_the_project() -> None:
    """CI as one job each; a release tries the wheel on all."""
    listed = ", ".join(f'"{version}"' for version in PYTHONS)
    assert f"python: [{listed}]\n" in WORKFLOWS["ci.yml"]
    assert re.findall(r"^ {12}(3\.\d+)$", WORKFLOWS["release.yml"], re.MULTILINE) == PYTHONS


def test_each_session_that_a_workflow_runs_exists() -> None:
    """By the name that nox lists."""
    sessions = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"nox -s \"?(\w+)", "".join(WORKFLOWS.values())))
    assert named == {"audit", "docs", "release", "tests"}
    assert named <= sessions


def test_only_the_environment_that_the_index_trusts_gets_its_token() -> None:
    """The job that publishes has no other permission, and comes after the checks."""
    (publish,) = [job for job in _jobs(WORKFLOWS["release.yml"]) if "gh-action-pypi-publish@" in job]
    assert "    needs: build\n" in publish
    assert "    environment: pypi\n" in publish
    assert re.findall(r"^      ([\w-]+): write", publish, re.MULTILINE) == ["id-token"]
    assert "nox -s release -- --final" in WORKFLOWS["release.yml"]


def test_the_check_that_a_protected_branch_names_needs_each_other_job() -> None:
    """And all of them must have succeeded: one that was skipped has not."""
    *others, passed = _jobs(WORKFLOWS["ci.yml"])
    assert f"    needs: [{', '.join(job.partition(':')[0] for job in others)}]\n    if: always()\n" in passed
    assert f'"$RESULTS" = "{" ".join(["success"] * len(others))}"' in passed
