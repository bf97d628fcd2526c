"""`SecureMailer.from_env`: which variables it reads, and that each wrong one is named and none is shown."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from conftest import Serve
from leaks import shown
from scripted import Mode, honest
from securesmtp import AsyncSecureMailer, ConfigurationError, Password, Secret, SecureMailer, Timeouts, TLSPolicy

PASSWORD = "hunter2secret"
HOST = {"SMTP_HOST": "mail.example.com"}
LOGIN = {**HOST, "SMTP_USERNAME": "me", "SMTP_PASSWORD": PASSWORD}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SMTP_")]:
        monkeypatch.delenv(name)


def _set(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "where"),
    [
        (HOST, "mail.example.com:465 implicit"),
        (HOST | {"SMTP_PORT": "587"}, "mail.example.com:587 starttls"),
        (HOST | {"SMTP_TLS": "starttls"}, "mail.example.com:587 starttls"),
        (HOST | {"SMTP_PORT": "2525", "SMTP_TLS": "starttls"}, "mail.example.com:2525 starttls"),
        (HOST | {"SMTP_PORT": "2525"}, "mail.example.com:2525 implicit"),
        ({"SMTP_URL": "smtps://mail.example.com"}, "mail.example.com:465 implicit"),
        ({"SMTP_URL": "smtp+starttls://me:secret@mail.example.com:2525"}, "mail.example.com:2525 starttls"),
    ],
    ids=["host", "587", "starttls", "port and starttls", "port", "URL", "URL and login"],
)
def test_the_variables_say_where_the_mail_goes(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], where: str
) -> None:
    """As the arguments of that name, or as a URL."""
    _set(monkeypatch, variables)
    assert repr(SecureMailer.from_env()) == f"<SecureMailer {where}>"


@pytest.mark.parametrize("where", [HOST, {"SMTP_URL": "smtps://mail.example.com"}], ids=["HOST", "URL"])
def test_the_other_variables_are_arguments(
    monkeypatch: pytest.MonkeyPatch, ca_file: Path, where: dict[str, str]
) -> None:
    """With a URL too, for what the URL leaves out."""
    _set(monkeypatch, {**LOGIN, "SMTP_CA_FILE": str(ca_file), "SMTP_TIMEOUT": "7", "SMTP_DEADLINE": "2.5"})
    _set(monkeypatch, {"SMTP_RATE": "0.5", "SMTP_MAX_RECIPIENTS": "9", "SMTP_PROXY": "http://me:pw@[::1]:8080"})
    monkeypatch.delenv("SMTP_HOST")
    _set(monkeypatch, where)
    got = SecureMailer.from_env(max_connections=2)._settings
    assert isinstance(got.login, Password)
    assert isinstance(got.login.password, Secret)
    assert (got.login.username, got.login.password.reveal()) == ("me", PASSWORD)
    assert (got.policy, got.deadline) == (TLSPolicy(ca_file=str(ca_file)), 2.5)
    assert got.timeouts == Timeouts(connect=7, handshake=7, command=7, data=7, block=7)
    assert (got.max_connections, got.rate, got.max_recipients) == (2, 0.5, 9)
    assert got.proxy is not None
    assert (got.proxy.scheme, got.proxy.place) == ("http", "[::1]:8080")
    monkeypatch.delenv("SMTP_PROXY")
    got = SecureMailer.from_env(proxy="socks5h://[::1]:1080")._settings
    assert (got.proxy and got.proxy.scheme, got.proxy and got.proxy.place) == ("socks5h", "[::1]:1080")


@pytest.mark.parametrize("source", ["PASSWORD", "PASSWORD_FILE", "PASSWORD_COMMAND", "URL"])
def test_a_message_is_sent(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve,
    ca_file: Path,
    tmp_path: Path,
    message: EmailMessage,
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
    source: str,
) -> None:
    """With each source of a password, in both modes; a command's arguments are split as a shell does."""
    server, file = serve(honest(mode, auth=("me", PASSWORD))), tmp_path / "pass word"
    file.write_text(f"{PASSWORD}\n", "ascii")
    file.chmod(0o600)
    scheme = "smtps" if mode == "implicit" else "smtp+starttls"
    monkeypatch.chdir(tmp_path)
    login = {
        "PASSWORD": PASSWORD,
        "PASSWORD_FILE": "pass word" if mode == "implicit" else str(file),
        "PASSWORD_COMMAND": f"cat '{file}'",
        "URL": f"{scheme}://me:{PASSWORD}@localhost:{server.port}",
    }
    _set(monkeypatch, {f"SMTP_{source}": login[source], "SMTP_CA_FILE": str(ca_file), "SMTP_TIMEOUT": "5"})
    if source != "URL":
        place = {"SMTP_HOST": "localhost", "SMTP_PORT": str(server.port), "SMTP_TLS": mode, "SMTP_USERNAME": "me"}
        _set(monkeypatch, place)
    with SecureMailer.from_env() as mailer:
        assert mailer.send(message).reply.code == 250


def test_another_prefix_reads_other_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a program with two servers, or where others set variables with this prefix (Kubernetes' service links)."""
    _set(
        monkeypatch,
        {"SMTP_PORT": "tcp://10.0.0.1:25", "SMTP_SERVICE_HOST": "10.0.0.1", "NEWS_MAIL_HOST": "news.example"},
    )
    assert repr(SecureMailer.from_env("NEWS_MAIL_")) == "<SecureMailer news.example:465 implicit>"


def test_a_password_may_be_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as getpass, in a program at a terminal."""
    _set(monkeypatch, HOST | {"SMTP_USERNAME": "me"})
    login = SecureMailer.from_env(password=str)._settings.login
    assert isinstance(login, Password)
    assert (login.username, login.password) == ("me", str)


FILE, COMMAND = {"SMTP_PASSWORD_FILE": "/run/secrets/smtp"}, {"SMTP_PASSWORD_COMMAND": "cat secret"}
URL = {"SMTP_URL": f"smtps://me:{PASSWORD}@mail.example.com"}


@pytest.mark.parametrize(
    ("variables", "options", "said", "hint"),
    [
        pytest.param({}, {}, "neither SMTP_HOST nor SMTP_URL is set", "", id="nothing"),
        pytest.param({"SMTP_USERNAME": "me"}, {}, "neither SMTP_HOST nor SMTP_URL is set", "", id="no host"),
        pytest.param(
            {"SMTP_HOST": "mail.example:587"}, {}, "SMTP_HOST has a port in it", "in SMTP_PORT", id="host:port"
        ),
        pytest.param({"SMTP_HOST": "smtps://h"}, {}, "SMTP_HOST is a URL, not a host", "in SMTP_URL", id="URL as host"),
        pytest.param(HOST | {"SMTP_PORT": ""}, {}, "SMTP_PORT is empty", "remove it", id="empty"),
        pytest.param(LOGIN | {"SMTP_PASSWORD": ""}, {}, "SMTP_PASSWORD is empty", "remove it", id="empty password"),
        pytest.param(HOST | {"SMTP_PORT": "smtp"}, {}, "SMTP_PORT is not a whole number", "", id="port"),
        pytest.param(HOST | {"SMTP_PORT": "tcp://x:25"}, {}, "SMTP_PORT is not a whole", "", id="service link"),
        pytest.param(HOST | {"SMTP_TLS": "true"}, {}, "SMTP_TLS is neither", "no mode without TLS", id="tls"),
        pytest.param(HOST | {"SMTP_TIMEOUT": "5s"}, {}, "SMTP_TIMEOUT is not a number of seconds", "", id="timeout"),
        pytest.param(HOST | {"SMTP_DEADLINE": "-1"}, {}, "SMTP_DEADLINE is not a number of", "", id="deadline"),
        pytest.param(
            HOST | {"SMTP_PORT": "465", "SMTP_TLS": "starttls"},
            {},
            "SMTP_TLS says starttls, and port 465 is for implicit",
            "leave the port out",
            id="465 and starttls",
        ),
        pytest.param(
            HOST | {"SMTP_PORT": "587", "SMTP_TLS": "implicit"},
            {},
            "SMTP_TLS says implicit, and port 587 is for starttls",
            "leave the port out",
            id="587 and implicit",
        ),
        pytest.param(URL | HOST, {}, "SMTP_URL and SMTP_HOST both give the host", "one of them", id="URL and HOST"),
        pytest.param(
            URL | {"SMTP_PORT": "465"}, {}, "SMTP_URL and SMTP_PORT both give the port", "", id="URL and PORT"
        ),
        pytest.param(
            URL | {"SMTP_TLS": "implicit"}, {}, "SMTP_URL and SMTP_TLS both give the tls", "", id="URL and TLS"
        ),
        pytest.param(URL | {"SMTP_USERNAME": "me"}, {}, "SMTP_URL and SMTP_USERNAME both give", "", id="URL and login"),
        pytest.param(URL | FILE, {}, "SMTP_URL and SMTP_PASSWORD_FILE both give the password", "", id="URL and FILE"),
        pytest.param(LOGIN | FILE, {}, "SMTP_PASSWORD and SMTP_PASSWORD_FILE both give", "", id="two passwords"),
        pytest.param(
            HOST | FILE | COMMAND, {}, "SMTP_PASSWORD_FILE and SMTP_PASSWORD_COMMAND both", "", id="file and command"
        ),
        pytest.param(
            HOST | {"SMTP_USERNAME": "me"},
            {},
            "SMTP_USERNAME gives a username, and there is no password",
            "set SMTP_PASSWORD, SMTP_PASSWORD_FILE or SMTP_PASSWORD_COMMAND",
            id="no password",
        ),
        pytest.param(HOST | FILE, {}, "SMTP_PASSWORD_FILE gives the password, and there is no", "", id="no username"),
        pytest.param(
            HOST | {"SMTP_DEADLINE": "5"}, {"deadline": 6}, "the argument deadline and SMTP_DEADLINE", "", id="argument"
        ),
        pytest.param(LOGIN | {"SMTP_PASSWD": "x"}, {}, "'SMTP_PASSWD' is set", "mean SMTP_PASSWORD?", id="PASSWD"),
        pytest.param(HOST | {"SMTP_USER": "x"}, {}, "'SMTP_USER' is set", "mean SMTP_USERNAME?", id="USER"),
        pytest.param(HOST | {"SMTP_VERIFY": "0"}, {}, "'SMTP_VERIFY' is set", "MYAPP_SMTP_", id="VERIFY"),
        pytest.param(HOST | {"SMTP_SERVICE_HOST": "x"}, {}, "'SMTP_SERVICE_HOST' is set", "prefix", id="SERVICE_HOST"),
        pytest.param(HOST | {"SMTP_": "x"}, {}, "'SMTP_' is set", "", id="the prefix alone"),
        pytest.param(
            {"SMTP_URL": f"smtp://me:{PASSWORD}@h"},
            {},
            "SMTP_URL begins with smtp://",
            "smtps://",
            id="URL without TLS",
        ),
        pytest.param(
            {"SMTP_URL": f"smtps://me:{PASSWORD}@h:x"}, {}, "the port of SMTP_URL is not", "", id="URL's port"
        ),
        pytest.param({"SMTP_URL": f"smtps://me:{PASSWORD}#@h"}, {}, "SMTP_URL has an @ that", "%23", id="# in the URL"),
        pytest.param(
            {**HOST, "SMTP_USERNAME": "me", "SMTP_PASSWORD_COMMAND": f"echo '{PASSWORD}"},
            {},
            "SMTP_PASSWORD_COMMAND is not a command: a quote is not closed",
            "",
            id="quote",
        ),
        pytest.param(
            {**HOST, "SMTP_USERNAME": "me", "SMTP_PASSWORD_COMMAND": " "},
            {},
            "SMTP_PASSWORD_COMMAND is not a command",
            "",
            id="no command",
        ),
        pytest.param(
            {**HOST, "SMTP_USERNAME": "me", "SMTP_PASSWORD_COMMAND": PASSWORD},
            {},
            "SMTP_PASSWORD_COMMAND does not begin with a program",
            "",
            id="password as command",
        ),
        pytest.param(
            {**HOST, "SMTP_USERNAME": "me", "SMTP_PASSWORD_FILE": PASSWORD},
            {},
            "SMTP_PASSWORD_FILE is neither an absolute path nor a file in the current folder",
            "",
            id="password as file",
        ),
        pytest.param(
            {**HOST, "SMTP_USERNAME": "me", "SMTP_PASSWORD_FILE": PASSWORD * 40},
            {},
            "SMTP_PASSWORD_FILE is neither an absolute path nor a file in the current folder",
            "",
            id="long password as file",
        ),
        pytest.param(HOST, {"prefix": ""}, "the prefix is not of letters", '"SMTP_"', id="no prefix"),
        pytest.param(HOST, {"prefix": "SMTP-"}, "the prefix is not of letters", '"SMTP_"', id="wrong prefix"),
    ],
)
def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], options: dict[str, Any], said: str, hint: str
) -> None:
    """Contradictions, misspelt names and variables of others with the same prefix, too: nothing is ignored."""
    _set(monkeypatch, variables)
    with pytest.raises(ConfigurationError) as caught:
        SecureMailer.from_env(**options)
    assert caught.value.args[0].startswith(said)
    assert hint in (caught.value.hint or "")
    assert PASSWORD not in shown(caught.value)


@pytest.mark.parametrize("name", ["HOST", "PORT", "TLS", "TIMEOUT", "DEADLINE", "PASSWORD_FILE", "CA_FILE", "URL"])
def test_a_url_with_a_login_in_another_variable_is_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Neither in the text nor in a frame of the traceback."""
    _set(monkeypatch, (HOST if name != "URL" else {}) | {f"SMTP_{name}": f"me:{PASSWORD}@mail.example.com"})
    with pytest.raises(ConfigurationError) as caught:
        SecureMailer.from_env()
    assert PASSWORD not in shown(caught.value)


def test_the_environment_is_read_only_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mailer that was made by its host keeps to its arguments (TLS-11), and one of `from_env` to what was set."""
    _set(monkeypatch, LOGIN | {"SMTP_PORT": "587"})
    mailer = SecureMailer.from_env()
    monkeypatch.setenv("SMTP_HOST", "evil.example")
    assert repr(mailer) == "<SecureMailer mail.example.com:587 starttls>"
    assert repr(SecureMailer("mail.example.com")) == "<SecureMailer mail.example.com:465 implicit>"


@pytest.mark.parametrize("make", [AsyncSecureMailer.from_env, AsyncSecureMailer.from_url], ids=["from_env", "from_url"])
def test_an_async_mailer_is_made_in_the_same_way(
    serve: Serve, ca_file: Path, message: EmailMessage, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any]
) -> None:
    """Of the same variables and the same URL, and its password may come from a coroutine function."""
    server = serve(honest("starttls", auth=("me", PASSWORD)))
    url = f"smtp+starttls://me@localhost:{server.port}?ca_file={ca_file}"
    monkeypatch.setenv("SMTP_URL", url)

    async def password() -> str:
        return PASSWORD

    async def main() -> int:
        where = () if make == AsyncSecureMailer.from_env else (url,)
        async with make(*where, password=password, timeout=5) as mailer:
            receipt = await mailer.send(message)
        return int(receipt.reply.code)

    assert asyncio.run(main()) == 250
    monkeypatch.setenv("SMTP_URL", f"smtps://me:{PASSWORD}@localhost:587")
    with pytest.raises(ConfigurationError, match="the scheme of SMTP_URL means implicit TLS") as caught:
        AsyncSecureMailer.from_env()
    assert PASSWORD not in shown(caught.value)
