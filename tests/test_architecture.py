"""The choke points of the house, held by the syntax tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import securesmtp
from conftest import unmeasured

PACKAGE = Path(securesmtp.__file__).parent


# Not when the tests are collected, which each worker does.
@cache
def _modules() -> dict[str, ast.Module]:
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}


_RESUMED = {"calls", "dialogue", "steps"}
Found = Callable[[ast.AST], bool]


def _is_core(name: str) -> bool:
    return not name.startswith(("_cli", "testing"))


# Each rule looks at every node, and to find the nodes is most of the work.
@cache
def _nodes() -> dict[str, list[ast.AST]]:
    return {name: list(ast.walk(tree)) for name, tree in _modules().items() if _is_core(name)}


def _modules_with(found: Found) -> set[str]:
    return {name for name, nodes in _nodes().items() if any(map(found, nodes))}


def _named(*names: str) -> Found:
    """Recognise a name, an attribute, an import or a text for `getattr` that says one of *names*."""

    def found(node: ast.AST) -> bool:
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name) | ast.Constant(value=name):
                return name in names
            case _:
                return False

    return found


def _makes_context(node: ast.AST) -> bool:
    # As an annotation the class may be named anywhere.
    names = _named("SSLContext", "create_default_context", "_create_unverified_context")
    return names(node.func if isinstance(node, ast.Call) else node) and not isinstance(node, ast.Attribute | ast.Name)


def _sends(node: ast.AST) -> bool:
    # The mailer has a method of that name, and `send` also resumes what is run step by step.
    resumed = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _RESUMED
    return isinstance(node, ast.Attribute) and node.attr == "send" and not resumed


def _holds_cr(node: ast.AST) -> bool:
    # The parts of an f-string are constants too. "\r" in ASCII is a pattern's or an escape's.
    value = node.value if isinstance(node, ast.Constant) else None
    return (isinstance(value, str) and "\r" in value) or (isinstance(value, bytes) and b"\r" in value)


def _imports(*packages: str) -> Found:
    def found(node: ast.AST) -> bool:
        match node:
            case ast.ImportFrom(module=str(name)) | ast.alias(name=name):
                return name.partition(".")[0] in packages
            case _:
                return False

    return found


def _waits_for_threads(node: ast.AST) -> bool:
    waiting = {"Thread", "Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier"}
    match node:
        case ast.Attribute(value=ast.Name(id="threading"), attr=name):
            return name in waiting
        case ast.ImportFrom(module="threading" | "queue") | ast.alias(name="queue"):
            return True
        case _:
            return False


RULES: dict[str, tuple[Found, set[str]]] = {
    # The header's fields are folded, and the content's lines ended, before `scanner.py` checks them and `content.py`
    # frames them. A signature covers lines with their ends. A password that comes from a file loses its line end in
    # `output.py`. A text in base64 has its line ends inside. The answer of an HTTP proxy ends with an empty line.
    "crlf": (
        _holds_cr,
        {
            "_protocol/wire.py",
            "_protocol/content.py",
            "_protocol/dkim.py",
            "_protocol/folding.py",
            "_protocol/generator.py",
            "_protocol/parts.py",
            "_protocol/proxy/http_connect.py",
            "_protocol/scanner.py",
            "_protocol/serialising.py",
            "_protocol/transfer_encoding.py",
            "_sources/output.py",
            "_compose/calendar.py",
            "_compose/parts.py",
            "signing/_smime.py",
        },
    ),
    "context": (_makes_context, {"_transport/tls.py"}),
    "wrap": (_named("wrap_socket", "wrap_bio"), {"_transport/tls.py"}),
    "write": (_named("sendall", "sendmsg", "sendto", "sendfile", "makefile", "sendmail", "docmd"), set()),
    # The poller's bytes go to itself: they wake its thread.
    "read": (
        _named("recv", "recv_into", "recvfrom", "recvmsg"),
        {
            "_transport/async_hook.py",
            "_transport/channel.py",
            "_transport/poller.py",
            "_transport/tls_records.py",
        },
    ),
    # Django's backend calls the mailer's, and Celery's task that of a `QueuedMessage`.
    "send": (
        _sends,
        {
            # A stream that is no socket gets a copy of what was written to one.
            "_transport/async_hook.py",
            "_transport/channel.py",
            "_transport/poller.py",
            "_transport/tls_records.py",
            "integrations/celery/_task.py",
            "integrations/django/_backend.py",
        },
    ),
    "debug": (_named("set_debuglevel", "debuglevel"), set()),
    "environment": (_named("environ", "getenv"), {"_environment.py"}),
    # A URL has its secret in the middle. The address of a database goes to its client as it is.
    "secrets": (
        _named("reveal"),
        {
            "_cli/ledgers.py",
            "_url.py",
            "ledger/_postgresql_connections.py",
            "ledger/_redis_client.py",
            *(f"_protocol/proxy/{name}.py" for name in ("address", "http_connect", "socks5")),
            *(f"signing/{name}.py" for name in ("_certificates", "_keys")),
            *(f"_protocol/sasl/{name}.py" for name in ("logins", "oauth", "scram", "simple", "sources")),
        },
    ),
    # The server chooses it, so no decision may depend on it.
    "queue id": (_named("queue_id", "find_queue_id"), {"_values.py"}),
    # What both kinds of mailer share waits for nobody; a lock is held for a few assignments.
    "threads": (
        _waits_for_threads,
        {
            "_workers.py",
            "_transport/password.py",
            "_transport/poller.py",
            "_transport/steps.py",
            "_transport/threads.py",
            "_transport/token_threads.py",
            # The end of the process waits for sends.
            "integrations/django/_mailers.py",
            # A call of the ledger waits for the database.
            "ledger/_postgresql_connections.py",
        },
    ),
    "tasks": (
        _imports("anyio", "asyncio", "trio"),
        {
            "_async_backlog.py",
            "_async_results.py",
            "_async_workers.py",
            "_transport/async_hook.py",
            "_transport/async_link.py",
            "_transport/async_pool.py",
            "_transport/event_loop.py",
            "_transport/read_wait.py",
            "_transport/task_queue.py",
            "_transport/threads.py",
            "_transport/token_tasks.py",
            "_transport/waiting.py",
        },
    ),
    "wait": (
        _named("sleep", "select", "poll", "PollSelector"),
        {"_transport/link.py", "_transport/poller.py", "_transport/pool.py", "_sources/command.py"},
    ),
}


def test_a_lease_is_released_first_and_by_one_assignment() -> None:
    """An interrupt strikes after a call: with one before the assignment, the slot might never become free."""
    first = [
        ast.unparse(node.finalbody[0])
        for tree in _modules().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and any("lease.done" in ast.unparse(each) for each in node.finalbody)
    ]
    # In the mailer for threads, and in that for tasks.
    assert first == ["lease.done = True"] * 2


@pytest.mark.parametrize("rule", RULES)
def test_each_thing_is_done_in_one_place(rule: str) -> None:
    """No second path: neither called, nor named to be called later, nor imported, nor looked up by `getattr`."""
    found, allowed = RULES[rule]
    assert _modules_with(found) <= allowed


@pytest.mark.parametrize(
    ("rule", "planted"),
    [
        ("crlf", r'b"QUIT\r\n"'),
        ("crlf", r'"QUIT\r\n".encode()'),
        ("crlf", r'f"{verb}\r\n".encode()'),
        ("crlf", r'b"QUIT" + b"\r" + b"\n"'),
        ("crlf", r'"\x0d\x0a"'),
        ("context", "from ssl import SSLContext"),
        ("context", "ssl._create_unverified_context()"),
        ("wrap", "context.wrap_socket(sock)"),
        ("write", "sock.sendall(data)"),
        ("write", 'getattr(sock, "sendall")(data)'),
        ("read", "sock.recv(1)"),
        ("read", "read = sock.recv_into"),
        ("send", "link.sock.send(data)"),
        ("send", "write = sock.send"),
        ("send", "dialogue.sock.send(data)"),
        ("debug", "link.debuglevel = 1"),
        ("environment", "from os import environ"),
        ("environment", 'os.getenv("SSL_CERT_FILE")'),
        ("secrets", "password.reveal()"),
        ("threads", "threading.Thread(target=worker)"),
        ("threads", "from threading import Event"),
        ("threads", "from queue import SimpleQueue"),
        ("threads", "import queue"),
        ("tasks", "from asyncio import sleep"),
        ("tasks", "import anyio.lowlevel"),
        ("wait", "from time import sleep"),
    ],
)
def test_a_second_path_would_be_found(rule: str, planted: str) -> None:
    """Each rule sees what it forbids, however it is written."""
    found, _ = RULES[rule]
    assert any(found(node) for node in ast.walk(ast.parse(planted)))


def test_no_pattern_is_possessive() -> None:
    """`re.fullmatch` gets possessive quantifiers and atomic groups wrong on early 3.11, which Debian 12 has."""
    literals = {n.value for tree in _modules().values() for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    texts = {str(v, "latin-1") if isinstance(v, bytes) else v for v in literals if isinstance(v, str | bytes)}
    assert not [text for text in texts if re.search(r"(?<!\\)[*+?}]\+|\(\?>", text)]


def test_only_the_link_and_the_errors_import_smtplib() -> None:
    """`errors` for its base class, the link for its engine."""

    def imports(node: ast.AST) -> bool:
        return isinstance(node, ast.Import) and any(alias.name == "smtplib" for alias in node.names)

    assert _modules_with(imports) == {"errors.py", "_transport/link.py"}


def test_integrations_import_public_modules_only() -> None:
    """What an integration needs, any program can have. import-linter's contract lists the private modules of today."""
    imported = {
        name
        for module, tree in _modules().items()
        if module.startswith("integrations")
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    ours = {str(name) for name in imported if str(name).startswith("securesmtp")}
    assert "securesmtp" in ours
    assert [name for name in ours if name.startswith("securesmtp._")] == []


def test_the_public_names_are_what_is_there() -> None:
    """`__all__` is sorted and complete."""
    assert securesmtp.__all__ == sorted(securesmtp.__all__)
    assert dir(securesmtp) == securesmtp.__all__
    assert securesmtp.__getattr__("errors") is securesmtp.errors
    assert {getattr(securesmtp, name).__name__ for name in securesmtp.__all__} == set(securesmtp.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        securesmtp.nonsense  # noqa: B018 -- the look-up is the test


@pytest.mark.parametrize("use", ["securesmtp.SecureMailer", "securesmtp.errors.TLSError", "securesmtp.Secret"])
def test_importing_the_library_is_cheap_until_it_is_used(use: str) -> None:
    """Neither TLS nor SMTP is loaded before the first name is asked for."""
    program = f"import sys, securesmtp; assert not {{'ssl', 'smtplib', 'socket'}} & set(sys.modules); {use}"
    subprocess.run([sys.executable, "-c", program], timeout=30, check=True, env=unmeasured())
