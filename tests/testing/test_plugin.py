"""The plugin as pytest loads it: what it costs those who do not use it, and that tests with it do not meet."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import unmeasured

FEW_TESTS = """
import os
import pytest

before = dict(os.environ)

@pytest.mark.parametrize("number", range({count}))
def test_one(mail_server, number):
    message = f"Subject: {{number}}\\n\\n".encode()
    mail_server.mailer().send_bytes(message, mail_from="a@example.org", recipients=["b@example.org"])
    received = mail_server.assert_sent(subject=str(number), count=1)
    assert len(mail_server.messages) == 1
    assert received.username == mail_server.login[0]
    assert dict(os.environ) | {{"PYTEST_CURRENT_TEST": ""}} == before | {{"PYTEST_CURRENT_TEST": ""}}
"""


def _pytest(
    folder: Path, *codes: str, arguments: tuple[str, ...] = ("-p", "securesmtp_pytest"), python: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run pytest on *codes* in an empty folder, without the configuration of this project and without other plugins."""
    for number, code in enumerate(codes):
        (folder / f"test_{number}.py").write_text(code, "utf-8")
    return subprocess.run(
        [sys.executable, *python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={name: value for name, value in unmeasured().items() if not name.startswith("PYTEST")}
        | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_entry_point_is_a_module_beside_the_package() -> None:
    """To import a module of the package would import the package before coverage begins (T5)."""
    (found,) = importlib.metadata.entry_points(group="pytest11", name="securesmtp")
    assert found.module == "securesmtp_pytest"


def test_what_nobody_uses_costs_nothing(tmp_path: Path) -> None:
    """
    Without a fixture, nothing is imported: not this package either, so all of it is measured if coverage begins later.

    Without the extra, only a test that asks for a fixture fails (T5).
    """
    unused = """
import sys

def test_nothing_is_loaded(request):
    assert request.config.pluginmanager.has_plugin("securesmtp_pytest")
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert not loaded & {"securesmtp", "aiosmtpd", "trustme", "cryptography", "ssl", "asyncio", "smtplib"}
"""
    without_extra = """
import sys
import pytest

@pytest.fixture(scope="module", autouse=True)
def without_trustme():
    sys.modules["trustme"] = None

def test_with(mail_server):
    pass
"""
    own = """
import pytest

@pytest.fixture
def mail_server():
    return "mine"

def test_a_projects_own_fixture_comes_first(mail_server):
    assert mail_server == "mine"
"""
    done = _pytest(tmp_path, unused, without_extra, own)
    assert "2 passed, 1 error" in done.stdout, done.stdout
    assert "trustme is missing: install securesmtp with its extra 'testing'" in done.stdout


def test_tests_with_servers_do_not_meet(tmp_path: Path) -> None:
    """
    Each test has its own servers, which stop with it, and the environment stays the same (T2).

    All of it in development mode, where warnings are errors: no unclosed socket, no file, no thread, no log (T9, T10).
    """
    factory = """
import gc
import logging
import socket
import threading
import pytest
from securesmtp import SecureMailer, SecureSMTPError

ports = []

def test_some(mail_server_factory):
    servers = [mail_server_factory(), mail_server_factory("starttls", login=None)]
    ports.extend(server.port for server in servers)
    assert len({server.ca_pem for server in servers}) == 2

def test_they_are_gone(mail_server_factory):
    assert len(ports) == 2
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)

@pytest.mark.parametrize("mode", ["implicit", "starttls"])
@pytest.mark.parametrize("fault", ["untrusted", "drops_after_content", "silent", "too_busy", "bad_login"])
def test_each(mail_server_factory, mode, fault, caplog):
    caplog.set_level(logging.WARNING)
    server = mail_server_factory(mode, fault=fault)
    assert not server._listener._loop.get_debug()
    with pytest.raises(SecureSMTPError):
        server.mailer(timeout=0.2).send_bytes(b"Subject: x\\n\\n", mail_from="a@b.example", recipients=["c@d.example"])
    assert {record.name for record in caplog.records} <= {"securesmtp"}

def test_nothing_is_left():
    gc.collect()
    assert threading.enumerate() == [threading.main_thread()]
"""
    done = _pytest(tmp_path, FEW_TESTS.format(count=5), factory, python=("-X", "dev", "-W", "error"))
    assert "18 passed" in done.stdout, done.stdout


@pytest.mark.exhaustive
def test_two_hundred_tests_in_eight_processes_do_not_meet(tmp_path: Path) -> None:
    """A port, a file or a variable that two of them share would show (T2)."""
    done = _pytest(
        tmp_path, FEW_TESTS.format(count=200), arguments=("-p", "securesmtp_pytest", "-p", "xdist", "-n", "8")
    )
    assert "200 passed" in done.stdout, done.stdout
