"""
What is checked before a change is taken: `nox` runs it all, `nox -s lint` one part.

The wheel is built once (from the sdist, so that the sdist is complete) and is what the tests, the types and the docs
are run against; the source tree is never imported by them.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"
# A Python that is missing is skipped; uv would download it.
nox.options.download_python = "never"
nox.options.error_on_external_run = True
nox.options.sessions = ["wheel", "lint", "typing", "tests", "coverage", "exhaustive", "docs", "site"]

HERE = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
# The Python on which `.ci/run` has run the suite already, by the README's own command.
TESTED = os.environ.get("SECURESMTP_TESTED")
# The newest ones may be missing: Debian stable does not have them, and `nox -s pythons` runs the suite on those.
PRESENT = [version for version in PYTHONS if shutil.which(f"python{version}")] or PYTHONS
# The tests wait more than they compute: two workers for each core of a small machine.
PYTEST = ("pytest", "-n", "4")


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group (PEP 735), which not every installer knows by name."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def wheel(session: nox.Session) -> str:
    """Return the wheel: the one that SECURESMTP_WHEEL names (`.ci/run` does), else one that is built now, once."""
    if "SECURESMTP_WHEEL" not in os.environ:
        folder = tempfile.mkdtemp(prefix="securesmtp-wheel-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        session.install("build>=1.3")
        session.run("python", "-m", "build", "--outdir", folder, silent=True)
        keep_wheel(Path(folder))
    return os.environ["SECURESMTP_WHEEL"]


def keep_wheel(folder: Path) -> Path:
    """Make the wheel in *folder* the one that every later session of this run installs, and return it."""
    (built,) = folder.glob("*.whl")
    os.environ["SECURESMTP_WHEEL"] = str(built.resolve())
    return built


def install_wheel(session: nox.Session, extra: str, *groups: str) -> None:
    """Install the wheel with *extra* and the requirements of *groups*; never the source tree."""
    # Reinstalled even where the version is the same: a kept environment would else go on to use yesterday's.
    built = wheel(session)
    session.install(f"{built}[{extra}]", *(requirement for name in groups for requirement in group(name)))
    session.install("--force-reinstall", "--no-deps", built)


@nox.session(python=[version for version in PYTHONS if version != TESTED])
def tests(session: nox.Session) -> None:
    """Run the suite on the installed wheel; coverage, of the oldest and the newest Python, is kept for `coverage`."""
    install_wheel(session, "demo", "test")
    # Between them it would cost a minute, and see nothing that these two do not.
    measured = session.python in {PRESENT[0], PRESENT[-1]}
    session.run(*["coverage", "run", "-m"] * measured, *PYTEST, *session.posargs)


@nox.session
def exhaustive(session: nox.Session) -> None:
    """Run completely what each run of the suite samples: every byte position and step, all of hypothesis's examples."""
    install_wheel(session, "demo", "test")
    select = ("-m", "exhaustive or hypothesis", "--hypothesis-profile=complete")
    session.run(*PYTEST, *select, *session.posargs)


@nox.session(reuse_venv=True)
def quick(session: nox.Session) -> None:
    """Check in half a minute, on the source tree: style, imports, types, and the tests that need no server."""
    mypy = [requirement for requirement in group("typing") if requirement.startswith("mypy")]
    session.install("--editable", ".[demo]", *group("lint"), *group("test"), *mypy)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")
    session.run("mypy")
    session.run(*PYTEST, "-q", "tests/protocol", "tests/test_architecture.py", "tests/test_errors.py", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Put together what the runs of `tests` covered, and fail under 100 % of lines and branches."""
    session.install("coverage>=7.10")
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, the direction of imports, spelling and the metadata."""
    session.install(*group("lint"), *PYPROJECT["project"]["dependencies"])
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": str(HERE / "src")})
    session.run("codespell")
    session.run("validate-pyproject", "pyproject.toml")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: ours and the tests' with mypy, the public names as another checker sees them with pyright."""
    install_wheel(session, "demo", "typing")
    session.run("mypy")
    session.run("pyright", "--pythonpath", f"{session.bin}/python")
    # In a folder of its own, so that it is the installed package which is judged.
    with session.chdir(session.create_tmp()):
        python = f"{session.bin}/python"
        session.run("pyright", "--pythonpath", python, "--ignoreexternal", "--verifytypes", "securesmtp")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages, every warning and every dead reference an error, and run their examples."""
    install_wheel(session, "demo", "docs")
    for builder in ("html", "doctest"):
        session.run(
            *("sphinx-build", "-n", "-W", "--keep-going", "-q", "-E", "-b", builder),
            *("-d", "docs/_build/doctrees", "docs", f"docs/_build/{builder}"),
        )


@nox.session(requires=["docs"])
def site(session: nox.Session) -> None:
    """Look at every page in Debian's Chromium: links, console, accessibility; pictures of phone and desktop."""
    if shutil.which("chromium") is None:
        missing = "there is no chromium: tests/site/install puts it on a Debian machine"
        session.error(missing) if "SECURESMTP_REQUIRE_BROWSER" in os.environ else session.skip(missing)
    session.install(*group("site"))
    session.run("python", "tests/site/browse.py", "docs/_build/html", "docs/_build/pictures")


@nox.session
def bench(session: nox.Session) -> None:
    """
    Measure beside other clients, and draw it; nothing fails by a number here. `nox -s bench -- --quick` is short.

    Words are for `bench.speed`. What the pages show is written only where it is said: `nox -s bench -- --pages`.
    """
    install_wheel(session, "demo", "bench")
    env = {"PYTHONPATH": str(HERE / "tests")}
    modules = Path(session.create_tmp()).resolve()
    # npm is not everywhere; without it, nodemailer is named as left out.
    if shutil.which("npm"):
        session.run("npm", "install", "--silent", "--prefix", str(modules), "nodemailer@>=10", external=True)
    words = [word for word in session.posargs if word != "--pages"]
    shown = HERE / "docs/explanation/speed" if words != session.posargs else modules
    measured, installed = str(shown / "measured.json"), str(modules / "node_modules")
    session.run("python", "-m", "bench.speed", "--node-modules", installed, "--out", measured, *words, env=env)
    session.run("python", "-m", "bench.plots", measured, str(shown), env=env)
    with (shown / "flights.txt").open("w") as flights:
        session.run("python", "-m", "bench.flights", env=env, stdout=flights)
    if "--quick" not in words:
        session.run("python", "tests/bench/import_time.py")
        session.run("python", "tests/bench/endless_replies.py", env=env)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Look for inputs that break a rule, a minute for each target; `nox -s fuzz -- -max_total_time=600` for longer."""
    install_wheel(session, "demo", "fuzz")
    for target in ("flights", "reply_reader", "session"):
        # What was learnt is kept beside the environment, and the next run begins with it.
        learnt = Path(session.create_tmp()) / target
        learnt.mkdir(exist_ok=True)
        session.run(
            *("python", "-m", "fuzz.run", target, "-max_total_time=60", "-print_final_stats=1", *session.posargs),
            *(f"-artifact_prefix={learnt}-", str(learnt)),
            env={"PYTHONPATH": str(HERE / "tests")},
        )


@nox.session
def mutants(session: nox.Session) -> None:
    """
    Change the library in one place after the other, and list the changes that no test notices; no gate.

    Words are files (`src/securesmtp/_protocol/wire.py`) or mutmut's own patterns; without any, all of it is run.
    """
    # The source tree, and not the wheel: mutmut imports its own copy of it from mutants/.
    dependencies, extras = PYPROJECT["project"]["dependencies"], PYPROJECT["project"]["optional-dependencies"]
    session.install(*dependencies, *extras["cli"], *extras["testing"], *group("mutants"))
    said = [word.removeprefix("src/").removesuffix(".py").replace("/", ".") for word in session.posargs]
    said = [name.removesuffix(".__init__") for name in said]
    names = [f"{name}.*" if word.endswith(".py") else name for word, name in zip(session.posargs, said, strict=True)]
    slow = ("tests/transport/", "tests/attacks/")
    # What is said without I/O is tested without I/O, in seconds; only the transport needs servers.
    fast = names and all(name.startswith("securesmtp._protocol") for name in names)
    env = {"PYTEST_ADDOPTS": " ".join(f"--deselect={folder}" for folder in slow)} if fast else {}
    # For the interpreters that tests start: here the package is not installed. A folder that is made later is not seen.
    copy = HERE / "mutants" / "src"
    copy.mkdir(parents=True, exist_ok=True)
    env["PYTHONPATH"] = str(copy)
    session.run("mutmut", "run", "--max-children", "1", *names, env=env, silent=True)
    # What an earlier run left is shown as well, until the source changes: mutants/ is kept.
    left = str(session.run("mutmut", "results", silent=True)).split()
    for word, state in itertools.pairwise(left):
        if state == "survived":
            session.run("mutmut", "show", word.removesuffix(":"))


@nox.session
def pythons(session: nox.Session) -> None:
    """Run the suite on Pythons that Debian stable does not have, as root; `tests/pythons/install` fetches them."""
    built = wheel(session)
    requirements = Path(session.create_tmp()) / "requirements.txt"
    requirements.write_text("\n".join(group("test")) + "\n")
    for version in ("3.14", "3.15"):
        script = ("bash", "tests/pythons/run", version, built, str(requirements))
        session.run(*script, *PYTEST[1:], *session.posargs, external=True)


@nox.session(name="wheel")
def wheel_session(session: nox.Session) -> None:
    """Build sdist and wheel into dist/, and check what is in them."""
    session.install(*group("release"))
    shutil.rmtree(HERE / "dist", ignore_errors=True)
    session.run("python", "-m", "build", silent=True)
    archives = sorted(str(path) for path in (HERE / "dist").iterdir())
    session.run("twine", "check", "--strict", *archives)
    built = keep_wheel(HERE / "dist")
    session.run("check-wheel-contents", str(built))
    names = zipfile.ZipFile(built).namelist()
    if "securesmtp/py.typed" not in names:
        session.error("securesmtp/py.typed is not in the wheel")
    if strangers := [name for name in names if not name.startswith("securesmtp")]:
        session.error(f"not ours in the wheel: {strangers}")


@nox.session(venv_backend="none")
def trace(session: nox.Session) -> None:
    """List the requirements that no test names."""
    session.run("python3", "tests/requirements.py", external=True)


@nox.session
def soak(session: nox.Session) -> None:
    """Push many messages through a real Postfix over a network that breaks; `nox -s soak -- --messages 20000`."""
    install_wheel(session, "demo", "test")
    session.run("python", "-m", "soak.soak", *session.posargs, env={"PYTHONPATH": str(HERE / "tests")})
