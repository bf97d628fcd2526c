"""What Django's settings mean, and what an error says where they are wrong."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import trustme
from django.core import mail
from django.core.exceptions import ImproperlyConfigured

from conftest import Serve
from integrations.django.conftest import BACKEND, HAS_MAILERS, Configure, as_settings
from integrations.django.test_sending import default_connection, to
from scripted import Peer, honest
from securesmtp import AuthenticationError, OAuth2, Password, Timeouts, TLSPolicy
from securesmtp.errors import CertificateError
from securesmtp.integrations.django import EmailBackend

# Settings, and what the error says about them with EMAIL_* and with MAILERS.
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no TLS": (
        {"use_ssl": None},
        r"Set EMAIL_USE_TLS = True \(STARTTLS, port 587\) or EMAIL_USE_SSL = True \(TLS from the start, port 465\)",
        r"Set OPTIONS\['use_tls'\] = True \(STARTTLS, port 587\) or OPTIONS\['use_ssl'\] = True",
    ),
    "no TLS on 25": (
        {"use_ssl": None, "port": 25},
        r"EMAIL_USE_TLS and EMAIL_USE_SSL are both off: .* in plaintext to localhost\. .*ca_file.*console",
        r"plaintext to localhost\. .* private CA also needs OPTIONS\['ca_file'\]",
    ),
    "no TLS on 587": (
        {"use_ssl": None, "port": 587},
        r"Set EMAIL_USE_TLS = True\. ",
        r"Set OPTIONS\['use_tls'\] = True\. ",
    ),
    "no TLS on 465": (
        {"use_ssl": False, "port": "465"},
        r"Set EMAIL_USE_SSL = True\. ",
        r"Set OPTIONS\['use_ssl'\] = True\. ",
    ),
    "both modes": ({"use_tls": True}, "mutually exclusive", "incompatible. Set at most one"),
    "no password": (
        {"username": "me"},
        "EMAIL_HOST_USER is set and EMAIL_HOST_PASSWORD is empty. Is the variable set",
        r"OPTIONS\['username'\] is set and OPTIONS\['password'\] is empty",
    ),
    "an empty password": ({"username": "me", "password": ""}, "EMAIL_HOST_PASSWORD is empty", "'password'] is empty"),
    "no username": (
        {"username": "", "password": "zebra"},
        "EMAIL_HOST_PASSWORD is set and EMAIL_HOST_USER is empty",
        r"OPTIONS\['username'\] is empty",
    ),
    "a port": ({"port": 70000}, "port is 70000", "port is 70000"),
    "a host": ({"host": "user@host"}, "is neither a host name nor", "is neither a host name nor"),
    "a timeout": ({"timeout": "5"}, "number of seconds", "number of seconds"),
    "a deadline": ({"deadline": -1}, "deadline is -1", "deadline is -1"),
    "an unhashable option": ({"source_address": ["192.0.2.1", 0]}, "source_address is", "source_address is"),
    "partial": ({"partial": "maybe"}, "partial is", "partial is"),
    "a CA as certificate": (
        {"ssl_certfile": "ca.pem"},
        r"EMAIL_SSL_CERTFILE and EMAIL_SSL_KEYFILE are the client's .* to trust is SECURESMTP\['ca_file'\]",
        r"OPTIONS\['ssl_certfile'\] and .* A CA to trust is OPTIONS\['ca_file'\]",
    ),
    "a key alone": ({"ssl_keyfile": "ca.pem"}, "EMAIL_SSL_CERTFILE and", "'ssl_certfile'] and"),
    "two certificates": (
        {"ssl_certfile": "ca.pem", "policy": TLSPolicy(client_cert="ca.pem")},
        r"EMAIL_SSL_CERTFILE and SECURESMTP\['policy'\] both",
        r"OPTIONS\['ssl_certfile'\] and OPTIONS\['policy'\] both",
    ),
}


@pytest.mark.parametrize("silent", [False, True], ids=["", "silent"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_named(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve,
    configure: Configure,
    style: str,
    ca_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    silent: bool,  # noqa: FBT001 -- a parameter
) -> None:
    """The error has Django's class, says what to set, and no password; nothing connects. It is never silent."""
    monkeypatch.chdir(tmp_path)
    Path("ca.pem").write_bytes(ca_file.read_bytes())
    server = serve()
    wrong, *texts = WRONG[name]
    configure(server, **wrong)
    expected = ValueError if name == "partial" else ImproperlyConfigured
    with pytest.raises(expected, match=texts[style == "MAILERS"]) as caught:
        _send(silent=silent)
    assert "zebra" not in str(caught.value)
    if style == "MAILERS" and name != "partial":
        assert isinstance(caught.value, mail.InvalidMailer)
        assert str(caught.value).startswith("MAILERS['default']: ")
    assert len(server.connections) == 0


def _send(*, silent: bool) -> int:
    connection = default_connection()
    connection.fail_silently = silent
    count: int = connection.send_messages([to()])
    return count


@pytest.mark.parametrize(
    ("further", "said"),
    [
        ({"ca_fil": "x"}, "unknown key 'ca_fil'. Did you mean 'ca_file'?"),
        ({"zebra": 1}, "unknown key 'zebra'. It can have auth, ca_file, connect, deadline"),
        ({"username": "me"}, "unknown key 'username'. That is Django's own setting EMAIL_HOST_USER"),
        (["ca_file"], "SECURESMTP is a list, not a dictionary"),
    ],
    ids=["similar", "unknown", "Django's", "a list"],
)
def test_securesmtp_has_known_keys_only(override: Any, further: Any, said: str) -> None:
    """A misspelt `pins` or `ca_file` must not be ignored."""
    override(**as_settings("EMAIL", {"use_ssl": True}) | {"SECURESMTP": further})
    with pytest.raises(ImproperlyConfigured) as caught:
        mail.get_connection()
    assert said in str(caught.value)


@pytest.mark.skipif(not HAS_MAILERS, reason="MAILERS came with Django 6.1")
class TestMAILERS:
    """What is there with MAILERS only; the name makes warnings errors."""

    def test_an_unknown_option_is_an_error(self, override: Any) -> None:
        """Django's own, from its base class."""
        override(**as_settings("MAILERS", {"host": "localhost", "use_ssl": True, "ca_fil": "x"}))
        with pytest.raises(mail.InvalidMailer, match="Unknown options 'ca_fil'"):
            default_connection()

    def test_a_host_is_required(self, override: Any) -> None:
        """The same as for Django's own backend."""
        override(**as_settings("MAILERS", {"use_ssl": True}))
        with pytest.raises(mail.InvalidMailer, match=r"MAILERS\['default'\]: OPTIONS must define 'host'"):
            default_connection()

    def test_securesmtp_is_not_ignored(self, override: Any) -> None:
        """It may have pins: a mailer without them would be less safe than what is written there."""
        override(**as_settings("MAILERS", {"host": "localhost", "use_ssl": True}), SECURESMTP={"deadline": 5})
        with pytest.raises(mail.InvalidMailer, match="move its keys into OPTIONS"):
            default_connection()

    def test_each_alias_has_its_mailer(self, serve: Serve, override: Any, ca_file: Path) -> None:
        """`using=` chooses it."""
        servers = [serve(), serve()]
        names = ("default", "news")
        override(
            MAILERS={
                name: {
                    "BACKEND": BACKEND,
                    "OPTIONS": {"host": "localhost", "port": server.port, "use_ssl": True, "ca_file": str(ca_file)},
                }
                for name, server in zip(names, servers, strict=True)
            }
        )
        to().send()
        to().send(using="news")
        mail.send_mail("Hello", "Text", "me@example.org", ["you@example.net"], using="news")
        assert [len(server.accepted) for server in servers] == [1, 2]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"use_ssl": True}, "localhost:465 implicit"),
        ({"use_tls": True}, "localhost:587 starttls"),
        ({"use_tls": True, "port": 25}, "localhost:25 starttls"),
        ({"use_tls": True, "port": "2525"}, "localhost:2525 starttls"),
        ({"use_ssl": True, "host": "MAIL.example.org."}, "mail.example.org:465 implicit"),
    ],
    ids=["implicit", "starttls", "25", "a str", "a host"],
)
def test_the_port_follows_the_mode(configure: Configure, options: dict[str, Any], shown: str) -> None:
    """Django's default for `EMAIL_PORT`, 25, is used only if the settings say so."""
    configure(**{"host": "localhost"} | options)
    with default_connection().use_mailer() as mailer:
        assert shown.lower() in repr(mailer).lower()


def test_the_arguments_of_get_connection_come_first(serve: Serve, configure_email: Configure) -> None:
    """A login of one's own, none at all, and the host; also instead of `SECURESMTP["auth"]`."""
    server = serve(honest(auth=("other", "other secret")))
    configure_email(server, host="nonsense.invalid", auth=Password("me", "secret"), deadline=20)
    other = mail.get_connection(host="localhost", username="other", password="other secret")
    assert other.send_messages([to()]) == 1
    nobody = mail.get_connection(host="localhost", username="", password="")
    with pytest.raises(AuthenticationError, match="530 "):
        nobody.send_messages([to()])
    assert mail.send_mail("Hello", "Text", "me@example.org", ["you@example.net"], connection=other) == 1
    with pytest.raises(AuthenticationError):
        mail.get_connection(host="localhost").send_messages([to()])
    with pytest.raises(ImproperlyConfigured, match="deadline is -1"):
        mail.get_connection(host="localhost", deadline=-1).send_messages([to()])


def test_auth_user_of_send_mail(serve: Serve, configure_email: Configure) -> None:
    """`send_mail(auth_user=…, auth_password=…)`."""
    server = serve(honest(auth=("other", "other secret")))
    configure_email(server, username="me", password="secret")
    assert (
        mail.send_mail(
            "Hello",
            "Text",
            "me@example.org",
            ["you@example.net"],
            auth_user="other",
            auth_password="other secret",
        )
        == 1
    )
    assert len(server.accepted) == 1


def test_a_password_may_be_a_function(serve: Serve, configure: Configure) -> None:
    """As for `SecureMailer`: it is called for each login; backends share the mailer all the same."""
    server, asked = serve(honest(auth=("me", "secret"))), []

    def password() -> str:
        asked.append(1)
        return "secret"

    configure(server, username="me", password=password)
    assert [to().send() for _ in range(3)] == [1] * 3
    assert (len(asked), len(server.connections)) == (1, 1)


def test_a_token_logs_in(serve: Serve, configure: Configure) -> None:
    """`auth` is any login of the library."""
    server = serve(honest(extensions=("PIPELINING", "AUTH XOAUTH2"), auth=("x", "x"), replies={"AUTH": b"235 ok\r\n"}))
    configure(server, auth=OAuth2("me@example.org", lambda: "token"))
    assert to().send() == 1


def test_the_client_shows_its_certificate(
    serve: Serve, configure: Configure, ca: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    """`EMAIL_SSL_CERTFILE` and `EMAIL_SSL_KEYFILE`; the policy keeps its roots."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca_file)
    server = serve(honest(), tls=context)
    client = ca.issue_cert("client.example")
    client.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    files = {"ssl_certfile": str(tmp_path / "cert.pem"), "ssl_keyfile": str(tmp_path / "key.pem")}
    configure(server, **files)
    assert to().send() == 1
    configure(server, policy=TLSPolicy(ca_file=ca_file), **files)
    assert to().send() == 1
    configure(server, policy=TLSPolicy(ca_data=trustme.CA().cert_pem.bytes().decode()), **files)
    with pytest.raises(CertificateError):
        to().send()


def test_the_timeout_does_not_shorten_the_last_reply(serve: Serve, configure: Configure) -> None:
    """Giving up there delivers twice (PITFALLS-1 D4)."""

    def think(peer: Peer, data: bytes) -> bytes:
        # Longer than the timeout: that time passes is what is tested.
        time.sleep(0.6)
        return b"250 2.0.0 queued\r\n"

    server = serve(honest(replies={"CONTENT": think}))
    configure(server, timeout=0.3)
    assert to().send() == 1
    assert len(server.accepted) == 1
    configure(server, timeout=Timeouts(command=20))
    assert to().send() == 1


def test_what_a_subclass_sets_later_counts(serve: Serve, configure_email: Configure) -> None:
    """As those do that keep the settings in a database."""
    server = serve()

    class FromDatabase(EmailBackend):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.host, self.port, self.use_ssl = "localhost", server.port, True

    configure_email()
    assert FromDatabase().send_messages([to()]) == 1
    both = FromDatabase()
    both.use_tls = True
    with pytest.raises(ImproperlyConfigured, match="mutually exclusive"):
        both.send_messages([to()])


def test_a_backend_shows_no_password(configure: Configure) -> None:
    """A debug page of Django shows the repr of local variables."""
    configure(host="localhost", username="me", password="zebra")
    backend = default_connection()
    assert "zebra" not in repr(backend) + repr(backend._configuration)
