"""XOAUTH2 and OAUTHBEARER: exact octets, what the server's error is answered with, and what is no token."""

from __future__ import annotations

import base64
import pickle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import examples
from protocol.play import plain_id, play
from securesmtp import OAuth2
from securesmtp._protocol.dialogue import exchange
from securesmtp._protocol.hints import is_token_refused, login_hint, refusal_hint
from securesmtp._protocol.sasl import Credentials, choose_mechanism, fingerprint, validated_token
from securesmtp._protocol.sasl.external import ExternalMechanism
from securesmtp._protocol.sasl.oauth import OAuthBearer, XOAuth2
from securesmtp._protocol.sasl.simple import Plain
from securesmtp._secret import Secret
from securesmtp._values import Reply
from securesmtp.errors import AuthenticationError, ConfigurationError, ProtocolError

# Of Google's documentation, and of RFC 7628 §4.1.
GOOGLE = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
RFC = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
ERROR = b'{"status":"401","schemes":"bearer mac","scope":"https://mail.google.com/"}'
Kind = type[XOAuth2] | type[OAuthBearer]
KINDS = pytest.mark.parametrize(("kind", "answer"), [(XOAuth2, b""), (OAuthBearer, b"AQ==")], ids=["xoauth2", "bearer"])


def mechanism(kind: Kind, username: str = "user@example.com", token: str = RFC) -> XOAuth2 | OAuthBearer:
    """Begin an exchange."""
    return kind(Credentials(username, Secret(token)))


def test_xoauth2_is_as_google_documents_it() -> None:
    """The example of the documentation, in base64."""
    expected = (
        b"dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0"
        b"Q2cBAQ=="
    )
    assert base64.b64encode(mechanism(XOAuth2, "someuser@example.com", GOOGLE).start()) == expected


def test_oauthbearer_is_the_rfcs_without_host_and_port() -> None:
    """RFC 7628 §4.1: the same octets but for two fields that some servers cannot read (PITFALLS O15)."""
    rfc = base64.b64decode(
        "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52"
        "YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
    )
    assert rfc.count(b"host=server.example.com\1port=143\1") == 1
    assert mechanism(OAuthBearer).start() == rfc.replace(b"host=server.example.com\1port=143\1", b"")


_NAMES = st.text(st.characters(exclude_characters="\x7f", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)
_TOKENS = st.from_regex(r"\A[A-Za-z0-9\-._~+/]{1,200}={0,2}\Z")


@given(_NAMES, _TOKENS)
@example("=2C,=3D,", "token")
@settings(max_examples=examples(200), deadline=None)
def test_both_have_their_own_form(username: str, token: str) -> None:
    """Neither is the other's, nor the bare token; commas and equals signs are escaped in one (OAU-01, PITFALLS O15)."""
    OAuth2(username, token)
    assert mechanism(XOAuth2, username, token).start() == f"user={username}\1auth=Bearer {token}\1\1".encode()
    header, auth, *end = mechanism(OAuthBearer, username, token).start().split(b"\1")
    assert (auth, end) == (f"auth=Bearer {token}".encode(), [b"", b""])
    flag, name, nothing = header.split(b",")
    assert (flag, nothing) == (b"n", b"")
    assert name.removeprefix(b"a=").replace(b"=2C", b",").replace(b"=3D", b"=") == username.encode()
    assert mechanism(OAuthBearer, username, token).secrets == (token.encode(),)


@KINDS
@pytest.mark.parametrize(
    ("challenge", "shown"),
    [
        pytest.param(base64.b64encode(ERROR), ERROR.decode(), id="google"),
        pytest.param(base64.b64encode(b'{\r\n "status" :\t"400"\r\n}\r\n'), '{ "status" : "400" }', id="lines"),
        pytest.param(base64.b64encode(b'{"status": "inv'), '{"status": "inv', id="broken-json"),
        pytest.param(base64.b64encode(b'["no object"]'), '["no object"]', id="no-object"),
        pytest.param(base64.b64encode(b"\x1b[2J\xff"), r"\x1b[2J\xff", id="controls"),
        pytest.param(b"eyJzdGF0dXMiO", "", id="broken-base64"),
        pytest.param(b"{}", "", id="no-base64"),
        pytest.param(b"", "", id="empty"),
        pytest.param(base64.b64encode(b'{"a":"%s"}' % (b"x" * 8000)), '{"a":"' + "x" * 293 + "…", id="long"),
    ],
)
def test_the_servers_error_is_answered_whatever_it_is(kind: Kind, answer: bytes, challenge: bytes, shown: str) -> None:
    """An empty line, or RFC 7628's AQ==; then the final reply is read, and both are shown (PITFALLS O14)."""
    played = play(exchange(mechanism(kind)), b"334 " + challenge, b"535 5.7.8 no")
    error = played.failure(AuthenticationError)
    assert played.commands[1:] == [answer]
    assert error.reply is not None
    assert error.reply.code == 535
    assert error.args[0] == f'the server refused the login: "535 5.7.8 no"{f" ({shown})" if shown else ""}'


@KINDS
def test_a_token_in_the_servers_error_is_not_shown(kind: Kind, answer: bytes) -> None:
    """Some servers repeat what they got (AUTH-08)."""
    challenge = base64.b64encode(b'{"token":"%s"}' % RFC.encode())
    error = play(exchange(mechanism(kind)), b"334 " + challenge, b"535 5.7.8 no").failure(AuthenticationError)
    assert RFC[:12] not in str(error)
    assert "redacted" in str(error)


@KINDS
def test_a_second_challenge_is_not_answered(kind: Kind, answer: bytes) -> None:
    """Whatever comes after the error, there is nothing more to say (AUTH-05)."""
    played = play(exchange(mechanism(kind)), b"334 e30=", b"334 e30=")
    played.failure(ProtocolError)
    assert played.commands[1:] == [answer]


@pytest.mark.parametrize("kind", [XOAuth2, OAuthBearer], ids=["xoauth2", "bearer"])
@pytest.mark.parametrize(("size", "lines"), [(-1, 1), (0, 1), (1, 2)])
def test_a_long_token_goes_on_a_line_of_its_own(kind: Kind, size: int, lines: int) -> None:
    """AUTH has at most 512 octets (CMD-06); what is longer is sent after an empty 334, in base64, once (AUTH-03)."""
    name = kind.name.encode()
    # The longest initial response that fits: the line has AUTH, two blanks and CRLF.
    room = (512 - len(b"AUTH ") - len(name) - len(b" \r\n")) // 4 * 3
    token = "t" * (room - len(mechanism(kind, token="").start()) + size)
    initial = base64.b64encode(mechanism(kind, token=token).start())
    answers = [b"334 ", b"235 ok"] if lines == 2 else [b"235 ok"]
    played = play(exchange(mechanism(kind, token=token)), *answers)
    assert played.error is None
    expected = [b"AUTH " + name, initial] if lines == 2 else [b"AUTH " + name + b" " + initial]
    assert played.commands == expected
    assert len(played.commands[0]) + 2 <= 512


@KINDS
def test_the_longest_name_and_token_fit_into_a_line(kind: Kind, answer: bytes) -> None:
    """RFC 4954 §4: 12288 octets, even if each octet of the name is escaped."""
    OAuth2("," * 320, "t" * 8192)
    played = play(exchange(mechanism(kind, "," * 320, "t" * 8192)), b"334 ", b"235 ok")
    assert played.error is None
    assert len(played.commands[1]) + 2 <= 12288


@pytest.mark.parametrize(
    "token",
    [
        *["", "hunter two", "hunter\n", "hunter\r\n", "\thunter", "hunter\1", "hunter\0", "Bearer hunter"],
        *["bEARER  hunter", "hünter", "hunter\udfff", "=hunter", "hun=ter", "h" * 8193, '"hunter"', "hunter,"],
    ],
    ids=plain_id,
)
def test_what_is_no_token_is_refused(token: str) -> None:
    """Blanks, controls, "Bearer ": each would change the message (PITFALLS O15, RFC 6750 §2.1); it is not shown."""
    for make in (
        lambda: OAuth2("me", token),
        lambda: OAuth2("me", Secret(token)),
        lambda: validated_token(Secret(token)),
    ):
        with pytest.raises(ConfigurationError, match="token") as caught:
            make()
        assert "hunter" not in str(caught.value)
        assert "alone" in str(caught.value.hint)


@pytest.mark.parametrize("token", [None, b"hunter2", 1, ["hunter2"]], ids=ascii)
def test_a_token_of_another_type_is_refused_by_its_type(token: str) -> None:
    """The error names the type and not the value."""
    with pytest.raises(ConfigurationError, match=f"the token is a {type(token).__name__}") as caught:
        OAuth2("me", token)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    "username", ["", "a\0b", "a\1b", "a\x7f", "a\ud800", "u" * 321, "ü" * 161, None, b"user"], ids=ascii
)
def test_a_name_that_cannot_be_sent_is_refused(username: str) -> None:
    """A control character would end it, and begin a field of the caller's input."""
    with pytest.raises(ConfigurationError, match="username"):
        OAuth2(username, RFC)


def test_on_refused_must_be_callable() -> None:
    """Found before the network is used."""
    with pytest.raises(ConfigurationError, match="on_refused is a str"):
        OAuth2("me", lambda: RFC, on_refused="renew")  # type: ignore[arg-type]


@pytest.mark.parametrize("mechanisms", [[], ["PLAIN"], ["XOAUTH2", "LOGIN"], "XOAUTH2", ["xoauth2"]], ids=str)
def test_only_mechanisms_for_tokens_may_be_named(mechanisms: list[str]) -> None:
    """A token is no password."""
    with pytest.raises(ConfigurationError, match="XOAUTH2, OAUTHBEARER"):
        OAuth2("me", RFC, mechanisms)


@pytest.mark.parametrize(
    ("mechanisms", "offered", "name"),
    [
        (None, ["PLAIN", "OAUTHBEARER", "XOAUTH2"], "XOAUTH2"),
        (None, ["PLAIN", "LOGIN", "OAUTHBEARER"], "OAUTHBEARER"),
        (["OAUTHBEARER", "XOAUTH2"], ["XOAUTH2", "OAUTHBEARER"], "OAUTHBEARER"),
        (["OAUTHBEARER"], ["XOAUTH2"], None),
        (None, ["PLAIN", "LOGIN"], None),
    ],
)
def test_the_first_that_is_allowed_and_offered_is_used(
    mechanisms: list[str] | None, offered: list[str], name: str | None
) -> None:
    """Never one that sends a password."""
    assert choose_mechanism(OAuth2("me", RFC, mechanisms), offered).name == name


def test_nothing_shows_the_token() -> None:
    """Neither repr nor str nor pickle of a login or mechanism."""
    for thing in (OAuth2("me", RFC), mechanism(XOAuth2), mechanism(OAuthBearer)):
        assert RFC not in f"{thing!r} {thing}"
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(thing)
    assert "me" in repr(OAuth2("me", RFC))


def test_a_fingerprint_needs_its_key() -> None:
    """The same token is recognised, and the hash alone does not say which token it is."""
    token = Secret(RFC)
    assert fingerprint(token, b"a") == fingerprint(Secret(RFC), b"a") != fingerprint(token, b"b")


def reply(text: str) -> Reply:
    """Make a reply."""
    code, _, rest = text.partition(" ")
    enhanced = rest.partition(" ")[0]
    return Reply(int(code), enhanced if enhanced.count(".") == 2 else None, rest, rest.encode())


@pytest.mark.parametrize(
    ("text", "has_failed", "renewed"),
    [
        ("535 5.7.8 Username and Password not accepted", False, True),
        ("535 5.7.3 Authentication unsuccessful", False, True),
        ("535 no", False, True),
        ("535 5.7.8 no", True, True),
        ("501 5.5.127 Invalid XOAUTH2 token: Token will expire soon", False, True),
        ("501 5.7.0 authentication failed", True, True),
        ("554 5.7.0 no", True, True),
        ("501 5.5.2 cannot read it", False, False),
        ("554 5.7.0 no", False, False),
        ("501 5.5.124 Invalid XOAUTH2 auth data", False, False),
        ("501 5.5.124 Invalid XOAUTH2 auth data", True, False),
        ("535 5.7.139 SmtpClientAuthentication is disabled for the Tenant", False, False),
        ("535 5.7.139 SmtpClientAuthentication is disabled for the Mailbox", True, False),
        ("534 5.7.9 Please log in with your web browser", False, False),
        ("534 5.7.9 Please log in with your web browser", True, False),
        ("504 5.5.4 no such mechanism", False, False),
        ("530 5.7.0 no", False, False),
        ("454 4.7.0 Too many login attempts", False, False),
        ("454 4.7.0 Too many login attempts", True, False),
        ("421 4.7.0 bye", True, False),
        ("250 ok", True, False),
    ],
)
def test_which_refusals_another_token_may_help(text: str, *, has_failed: bool, renewed: bool) -> None:
    """A table from reply to "renewed" (PITFALLS O1)."""
    assert is_token_refused(reply(text), has_failed=has_failed) is renewed


def test_without_a_reply_no_token_is_renewed() -> None:
    """No server has refused it."""
    assert is_token_refused(None, has_failed=True) is False


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("535 5.7.139 disabled for the Tenant", "turn on Authenticated SMTP"),
        ("535 5.7.3 Authentication unsuccessful", "SMTP.SendAsApp"),
        ("535 5.7.8 not accepted", "with_subject"),
        ("501 5.5.124 Invalid auth data", "full address"),
        ("535 no", "scope for SMTP"),
        ("454 4.7.0 Too many", "temporary"),
    ],
)
def test_the_hint_is_a_checklist_by_enhanced_code(text: str, hint: str) -> None:
    """What owners of such mailboxes had wrong (PITFALLS O9); none says to check a password."""
    for kind in (XOAuth2, OAuthBearer):
        assert hint in login_hint(mechanism(kind), reply(text))
        assert "password" not in login_hint(mechanism(kind), reply(text))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("535 5.7.139 basic authentication is disabled", "OAuth 2 instead of a password"),
        ("535 5.7.8 not accepted", "check the username and password"),
        ("454 4.7.0 Too many", "temporary"),
    ],
)
def test_a_password_has_other_hints(text: str, hint: str) -> None:
    """Microsoft refuses passwords by the same code."""
    assert hint in login_hint(Plain(Credentials("me", Secret("secret"))), reply(text))


def test_a_certificate_has_its_own_hint() -> None:
    """It is about neither a password nor a token."""
    assert "client certificate" in login_hint(ExternalMechanism(Credentials("", Secret(""))), reply("535 5.7.8 no"))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("554 5.2.252 SendAsDenied; me@x.example not allowed to send as you@x.example", "one mailer for each mailbox"),
        ("550 5.7.60 SMTP; Client does not have permissions to send as this sender", "mail_from and in From"),
        ("550 5.4.5 Daily user sending limit exceeded", "tomorrow"),
        ("554 5.6.0 no", None),
        ("554 no", None),
    ],
)
def test_a_refused_message_has_a_hint_by_enhanced_code(text: str, hint: str | None) -> None:
    """The account and the sender differ, or a quota is used up (PITFALLS O10, O11)."""
    found = refusal_hint(reply(text))
    assert (found is None) is (hint is None)
    assert (hint or "") in (found or "")
