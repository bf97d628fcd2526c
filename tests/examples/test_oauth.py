"""Run the examples of OAuth 2 with the real libraries: a provider and a mail server on loopback, both over TLS."""

from __future__ import annotations

import fcntl
import json
import runpy
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import certifi
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import configured
from conftest import Serve, unmeasured
from examples.identity import CLIENT, CLIENT_SECRET, GOOGLE, HOSTS, OTHER, TENANT, Provider
from scripted import Mode, ScriptedServer
from securesmtp import AuthenticationError
from tokens import Grants

EXAMPLES = Path(configured.__file__).parent
MAILBOX = "me@example.com"
MAIL_HOSTS = ("smtp.office365.com", "smtp.gmail.com", "smtp.example.com")


class Recipe(NamedTuple):
    """One example: how its server begins TLS, what it reads, and what it asks the provider for."""

    file: str
    mode: Mode
    environment: dict[str, str]
    asks: dict[str, str]
    kind: str


MICROSOFT_ENV = {"MS_TENANT_ID": TENANT, "MS_CLIENT_ID": CLIENT, "MS_MAILBOX": MAILBOX}
RECIPES = {
    "msal": Recipe(
        "oauth_microsoft.py",
        "starttls",
        {**MICROSOFT_ENV, "MS_CLIENT_SECRET": CLIENT_SECRET},
        {"scope": "https://outlook.office365.com/.default", "grant_type": "client_credentials", "client_id": CLIENT},
        "AuthenticationError",
    ),
    "google-auth": Recipe(
        "oauth_google.py",
        "implicit",
        {"GOOGLE_MAILBOX": MAILBOX, "GOOGLE_KEY_FILE": "key.json"},
        {"scope": "https://mail.google.com/", "sub": MAILBOX, "iss": "robot@project.iam.gserviceaccount.com"},
        "RefreshError",
    ),
    "authlib": Recipe(
        "oauth_authlib.py",
        "implicit",
        {
            "OAUTH_TOKEN_URL": f"https://{OTHER}/token",
            "OAUTH_CLIENT_ID": CLIENT,
            "OAUTH_CLIENT_SECRET": CLIENT_SECRET,
            "OAUTH_SCOPE": "smtp",
            "SMTP_HOST": "smtp.example.com",
            "MAIL_FROM": MAILBOX,
        },
        {"scope": "smtp", "grant_type": "client_credentials", "client_id": CLIENT},
        "OAuthError",
    ),
}
USER = Recipe("oauth_microsoft_user.py", "starttls", {**MICROSOFT_ENV, "MS_TOKEN_FILE": "tokens.json"}, {}, "")
EACH = pytest.mark.parametrize("name", RECIPES)
# The hosts of the examples are on loopback, each at its own port.
BOOTSTRAP = """
import json, os, runpy, socket, sys
ports, look_up = json.loads(os.environ["PORTS"]), socket.getaddrinfo
def find(host, port, *more, **options):
    where = ("127.0.0.1", ports[host]) if host in ports else (host, port)
    return look_up(*where, *more, **options)
socket.getaddrinfo = find
import certifi
certifi.where = lambda: os.environ["REQUESTS_CA_BUNDLE"]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class World(NamedTuple):
    """A provider, and a mail server that accepts the tokens in `grants`."""

    provider: Provider
    grants: Grants
    mail: ScriptedServer
    run: Callable[..., None]
    environment: dict[str, str]


@pytest.fixture(scope="module")
def google_key() -> rsa.RSAPrivateKey:
    """Make the key of the service account."""
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def world(  # noqa: PLR0913, PLR0917 -- fixtures
    serve: Serve,
    ca: trustme.CA,
    ca_file: Path,
    google_key: rsa.RSAPrivateKey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Recipe], World]]:
    """Start both for a recipe, and let its hosts be found there."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*HOSTS, *MAIL_HOSTS).configure_cert(tls)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(certifi, "where", lambda: str(ca_file))
    with Provider(tls) as provider:

        def start(recipe: Recipe) -> World:
            grants = Grants()
            # Whatever the provider has issued last, and nothing older.
            grants.accepts = lambda token: token == provider.issued[-1]
            mail = serve(grants.script(recipe.mode), tls=tls)
            ports = dict.fromkeys(HOSTS, provider.port) | dict.fromkeys(MAIL_HOSTS, mail.port)
            look_up = socket.getaddrinfo

            def find(host: str, port: int, *more: Any, **options: Any) -> Any:
                where = ("127.0.0.1", ports[host]) if host in ports else (host, port)
                return look_up(*where, *more, **options)

            monkeypatch.setattr(socket, "getaddrinfo", find)
            environment = {**recipe.environment, "REQUESTS_CA_BUNDLE": str(ca_file), "PORTS": json.dumps(ports)}
            for variable, value in environment.items():
                monkeypatch.setenv(variable, value)

            def run(*arguments: str) -> None:
                monkeypatch.setattr(sys, "argv", [recipe.file, *arguments])
                runpy.run_path(str(EXAMPLES / recipe.file), run_name="__main__")

            return World(provider, grants, mail, run, environment)

        provider.key = google_key
        pem = google_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        account = {
            "type": "service_account",
            "client_email": "robot@project.iam.gserviceaccount.com",
            "private_key": pem,
            "private_key_id": "1",
            "token_uri": f"https://{GOOGLE}/token",
        }
        Path("key.json").write_text(json.dumps(account), "utf-8")
        yield start


@EACH
def test_a_message_goes_out_with_a_token(
    world: Callable[[Recipe], World], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The provider is asked once, for what the page says; the mail server gets the token, for the mailbox."""
    recipe = RECIPES[name]
    found = world(recipe)
    found.run("you@example.net")
    assert "accepted: 250" in capsys.readouterr().out
    (asked,) = found.provider.asked
    assert recipe.asks.items() <= asked.items()
    assert (found.grants.shown, found.grants.names) == (found.provider.issued, {MAILBOX})
    assert [mail.recipients for mail in found.mail.accepted] == [(b"RCPT TO:<you@example.net>",)]


@EACH
def test_a_refused_token_is_renewed(world: Callable[[Recipe], World], name: str) -> None:
    """Although the library has a token that has not expired, which it would return again (PITFALLS O2)."""
    found = world(RECIPES[name])
    found.grants.accepts = lambda token: token != found.provider.issued[0]
    found.run("you@example.net")
    assert found.grants.shown == found.provider.issued
    assert len(found.provider.asked) == 2
    assert len(found.mail.accepted) == 1


@EACH
def test_the_providers_error_is_the_cause(world: Callable[[Recipe], World], name: str) -> None:
    """With its description, not a KeyError (PITFALLS O3); no login is tried, and no secret is shown."""
    recipe = RECIPES[name]
    found = world(recipe)
    description = "AADSTS7000215: Invalid client secret provided"
    found.provider.failure = 401, {"error": "invalid_client", "error_description": description}
    with pytest.raises(AuthenticationError) as caught:
        found.run("you@example.net")
    # The text of an error of this library is shown; in another one, a secret may be.
    said = f": invalid_client: {description}" if recipe.kind == "AuthenticationError" else ""
    assert caught.value.args[0] == f"the token callable raised {recipe.kind}{said}"
    assert caught.value.retryable == (not said)
    assert "invalid_client" in str(caught.value.__cause__)
    assert description in str(caught.value.__cause__)
    assert CLIENT_SECRET not in f"{caught.value}{caught.value.__cause__}"
    assert b"AUTH" not in found.mail.secret


@EACH
def test_the_mail_servers_second_refusal_is_final(world: Callable[[Recipe], World], name: str) -> None:
    """Two tokens, two attempts, and the server's words."""
    found = world(RECIPES[name])
    found.grants.accepts = lambda _: False
    with pytest.raises(AuthenticationError, match=r"535 5\.7\.8 no"):
        found.run("you@example.net")
    assert (len(found.grants.shown), found.grants.shown) == (2, found.provider.issued)


# A user's own mailbox.


def sign_in(found: World) -> None:
    """Run the program that signs in."""
    with pytest.raises(SystemExit) as caught:
        found.run("login")
    assert caught.value.code is None


def test_a_user_signs_in_once_and_sends(world: Callable[[Recipe], World], capsys: pytest.CaptureFixture[str]) -> None:
    """By the device code; the file is the user's alone, and later programs need no sign-in."""
    found = world(USER)
    sign_in(found)
    assert "enter ABCD" in (out := capsys.readouterr().out)
    assert "signed in" in out
    assert stat.S_IMODE(Path("tokens.json").stat().st_mode) == 0o600
    assert {"https://outlook.office.com/SMTP.Send", "offline_access"} <= set(found.provider.user_scope.split())
    found.run("you@example.net")
    found.run("you@example.net")
    assert found.grants.shown == found.provider.issued * 2
    assert found.provider.refresh_tokens == ["refresh-0"]


def test_a_user_who_has_not_signed_in_is_told_so(world: Callable[[Recipe], World]) -> None:
    """As the cause of the error."""
    with pytest.raises(AuthenticationError) as caught:
        world(USER).run("you@example.net")
    assert "sign in first" in str(caught.value.__cause__)


@pytest.mark.parametrize("early", [False, True], ids=["by-the-user", "at-once"])
def test_a_sign_in_that_fails_says_why(world: Callable[[Recipe], World], *, early: bool) -> None:
    """The user said no, or the application may not ask: nothing is written."""
    found = world(USER)
    found.provider.fails_early = early
    found.provider.failure = 400, {"error": "access_denied", "error_description": "the user said no"}
    with pytest.raises(AuthenticationError, match="the user said no"):
        found.run("login")
    assert not Path("tokens.json").exists()


def test_a_users_refused_token_is_renewed(world: Callable[[Recipe], World]) -> None:
    """By the refresh token, which is single-use: the new one is in the file."""
    found = world(USER)
    sign_in(found)
    found.grants.accepts = lambda token: token != found.provider.issued[0]
    found.run("you@example.net")
    assert found.grants.shown == found.provider.issued
    assert "refresh-1" in Path("tokens.json").read_text("utf-8")
    assert not found.provider.is_revoked


def start_program(found: World) -> subprocess.Popen[bytes]:
    """Have a process send a message."""
    command = [sys.executable, "-c", BOOTSTRAP, str(EXAMPLES / USER.file), "you@example.net"]
    return subprocess.Popen(command, env=unmeasured() | found.environment)


def test_a_process_waits_for_another_that_refreshes(world: Callable[[Recipe], World]) -> None:
    """It reads the file when it has the lock: the refresh token that was there before must not be used twice."""
    found = world(USER)
    found.provider.lifetime = 1
    sign_in(found)
    before = Path("tokens.json").read_bytes()
    found.provider.lifetime = 3600
    found.run("you@example.net")
    after = Path("tokens.json").read_bytes()
    found.provider.refreshes.clear()
    found.provider.expect(1)
    Path("tokens.json").write_bytes(before)
    with Path("tokens.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start_program(found)
        assert found.provider.all_started.wait(60)
        assert not found.provider.refreshes.wait(0.5)
        Path("tokens.json").write_bytes(after)
    assert process.wait(60) == 0
    assert found.provider.refresh_tokens == ["refresh-0", "refresh-1"]
    assert not found.provider.is_revoked


def test_processes_share_the_file_and_refresh_once(world: Callable[[Recipe], World]) -> None:
    """The access token has expired; one process refreshes, and the others read what it wrote (PITFALLS O4)."""
    found = world(USER)
    found.provider.lifetime = 1
    sign_in(found)
    found.provider.lifetime = 3600
    found.provider.expect(2)
    processes = [start_program(found) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert found.provider.refresh_tokens == ["refresh-0", "refresh-1"]
    assert not found.provider.is_revoked
    assert len(found.mail.accepted) == 2
    assert not list(Path().glob("*.new"))
