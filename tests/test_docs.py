"""The pages' code: all of it compiles, and what needs no server of the reader's is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from requirements import missing
from securesmtp import SecureMailer, TLSPolicy
from securesmtp.testing import LocalServer

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = {
    f"{page.name}-{number}": block
    for page in PAGES
    for number, block in enumerate(_BLOCK.findall(page.read_text("utf-8")))
}


@pytest.mark.parametrize("name", BLOCKS)
def test_each_block_is_python(name: str) -> None:
    """With nothing left out that would not compile."""
    compile(BLOCKS[name], name, "exec")


@pytest.mark.filterwarnings("ignore:Session.login_data:UserWarning")
def test_the_test_of_a_program_runs_as_printed() -> None:
    """It brings its own server."""
    exec(compile(BLOCKS["test-your-program.md-0"], "test-your-program.md", "exec"), {})  # noqa: S102 -- our own page


# What needs a package that is the reader's.
_NOT_RUN = ("prometheus_client", "opentelemetry", "stamina")


@pytest.mark.filterwarnings("ignore:Session.login_data:UserWarning")
@pytest.mark.parametrize("page", ["many-messages.md", "errors-and-retries.md", "watch-it.md"])
def test_the_pages_code_runs_as_printed(page: str) -> None:
    """One block after the other, with a mailer for a server that refuses nobody@example.net."""
    with LocalServer(username="me", password="secret", refuse=["nobody@example.net"]) as server:
        policy = TLSPolicy(ca_data=server.ca_pem)
        with SecureMailer(server.host, server.port, username="me", password="secret", policy=policy) as mailer:
            names: dict[str, object] = {"mailer": mailer}
            for name, block in BLOCKS.items():
                if name.startswith(page) and not any(package in block for package in _NOT_RUN):
                    exec(compile(block, name, "exec"), names)  # noqa: S102 -- our own page


def test_each_promise_names_tests_that_exist() -> None:
    """And the page says what is not promised: relays' DANE and MTA-STS among it (POL-01)."""
    page = (ROOT / "docs/explanation/security-model.md").read_text("utf-8")
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", page))
    assert named - defined == set()
    promised, _, rest = page.partition("## What is not promised")
    for promise in promised.partition("## What is promised")[2].split("\n\n")[1:]:
        assert not promise.strip() or "*Tests:* `test_" in promise
    assert "MTA-STS" in rest


def test_each_requirement_is_named_by_a_test() -> None:
    """`nox -s trace` prints what they are about."""
    assert missing(ROOT / "tests") == []
