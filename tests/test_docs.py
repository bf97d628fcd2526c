"""The pages' code: all of it compiles, and what needs no server of the reader's is run."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from requirements import missing
from securesmtp import Password, RecipientsRefusedError, SecureMailer, TLSPolicy
from securesmtp.testing import LocalServer

ROOT = Path(__file__).parent.parent
WATCH_IT = ROOT / "docs/how-to/watch-it.md"
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


def _run(page: str, mailer: SecureMailer) -> dict[str, Any]:
    """Run a page's blocks one after the other, and return what they have defined."""
    names: dict[str, Any] = {"mailer": mailer}
    for name, block in BLOCKS.items():
        if name.startswith(page) and not any(package in block for package in _NOT_RUN):
            exec(compile(block, name, "exec"), names)  # noqa: S102 -- our own page
    return names


@pytest.fixture
def local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[tuple[LocalServer, SecureMailer]]:
    """Start a server that refuses nobody@example.net, with a mailer for it; what a page changes is undone."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG, "securesmtp")
    with LocalServer(username="me", password="secret", refuse=["nobody@example.net"]) as server:
        policy = TLSPolicy(ca_data=server.ca_pem)
        with SecureMailer(server.host, server.port, username="me", password="secret", policy=policy) as mailer:
            yield server, mailer


@pytest.mark.filterwarnings("ignore:Session.login_data:UserWarning")
@pytest.mark.parametrize("page", ["many-messages.md", "errors-and-retries.md", "watch-it.md"])
def test_the_pages_code_runs_as_printed(page: str, local: tuple[LocalServer, SecureMailer]) -> None:
    """With a mailer that is there already."""
    _run(page, local[1])


@pytest.mark.filterwarnings("ignore:Session.login_data:UserWarning")
def test_a_run_that_broke_goes_on_where_it_was(local: tuple[LocalServer, SecureMailer]) -> None:
    """What may have arrived is told, and not sent; each other message is sent once, a broken one to nobody."""
    server, mailer = local
    names = _run("many-messages.md", mailer)
    addresses, journal = [f"{number}@example.net" for number in range(20)], Path("broken.txt")
    addresses[7] = "not an address"
    ids = [f"<news-2026-11-{number}@example.com>" for number in range(20)]
    begun = "".join(f"{message_id} begun\n" for message_id in ids[:3])
    journal.write_text(f"{begun}{ids[0]} accepted\n{ids[1]} unknown\n", "ascii")
    server.messages.clear()
    for _ in range(2):
        assert names["run"](names["newsletters"](addresses), journal) == ids[1:3]
        sent = sorted(message.recipients[0] for message in server.messages)
        assert sent == sorted([*addresses[3:7], *addresses[8:]])
    last = dict(line.split(" ") for line in journal.read_text("ascii").splitlines())
    assert last == dict.fromkeys(ids, "accepted") | {ids[1]: "unknown", ids[2]: "begun", ids[7]: "again"}


@pytest.mark.filterwarnings("ignore:Session.login_data:UserWarning")
@pytest.mark.parametrize("fault", ["the login", "the port"])
def test_a_run_that_failed_sends_all_when_it_is_mended(fault: str, local: tuple[LocalServer, SecureMailer]) -> None:
    """What nobody has is not done: after a wrong password or an outage, the next run sends it."""
    server, mended = local
    names = _run("many-messages.md", mended)
    addresses, journal = [f"{number}@example.net" for number in range(12)], Path("failed.txt")
    server.messages.clear()
    # Nobody listens on port 1 of loopback.
    port, password = (1, "secret") if fault == "the port" else (server.port, "wrong")
    policy = TLSPolicy(ca_data=server.ca_pem)
    with SecureMailer(server.host, port, username="me", password=password, policy=policy) as broken:
        names["mailer"] = broken
        assert names["run"](names["newsletters"](addresses), journal) == []
    assert server.messages == []
    names["mailer"] = mended
    assert names["run"](names["newsletters"](addresses), journal) == []
    assert sorted(message.recipients[0] for message in server.messages) == sorted(addresses)


@pytest.mark.filterwarnings("ignore:Session.login_data:UserWarning")
def test_what_is_watched_is_what_happens(
    local: tuple[LocalServer, SecureMailer], message: EmailMessage, caplog: pytest.LogCaptureFixture
) -> None:
    """The page's counter counts, and its log has the lines that are logged, but for names and numbers."""
    server, watched = local
    names = _run("watch-it.md", watched)
    caplog.clear()
    policy, login = TLSPolicy(ca_data=server.ca_pem), Password("me", "secret")
    with SecureMailer(server.host, server.port, auth=login, policy=policy, on_event=names["count"]) as mailer:
        mailer.send(message, recipients=["you@example.net"])
        with pytest.raises(RecipientsRefusedError):
            mailer.send(message, recipients=["nobody@example.net"])
    assert names["outcomes"] == {"accepted": 1, "refused": 1}
    logged = [
        f"{record.levelname}:{record.name}:{record.getMessage()}"
        for record in caplog.records
        if record.name == "securesmtp" and " failed " not in record.getMessage()
    ]
    (shown,) = re.findall(r"^```text\n(.*?)^```", WATCH_IT.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert list(map(_shape, shown.splitlines())) == list(map(_shape, logged))


def _shape(line: str) -> str:
    """Leave out who, what the server said, and every number."""
    return re.sub(r"(?<=securesmtp:)\S+|<\S+>|(?<=verified by ).*|(?<=: )250 .*|[\d.]+", "_", line)


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
