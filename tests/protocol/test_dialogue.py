"""What is said in which order, and what an answer means."""

from __future__ import annotations

import base64
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from protocol.play import TLS, Played, opened, play, raw
from securesmtp._protocol.address import Mailbox
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.content import BLOCK, Content
from securesmtp._protocol.delivery import Delivery, deliver
from securesmtp._protocol.dialogue import (
    Session,
    _auth_command,
    _decode_challenge,
    authenticate,
    open_session,
    quit_session,
    reset,
)
from securesmtp._protocol.effects import Block, Connect, Receive, Send, Upgrade
from securesmtp._protocol.failures import early_reply_error, is_session_usable, keep_session, server_closing_error
from securesmtp._protocol.message import Submission
from securesmtp._protocol.sasl import Credentials, Password
from securesmtp._protocol.sasl.simple import Plain
from securesmtp._protocol.wire import MAX_AUTH, MAX_COMMAND
from securesmtp._secret import Secret
from securesmtp._values import Outcome, Stage, TLSInfo, TLSMode
from securesmtp.errors import (
    AuthenticationError,
    ConnectError,
    DataRefusedError,
    DowngradeError,
    MessageError,
    NoUsableMechanismError,
    OutcomeUnknownError,
    ProtocolError,
    RecipientsRefusedError,
    RefusedError,
    SecureSMTPError,
    SenderRefusedError,
)

PASSWORD = "correct horse"
TOKEN = base64.b64encode(b"\0user\0" + PASSWORD.encode())
OFFER = b"250-mx\n250 STARTTLS"
GONE = ConnectError("the server closed the connection")


def session(**offered: str) -> Session:
    """Return a session with TLS in which these keywords are offered."""
    return Session(TLS, Capabilities(offered))


def mail(data: bytes = b"Subject: x\n\n.x\n", *recipients: str, mail_from: str = "me@a.example") -> Submission:
    """Return a submission of these octets to these recipients, else to two."""
    to = tuple(map(Mailbox.parse, recipients or ("b@b.example", "c@c.example")))
    return Submission(Mailbox.parse(mail_from), to, Content.from_bytes(data))


# Opening.


def test_implicit_tls_needs_one_ehlo() -> None:
    """Inside TLS from the start there is no STARTTLS, offered or not."""
    played = play(open_session(TLSMode.IMPLICIT, None), opened(tls=TLS), b"250-mx\n250-STARTTLS\n250 SIZE 5")
    assert played.commands == [b"EHLO [127.0.0.1]"]
    assert played.value == Session(TLS, Capabilities({"STARTTLS": "", "SIZE": "5"}), name=b"[127.0.0.1]")
    assert isinstance(played.effects[0], Connect)


def test_starttls_comes_between_two_ehlo() -> None:
    """EHLO has the same name in the clear and inside TLS, and the session has the TLS evidence."""
    played = play(open_session(TLSMode.STARTTLS, b"me.example"), opened(), OFFER, b"220 go", TLS, b"250 mx")
    assert played.commands == [b"EHLO me.example", b"STARTTLS", b"EHLO me.example"]
    assert [type(effect) for effect in played.effects] == [
        *[Connect, Send, Receive, Send, Receive, Upgrade, Send, Receive]
    ]
    assert played.value.tls is TLS


def test_what_was_offered_in_the_clear_is_void() -> None:
    """Only what the server says inside TLS counts (RFC 3207 §4.2)."""
    forged = b"250-mx\n250-STARTTLS\n250-AUTH LOGIN\n250-SMTPUTF8\n250 SIZE 1"
    played = play(open_session(TLSMode.STARTTLS, None), opened(), forged, b"220 go", TLS, b"250-mx\n250 AUTH PLAIN")
    assert played.value.capabilities == Capabilities({}, ("PLAIN",))


@pytest.mark.parametrize("greeting", [b"554 no", b"421 later", b"250 ok", b"354 go"])
@pytest.mark.parametrize("tls", [None, TLS])
def test_only_220_is_a_greeting(greeting: bytes, tls: TLSInfo | None) -> None:
    """Any other greeting ends the session before a command; in the clear, the error says that it may be forged."""
    played = play(open_session(TLSMode.IMPLICIT, None), opened(greeting, tls))
    error = played.failure(ConnectError)
    assert played.commands == []
    assert (error.stage, error.retryable) == (Stage.GREETING, greeting[:1] == b"4")
    assert ("in plaintext" in str(error)) == (tls is None)


@pytest.mark.parametrize("reply", [b"500 what", b"502 no", b"451 later", b"421 bye", b"220 mx", b"354 go"])
def test_ehlo_refused_in_the_clear_is_a_downgrade(reply: bytes) -> None:
    """There is no HELO to fall back to, because HELO offers no STARTTLS."""
    played = play(open_session(TLSMode.STARTTLS, None), opened(), reply)
    error = played.failure(DowngradeError)
    assert played.commands == [b"EHLO [127.0.0.1]"]
    assert (error.stage, error.retryable) == (Stage.EHLO, reply[:1] == b"4")
    assert error.reply == raw(reply).reply()


@pytest.mark.parametrize("reply", [b"500 what", b"451 later", b"421 bye"])
@pytest.mark.parametrize("mode", list(TLSMode))
def test_ehlo_refused_in_tls_is_a_refusal(mode: TLSMode, reply: bytes) -> None:
    """The server refuses EHLO inside TLS: nothing else is tried."""
    before = [opened(tls=TLS)] if mode is TLSMode.IMPLICIT else [opened(), OFFER, b"220 go", TLS]
    error = play(open_session(mode, None), *before, reply).failure(RefusedError)
    assert (error.stage, error.outcome, error.retryable) == (Stage.EHLO, Outcome.REFUSED, reply[:1] == b"4")


@pytest.mark.parametrize("offer", [b"250 mx", b"250-mx\n250 XSTARTTLS", b"250 STARTTLS", b"250-mx\n250 STARTTLS=1"])
def test_no_starttls_no_mail(offer: bytes) -> None:
    """Where it is not offered, nothing more is written in the clear."""
    played = play(open_session(TLSMode.STARTTLS, None), opened(), offer)
    error = played.failure(DowngradeError)
    assert "implicit" in str(error)
    assert error.stage is Stage.STARTTLS
    assert played.commands == [b"EHLO [127.0.0.1]"]


@pytest.mark.parametrize("reply", [b"250 ok", b"454 later", b"501 no", b"554 no", b"354 go", b"421 bye"])
def test_only_220_begins_tls(reply: bytes) -> None:
    """Any other reply to STARTTLS ends the session, and the handshake is not begun."""
    played = play(open_session(TLSMode.STARTTLS, None), opened(), OFFER, reply)
    error = played.failure(DowngradeError)
    assert (error.stage, error.retryable, error.reply) == (Stage.STARTTLS, reply[:1] == b"4", raw(reply).reply())
    assert not any(isinstance(effect, Upgrade) for effect in played.effects)
    assert played.commands[1:] == [b"STARTTLS"]


def test_a_plaintext_reply_is_cut() -> None:
    """An error keeps 200 characters of text that anyone may have sent (STLS-07)."""
    error = play(open_session(TLSMode.STARTTLS, None), opened(b"554 " + b"x" * 1000)).failure(ConnectError)
    assert error.reply is not None
    assert len(error.reply.text) == 200


@pytest.mark.parametrize("before", [[], [b"220 mx"]])
def test_a_reply_inside_tls_is_kept_without_a_warning(before: list[bytes]) -> None:
    """The certificate vouches for it: 500 characters, and no word of doubt."""
    said = b"554 " + b"x" * 1000
    greeting, *rest = *before, said
    error = play(open_session(TLSMode.IMPLICIT, None), opened(greeting, TLS), *rest).error
    assert error is not None
    assert error.reply is not None
    assert len(error.reply.text) == 500
    assert error.args[0].endswith('x…"')


def test_each_step_is_named_to_the_link() -> None:
    """A command and its reply have the same stage, which sets the time limit and is named in errors."""
    started = play(open_session(TLSMode.STARTTLS, None), opened(), OFFER, b"220 go", TLS, b"250 mx")
    mailed = play(deliver(session(), mail(b"\nx", "b@b.example"), "raise"), *GOOD[1:])
    ends = [*login(b"334 ", b"334 ", b"235 in", offered="LOGIN").effects, *play(reset(), b"250 ok").effects]
    ends += play(quit_session()).effects
    steps = [e for e in (*started.effects, *mailed.effects, *ends) if isinstance(e, Send | Receive)]
    stages = [(type(step), step.stage) for step in steps]
    pairs = [Stage.EHLO, Stage.STARTTLS, Stage.EHLO, Stage.MAIL, Stage.RCPT, Stage.DATA]
    assert stages[:12] == [(kind, stage) for stage in pairs for kind in (Send, Receive)]
    assert stages[12] == (Receive, Stage.CONTENT)
    assert stages[13:19] == [(Send, Stage.AUTH), (Receive, Stage.AUTH)] * 3
    assert stages[19:] == [(Send, Stage.RSET), (Receive, Stage.RSET), (Send, Stage.QUIT)]


# Logging in.


def login(*answers: bytes | SecureSMTPError, offered: str = "PLAIN", password: str = PASSWORD) -> Played[str]:
    """Play a login of "user"."""
    return play(authenticate(Session(TLS, Capabilities(auth=(offered,))), Password("user", password)), *answers)


def test_without_tls_no_login_is_sent_and_no_password_fetched() -> None:
    """The secure channel is demanded first of all: the callable is not called, no line is written."""
    asked: list[str] = []

    def fetch() -> str:
        asked.append("asked")
        return PASSWORD

    password = Password("user", fetch)
    plaintext = Session(None, Capabilities(auth=("PLAIN",)))  # type: ignore[arg-type] # the mistake under test
    played = play(authenticate(plaintext, password))
    assert played.failure(AuthenticationError).stage is Stage.AUTH
    assert (played.effects, asked) == ([], [])


def test_without_a_mechanism_nothing_is_sent() -> None:
    """No common mechanism, no line."""
    played = login(offered="CRAM-MD5")
    played.failure(NoUsableMechanismError)
    assert played.effects == []


def test_plain_is_one_line() -> None:
    """The initial response goes with AUTH (RFC 4954 §4), and the line is a secret."""
    played = login(b"235 in")
    assert played.value == "PLAIN"
    assert played.commands == [b"AUTH PLAIN " + TOKEN]
    assert PASSWORD not in repr(played.effects)
    assert TOKEN.decode() not in repr(played.effects)


def test_login_sends_username_and_password() -> None:
    """Name and password, one line each, both secret; AUTH LOGIN itself is none."""
    played = login(b"334 VXNlcm5hbWU6", b"334", b"235 in", offered="LOGIN")
    assert played.value == "LOGIN"
    assert played.commands == [b"AUTH LOGIN", base64.b64encode(b"user"), base64.b64encode(PASSWORD.encode())]
    assert "Line(b'AUTH LOGIN')" in repr(played.effects)
    assert base64.b64encode(PASSWORD.encode()).decode() not in repr(played.effects)


@pytest.mark.parametrize(("offered", "written"), [("PLAIN", 2), ("LOGIN", 3)])
def test_a_flood_of_challenges_ends(offered: str, written: int) -> None:
    """A mechanism sends its responses, PLAIN once more if it is asked; the next 334 is an error (AUTH-05)."""
    played = login(*[b"334 "] * written, offered=offered)
    error = played.failure(ProtocolError)
    assert "more than" in str(error)
    assert error.stage is Stage.AUTH
    assert len(played.commands) == written


@pytest.mark.parametrize("challenge", [b"334 Username:", b"334 VXNlcm5hbWU6", b"334 dXNlcg", b"334", b"334 !",
                                       b"334 Y Q==", b"334 \xff", b"334-a\n334 b"])  # fmt: skip
@pytest.mark.parametrize("offered", ["PLAIN", "LOGIN"])
def test_a_challenge_that_is_ignored_may_have_any_text(challenge: bytes, offered: str) -> None:
    """Servers ask unencoded, unpadded, or nothing: the answer is the same (AUTH-04; RFC 4954 §4 wants base64)."""
    asked = 1 if offered == "PLAIN" else 2
    played = login(*[challenge] * asked, b"235 in", offered=offered)
    assert played.value == offered
    name, password = base64.b64encode(b"user"), base64.b64encode(PASSWORD.encode())
    assert played.commands[1:] == ([TOKEN] if offered == "PLAIN" else [name, password])


def test_a_mechanism_gets_none_for_a_challenge_that_is_not_base64() -> None:
    """What is decoded is given to the mechanism, and None in place of what is not (AUTH-04)."""
    assert _decode_challenge(b"") == b""
    assert _decode_challenge(b"YQ==") == b"a"
    for text in (b"YQ", b"Y Q==", b"YQ==YQ==", b"!", b"\xff", b"===="):
        assert _decode_challenge(text) is None


@pytest.mark.parametrize(("octets", "held"), [(366, False), (367, True), (4096, True)])
def test_a_long_initial_response_waits_for_the_334(octets: int, *, held: bool) -> None:
    """An AUTH line has 512 octets like every command; what follows a 334 has 12,288 (RFC 4954 §4, AUTH-03, CMD-06)."""
    password = "p" * octets
    token = base64.b64encode(b"\0user\0" + password.encode())
    played = login(*[b"334 "] * held, b"235 in", password=password)
    assert played.value == "PLAIN"
    assert played.commands == ([b"AUTH PLAIN", token] if held else [b"AUTH PLAIN " + token])
    assert all(len(command) + 2 <= MAX_COMMAND for command in played.commands if command.startswith(b"AUTH"))
    assert (len(b"AUTH PLAIN \r\n" + token) > MAX_COMMAND) is held
    assert password[:9] not in repr(played.effects)


@pytest.mark.parametrize(("name", "held"), [("FOUR", False), ("PLAIN", True)])
def test_an_auth_command_has_at_most_512_octets(name: str, *, held: bool) -> None:
    """CRLF included (RFC 5321 §4.5.3.1.4)."""

    class Named(Plain):
        def start(self) -> bytes:
            return b"x" * 375

    Named.name = name
    command, later = _auth_command(Named(Credentials("user", Secret("x"))))
    assert (later is not None) is held
    assert len(command.data) == (len("AUTH PLAIN\r\n") if held else MAX_COMMAND)


def test_a_long_initial_response_is_repeated_at_most_once() -> None:
    """The empty 334 asks for it, a second 334 is accepted, and the third is an error (AUTH-05)."""
    played = login(*[b"334 "] * 3, password="p" * 1000)
    assert "more than PLAIN" in str(played.failure(ProtocolError))
    assert len(set(played.commands[1:])) == 1
    assert len(played.commands) == 3


@pytest.mark.parametrize("offered", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("reply", [b"250 ok", b"220 x", b"354 go", b"236 x", b"335 x", b"200 x"])
def test_235_alone_is_success(reply: bytes, offered: str) -> None:
    """Another positive code is unexpected, and not a login."""
    error = login(reply, offered=offered).failure(ProtocolError)
    assert (error.stage, error.reply) == (Stage.AUTH, raw(reply).reply())


@pytest.mark.parametrize(
    ("reply", "retryable"),
    [
        (b"535 5.7.8 no", False),
        (b"503 already", False),
        (b"500 x", False),
        (b"454 4.7.0 later", True),
        (b"421 x", True),
        (b"400 x", True),
    ],
)
@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_refused_login_is_final(reply: bytes, asked: int, *, retryable: bool) -> None:
    """At any step: one error with the server's reply, and no further line, mechanism or attempt."""
    played = login(*[b"334 "] * asked, reply, offered="LOGIN")
    error = played.failure(AuthenticationError)
    assert (error.retryable, error.outcome, error.reply) == (retryable, Outcome.NOT_SENT, raw(reply).reply())
    assert error.stage is Stage.AUTH
    assert ("try again later" if retryable else "check the username and password") in (error.hint or "")
    assert len(played.commands) == 1 + asked


@pytest.mark.parametrize("code", [b"535", b"454", b"250"])
@pytest.mark.parametrize(
    ("offered", "echo"),
    [
        ("PLAIN", TOKEN), ("PLAIN", PASSWORD.encode()), ("PLAIN", b"AUTH PLAIN " + TOKEN + b" is wrong"),
        ("PLAIN", TOKEN[:9]), ("PLAIN", PASSWORD.encode()[3:10]),
        ("LOGIN", base64.b64encode(PASSWORD.encode())), ("LOGIN", PASSWORD.encode()),
    ],
)  # fmt: skip
def test_a_reply_that_echoes_is_redacted(code: bytes, offered: str, echo: bytes) -> None:
    """Neither text, bytes nor repr of the error show what was sent; the code stays."""
    asked = [b"334 "] * 2 if offered == "LOGIN" else []
    for text in (code + b" no: " + echo, code + b"-5.7.8 no\n" + code + b" (" + echo + b")"):
        error = login(*asked, text, offered=offered).error
        assert error is not None
        assert error.reply is not None
        shown = f"{error} {error!r} {error.reply!r} {error.reply.raw!r}".replace("LOGIN", "").replace("PLAIN", "")
        assert echo.decode() not in shown
        assert error.reply.code == int(code)
        assert "(redacted: " in shown


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40))
@settings(max_examples=examples(100), deadline=None)
def test_what_is_sent_is_what_the_mechanism_says(password: str) -> None:
    """Base64 once, on one line within the limit, for any password."""
    (command,) = login(b"235 in", password=password).commands
    assert len(command) + 2 <= MAX_COMMAND
    assert base64.b64decode(command.removeprefix(b"AUTH PLAIN "), validate=True) == f"\0user\0{password}".encode()


def test_the_longest_login_fits_after_a_334() -> None:
    """4096 octets each for name and password stay below 12288."""
    longest = Password("u" * 4096, "p" * 4096)
    played = play(authenticate(Session(TLS, Capabilities(auth=("PLAIN",))), longest), b"334 ", b"235 in")
    assert played.value == "PLAIN"
    assert len(played.commands[1]) + 2 <= MAX_AUTH


def test_an_empty_initial_response_is_an_equals_sign() -> None:
    """RFC 4954 §4: AUTH without an argument would have no initial response (AUTH-03)."""

    class Empty(Plain):
        def start(self) -> bytes:
            return b""

    command, held = _auth_command(Empty(Credentials("user", Secret("x"))))
    assert (command.data, held) == (b"AUTH PLAIN =\r\n", None)


# Delivering.


def test_a_message_is_mail_rcpt_data_content() -> None:
    """In this order, each reply read before the next command, with the server's replies in the result."""
    answers = [b"250 2.1.0 a", b"250 2.1.5 b", b"251 2.1.5 c", b"354 go", b"250 2.0.0 queued as 1"]
    played = play(deliver(session(), mail(), "raise"), *answers)
    delivery = played.value
    assert played.commands == [b"MAIL FROM:<me@a.example>", b"RCPT TO:<b@b.example>", b"RCPT TO:<c@c.example>", b"DATA"]
    assert played.content == b"Subject: x\r\n\r\n..x\r\n.\r\n"
    assert [(r.address, r.accepted, r.reply.code) for r in delivery.recipients] == [
        *[("b@b.example", True, 250), ("c@c.example", True, 251)]
    ]
    (reply,) = delivery.replies
    assert (reply.text, reply.enhanced, delivery.size) == ("2.0.0 queued as 1", "2.0.0", 18)
    limits = [effect.limit for effect in played.effects if isinstance(effect, Receive)]
    assert limits == ["command", "command", "command", "data", "final"]


@pytest.mark.parametrize(
    ("submission", "offered", "command"),
    [
        (mail(b"\nx"), {"SIZE": ""}, b"MAIL FROM:<me@a.example> SIZE=5"),
        (mail(b"\nx"), {"8BITMIME": "", "SMTPUTF8": ""}, b"MAIL FROM:<me@a.example>"),
        (mail(b"\n\xff"), {"8BITMIME": ""}, b"MAIL FROM:<me@a.example> BODY=8BITMIME"),
        (mail(b"\nx", mail_from="ü@a.example"), {"SMTPUTF8": "", "SIZE": "9"},
         "MAIL FROM:<ü@a.example> SIZE=5 SMTPUTF8".encode()),
        (mail(b"\nx", "ü@a.example"), {"SMTPUTF8": ""}, b"MAIL FROM:<me@a.example> SMTPUTF8"),
        (mail("S: ü\n".encode()), {"SMTPUTF8": "", "8BITMIME": ""}, b"MAIL FROM:<me@a.example> BODY=8BITMIME SMTPUTF8"),
    ],
)  # fmt: skip
def test_mail_has_the_parameters_that_are_needed(
    submission: Submission, offered: dict[str, str], command: bytes
) -> None:
    """SIZE where it is offered; BODY and SMTPUTF8 where the message needs them (CMD-04, AUTH-10)."""
    answers = [b"250 ok"] * (1 + len(submission.recipients))
    played = play(deliver(session(**offered), submission, "raise"), *answers, b"354 go", b"250 ok")
    assert played.commands[0] == command
    assert played.value.size == submission.content.size


@pytest.mark.parametrize(
    ("submission", "offered", "match"),
    [
        (mail("\nü".encode()), {"SMTPUTF8": ""}, "8BITMIME"),
        (mail("S: ü\n".encode()), {"8BITMIME": ""}, "SMTPUTF8"),
        (mail(b"\nx", "ü@a.example"), {"8BITMIME": ""}, "SMTPUTF8"),
        (mail(b"\nx"), {"SIZE": "4"}, "5 bytes"),
    ],
)
def test_a_message_that_the_server_cannot_take_is_not_begun(
    submission: Submission, offered: dict[str, str], match: str
) -> None:
    """It is refused before MAIL."""
    played = play(deliver(session(**offered), submission, "allow"))
    error = played.failure(MessageError)
    assert match in str(error)
    assert (error.stage, error.outcome, played.effects) == (Stage.MAIL, Outcome.NOT_SENT, [])


STEPS = [
    pytest.param(0, Stage.MAIL, id="mail"),
    pytest.param(1, Stage.RCPT, id="rcpt"),
    pytest.param(3, Stage.DATA, id="data"),
]
GOOD = [b"250 ok", b"250 ok", b"250 ok", b"354 go", b"250 ok"]


@pytest.mark.parametrize(("step", "stage"), STEPS)
@pytest.mark.parametrize("reply", [b"220 x", b"235 x", b"252 x", b"334 x", b"354 x", b"250 x", b"251 x"])
def test_a_code_out_of_step_ends_the_session(step: int, stage: Stage, reply: bytes) -> None:
    """A positive code that the step does not have is no success and no refusal."""
    fits = {0: (b"250",), 1: (b"250", b"251", b"252"), 3: (b"354",)}[step]
    if reply[:3] in fits:
        return
    played = play(deliver(session(), mail(), "allow"), *GOOD[:step], reply)
    error = played.failure(ProtocolError)
    assert (error.stage, error.outcome, error.retryable) == (stage, Outcome.NOT_SENT, False)
    assert error.reply == raw(reply).reply()
    assert len(played.commands) == step + 1


@pytest.mark.parametrize("code", [b"530", b"535", b"538"])
def test_a_server_that_wants_a_login_says_so(code: bytes) -> None:
    """It is the login that is missing, not the sender that is refused (POL-02)."""
    error = play(deliver(session(), mail(), "allow"), code + b" login first").failure(AuthenticationError)
    assert (error.stage, error.outcome, error.hint) == (Stage.MAIL, Outcome.NOT_SENT, "pass username and password")
    assert error.reply == raw(code + b" login first").reply()


@pytest.mark.parametrize(("step", "stage"), STEPS)
def test_421_ends_the_session(step: int, stage: Stage) -> None:
    """After it the server is gone: no RSET (RFC 5321 §3.8)."""
    played = play(deliver(session(), mail(), "allow"), *GOOD[:step], b"421 4.3.2 bye")
    error = played.failure(ConnectError)
    assert (error.stage, error.outcome, error.retryable) == (stage, Outcome.NOT_SENT, True)
    assert len(played.commands) == step + 1


@pytest.mark.parametrize(
    ("reply", "retryable"), [(b"550 no", False), (b"450 later", True), (b"552 size", False), (b"400 later", True)]
)
def test_a_refused_sender_is_a_refusal(reply: bytes, *, retryable: bool) -> None:
    """Stage, outcome and whether to try again are set; no transaction was begun, so none is reset."""
    played = play(deliver(session(), mail(), "allow"), reply)
    error = played.failure(SenderRefusedError)
    assert (error.stage, error.outcome, error.retryable) == (Stage.MAIL, Outcome.REFUSED, retryable)
    assert error.reply == raw(reply).reply()
    assert isinstance(error, RefusedError)
    assert is_session_usable(error)
    assert len(played.commands) == 1


@pytest.mark.parametrize(
    ("replies", "partial", "retryable"),
    [
        ([b"550 no", b"250 ok"], "raise", False),
        ([b"250 ok", b"450 later"], "raise", True),
        ([b"450 later", b"550 no"], "raise", False),
        ([b"450 later", b"550 no"], "allow", False),
        ([b"450 later", b"451 later"], "allow", True),
    ],
)
def test_refused_recipients_are_a_refusal(replies: list[bytes], partial: str, *, retryable: bool) -> None:
    """RCPT is sent for each, each reply is kept, and it may be retried if all refusals are temporary (MSG-09)."""
    dialogue = deliver(session(), mail(), "allow" if partial == "allow" else "raise")
    played = play(dialogue, b"250 ok", *replies, b"250 reset")
    error = played.failure(RecipientsRefusedError)
    assert isinstance(error, RecipientsRefusedError)
    assert [recipient.reply for recipient in error.recipients] == [raw(reply).reply() for reply in replies]
    assert (error.stage, error.outcome, error.retryable) == (Stage.RCPT, Outcome.REFUSED, retryable)
    assert error.__cause__ is None
    assert is_session_usable(error)
    assert played.commands[-1] == b"RSET"
    assert played.content == b""
    refused = sum(not reply.startswith(b"250") for reply in replies)
    first = next(each.reply for each in error.recipients if each.reply.code >= 400)
    assert error.args[0] == f'{refused} of 2 recipients refused: "{first}"'
    assert not any(recipient.accepted for recipient in error.recipients)
    # What would deliver to the rest is told where there is a rest.
    rest = '; partial="allow" delivers to the others' if refused < 2 else ""
    assert error.hint == f"error.recipients has the reply for each recipient{rest}"


def test_some_recipients_may_be_refused_where_that_is_allowed() -> None:
    """The others get the message, and the result says who did not."""
    played = play(deliver(session(), mail(), "allow"), b"250 ok", b"550 no", *GOOD[2:])
    assert [recipient.accepted for recipient in played.value.recipients] == [False, True]
    assert played.content


MANY = [f"r{number}@b.example" for number in range(5)]
TOO_MANY = b"452 4.5.3 too many recipients"


def _rounds(most: dict[str, str], *answers: bytes, partial: str = "allow") -> Played[Delivery]:
    many: Literal["raise", "allow"] = "allow" if partial == "allow" else "raise"
    return play(deliver(session(**most), mail(b"\nx", *MANY), many), *answers)


def test_recipients_beyond_the_servers_limit_go_in_further_transactions() -> None:
    """As many at a time as LIMITS says, the same content each time, where the caller allows it (RFC 9422)."""
    one = [b"250 m", b"250 a", b"250 b", b"354 go", b"250 first"]
    two = [b"250 m", b"250 c", b"550 no", b"354 go", b"250 second"]
    three = [b"250 m", b"250 e", b"354 go", b"250 third"]
    played = _rounds({"LIMITS": "RCPTMAX=2"}, *one, *two, *three)
    assert [reply.text for reply in played.value.replies] == ["first", "second", "third"]
    assert [(r.address, r.accepted) for r in played.value.recipients] == list(
        zip(MANY, [True, True, True, False, True], strict=True)
    )
    assert played.content == b"\r\nx\r\n.\r\n" * 3
    assert [line.partition(b" ")[0] for line in played.commands] == [
        *[b"MAIL", b"RCPT", b"RCPT", b"DATA"] * 2, b"MAIL", b"RCPT", b"DATA",
    ]  # fmt: skip


def test_recipients_beyond_the_servers_limit_are_one_clear_error() -> None:
    """Where all or nobody is to have it: before MAIL, and with what would help."""
    error = _rounds({"LIMITS": "RCPTMAX=4"}, partial="raise").failure(MessageError)
    assert "5 recipients" in str(error)
    assert "takes 4" in str(error)
    assert 'partial="allow"' in str(error)
    assert (error.outcome, error.stage) == (Outcome.NOT_SENT, Stage.MAIL)


@pytest.mark.parametrize("reply", [TOO_MANY, b"452 too many", b"552 5.5.3 too many", b"552 too many"])
def test_too_many_recipients_are_sent_to_in_the_next_transaction(reply: bytes) -> None:
    """RFC 5321 §4.5.3.1.10, as RFC 821 had it too; as long as each transaction has somebody new."""
    one = [b"250 m", b"250 a", b"250 b", reply, reply, reply, b"354 go", b"250 first"]
    two = [b"250 m", b"250 c", b"550 no", reply, b"354 go", b"250 second"]
    three = [b"250 m", reply, b"250 reset"]
    played = _rounds({}, *one, *two, *three)
    assert [r.accepted for r in played.value.recipients] == [True, True, True, False, False]
    assert [r.retryable for r in played.value.recipients] == [False, False, False, False, reply.startswith(b"4")]
    assert [reply.text for reply in played.value.replies] == ["first", "second"]


@pytest.mark.parametrize(
    "reply",
    [b"452 4.2.2 mailbox full", b"452 4.3.1 disk full", b"450 4.2.1 busy", b"552 5.2.2 mailbox full", b"550 5.5.3 no"],
)
def test_what_is_no_limit_of_recipients_is_a_refusal(reply: bytes) -> None:
    """The next transaction would meet the same."""
    played = _rounds({}, b"250 m", b"250 a", b"250 b", b"250 c", b"250 d", reply, b"354 go", b"250 ok")
    assert [r.accepted for r in played.value.recipients] == [True, True, True, True, False]
    assert played.value.recipients[4].retryable is reply.startswith(b"4")


def test_too_many_recipients_are_refused_where_all_or_nobody_is_to_have_it() -> None:
    """The error has the server's words, may be retried, and says what would help."""
    played = _rounds({}, b"250 m", b"250 a", *[TOO_MANY] * 4, b"250 reset", partial="raise")
    error = played.failure(RecipientsRefusedError)
    assert error.retryable
    assert 'partial="allow"' in str(error)


@pytest.mark.parametrize(
    "answers",
    [[b"450 later"], [b"250 m", b"250 c", b"250 d", b"451 later", b"250 reset"],
     [b"250 m", b"250 c", b"250 d", b"354 go", b"450 later"]],
    ids=["MAIL", "DATA", "content"],
)  # fmt: skip
def test_a_later_transaction_that_is_refused_is_a_refusal_of_its_recipients(answers: list[bytes]) -> None:
    """The first has delivered: there is a receipt, and it says who has it."""
    one = [b"250 m", b"250 a", b"250 b", b"354 go", b"250 first"]
    three = [b"250 m", b"250 e", b"354 go", b"250 third"]
    played = _rounds({"LIMITS": "RCPTMAX=2"}, *one, *answers, *three)
    assert [r.accepted for r in played.value.recipients] == [True, True, False, False, True]
    assert [r.retryable for r in played.value.recipients] == [False, False, True, True, False]


@pytest.mark.parametrize(
    "answers",
    [[ConnectError("gone")], [b"421 bye"], [b"250 m", b"250 c", b"250 d", b"354 go", b"421 bye"],
     [b"250 m", b"250 c", b"250 d", b"354 go", ConnectError("gone")],
     [b"250 m", b"250 c", b"250 d", b"451 no", ConnectError("gone")]],
    ids=["at MAIL", "421 to MAIL", "421 to the content", "before the final reply", "at RSET"],
)  # fmt: skip
def test_a_later_transaction_that_breaks_leaves_the_outcome_unknown(answers: list[bytes | SecureSMTPError]) -> None:
    """Some have it: the error says who, and nothing that would make a program send it to them again."""
    one: list[bytes | SecureSMTPError] = [b"250 m", b"250 a", b"550 no", b"354 go", b"250 first"]
    played = play(deliver(session(LIMITS="RCPTMAX=2"), mail(b"\nx", *MANY), "allow"), *one, *answers)
    error = played.failure(OutcomeUnknownError)
    assert isinstance(error, OutcomeUnknownError)
    assert (error.outcome, error.retryable) == (Outcome.UNKNOWN, False)
    assert [(r.address, r.accepted) for r in error.recipients] == [(MANY[0], True), (MANY[1], False)]
    assert "accepted for 1 recipient(s)" in str(error)
    cause = error.__cause__
    assert isinstance(cause, SecureSMTPError)
    assert error.stage is cause.stage
    assert "send it to the others" in str(error)


def test_who_is_refused_in_a_later_transaction_has_his_own_reply() -> None:
    """Where all of its recipients are refused, not each by the reply to the first."""
    one = [b"250 m", b"250 a", b"250 b", b"354 go", b"250 first"]
    three = [b"250 m", b"250 e", b"354 go", b"250 third"]
    played = _rounds({"LIMITS": "RCPTMAX=2"}, *one, b"250 m", b"550 c", b"450 d", b"250 reset", *three)
    assert [r.reply.text for r in played.value.recipients] == ["a", "b", "c", "d", "e"]
    assert [r.retryable for r in played.value.recipients] == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"421 bye", ConnectError),
        (b"500 what", ConnectError),
        (b"451 later", ConnectError),
        (b"400 later", ConnectError),
        (b"530 login", ConnectError),
        (b"354 go", ProtocolError),
        (b"251 x", ProtocolError),
        (GONE, ConnectError),
    ],
)
@pytest.mark.parametrize("step", [1, 3])
def test_a_reset_that_fails_keeps_the_refusal(
    step: int, answer: bytes | SecureSMTPError, cause: type[Exception]
) -> None:
    """The refusal is what the caller gets; why the session cannot go on is its cause."""
    replies = [*GOOD[:step], *([b"550 no", b"250 ok"] if step == 1 else [b"554 no"])]
    played = play(deliver(session(), mail(), "raise"), *replies, answer)
    error = played.failure(RecipientsRefusedError if step == 1 else DataRefusedError)
    assert isinstance(error, RefusedError)
    assert type(error.__cause__) is cause
    assert error.outcome is Outcome.REFUSED
    assert not is_session_usable(error)


def test_a_reset_that_cannot_be_written_keeps_the_refusal() -> None:
    """The connection may break at the write as well."""
    played = play(deliver(session(), mail(), "raise"), b"250 ok", b"550 no", b"250 ok", breaks={6: GONE})
    assert played.failure(RecipientsRefusedError).__cause__ is GONE


def test_refused_data_is_given_up() -> None:
    """A refusal of DATA is followed by RSET, and nothing of the content is written."""
    played = play(deliver(session(), mail(), "raise"), *GOOD[:3], b"451 later", b"250 reset")
    error = played.failure(DataRefusedError)
    assert (error.stage, error.outcome, error.retryable) == (Stage.DATA, Outcome.REFUSED, True)
    assert (played.commands[-1], played.content) == (b"RSET", b"")


@pytest.mark.parametrize("reply", [b"554 spam", b"450 later", b"421 bye", b"530 x", b"552 big", b"400 later"])
def test_refused_content_is_a_refusal(reply: bytes) -> None:
    """The server has not got it; the transaction is over without RSET; 421 closes."""
    played = play(deliver(session(), mail(), "raise"), *GOOD[:4], reply)
    error = played.failure(DataRefusedError)
    assert isinstance(error, RefusedError)
    assert (error.stage, error.outcome) == (Stage.CONTENT, Outcome.REFUSED)
    assert error.retryable == reply.startswith(b"4")
    assert is_session_usable(error) == (not reply.startswith(b"421"))
    assert played.commands[-1] == b"DATA"


@pytest.mark.parametrize(
    "answer", [GONE, ProtocolError("malformed"), b"354 go", b"220 x", b"251 ok", b"235 x", b"334 x"]
)
def test_no_valid_final_reply_leaves_the_outcome_unknown(answer: bytes | SecureSMTPError) -> None:
    """The content was ended: it may have been delivered, so it is not to be tried again blindly."""
    error = play(deliver(session(), mail(), "raise"), *GOOD[:4], answer).failure(OutcomeUnknownError)
    assert (error.stage, error.outcome, error.retryable) == (Stage.CONTENT, Outcome.UNKNOWN, False)
    assert isinstance(error.__cause__, ConnectError | ProtocolError)
    assert not isinstance(error, ConnectionError | TimeoutError | RefusedError)
    assert "Message-ID" in (error.hint or "")
    if isinstance(answer, bytes):
        cause = error.__cause__
        assert isinstance(cause, ProtocolError)
        assert (cause.stage, cause.reply) == (Stage.CONTENT, raw(answer).reply())
        assert "to the content" in cause.args[0]
        assert cause.args[0] in str(error)


BIG = mail(b"Subject: x\n\n" + b"x\n" * (BLOCK * 2))


def test_a_content_of_many_blocks_is_written_whole() -> None:
    """Each block once and in its order, the end once and last."""
    content = play(deliver(session(), BIG, "raise"), *GOOD).content
    assert content == b"Subject: x\r\n\r\n" + b"x\r\n" * (BLOCK * 2) + b".\r\n"


def blocks_of(submission: Submission) -> list[int]:
    """Return the numbers of the effects that write its content."""
    effects = play(deliver(session(), submission, "raise"), *GOOD).effects
    return [number for number, effect in enumerate(effects) if isinstance(effect, Block)]


def test_the_outcome_is_known_until_the_last_block() -> None:
    """An error up to it means not sent, for half a TLS record cannot be read; at any later effect, unknown."""
    numbers = blocks_of(BIG)
    assert len(numbers) > 3
    for number in range(numbers[-1] + 2):
        error = play(deliver(session(), BIG, "raise"), *GOOD, breaks={number: ConnectError("cut")}).error
        assert error is not None
        assert error.outcome is (Outcome.NOT_SENT if number <= numbers[-1] else Outcome.UNKNOWN), number
        assert isinstance(error, OutcomeUnknownError) == (number > numbers[-1])


@pytest.mark.parametrize("which", [0, -1])
def test_a_refusal_in_the_middle_of_the_content_is_a_refusal(which: int) -> None:
    """Even at the last block: the server spoke before the end was written, so it has not accepted."""
    refusal = early_reply_error(raw(b"552 too big"))
    played = play(deliver(session(), BIG, "raise"), *GOOD[:4], breaks={blocks_of(BIG)[which]: refusal})
    assert played.failure(DataRefusedError) is refusal
    assert refusal.outcome is Outcome.REFUSED


@pytest.mark.parametrize(
    ("reply", "kind", "outcome"),
    [
        (b"552 big", DataRefusedError, Outcome.REFUSED),
        (b"421 bye", DataRefusedError, Outcome.REFUSED),
        (b"400 later", DataRefusedError, Outcome.REFUSED),
        (b"250 ok", ProtocolError, Outcome.NOT_SENT),
        (b"354 go", ProtocolError, Outcome.NOT_SENT),
    ],
)
def test_a_reply_before_the_end_is_never_success(reply: bytes, kind: type[Exception], outcome: Outcome) -> None:
    """A refusal is one; a 250 to half a message is unexpected."""
    error = early_reply_error(raw(reply))
    assert (type(error), error.outcome, error.stage) == (kind, outcome, Stage.CONTENT)
    assert error.reply == raw(reply).reply()
    assert str(error.reply) in error.args[0]


@pytest.mark.parametrize(("reply", "retryable"), [(b"421 bye", True), (b"521 never", False)])
def test_a_server_that_closes_is_a_connection_error(reply: bytes, *, retryable: bool) -> None:
    """The reply is kept, and its code says whether to try again later."""
    error = server_closing_error(raw(reply).reply(), Stage.MAIL)
    assert (error.stage, error.retryable, error.reply) == (Stage.MAIL, retryable, raw(reply).reply())
    assert reply.decode() in error.args[0]


def test_a_refusal_without_reply_is_not_in_step() -> None:
    """Only a reply that was read proves that the session can go on, and only a dialogue knows that it was read."""
    assert not is_session_usable(RefusedError("no"))
    assert not is_session_usable(keep_session(RefusedError("no")))
    assert not is_session_usable(RefusedError("no", reply=raw(b"550 no").reply()))


def test_reset_and_quit_are_one_line_each() -> None:
    """The reply to RSET must be 250; the reply to QUIT changes nothing."""
    assert play(reset(), b"250 ok").commands == [b"RSET"]
    for answer in (b"221 bye", b"500 what", b"250 ok"):
        played = play(quit_session(), answer)
        assert (played.commands, played.error) == ([b"QUIT"], None)


@given(st.lists(st.sampled_from([b"250 x", b"251 x", b"354 x", b"450 x", b"550 x", b"421 x", b"535 x"]), max_size=7))
@settings(max_examples=examples(200), deadline=None)
def test_success_needs_five_right_replies(replies: list[bytes]) -> None:
    """Whatever a server says: a delivery means 250 to the content, and the content goes only after 354."""
    answers = [*replies, *[b"500 x"] * 9]
    played: Played[Delivery] = play(deliver(session(), mail(), "allow"), *answers)
    codes = [answer[:3] for answer in answers]
    if played.error is None:
        assert codes[0] == codes[4] == b"250"
        assert {b"250", b"251"} & set(codes[1:3])
    assert bool(played.content) == (b"DATA" in played.commands and codes[3] == b"354")
