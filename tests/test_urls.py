"""`SecureMailer.from_url`: what each part of a URL means, what is refused, and that no error shows the password."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from email.message import EmailMessage
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import Serve, examples
from leaks import shown
from scripted import Mode, honest
from securesmtp import (
    AsyncSecureMailer,
    ConfigurationError,
    Password,
    Secret,
    SecureMailer,
    Timeouts,
    TLSMode,
    TLSPolicy,
)
from securesmtp._arguments import AsyncOptions, Options

PASSWORD = "hunter2secret"
PIN, OTHER_PIN = f"sha256/{'A' * 43}=", f"sha256/{'+/' * 21}8="


def _login(mailer: SecureMailer) -> tuple[str, str, tuple[str, ...] | None]:
    login = mailer._settings.login
    assert isinstance(login, Password)
    assert isinstance(login.password, Secret)
    return login.username, login.password.reveal(), login.mechanisms


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("smtps://mail.example.com", "mail.example.com:465 implicit"),
        ("smtps://mail.example.com/", "mail.example.com:465 implicit"),
        ("smtps://mail.example.com:465", "mail.example.com:465 implicit"),
        ("smtps://mail.example.com:2465", "mail.example.com:2465 implicit"),
        ("SMTPS://mail.example.com", "mail.example.com:465 implicit"),
        ("smtp+starttls://mail.example.com", "mail.example.com:587 starttls"),
        ("smtp+starttls://mail.example.com:2525", "mail.example.com:2525 starttls"),
        ("smtps://me:secret@mail.example.com", "mail.example.com:465 implicit"),
        ("smtps://192.0.2.1", "192.0.2.1:465 implicit"),
        ("smtps://[2001:db8::1]", "2001:db8::1:465 implicit"),
        ("smtps://[2001:db8::1]:2465", "2001:db8::1:2465 implicit"),
        ("smtps://bücher.example", "xn--bcher-kva.example:465 implicit"),
    ],
)
def test_the_scheme_and_the_place_decide_where_the_mail_goes(url: str, where: str) -> None:
    """The scheme is the TLS mode, with its registered port (RFC 8314 §7.3)."""
    assert repr(SecureMailer.from_url(url)) == f"<SecureMailer {where}>"


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        ("me:secret", ("me", "secret")),
        ("me%40example.com:secret", ("me@example.com", "secret")),
        ("me:a:b", ("me", "a:b")),
        ("me:a+b", ("me", "a+b")),
        ("me:a%2Bb", ("me", "a+b")),
        ("me:%2523", ("me", "%23")),
        ("me:p%c3%a4", ("me", "pä")),
        ("me:!$&'()*+,;=-._~", ("me", "!$&'()*+,;=-._~")),
        ("me:%20%20", ("me", "  ")),
    ],
)
def test_the_login_is_decoded_exactly_once(login: str, expected: tuple[str, str]) -> None:
    """A plus sign stays one, and what was decoded is not decoded again (RFC 3986 §2.4)."""
    assert _login(SecureMailer.from_url(f"smtps://{login}@mail.example.com"))[:2] == expected


# Whatever `Password` accepts.
CREDENTIAL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)
HOST = st.one_of(
    st.sampled_from(["mail.example.com", "localhost", "a_b.example"]),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)


@settings(max_examples=examples(150))
@given(CREDENTIAL, CREDENTIAL, HOST, st.sampled_from(["", "!$&'()*,;=", "+", "~"]), st.integers(1, 65535))
@example("me@example.com", "a/b?c#d@e:f%g h", "mail.example.com", "", 2465)
def test_any_login_and_host_come_through(username: str, password: str, host: str, safe: str, port: int) -> None:
    """What `urllib.parse.quote` encodes is decoded exactly, whether or not it encodes what it need not."""
    scheme = "smtp+starttls" if port == 587 else "smtps"
    url = f"{scheme}://{quote(username, safe)}:{quote(password, safe + ':')}@{host}:{port}"
    mailer = SecureMailer.from_url(url)
    assert _login(mailer) == (username, password, None)
    name = host.strip("[]")
    name = str(ipaddress.ip_address(name)) if re.fullmatch(r"[0-9.]+|.*:.*", name) else name
    assert (mailer._settings.host, mailer._settings.port) == (name, port)


def test_each_parameter_is_the_argument_of_that_name(ca_file: Path) -> None:
    """Of several pins, each has its own parameter."""
    url = (
        f"smtps://me:secret@mail.example.com/?ca_file={quote(str(ca_file))}&pin={quote(PIN)}&pin={OTHER_PIN}"
        "&timeout=7&deadline=45.5&pipelining=off&max_connections=2&auth=login,plain&rate=2.5&max_recipients=9"
    )
    got = SecureMailer.from_url(url)._settings
    assert got.policy == TLSPolicy(ca_file=str(ca_file), pins=(PIN, OTHER_PIN))
    assert got.timeouts == Timeouts(connect=7, handshake=7, command=7, data=7, block=7)
    assert (got.deadline, got.pipelining, got.max_connections) == (45.5, "off", 2)
    assert (got.rate, got.max_recipients) == (2.5, 9)
    assert got.login == Password("me", got.login.password, ["LOGIN", "PLAIN"])  # type: ignore[union-attr]


def test_a_ca_file_without_a_pin_is_the_same_as_the_argument(ca_file: Path) -> None:
    """The file is read when the mailer is made."""
    assert SecureMailer.from_url(f"smtps://h?ca_file={ca_file}")._settings.policy == TLSPolicy(ca_file=str(ca_file))


def test_a_message_is_sent(serve: Serve, ca_file: Path, message: EmailMessage, mode: Mode) -> None:
    """In both modes, with a password that has to be encoded."""
    server = serve(honest(mode, auth=("me", "p@ss/wörd#1")))
    scheme = "smtps" if mode == "implicit" else "smtp+starttls"
    url = f"{scheme}://me:{quote('p@ss/wörd#1', '')}@localhost:{server.port}?ca_file={quote(str(ca_file))}&timeout=5"
    with SecureMailer.from_url(url) as mailer:
        assert mailer.send(message).reply.code == 250


IMPLICIT, STARTTLS = "write smtps:// for implicit TLS (port 465)", "write smtp+starttls:// for STARTTLS (port 587)"


@pytest.mark.parametrize(
    ("url", "said", "hint"),
    [
        pytest.param("smtp://me:secret@h", "begins with smtp://", "without TLS", id="smtp"),
        pytest.param("smtp+ssl://me:secret@h", "begins with smtp+ssl://", IMPLICIT, id="smtp+ssl"),
        pytest.param("smtp+tls://me:secret@h", "begins with smtp+tls://", STARTTLS, id="smtp+tls"),
        pytest.param("submission://me:secret@h", "begins with submission://", STARTTLS, id="submission"),
        pytest.param("submissions://me:secret@h", "begins with submissions://", IMPLICIT, id="submissions"),
        pytest.param("https://me:secret@h", "another scheme, or none", IMPLICIT, id="another scheme"),
        pytest.param("me:secret@h", "another scheme, or none", IMPLICIT, id="no scheme"),
        pytest.param("smtps:me:secret@h", "another scheme, or none", IMPLICIT, id="no slashes"),
        pytest.param("smtp", "another scheme, or none", IMPLICIT, id="a word"),
        pytest.param("", "another scheme, or none", IMPLICIT, id="empty"),
        pytest.param("smtps://me:secret@h:587", "means implicit TLS, and its port is for STARTTLS", STARTTLS, id="587"),
        pytest.param(
            "smtp+starttls://me:secret@h:465", "means STARTTLS, and its port is for implicit", IMPLICIT, id="465"
        ),
        pytest.param("smtps://me:secret@", "has no host", None, id="no host"),
        pytest.param("smtps://", "has no host", None, id="nothing"),
        pytest.param("smtps://:465", "has no host", None, id="port without host"),
        pytest.param("smtps://[]", "has no host", None, id="empty brackets"),
        pytest.param("smtps://::1", "no host and port that can be read", "brackets", id="IPv6 without brackets"),
        pytest.param("smtps://[::1", "no host and port that can be read", "brackets", id="one bracket"),
        pytest.param("smtps://[::1]x", "no host and port that can be read", "brackets", id="behind the brackets"),
        pytest.param("smtps://me:secret@h:", "a colon and no port", None, id="no port"),
        pytest.param("smtps://me:secret@h:4x5", "the port of the URL is not a whole number", None, id="port"),
        pytest.param("smtps://h:٤٦٥", "the port of the URL is not a whole number", None, id="port in Arabic digits"),
        pytest.param("smtps://h:0", "port is 0, not a number from 1", None, id="port 0"),
        pytest.param("smtps://h:70000", "port is 70000, not a number from 1", None, id="port 70000"),
        pytest.param("smtps://-h-.example", "is neither a host name nor", None, id="host"),
        pytest.param("smtps://h%2eexample", "is neither a host name nor", None, id="encoded host"),
        pytest.param("smtps://me:secret@h/inbox", "has a path", "/ is %2F", id="path"),
        pytest.param("smtps://me:secret@h#x", "has a fragment", "# is %23", id="fragment"),
        pytest.param("smtps://me:secret@h?timeout=1#", "has a fragment", "# is %23", id="empty fragment"),
        pytest.param("smtps://@h", "has no username", "leave out the @", id="empty login"),
        pytest.param("smtps://:secret@h", "has no username", "leave out the @", id="no username"),
        pytest.param("smtps://me@h", "gives a username, and there is no password", "me:secret@", id="no password"),
        pytest.param("smtps://me:@h", "the password must be a str of 1 to 4096", None, id="empty password"),
        pytest.param("smtps://me:secret%00@h", "1 to 4096 bytes without NUL", None, id="NUL in the password"),
        pytest.param("smtps://me:sec@ret@h", "an @ that does not end the password", "@ is %40", id="@ in the password"),
        pytest.param("smtps://me:sec/ret@h", "an @ that does not end the password", "/ is %2F", id="/ in the password"),
        pytest.param("smtps://me:sec?ret@h", "an @ that does not end the password", "? is %3F", id="? in the password"),
        pytest.param("smtps://me:sec#ret@h", "an @ that does not end the password", "# is %23", id="# in the password"),
        pytest.param("smtps://me:sec%ret@h", "the password of the URL has a character", "% is %25", id="%"),
        pytest.param("smtps://me:sec%2@h", "the password of the URL has a character", "% is %25", id="half a %"),
        pytest.param("smtps://me:secrät@h", "the password of the URL has a character", "", id="not ASCII"),
        pytest.param("smtps://me:sec|ret@h", "the password of the URL has a character", "", id="|"),
        pytest.param("smtps://m|e:secret@h", "the username of the URL has a character", "", id="username"),
        pytest.param("smtps://me:%ff@h", "the password of the URL is not UTF-8", None, id="not UTF-8"),
        pytest.param("smtps://me:%ed%a0%80@h", "the password of the URL is not UTF-8", None, id="surrogate"),
        pytest.param("smtps://me:sec ret@h", "contains a blank", "a blank is %20", id="blank"),
        pytest.param("smtps://me:secret@h\n", "contains a blank, a line end", "", id="line end"),
        pytest.param("smtps://a smtps://b", "contains a blank", "Failover.from_env", id="several URLs"),
        pytest.param("smtps://h?verify=0", "an unknown parameter, 'verify'", "ca_file, pin, timeout", id="parameter"),
        pytest.param("smtps://h?Timeout=1", "an unknown parameter, 'Timeout'", "timeout", id="capital letter"),
        pytest.param("smtps://h?", "an unknown parameter, ''", "timeout", id="empty query"),
        pytest.param("smtps://h?timeout=1&", "an unknown parameter, ''", "timeout", id="empty parameter"),
        pytest.param("smtps://h?timeout", "the parameter timeout of the URL has no value", None, id="no value"),
        pytest.param("smtps://h?ca_file=", "the parameter ca_file of the URL has no value", None, id="empty value"),
        pytest.param("smtps://h?timeout=1&timeout=2", "both give the timeout", "one of them", id="twice"),
        pytest.param("smtps://h?timeout=nan", "timeout of the URL is not a number of seconds", None, id="nan"),
        pytest.param("smtps://h?timeout=1e3", "timeout of the URL is not a number of seconds", None, id="exponent"),
        pytest.param("smtps://h?deadline=+5", "deadline of the URL is not a number of seconds", None, id="sign"),
        pytest.param("smtps://h?deadline=0", "deadline is 0.0, not a number of seconds above 0", None, id="zero"),
        pytest.param("smtps://h?rate=10/s", "rate of the URL is not a number of messages a second", None, id="rate"),
        pytest.param("smtps://h?max_connections=1.5", "max_connections of the URL is not a whole", None, id="count"),
        pytest.param("smtps://h?pipelining=yes", "pipelining is 'yes'", None, id="pipelining"),
        pytest.param("smtps://h?pin=sha256/AAAA", 'pins is not a tuple of "sha256/', None, id="pin"),
        pytest.param("smtps://h?ca_file=missing.pem", "ca_file 'missing.pem' cannot be used", None, id="ca_file"),
        pytest.param("smtps://h?ca_file=%zz", "ca_file of the URL has a character that must be", "", id="encoding"),
        pytest.param("smtps://h?auth=PLAIN", "gives the mechanisms, and there is no username", None, id="no login"),
        pytest.param("smtps://me:secret@h?auth=CRAM-MD5", "mechanisms must name at least one of", None, id="auth"),
        pytest.param(None, "the URL is a NoneType, not a str", "is the variable set", id="None"),
        pytest.param(b"smtps://h", "the URL is a bytes, not a str", None, id="bytes"),
    ],
)
def test_what_is_not_the_url_of_a_mail_server_is_refused(url: str, said: str, hint: str | None) -> None:
    """The error says what is wrong and what to write; in other programs, "smtps" and "smtp+tls" may mean STARTTLS."""
    with pytest.raises(ConfigurationError) as caught:
        SecureMailer.from_url(url)
    assert said in caught.value.args[0]
    assert (hint or "") in (caught.value.hint or "")
    assert "secret" not in shown(caught.value).replace("me:secret@host", "")


def _made(url: str) -> SecureMailer | ConfigurationError:
    try:
        return SecureMailer.from_url(url)
    except ConfigurationError as error:
        return error


REST = st.text("@:/?#[]%&= .aä\n", max_size=6)


@settings(max_examples=examples(600))
@given(st.sampled_from(["smtps://", "smtp+starttls://", "smtp://", ""]), REST, REST, st.sampled_from(["h", ""]), REST)
def test_no_error_shows_a_password_that_is_not_encoded(
    scheme: str, before: str, after: str, host: str, tail: str
) -> None:
    """Whatever stands around it: it is never taken for the host, the port or a parameter, which errors quote."""
    url = f"{scheme}me:{before}{PASSWORD}{after}@{host}{tail}"
    made = _made(url)
    assert PASSWORD not in (repr(made) if isinstance(made, SecureMailer) else shown(made))
    assert not isinstance(made, SecureMailer) or PASSWORD in _login(made)[1]


@settings(max_examples=examples(600))
@given(st.text("smtp+arl:/@?#[]%&=.:;1aÄ ", max_size=30))
def test_any_text_is_a_url_or_a_configuration_error(text: str) -> None:
    """There is no other exception."""
    for url in (text, f"smtps://{text}"):
        _made(url)


def _given_twice(url: str, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        SecureMailer.from_url(url, **options)
    assert PASSWORD not in shown(caught.value)
    return str(caught.value.args[0])


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("smtps://h?timeout=5", {"timeout": 6}, "the argument timeout and the URL both give the timeout"),
        ("smtps://h", {"port": 465}, "the argument port and the URL both give the port"),
        ("smtps://h", {"tls": "implicit"}, "the argument tls and the URL both give the tls"),
        ("smtps://h", {"host": "h"}, "the argument host and the URL both give the host"),
        (f"smtps://me:{PASSWORD}@h", {"password": "x"}, "the argument password and the URL both give the password"),
        (f"smtps://me:{PASSWORD}@h", {"username": "me"}, "the argument username and the URL both give the username"),
        (
            f"smtps://me:{PASSWORD}@h",
            {"auth": Password("me", "x")},
            "the URL gives the username, and the argument auth",
        ),
        ("smtps://h?auth=PLAIN", {"auth": Password("me", "x")}, "the URL gives the mechanisms, and the argument auth"),
        (
            f"smtps://h?pin={PIN}",
            {"policy": TLSPolicy()},
            "the URL gives the pins, and the argument policy has its own",
        ),
        ("smtps://h?ca_file=x", {"policy": TLSPolicy()}, "the URL gives the ca_file, and the argument policy has"),
        ("smtps://h", {"password": PASSWORD}, "the argument password gives the password, and there is no username"),
        ("smtps://h", {"username": "me"}, "the argument username gives a username, and there is no password"),
    ],
)
def test_what_is_given_twice_is_refused(url: str, options: dict[str, Any], said: str) -> None:
    """No rule would decide which of the two counts; the error names both."""
    assert _given_twice(url, **options).startswith(said)


def test_an_argument_adds_what_the_url_leaves_out(ca_file: Path) -> None:
    """So a URL needs no password in it. None counts as not given."""
    mailer = SecureMailer.from_url(
        "smtps://me@h?auth=PLAIN&timeout=3",
        password=PASSWORD,
        ca_file=ca_file,
        max_connections=1,
        timeout=None,  # type: ignore[arg-type]
    )
    assert _login(mailer) == ("me", PASSWORD, ("PLAIN",))
    assert (mailer._settings.policy.ca_file, mailer._settings.max_connections) == (ca_file, 1)
    pinned = SecureMailer.from_url(Secret(f"smtps://h?pin={PIN}"), auth=Password("me", PASSWORD), ca_file=ca_file)
    assert pinned._settings.policy == TLSPolicy(ca_file=ca_file, pins=(PIN,))
    assert _login(pinned) == ("me", PASSWORD, None)


@pytest.mark.parametrize("make", [SecureMailer.from_url, SecureMailer.from_env], ids=["from_url", "from_env"])
def test_an_unknown_argument_does_not_show_the_password(
    make: Callable[..., SecureMailer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a TypeError, as for every function; its traceback has the frames of the library."""
    monkeypatch.setenv("SMTP_HOST", "h")
    where = ("smtps://h",) if make == SecureMailer.from_url else ()
    with pytest.raises(TypeError, match="verify") as caught:
        make(*where, username="me", password=PASSWORD, verify=False)
    assert PASSWORD not in shown(caught.value)
    with pytest.raises(TypeError, match="verify") as caught:
        SecureMailer.from_url(f"smtps://me:{PASSWORD}@h", verify=False)  # type: ignore[call-arg]
    assert PASSWORD not in shown(caught.value)


@pytest.mark.parametrize(("options", "mailer"), [(Options, SecureMailer), (AsyncOptions, AsyncSecureMailer)])
def test_the_options_are_those_of_the_mailer(options: type, mailer: type) -> None:
    """Type checkers know each argument but the three that a URL always gives."""
    taken = {name: each.annotation for name, each in signature(mailer).parameters.items()}
    left = {name: kind for name, kind in taken.items() if name not in {"host", "port", "tls"}}
    assert {name: kind.__forward_arg__ for name, kind in options.__annotations__.items()} == left


def test_a_mode_is_a_scheme_and_the_reverse() -> None:
    """A new mode needs a scheme."""
    schemes = ("smtps", "smtp+starttls")
    assert {SecureMailer.from_url(f"{scheme}://h")._settings.mode for scheme in schemes} == set(TLSMode)
