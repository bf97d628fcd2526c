"""The arguments of a mailer: wrong ones are refused before any connection, valid ones take effect."""

from __future__ import annotations

import io
import pickle
import runpy
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import pytest
import trustme

import securesmtp
from conftest import Mailer, Serve
from scripted import Mode, Peer, honest
from securesmtp import (
    AuthenticationError,
    CertificateError,
    ConfigurationError,
    ConnectError,
    DeadlineExceededError,
    Envelope,
    MessageError,
    Password,
    RecipientsRefusedError,
    Secret,
    SecureMailer,
    SecureSMTPError,
    Timeouts,
    TLSError,
    TLSPolicy,
)
from securesmtp._cli import main
from securesmtp._settings import Settings
from securesmtp.testing import MailServer


@pytest.mark.parametrize(
    "policy",
    [
        {"ca_file": "a", "ca_data": "b"}, {"client_key": "a"}, {"minimum_version": "TLSv1.1"}, {"pins": ()},
        {"pins": ["sha256/" + "A" * 43 + "="]}, {"pins": ("md5/x",)}, {"pins": ("sha256/AAAA",)}, {"pins": (1,)},
        {"pins": ("sha256/ä",)},
    ],
)  # fmt: skip
def test_a_policy_that_contradicts_itself_is_refused(policy: dict[str, str]) -> None:
    """As soon as it is created."""
    with pytest.raises(ConfigurationError):
        TLSPolicy(**policy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"username": "me", "password": "x", "auth": Password("me", "x")},
        {"ca_file": "a", "policy": TLSPolicy()},
        {"timeout": Timeouts, "port": 25},
        {"host": 1},
        {"host": "xn--" + "a" * 70},
        {"source_address": "127.0.0.1"},
        {"source_address": ("127.0.0.1", "0")},
        {"local_hostname": "x\r\nRSET"},
        {"policy": TLSPolicy(server_hostname="a b")},
        {"timeout": True},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"max_connections": 0},
        {"max_connections": True},
        {"max_connections": 1.5},
        {"max_connections": 10**6},
        {"max_messages": 0},
        {"max_idle": 0},
        {"max_connect_failures": 0},
        {"max_recipients": 0},
        {"rate": 0},
        {"rate": -1.5},
        {"rate": True},
        {"rate": float("nan")},
        {"rate": 1e7},
        {"rate": "10/s"},
        {"pipelining": "sessions"},
        {"window": 32},
        {"pipelining": []},
        {"max_idle": float("nan")},
        {"password": b"x", "username": "me"},
        {"password": "x" * 4097, "username": "me"},
        {"password": "\ud800", "username": "me"},
    ],
)
def test_a_wrong_argument_is_refused(options: dict[str, object]) -> None:
    """No frame of this library in the traceback has the password."""
    with pytest.raises(ConfigurationError) as caught:
        SecureMailer(**{"host": "localhost", **options})  # type: ignore[arg-type]
    frames = [entry for entry in caught.traceback if "securesmtp" in str(entry.path) and "tests" not in str(entry.path)]
    password = options.get("password")
    assert not any(value is password for frame in frames for value in frame.locals.values() if isinstance(value, str))


def test_each_argument_of_a_mailer_is_an_argument_of_its_settings() -> None:
    """A mailer checks none itself, and forgets none; three have another name there."""
    renamed = {"port": "given_port", "policy": "given_policy", "proxy": "given_proxy"}
    arguments = [renamed.get(name, name) for name in signature(SecureMailer).parameters if name != "on_event"]
    assert sorted(arguments) == sorted(signature(Settings).parameters)


def test_the_ports_are_those_of_submission() -> None:
    """Implicit TLS on 465 unless said otherwise, STARTTLS on 587; never 25 (TLS-02, POL-02, RFC 8314 §7)."""
    assert repr(SecureMailer("mail.example")) == "<SecureMailer mail.example:465 implicit>"
    assert repr(SecureMailer("mail.example", tls="starttls")) == "<SecureMailer mail.example:587 starttls>"


@pytest.mark.parametrize(
    ("port", "tls", "expected"),
    [
        (None, None, "465 implicit"),
        (465, None, "465 implicit"),
        (587, None, "587 starttls"),
        (25, None, "25 implicit"),
        (2525, None, "2525 implicit"),
        (587, "implicit", "587 implicit"),
        (465, "starttls", "465 starttls"),
        (2587, "starttls", "2587 starttls"),
    ],
)
def test_the_port_decides_the_mode_unless_it_is_given(
    port: int | None, tls: Literal["implicit", "starttls"] | None, expected: str
) -> None:
    """465 and 587 have one registered use each (RFC 8314 §7.3, RFC 6409 §3.1); a mode that is given is not changed."""
    assert repr(SecureMailer("mail.example", port, tls=tls)) == f"<SecureMailer mail.example:{expected}>"


def test_the_final_limit_cannot_be_short() -> None:
    """Giving up early on the final reply causes duplicates (RFC 5321 §4.5.3.2.6)."""
    with pytest.raises(ConfigurationError, match="deadline"):
        Timeouts(final=59)
    assert Timeouts.rfc5321().command == 300


def test_a_trailing_dot_is_not_part_of_the_name(serve: Serve, ca_file: Path, message: EmailMessage) -> None:
    """Neither in SNI nor in the certificate's check (ID-06)."""
    with SecureMailer("localhost.", serve().port, ca_file=ca_file) as mailer:
        assert mailer.send(message).tls.server_name == "localhost"
        assert repr(mailer).startswith("<SecureMailer localhost:")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        pytest.param("bücher.example", "xn--bcher-kva.example", id="U-label"),
        pytest.param("faß.example.", "xn--fa-hia.example", id="IDNA 2008"),
        pytest.param("0:0:0:0:0:0:0:1", "::1", id="IPv6"),
    ],
)
def test_the_host_that_is_looked_up_is_the_one_that_is_verified(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve,
    ca: trustme.CA,
    ca_file: Path,
    message: EmailMessage,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    name: str,
) -> None:
    """One name goes to the resolver, into SNI and to the certificate's check: its A-label (RFC 9525 §7.2)."""
    asked, shown = [], []
    look_up = socket.getaddrinfo

    def find(wanted: str, *rest: Any, **more: Any) -> object:
        asked.append(wanted)
        return look_up("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", find)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    context.sni_callback = lambda _, sni, __: shown.append(sni)
    with SecureMailer(host, serve(tls=context).port, ca_file=ca_file, timeout=5) as mailer:
        assert mailer.send(message).tls.server_name == name
        assert f" {name}:" in repr(mailer)
    assert set(asked) == {name}
    # An address is not sent (RFC 6066 §3).
    assert shown == [None if ":" in name else name]


def test_a_host_in_unicode_needs_a_certificate_for_its_a_label(
    serve: Serve, ca_file: Path, message: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another certificate is refused, and the error says which name is required."""
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **more: look_up("127.0.0.1", *rest, **more))
    with (
        SecureMailer("bücher.example", serve().port, ca_file=ca_file, timeout=5) as mailer,
        pytest.raises(CertificateError, match=r"not for xn--bcher-kva\.example"),
    ):
        mailer.send(message)


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        pytest.param({"port": "587"}, "port is '587', not a number", "int(port)", id="port as text"),
        pytest.param({"username": "me"}, "there is a username, and password is None", "variable", id="no password"),
        pytest.param({"password": "x"}, "there is a password, and username is None", "variable", id="no username"),
        pytest.param({"username": "me", "password": "x", "auth": Password("me", "x")}, "auth, not both", "", id="both"),
        pytest.param({"host": None}, "host is a NoneType", "variable", id="no host"),
        pytest.param({"host": ""}, "host '' is neither", "variable", id="empty host"),
        pytest.param({"host": "[::1]"}, "host '[::1]' is neither", "such as 127.0.0.1 or ::1", id="brackets"),
        pytest.param({"host": "mail.example:587"}, "is neither", "port and mode are arguments", id="host and port"),
        pytest.param({"source_address": "192.0.2.1"}, "not an address and a port", '("192.0.2.1", 0)', id="source"),
        pytest.param(
            {"policy": TLSPolicy(ca_data=b"-----BEGIN")}, "ca_data cannot", "data.decode()", id="PEM in bytes"
        ),
        pytest.param({"policy": TLSPolicy(ca_data="ca.pem")}, "ca_data cannot be used", "ca_file", id="path as data"),
        pytest.param({"tls": TLSPolicy()}, "tls is TLSPolicy", "pass it as policy", id="policy as mode"),
        pytest.param({"tls": "none"}, "tls is 'none'", "no mode without TLS", id="no TLS"),
        pytest.param({"policy": ssl.create_default_context()}, "policy is a SSLContext", "every server", id="context"),
    ],
)
def test_a_hint_says_how_to_fix_an_argument(options: dict[str, object], said: str, hint: str) -> None:
    """Mistakes of new users: a variable that is not set, a number as text, the wrong form of the right value."""
    with pytest.raises(ConfigurationError) as caught:
        SecureMailer(**{"host": "localhost", **options})  # type: ignore[arg-type]
    assert said in caught.value.args[0]
    assert hint in (caught.value.hint or "")


def test_arguments_of_a_send_are_checked_first(message: EmailMessage) -> None:
    """No connection is opened: the port is closed."""
    with SecureMailer("localhost", 1) as mailer:
        with pytest.raises(ConfigurationError, match="partial"):
            mailer.send(message, partial="some")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="a str"):
            mailer.send_bytes("x", mail_from="a@b.example", recipients=["c@d.example"])  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="deadline"):
            mailer.send(message, deadline=-1)


@pytest.mark.parametrize("data", [b"", io.BytesIO(), bytearray()], ids=["bytes", "file", "bytearray"])
def test_empty_content_is_refused(data: bytes | io.BytesIO) -> None:
    """A file that was just written is at its end, and would be an empty message. No connection is opened."""
    with SecureMailer("localhost", 1) as mailer:
        with pytest.raises(MessageError, match=r"0 bytes.*seek\(0\)"):
            mailer.send_bytes(data, mail_from="a@b.example", recipients=["c@d.example"])
        (result,) = mailer.send_many([Envelope("a@b.example", ["c@d.example"], data)])
    assert isinstance(result.error, MessageError)


def test_a_file_is_read_from_its_current_position(serve: Serve, mailer: Mailer) -> None:
    """After seek(0) all of it is sent."""
    server = serve()
    file = io.BytesIO()
    file.write(b"Subject: x\r\n\r\n")
    file.seek(0)
    mailer(server).send_bytes(file, mail_from="a@b.example", recipients=["c@d.example"])
    assert server.accepted[0].content == b"Subject: x\r\n\r\n"


def test_the_deadline_counts_while_another_thread_sends(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """A send that waits for a connection is not kept longer."""
    inside, leave = threading.Event(), threading.Event()

    def password() -> str:
        inside.set()
        leave.wait(5)
        return "right"

    server = serve(honest(auth=("me", "right")))
    mine = mailer(server, username="me", password=password)
    first = threading.Thread(target=mine.send, args=(message,))
    first.start()
    assert inside.wait(5)
    with pytest.raises(DeadlineExceededError) as caught:
        mine.send(message, deadline=0.1)
    leave.set()
    first.join(5)
    assert caught.value.limit == "deadline"
    assert len(server.accepted) == 1


def test_an_error_of_a_password_callable_is_raised_as_it_is(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """Nothing more is written, and the mailer stays usable."""
    answers: Iterator[Exception | str] = iter([KeyError("vault"), "right"])

    def password() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    server = serve(honest(auth=("me", "right")))
    mine = mailer(server, username="me", password=password)
    with pytest.raises(KeyError):
        mine.send(message)
    mine.send(message)
    assert b"AUTH" not in server.connections[0].secret


def test_a_client_certificate_is_shown_if_the_server_asks(
    serve: Serve, ca: trustme.CA, ca_file: Path, tmp_path: Path, message: EmailMessage
) -> None:
    """An extra CA is trusted in addition."""
    own = ca.issue_cert("client.example")
    own.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    policy = TLSPolicy(extra_ca_file=ca_file, client_cert=tmp_path / "client.pem", minimum_version="TLSv1.3")
    with SecureMailer("localhost", serve(tls=context).port, policy=policy) as mailer:
        assert "certifi" in mailer.send(message).tls.trust
    with SecureMailer("localhost", serve(tls=context).port, ca_file=ca_file) as mailer, pytest.raises(SecureSMTPError):
        mailer.send(message)


def test_an_encrypted_client_key_is_refused_without_a_prompt(ca: trustme.CA, tmp_path: Path) -> None:
    """OpenSSL would ask for a passphrase at the terminal."""
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 -- this test's own
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    own = ca.issue_cert("client.example")
    key = load_pem_private_key(own.private_key_pem.bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    (tmp_path / "key.pem").write_bytes(locked)
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    with pytest.raises(ConfigurationError, match="encrypted"):
        SecureMailer("localhost", policy=TLSPolicy(client_cert=tmp_path / "cert.pem", client_key=tmp_path / "key.pem"))


def test_the_environment_changes_nothing(serve: Serve, ca_file: Path, tmp_path: Path) -> None:
    """Neither SSL_CERT_FILE nor SSL_CERT_DIR nor SSLKEYLOGFILE nor OPENSSL_CONF (TLS-11)."""
    server = serve()
    conf = tmp_path / "openssl.cnf"
    conf.write_text(
        "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n"
        f"VerifyCAFile = {ca_file}\nCipherString = ALL:@SECLEVEL=0\nMinProtocol = TLSv1\n"
    )
    program = (
        "import securesmtp\n"
        f"m = securesmtp.SecureMailer('localhost', {server.port})\n"
        "try:\n"
        "    m.send_bytes(b'\\n', mail_from='a@b.example', recipients=['c@d.example'])\n"
        "except securesmtp.CertificateError as error:\n"
        "    print(error.reason)\n"
    )
    environment = {
        "SSL_CERT_FILE": str(ca_file), "SSL_CERT_DIR": str(ca_file.parent), "OPENSSL_CONF": str(conf),
        "SSLKEYLOGFILE": str(tmp_path / "keys"), "SMTP_HOST": "evil.example",
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert run.stdout == "untrusted\n"
    assert not (tmp_path / "keys").exists()


def test_a_secret_does_not_show_itself() -> None:
    """Not in repr, str, format or a pickle."""
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {Password('me', secret)!r}"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(secret)


def test_an_empty_password_from_a_callable_is_refused(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """Before AUTH is written."""
    server = serve(honest(auth=("me", "right")))
    with pytest.raises(ConfigurationError, match="password"):
        mailer(server, username="me", password=lambda: "").send(message)
    assert b"AUTH PLAIN " not in server.secret


def test_no_common_mechanism_sends_no_credential(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """The password callable is not called."""
    server = serve(honest(extensions=("AUTH CRAM-MD5",)))
    with pytest.raises(AuthenticationError, match="CRAM-MD5"):
        mailer(server, username="me", password=lambda: pytest.fail("asked")).send(message)


def test_the_commands_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """The changelog has a section for unreleased changes."""
    assert main(["--version"]) == 0
    assert version("securesmtp") in capsys.readouterr().out


def test_the_command_names_the_missing_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the extra, click is missing: the command says so without a traceback."""
    monkeypatch.setitem(sys.modules, "click", None)
    for name in [name for name in sys.modules if name.startswith("securesmtp._cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "securesmtp.__main__", raising=False)
    with pytest.raises(SystemExit) as ended:
        # By its path: pytest has loaded the package of an installed plugin in its own way, which runpy does not know.
        runpy.run_path(str(Path(str(securesmtp.__file__)).with_name("__main__.py")), run_name="__main__")
    assert ended.value.code == 2
    assert "its extra 'cli'" in capsys.readouterr().err


def test_a_wrong_command_line_has_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """It exits with 2, without a traceback."""
    assert main(["nothing"]) == 2
    assert "No such command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("login", "told"), [({}, "username"), ({"username": "me", "password": "wrong"}, "535")], ids=["none", "wrong"]
)
def test_the_test_server_requires_its_login(
    mode: Mode, message: EmailMessage, login: dict[str, Any], told: str
) -> None:
    """A program under test cannot forget to log in."""
    with MailServer(mode, login=("me", "right")) as server:
        policy = TLSPolicy(ca_data=server.ca_pem)
        with (
            SecureMailer(server.host, server.port, tls=mode, policy=policy, timeout=5, **login) as mailer,
            pytest.raises(AuthenticationError, match=told) as caught,
        ):
            mailer.send(message)
        assert caught.value.hint
        assert server.messages == []


def test_the_test_server_refuses_on_request(message: EmailMessage) -> None:
    """It refuses one recipient; the error says where the replies are and how to send to the others."""
    with MailServer(login=None, refuse=["blind@example.org"]) as server:
        policy = TLSPolicy(ca_data=server.ca_pem)
        with SecureMailer(server.host, server.port, policy=policy) as mailer:
            with pytest.raises(RecipientsRefusedError, match=r'recipients has.*partial="allow"') as caught:
                mailer.send(message)
            with pytest.raises(RecipientsRefusedError) as all_refused:
                mailer.send(message, recipients=["blind@example.org"])
            receipt = mailer.send(message, partial="allow")
    assert [recipient.reply.code for recipient in caught.value.recipients] == [250, 550]
    assert "partial" not in str(all_refused.value)
    assert receipt.refused == ("blind@example.org",)


def test_the_test_server_has_two_modes() -> None:
    """Any other mode is refused."""
    with pytest.raises(ValueError, match="ssl"):
        MailServer("ssl")  # type: ignore[arg-type]


def test_a_connection_closed_before_the_greeting_is_an_error(
    serve: Serve, mailer: Mailer, message: EmailMessage
) -> None:
    """The error is about the connection; it is not a timeout."""

    def closes(peer: Peer) -> None:
        peer.close()

    with pytest.raises((ConnectError, TLSError)):
        mailer(serve(closes), tls="starttls").send(message)


def test_the_names_of_the_errors_module_are_public() -> None:
    """Each error can be imported from both places."""
    assert set(securesmtp.errors.__all__) <= set(securesmtp.__all__)
