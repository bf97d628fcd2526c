"""The application in INSTALLED_APPS: the command `checkmail`, and the system check."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import CommandError

from conftest import Serve
from integrations.django.conftest import BACKEND, HAS_MAILERS, Configure
from scripted import Script, honest

CONSOLE = "django.core.mail.backends.console.EmailBackend"


def checkmail(*names: str) -> tuple[str, str]:
    """Run the command; return its output."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("checkmail", *names, stdout=out, stderr=err)
    except CommandError as error:
        err.write(str(error))
    return out.getvalue(), err.getvalue()


def test_the_command_prints_the_report(serve: Serve, configure: Configure) -> None:
    """What `ServerReport` says; nothing is sent."""
    server = serve(honest(auth=("me", "secret")))
    configure(server, username="me", password="secret")
    out, err = checkmail()
    lines = [line.partition(": ")[0] for line in out.splitlines()]
    assert lines == ["server", "TLS", "certificate", "login", "mechanisms", "largest message", "offers"]
    assert ("login: accepted by PLAIN" in out, err, server.accepted) == (True, "", [])


@pytest.mark.parametrize(
    ("script", "options", "said"),
    [
        (honest(auth=("me", "other")), {"username": "me", "password": "secret"}, ""),
        (honest(), {"port": 1}, "ConnectError: "),
        (honest(), {"use_ssl": False}, "ImproperlyConfigured|InvalidMailer"),
    ],
    ids=["login", "no server", "settings"],
)
def test_the_command_fails_if_no_message_could_be_sent(
    serve: Serve, configure: Configure, script: Script, options: dict[str, Any], said: str
) -> None:
    """It says why, without a traceback; the exit status is 1."""
    configure(serve(script), **options)
    out, err = checkmail()
    assert err.splitlines()[-1] == "default: no message could be sent now" or err.endswith(
        "default: no message could be sent now"
    )
    assert any(err.startswith(each) for each in said.split("|"))
    assert ("login: refused" in out) == (said == "")


def test_the_command_names_what_it_cannot_check(override: Any, style: str) -> None:
    """Another backend, and a mailer that does not exist."""
    console = {"default": {"BACKEND": CONSOLE}, "other": {}}
    override(**({"MAILERS": console} if style == "MAILERS" else {"EMAIL_BACKEND": CONSOLE}))
    out, _ = checkmail()
    assert out.count("not checked: its backend is not securesmtp") == (2 if style == "MAILERS" else 1)
    assert out.startswith("mailer default\n") == (style == "MAILERS")
    _, err = checkmail("zebra")
    assert err.startswith("ImproperlyConfigured: There is no mailer 'zebra'; there is default")


def test_the_system_check_warns(configure: Configure, override: Any, style: str) -> None:
    """A warning, because a migration needs no email; its text says what to set."""
    configure(host="localhost")
    (warning,) = run_checks(tags=["mail"]) if style == "EMAIL" else _ours()
    assert (warning.id, warning.level) == ("securesmtp.W001", 30)
    assert "are both off" in warning.msg
    configure(host="localhost", use_tls=True)
    assert _ours() == []
    override(**({"MAILERS": {"default": {"BACKEND": CONSOLE}}} if style == "MAILERS" else {"EMAIL_BACKEND": CONSOLE}))
    assert _ours() == []


def _ours() -> list[Any]:
    return [each for each in run_checks(tags=["mail"]) if str(each.id).startswith("securesmtp")]


def test_a_backend_that_is_not_there_is_a_warning(override: Any, style: str) -> None:
    """Of this check, not a traceback; nor is one that is a function."""
    for path, found in (("no.such.Backend", 1), (f"{BACKEND}.nonsense", 1), ("django.core.mail.get_connection", 0)):
        override(**({"MAILERS": {"default": {"BACKEND": path}}} if style == "MAILERS" else {"EMAIL_BACKEND": path}))
        warnings = _ours()
        assert len(warnings) == found
        assert all("cannot be imported" in each.msg for each in warnings)


@pytest.mark.skipif(not HAS_MAILERS, reason="MAILERS came with Django 6.1")
def test_each_of_the_MAILERS_is_checked(serve: Serve, override: Any, ca_file: Any) -> None:  # noqa: N802 -- the setting
    """One bad one does not hide the others."""
    good = {"host": "localhost", "port": serve().port, "use_ssl": True, "ca_file": str(ca_file)}
    options = {"default": good, "bad": {"host": "localhost"}, "worse": {}}
    override(MAILERS={name: {"BACKEND": BACKEND, "OPTIONS": value} for name, value in options.items()})
    assert [each.msg.partition(":")[0] for each in _ours()] == ["MAILERS['bad']", "MAILERS['worse']"]
    out, err = checkmail()
    assert "mailer default\nserver: localhost:" in out
    assert err.endswith("bad, worse: no message could be sent now")
    assert checkmail("default")[1] == ""
