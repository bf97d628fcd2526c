"""Who logs in and how."""

from __future__ import annotations

import base64
import copy
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from protocol.play import TLS, plain_id, play
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.dialogue import Session, authenticate
from securesmtp._protocol.sasl import (
    RANKED,
    Auth,
    Credentials,
    External,
    Mechanism,
    OAuth2,
    Password,
    choose_mechanism,
    require_mechanism,
    resolve_password,
    start_mechanism,
)
from securesmtp._secret import Secret
from securesmtp.errors import ConfigurationError, NoUsableMechanismError, ProtocolError

PASSWORD = "correct horse"
PASSWORDS = [name for name, mechanism in RANKED.items() if mechanism.proof == "password"]


def started(login: Password, offered: list[str]) -> Mechanism:
    """Start the mechanism that a login uses."""
    name = require_mechanism(choose_mechanism(login, offered), login, offered)
    return start_mechanism(name, login, resolve_password(login.password), offered=offered)


@pytest.mark.parametrize("username", ["", "a\0b", "a\ud800", "u" * 4097, "ü" * 2049, None, b"user"], ids=plain_id)
def test_a_name_that_cannot_be_sent_is_refused(username: str) -> None:
    """Empty, NUL, lone surrogate, over 4096 octets, no str: refused before the network."""
    with pytest.raises(ConfigurationError, match="username"):
        Password(username, PASSWORD)


@pytest.mark.parametrize("password", ["", "hunter\0two", "hunter\udfff", "hunter" * 683, "ü" * 2049], ids=plain_id)
def test_a_password_that_cannot_be_sent_is_refused(password: str) -> None:
    """As a str, as a Secret and from a callable; the error does not show it, nor does its context."""
    makers: list[Callable[[], object]] = [
        lambda: Password("user", password),
        lambda: Password("user", Secret(password)),
        lambda: started(Password("user", lambda: password), ["PLAIN"]),
        lambda: started(Password("user", lambda: Secret(password)), ["PLAIN"]),
    ]
    for make in makers:
        with pytest.raises(ConfigurationError, match="password") as caught:
            make()
        assert "hunter" not in str(caught.value)
        assert caught.value.__context__ is None


@pytest.mark.parametrize("password", [None, b"hunter2", 1, ["hunter2"]], ids=ascii)
def test_what_is_no_password_is_refused_by_its_type(password: str) -> None:
    """The error names the type and not the value."""
    for make in (
        lambda: Password("user", password),
        lambda: started(Password("user", lambda: password), ["LOGIN"]),
    ):
        with pytest.raises(ConfigurationError, match=type(password).__name__) as caught:
            make()
        assert "hunter" not in str(caught.value)


def test_4096_octets_are_not_too_many() -> None:
    """The limit itself is allowed, for both."""
    login = Password("u" * 4096, "ü" * 2048)
    assert started(login, ["PLAIN"]).start() == b"\0" + b"u" * 4096 + b"\0" + "ü".encode() * 2048


@pytest.mark.parametrize("mechanisms", [[], ["CRAM-MD5"], ["PLAIN", "NTLM"], ["plain"], [""], "PLAIN"], ids=str)
def test_mechanisms_that_are_not_there_are_refused(mechanisms: list[str]) -> None:
    """Naming none, or one that the library has not, is a mistake and not a wish."""
    with pytest.raises(ConfigurationError, match="PLAIN, LOGIN"):
        Password("user", PASSWORD, mechanisms)


@pytest.mark.parametrize(
    ("mechanisms", "offered", "name"),
    [
        (None, ["LOGIN", "PLAIN"], "PLAIN"),
        (None, ["LOGIN"], "LOGIN"),
        (None, ["CRAM-MD5", "XOAUTH2", "PLAIN"], "PLAIN"),
        (["LOGIN", "PLAIN"], ["PLAIN", "LOGIN"], "LOGIN"),
        (["LOGIN", "PLAIN"], ["PLAIN"], "PLAIN"),
        (iter(["PLAIN"]), ["PLAIN"], "PLAIN"),
    ],
)
def test_our_order_decides(mechanisms: list[str] | None, offered: list[str], name: str) -> None:
    """The first that the caller allows and the server offers; the server's order does not matter."""
    assert started(Password("user", PASSWORD, mechanisms), offered).name == name


@pytest.mark.parametrize(
    ("mechanisms", "offered", "words"),
    [
        (None, [], "the server offers no login"),
        (["PLAIN"], ["LOGIN", "NTLM"], "offers LOGIN, NTLM, but only PLAIN may be used"),
        (None, ["PLAINX"], f"offers PLAINX, but only {', '.join(PASSWORDS)} may be used"),
    ],
)
def test_without_a_common_mechanism_the_password_is_not_fetched(
    mechanisms: list[str] | None, offered: list[str], words: str
) -> None:
    """Nothing weaker is tried; the error says what is offered and what is allowed."""
    asked: list[str] = []

    def fetch() -> str:
        asked.append("asked")
        return PASSWORD

    login = Password("user", fetch, mechanisms)
    session = Session(TLS, Capabilities(auth=tuple(offered)))
    played = play(authenticate(session, login))
    with pytest.raises(NoUsableMechanismError, match=words):
        played.value  # noqa: B018 -- raises its error
    assert (asked, played.effects) == ([], [])


@pytest.mark.parametrize(
    ("login", "offered", "hint"),
    [
        pytest.param(
            Password("user", PASSWORD), ["NTLM", "XOAUTH2"], "auth=OAuth2(username, token)", id="wants-a-token"
        ),
        pytest.param(OAuth2("user", "token"), ["PLAIN", "LOGIN"], "takes passwords", id="wants-a-password"),
        pytest.param(OAuth2("user", "token"), ["EXTERNAL"], None, id="wants-a-certificate"),
        pytest.param(Password("user", PASSWORD, ["LOGIN"]), ["PLAIN"], None, id="the-callers-choice"),
    ],
)
def test_a_login_of_the_wrong_kind_has_a_hint(login: Auth, offered: list[str], hint: str | None) -> None:
    """Microsoft's servers take tokens alone, and a server of one's own mostly takes passwords."""
    error = play(authenticate(Session(TLS, Capabilities(auth=tuple(offered))), login)).failure(NoUsableMechanismError)
    assert (hint or "") in str(error.hint or "")
    assert (error.hint is None) == (hint is None)


def test_an_error_shows_200_characters_of_the_offered_mechanisms() -> None:
    """A flood of mechanisms does not fill the log."""
    with pytest.raises(NoUsableMechanismError, match=f"offers {'X' * 199}…, but only"):
        started(Password("user", PASSWORD), ["X" * 300])


def test_a_callable_is_called_at_each_login() -> None:
    """And not before: a password that changes is fetched anew."""
    passwords = iter(["one", "two"])
    login = Password("user", lambda: next(passwords))
    assert [started(login, ["PLAIN"]).start() for _ in range(2)] == [b"\0user\0one", b"\0user\0two"]


def test_what_a_callable_raises_is_not_hidden() -> None:
    """It is the caller's code, and the caller's error."""

    def broken() -> str:
        raise OSError

    with pytest.raises(OSError, match=r"^$"):
        started(Password("user", broken), ["PLAIN"])


_WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=50)


@given(_WORDS, _WORDS)
@settings(max_examples=examples(200), deadline=None)
def test_plain_is_name_and_password_as_they_are(username: str, password: str) -> None:
    """RFC 4616: three fields, two NULs, raw UTF-8; once more if it is asked, and no response after that."""
    mechanism = started(Password(username, password), ["PLAIN"])
    initial = mechanism.start()
    assert initial is not None
    assert initial.split(b"\0") == [b"", username.encode(), password.encode()]
    assert [mechanism.respond(b"") for _ in range(3)] == [initial, None, None]
    assert mechanism.secrets == (password.encode(),)


@given(_WORDS, _WORDS, st.lists(st.binary(max_size=10), min_size=4, max_size=4))
@settings(max_examples=examples(200), deadline=None)
def test_login_is_name_then_password_then_nothing(username: str, password: str, words: list[bytes]) -> None:
    """Whatever the server asks; the third answer and all later ones are None."""
    mechanism = started(Password(username, password), ["LOGIN"])
    assert mechanism.start() is None
    answers = [mechanism.respond(challenge) for challenge in words]
    assert answers == [username.encode(), password.encode(), None, None]
    assert mechanism.secrets == (password.encode(),)


@pytest.mark.parametrize("identity", ["", "me@example.org", "zoë, a=b"])
def test_external_is_the_identity_alone(identity: str) -> None:
    """RFC 4422 appendix A: once more if it is asked, and no response after that."""
    session = Session(TLS, Capabilities(auth=("PLAIN", "EXTERNAL")))
    token = base64.b64encode(identity.encode())
    played = play(authenticate(session, External(identity)), b"334 ", b"235 in")
    assert played.value == "EXTERNAL"
    assert played.commands == [b"AUTH EXTERNAL " + (token or b"="), token]
    played = play(authenticate(session, External(identity)), b"334 ", b"334 ")
    assert "more than EXTERNAL" in str(played.failure(ProtocolError))
    assert len(played.commands) == 2


def test_nothing_shows_the_password() -> None:
    """Not the repr nor str of a Secret, of a login or of a mechanism, and none of them is pickled."""
    secret = Secret(PASSWORD)
    login = Password("user", secret)
    credentials = Credentials("user", secret)
    started = [kind(credentials) for kind in RANKED.values() if kind.proof != "certificate"]
    for thing in (secret, login, Password("user", PASSWORD), credentials, *started):
        assert PASSWORD not in f"{thing!r} {thing}"
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(thing)
    assert "user" in repr(login)
    assert secret.reveal() == PASSWORD


def test_comparing_a_secret_reveals_nothing() -> None:
    """Two secrets with the same content are not equal, and a copy is refused."""
    assert Secret("a") != Secret("a")
    with pytest.raises(TypeError, match="cannot be pickled"):
        copy.copy(Secret("a"))
