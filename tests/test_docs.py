"""Run each block of code in README and docs as printed, or find the reason on the page why it is not run."""

from __future__ import annotations

import builtins
import getpass
import json
import logging
import queue
import re
import shlex
import socket
import ssl
import subprocess
import symtable
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import certifi
import pytest
import trustme
from markdown_it import MarkdownIt

from conftest import Serve
from databases import PostgreSQL
from dkim_verifiers import rsa_pem
from protocol import test_exhaustive as enumeration
from requirements import missing
from scripted import Peer, honest
from securesmtp import Event, Outcome, Password, RecipientsRefusedError, SecureMailer, SendResult, TLSPolicy, errors
from securesmtp._protocol import sasl
from securesmtp._submissions import entry_digest
from securesmtp.errors import CertificateError
from securesmtp.ledger import Item, SQLiteLedger, State
from securesmtp.testing import MailServer

ROOT = Path(__file__).parent.parent
MANY, WATCH_IT = "docs/how-to/many-messages.md", "docs/how-to/watch-it.md"
LEDGER = "docs/how-to/ledger.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = {"sh", "console"}
# Shown, not run: output, settings, and directives of Sphinx (which runs "doctest" itself).
SHOWN = {"none", "text", "ini", "json", "sql"}
SHOWN |= {"{doctest}", "{eval-rst}", "{image}", "{include}", "{literalinclude}", "{toctree}"}


class Block(NamedTuple):
    """A fenced block, and the text of the comment right above it."""

    language: str
    code: str
    mark: str


def _blocks(page: Path) -> Iterator[Block]:
    # What is inside a paragraph is half of the work.
    tokens = MarkdownIt().disable("inline").parse(page.read_text("utf-8"))
    for above, token in pairwise([tokens[0], *tokens]):
        if token.type in {"fence", "code_block"}:
            mark = re.fullmatch(r"<!-- (.*) -->", above.content.strip()) if above.type == "html_block" else None
            yield Block(token.info.partition(" ")[0], token.content, mark[1] if mark else "")


BLOCKS = {f"{page.relative_to(ROOT)}-{number}": block for page in PAGES for number, block in enumerate(_blocks(page))}
PYTHON = {name: block for name, block in BLOCKS.items() if block.language == "python"}
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("name", BLOCKS)
def test_each_block_is_run_or_says_why_not(name: str) -> None:
    """
    A comment above says `<!-- not run: WHY -->`, `<!-- run by: TEST -->`, or in the README `<!-- run: NAME -->`.

    `.ci/run` runs the last kind. Python without a comment is run by `test_each_page_runs_as_printed`.
    """
    language, _, mark = BLOCKS[name]
    assert language in SHELL | SHOWN | {"python", "js"}, "use one of these languages, or add it above"
    match mark.split(": ", 1):
        case "not run", why:
            assert why
        case "run by", test:
            assert test in TESTS
        case "run", command:
            assert name.startswith("README.md-")
            assert re.search(rf"^readme {command}\b", (ROOT / ".ci/run").read_text("utf-8"), re.MULTILINE)
        case _:
            assert (mark, language in SHELL) == ("", False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_all_code_is_in_fences(page: Path) -> None:
    """Code in colon fences or reStructuredText would not be found, and so not be run."""
    elsewhere = re.compile(r"^ *(:{3,} *\{?|\.\. +)(code|sourcecode|testcode|python|sh\b)", re.MULTILINE)
    assert elsewhere.search(page.read_text("utf-8")) is None


@pytest.mark.parametrize("name", PYTHON)
def test_each_python_block_compiles(name: str) -> None:
    """Also the blocks that are not run."""
    compile(PYTHON[name].code, name, "exec")


def _undefined(code: str, names: dict[str, Any]) -> set[str]:
    """Return the names that the code reads and nothing defines, also in branches that were not taken."""
    tables = [symtable.symtable(code, "page", "exec")]
    for table in tables:
        tables += table.get_children()
    return {
        symbol.get_name()
        for table in tables
        for symbol in table.get_symbols()
        if symbol.is_referenced() and symbol.is_global() and not (symbol.is_assigned() or symbol.is_imported())
    } - {*names, *dir(builtins)}


def _run(page: str, mailer: SecureMailer) -> dict[str, Any]:
    """Run a page's blocks in order, and return the names that they define."""
    # The pages assume a log and a queue of the reader's.
    names: dict[str, Any] = {"log": logging.getLogger(page), "queue": queue.SimpleQueue()}
    for name, block in PYTHON.items():
        if name.startswith(f"{page}-") and not block.mark:
            # The page may have defined its own, which its `with` has closed.
            names["mailer"] = mailer
            exec(compile(block.code, name, "exec"), names)  # noqa: S102 -- our own page
            assert _undefined(block.code, names) == set()
    return names


def _shown(page: str) -> list[str]:
    """Return the blocks of output on a page."""
    return [block.code for name, block in BLOCKS.items() if name.startswith(f"{page}-") and block.language == "text"]


def _refuse_nobody(peer: Peer, line: bytes) -> bytes:
    return b"550 5.1.1 no such user\r\n" if b"<nobody@" in line else b"250 2.1.5 ok\r\n"


@pytest.fixture
def example_net(
    serve: Serve, ca: trustme.CA, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SecureMailer]:
    """Serve the pages' hosts on loopback, with certificates of a "public" CA; make the files that the pages read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("*.example.com", "*.example.net", "*.example.org", "*.corp.example").configure_cert(context)
    offered = ("PIPELINING", "8BITMIME", "DSN", "REQUIRETLS", "BINARYMIME", "CHUNKING", "DELIVERBY", "MT-PRIORITY")
    server = serve(honest(extensions=offered, auth=("me", "secret"), replies={"RCPT": _refuse_nobody}), tls=context)
    look_up = socket.getaddrinfo

    def find(host: str, port: int, *more: Any, **options: Any) -> Any:
        if str(host).partition(".")[2] in {"example.com", "example.net", "example.org", "corp.example"}:
            host, port = "127.0.0.1", server.port
        return look_up(host, port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", find)
    monkeypatch.setattr(certifi, "where", lambda: str(ca_file))
    monkeypatch.setattr(getpass, "getpass", lambda: "secret")
    monkeypatch.chdir(tmp_path)
    for variable, value in {"HOST": "smtp.example.com", "USERNAME": "me", "PASSWORD": "secret"}.items():
        monkeypatch.setenv(f"SMTP_{variable}", value)
    Path("corp-ca.pem").write_bytes(ca_file.read_bytes())
    Path("report.pdf").write_bytes(b"%PDF-1.7")
    with Path("video.mp4").open("wb") as video:
        video.truncate(30_000_000)
    Path("mail2027.example.org.pem").write_text(rsa_pem(), "ascii")
    Path("logo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Path("message.eml").write_bytes(b"Subject: Hello\n\nHello\n")
    with SecureMailer("smtp.example.com", username="me", password="secret") as mailer:
        yield mailer


@pytest.mark.parametrize("page", sorted({name.rpartition("-")[0] for name, block in PYTHON.items() if not block.mark}))
def test_each_page_runs_as_printed(page: str, example_net: SecureMailer) -> None:
    """Its blocks run in order, given a mailer, and read no name that the page does not define."""
    _run(page, example_net)


def test_the_readmes_receipt_is_what_its_program_prints(
    example_net: SecureMailer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole program prints the receipt that the README shows, except for the id and the server's words."""
    _run("README.md", example_net)
    shown, _ = _shown("README.md")
    assert _shape(capsys.readouterr().out) == _shape(shown)


def test_the_readmes_figures_are_the_measured_ones() -> None:
    """Each number of its picture's description and of its table is in measured.json, which `nox -s bench` writes."""
    readme = (ROOT / "README.md").read_text("utf-8")
    measured = json.loads((ROOT / "docs/explanation/speed/measured.json").read_text("utf-8"))
    rates = {
        case["name"].removeprefix("one connection, "): {
            client: f"{1 / took['seconds']:.3g}" for client, took in case["clients"].items()
        }
        for case in measured["cases"]
        if case["name"].startswith("one connection")
    }
    chunking, pipelining = rates["CHUNKING"], rates["PIPELINING"]
    columns = ("smtplib", "nodemailer", "securesmtp", "securesmtp, session")
    for offered, found in (("PIPELINING and CHUNKING", chunking), ("PIPELINING", pipelining)):
        assert f"| {offered} | {' | '.join(found[client] for client in columns)} |" in readme
    (described,) = re.findall(r"!\[([^]]+)\]\(docs/explanation/speed/short.svg\)", readme)
    described = " ".join(described.split())
    for label, client in {
        "securesmtp": "securesmtp",
        'with pipelining="session"': "securesmtp, session",
        "nodemailer": "nodemailer",
        "smtplib": "smtplib",
        "aiosmtplib": "aiosmtplib",
    }.items():
        assert re.search(rf"\b{re.escape(label)} {re.escape(chunking[client])}\b", described)


def test_contributing_begins_with_the_readmes_tests() -> None:
    """The first block of both pages for people who run the tests is one command, which `.ci/run` runs."""
    first = next(block.code for name, block in BLOCKS.items() if name.startswith("CONTRIBUTING.md-"))
    assert [first] == [block.code for block in BLOCKS.values() if block.mark == "run: tests"]


def test_the_readme_leads_to_each_page() -> None:
    """To each guide, explanation and reference; those of moving and of the reference have a page of contents."""
    readme = (ROOT / "README.md").read_text("utf-8")
    pages = {str(page.relative_to(ROOT)) for page in PAGES if re.match(r"(how-to|explanation|reference)/[\w-]+\.md",
        str(page.relative_to(ROOT / "docs")) if page.is_relative_to(ROOT / "docs") else "")}  # fmt: skip
    linked = set(re.findall(r"\]\((docs/[\w/-]+\.md)", readme.partition("\n## Where to go\n")[2].partition("\n## ")[0]))
    assert len(pages) > 40
    assert pages - linked == set()


def test_the_readme_has_a_row_for_each_error() -> None:
    """For each one that is raised itself."""
    table = (ROOT / "README.md").read_text("utf-8").partition("| error | what happened |")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split(" | ")[0])]
    assert sorted([*named, "RefusedError", "SecureSMTPError"]) == sorted(errors.__all__)


def test_the_readme_names_each_extra() -> None:
    """And no other."""
    readme = (ROOT / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", readme.partition("\n## Extras\n")[2].partition("\n## ")[0], re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert sorted(re.findall(r"`([\w-]+)`", " ".join(rows))) == sorted(project["optional-dependencies"])


MODULES = [
    *("securesmtp", "securesmtp.credentials", "securesmtp.errors", "securesmtp.events", "securesmtp.ledger"),
    *("securesmtp.signing", "securesmtp.testing"),
    *(f"securesmtp.integrations.{name}" for name in ("celery", "django", "opentelemetry")),
]


@pytest.mark.parametrize("module", MODULES)
def test_each_public_name_is_in_the_reference_once(module: str) -> None:
    """By a directive on a page, or with its whole module by `automodule`; and the contents have it."""
    described = list[str]()
    for page in (ROOT / "docs/reference/api").glob("*.md"):
        directives = re.findall(r"^\.\. ([\w:]+):: ([\w.]+)", page.read_text("utf-8"), re.MULTILINE)
        current = "securesmtp"
        for directive, name in directives:
            if directive == "currentmodule":
                current = name
            elif directive == "automodule":
                described += [each for each in import_module(name).__all__ if module in {name, "securesmtp"}]
            elif directive != "methods" and current == module:
                described.append(name)
    names = import_module(module).__all__
    counted = Counter(name for name in described if name in names)
    assert counted == Counter(names)
    contents = (ROOT / "docs/reference/api/index.md").read_text("utf-8")
    # Its rows for events and errors name none of them.
    rest = set(names) - {*import_module("securesmtp.errors").__all__, *import_module("securesmtp.events").__all__}
    assert rest - set(re.findall(r"`(\w+)`", contents)) == set()


def test_the_readme_fails_as_printed(example_net: SecureMailer, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no trusted CA signed the certificate: with this error, and without asking for the password."""
    trustme.CA().cert_pem.write_to_path("other.pem")
    monkeypatch.setattr(certifi, "where", lambda: "other.pem")
    monkeypatch.setattr(getpass, "getpass", lambda: pytest.fail("the password was asked for"))
    with pytest.raises(CertificateError) as caught:
        _run("README.md", example_net)
    _, shown = _shown("README.md")
    # The CA of the tests has another name.
    text = re.sub(r"(?<=its issuer is )'[^']*'", "'Some CA'", str(caught.value))
    assert f"{type(caught.value).__module__}.{type(caught.value).__name__}: {text}" == " ".join(shown.split())


@pytest.mark.parametrize("name", ["verify", "check_hostname", "context", "ssl_context"])
@pytest.mark.parametrize("maker", [partial(SecureMailer, "smtp.example.com"), TLSPolicy])
def test_no_option_skips_the_check(maker: Callable[..., object], name: str) -> None:
    """As the troubleshooting page says, these are a TypeError."""
    assert f"`{name}=" in (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    with pytest.raises(TypeError, match=name):
        maker(**{name: False})


@pytest.fixture
def local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[tuple[MailServer, SecureMailer]]:
    """Start a server that refuses nobody@example.net, and make a mailer for it; undo what a page changes."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG, "securesmtp")
    with MailServer(login=("me", "secret"), refuse=["nobody@example.net"]) as server:
        policy = TLSPolicy(ca_data=server.ca_pem)
        with SecureMailer(server.host, server.port, username="me", password="secret", policy=policy) as mailer:
            yield server, mailer


def test_a_broken_run_continues_from_its_ledger(local: tuple[MailServer, SecureMailer]) -> None:
    """What may have arrived is returned, not sent; the rest is sent once, except a message with a bad address."""
    server, mailer = local
    names = _run(MANY, mailer)
    addresses, path = [f"{number}@example.net" for number in range(20)], Path("broken.ledger")
    addresses[7] = "not an address"
    ids = [f"<news-2026-11-{number}@example.com>" for number in range(20)]
    items = [
        Item(id_, entry_digest(each), id_) for id_, each in zip(ids, names["newsletters"](addresses[:3]), strict=False)
    ]
    # One was accepted, one was doubtful, and while the third was being sent, the program died.
    with SQLiteLedger(path, exclusive=True) as dead:
        dead.claim(items, "a run")
        ends = {ids[0]: SendResult(0, ids[0], Outcome.ACCEPTED), ids[1]: SendResult(1, ids[1], Outcome.UNKNOWN)}
        dead.finish(ends, "a run")
    server.messages.clear()
    for _ in range(2):
        assert names["run"](names["newsletters"](addresses), path) == ids[1:3]
        sent = sorted(message.recipients[0] for message in server.messages)
        assert sent == sorted([*addresses[3:7], *addresses[8:]])
    with SQLiteLedger(path) as ledger:
        states = {entry.key: entry.state for entry in ledger.entries()}
    expected = dict.fromkeys(ids, State.ACCEPTED) | dict.fromkeys(ids[1:3], State.UNKNOWN)
    del expected[ids[7]]
    assert states == expected


def test_the_second_run_with_a_ledger_sends_the_rest(
    local: tuple[MailServer, SecureMailer], capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints what the page shows, and the server has each message once."""
    server, mailer = local
    _run(LEDGER, mailer)
    (shown,) = _shown(LEDGER)
    assert shown in capsys.readouterr().out
    assert sorted(message.message["Subject"] for message in server.messages) == [
        *(f"Invoice {number}" for number in (1, 2, 3, 4, 5, 7, 8))
    ]


@pytest.mark.parametrize("fault", ["the login", "the port"])
def test_after_a_failed_run_the_next_one_sends_everything(fault: str, local: tuple[MailServer, SecureMailer]) -> None:
    """After a wrong password or an outage nothing was delivered, so the ledger leaves nothing out."""
    server, fixed = local
    names = _run(MANY, fixed)
    addresses, path = [f"{number}@example.net" for number in range(12)], Path("failed.ledger")
    server.messages.clear()
    # No program listens on port 1 of loopback.
    port, password = (1, "secret") if fault == "the port" else (server.port, "wrong")
    policy = TLSPolicy(ca_data=server.ca_pem)
    with SecureMailer(server.host, port, username="me", password=password, policy=policy) as broken:
        names["mailer"] = broken
        assert names["run"](names["newsletters"](addresses), path) == []
    assert server.messages == []
    names["mailer"] = fixed
    assert names["run"](names["newsletters"](addresses), path) == []
    assert sorted(message.recipients[0] for message in server.messages) == sorted(addresses)


def test_the_pages_counter_and_log_are_as_printed(
    local: tuple[MailServer, SecureMailer],
    message: EmailMessage,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The counter counts each outcome, and the log has the printed lines, except for names and numbers."""
    server, watched = local
    for variable, value in server.env().items():
        monkeypatch.setenv(variable, value)
    names = _run(WATCH_IT, watched)
    caplog.clear()
    policy, login, seen = TLSPolicy(ca_data=server.ca_pem), Password("me", "secret"), list[Event]()
    listen = names["all_of"](names["count"], seen.append)
    with SecureMailer(server.host, server.port, auth=login, policy=policy, on_event=listen) as mailer:
        mailer.send(message, recipients=["you@example.net"])
        with pytest.raises(RecipientsRefusedError):
            mailer.send(message, recipients=["nobody@example.net"])
    assert names["outcomes"] == {"accepted": 1, "refused": 1}
    assert len(seen) == 6
    logged = [
        f"{record.levelname}:{record.name}:{record.getMessage()}"
        for record in caplog.records
        if record.name == "securesmtp" and " failed " not in record.getMessage()
    ]
    (shown,) = _shown(WATCH_IT)
    assert list(map(_shape, shown.splitlines())) == list(map(_shape, logged))


def _shape(line: str) -> str:
    """Replace hosts, addresses, the server's words and numbers."""
    return re.sub(r"(?<=securesmtp:)\S+|<\S+>|(?<=verified by ).*|(?<=: )250 .*|[\d.]+", "_", line)


def test_the_blocks_about_postgresql_run(postgresql: PostgreSQL, local: tuple[MailServer, SecureMailer]) -> None:
    """On a server of the tests."""
    server, mailer = local
    url = "postgresql://app@db.example.com/app"
    postgresql.execute("CREATE TABLE invoices (number int)")
    names = {"mailer": mailer, "invoices": _run(LEDGER, mailer)["invoices"]}
    sent = len(server.messages)
    blocks = [each for name, each in PYTHON.items() if name.startswith(LEDGER) and "about_postgresql" in each.mark]
    for block in blocks:
        exec(compile(block.code.replace(url, postgresql.url), LEDGER, "exec"), names)  # noqa: S102 -- our own page
    assert len(server.messages) == sent + 4
    assert [result.outcome for result in names["results"]] == [Outcome.ACCEPTED] * 3
    assert names["result"].outcome is Outcome.ACCEPTED
    assert postgresql.execute("SELECT * FROM invoices") == "13\n"
    assert postgresql.execute("SELECT key FROM securesmtp_ledger WHERE state = 'accepted' ORDER BY key").split() == [
        "<invoice-10@example.com>", "<invoice-11@example.com>", "<invoice-12@example.com>", "invoice-13"
    ]  # fmt: skip
    statements = [each.code for each in BLOCKS.values() if "FROM securesmtp_ledger" in each.code]
    assert statements
    postgresql.execute("".join(statements))


def test_the_command_that_prints_the_table_of_a_ledger_works(postgresql: PostgreSQL) -> None:
    """It is SQL, and makes the table of the page."""
    command = next(each.code for each in BLOCKS.values() if "prints_the_table" in each.mark)
    _, _, program = shlex.split(command)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    postgresql.execute(f"DROP TABLE IF EXISTS securesmtp_ledger; {done.stdout}")
    assert postgresql.execute("SELECT count(*) FROM securesmtp_ledger") == "0\n"


def test_the_mechanism_for_contributors_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """CONTRIBUTING's class logs in once it is registered, and its test of the class passes."""
    mark = "run by: test_the_mechanism_for_contributors_works"
    mechanism, test = (block.code for block in PYTHON.values() if block.mark == mark)
    names: dict[str, Any] = {}
    exec(mechanism, names)  # noqa: S102 -- our own page
    monkeypatch.setitem(sasl.RANKED, "X-NONCE", names["Nonce"])
    exec(test, names)  # noqa: S102
    names["test_the_example_of_the_specification"]()


FILE = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|md|toml))(?::\w+)?`")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/explanation/house.md"])
def test_what_a_page_for_contributors_names_exists(page: str) -> None:
    """Its files, below `src/securesmtp` or in the repository, and its tests; NAME is for the reader to replace."""
    text = (ROOT / page).read_text("utf-8")
    files, bases = set(FILE.findall(text)), (ROOT, ROOT / "src/securesmtp")
    assert len(files) > 10
    assert [name for name in files if "NAME" not in name and not any((base / name).is_file() for base in bases)] == []
    assert set(re.findall(r"`(test_\w+)`", text)) - TESTS == set()


def test_each_promise_names_tests_that_exist() -> None:
    """Each promise names a test, and MTA-STS is among what is not promised (POL-01)."""
    page = (ROOT / "docs/explanation/security-model.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    assert named - TESTS == set()
    promised, _, rest = page.partition("\n## What is not promised\n")
    promises = promised.partition("\n## Promises\n")[2].split("\n### ")[1:]
    assert promises
    assert [promise for promise in promises if "\n*Tests:* `test_" not in promise] == []
    assert "MTA-STS" in rest


def test_each_standard_names_tests_that_exist() -> None:
    """In each row of the table; and each RFC that the source cites is on the page."""
    page = (ROOT / "docs/reference/standards.md").read_text("utf-8")
    table = page.partition("\n| --- | --- | --- | --- | --- |\n")[2].partition("\n\n")[0].splitlines()
    assert len(table) > 40
    assert [row for row in table if len(row.split(" | ")) != 5 or "`test_" not in row.split(" | ")[4]] == []
    assert set(re.findall(r"`(test_\w+)`", page)) - TESTS == set()
    source = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    cited = set(re.findall(r"\bRFCs? (\d+)", source)) - {"5737"}
    assert cited - set(re.findall(r"\b(\d{3,4})\b", page)) == set()


def test_the_numbers_of_enumerated_cases_are_as_printed() -> None:
    """The security model has the sums for a normal run and an exhaustive one, and the number of reversed rules."""
    page = " ".join((ROOT / "docs/explanation/security-model.md").read_text("utf-8").split())
    (rows,) = enumeration.test_the_outcome_is_true_whatever_the_server_does.pytestmark  # type: ignore[attr-defined]
    cases = {bool(row.marks): 0 for row in rows.args[1]}
    for row in rows.args[1]:
        cases[bool(row.marks)] += row.values[2]
    assert f"These are {cases[False]:,} cases." in page
    assert f"late replies: {cases[True]:,} more cases." in page
    assert ("reverse ten rules of the library" in page, len(enumeration.LIES)) == (True, 10)


def test_each_requirement_is_named_by_a_test() -> None:
    """`nox -s trace` prints what each requirement is."""
    assert missing(ROOT / "tests") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_column_of_a_table_has_a_name(page: Path) -> None:
    """A screen reader says it with each cell. `nox -s site` finds it as well, minutes later."""
    lines = page.read_text("utf-8").splitlines()
    heads = [head for head, line in pairwise(lines) if re.fullmatch(r" *(\| *:?-+:? *)+\|", line)]
    assert [head for head in heads if re.search(r"\| *\|", head)] == []
