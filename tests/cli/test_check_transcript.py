"""The transcript of `securesmtp check`: what was said, as swaks prints it, and nothing of a login."""

from __future__ import annotations

import base64
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.checks import Check, said, says
from conftest import Serve, examples
from leaks import forms
from scram_server import exchange
from scripted import Answer, Mode, Peer, ScriptedServer, honest
from securesmtp._cli.check.probe import probe
from securesmtp._cli.check.result import CheckResult, Request
from securesmtp._cli.check.transcript import Transcript
from securesmtp._protocol.effects import Dialogue, Send
from securesmtp._protocol.wire import line
from securesmtp._values import Stage

CIPHER = "TLSv1.3, TLS_AES_256_GCM_SHA384"


def test_the_dialogue_has_the_marks_of_swaks(serve: Serve, check: Check, ca_file: Path) -> None:
    """Plaintext by -, inside TLS by ~, refusals by *, and what happened by ===."""
    server = serve(honest("starttls", auth=("me", "right")))
    result = check(server, "starttls", username="me", password="secret")
    assert said(result) == [
        f"=== Trying localhost:{server.port}",
        "=== Connected to 127.0.0.1",
        "<- 220 mx.test ESMTP",
        "-> EHLO [127.0.0.1]",
        "<- 250-mx.test",
        "<- 250-PIPELINING",
        "<- 250-8BITMIME",
        "<- 250 STARTTLS",
        "-> STARTTLS",
        "<- 220 2.0.0 go",
        f"=== TLS started: {CIPHER}, verified for localhost by ca_file {ca_file}",
        "~> EHLO [127.0.0.1]",
        "<~ 250-mx.test",
        "<~ 250-PIPELINING",
        "<~ 250-8BITMIME",
        "<~ 250 AUTH PLAIN LOGIN",
        "~> AUTH PLAIN (not shown)",
        "<~* 535 5.7.8 wrong",
        '*** the server refused the login: "535 5.7.8 wrong"',
    ]


def test_implicit_tls_begins_before_the_greeting(serve: Serve, check: Check, ca_file: Path) -> None:
    """Nothing is marked as plaintext."""
    server = serve()
    assert said(check(server)) == [
        f"=== Trying localhost:{server.port}",
        "=== Connected to 127.0.0.1",
        f"=== TLS started: {CIPHER}, verified for localhost by ca_file {ca_file}",
        "<~ 220 mx.test ESMTP",
        "~> EHLO [127.0.0.1]",
        "<~ 250-mx.test",
        "<~ 250-PIPELINING",
        "<~ 250 8BITMIME",
        "~> QUIT",
    ]


def test_a_refusal_in_plaintext_is_marked(serve: Serve, check: Check) -> None:
    """As swaks marks it."""
    assert "<** 502 what?" in said(check(serve(says(b"502 what?\r\n")), "starttls"))


def test_a_connection_that_fails_is_told(serve: Serve, check: Check) -> None:
    """There is no address that it is connected to."""
    server = serve()
    server.stop()
    assert said(check(server)) == [
        f"=== Trying localhost:{server.port}",
        "*** the connection failed: Connection refused",
    ]


@pytest.mark.parametrize(
    ("mechanism", "replies"),
    [
        ("PLAIN", [b"235 ok\r\n"]),
        ("LOGIN", [b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n", b"235 ok\r\n"]),
        ("XOAUTH2", [b"334 eyJzdGF0dXMiOiI0MDAifQ==\r\n", b"535 no\r\n", b"535 no\r\n"]),
    ],
)
def test_of_a_login_the_mechanism_alone_is_shown(
    serve: Serve, check: Check, mechanism: str, replies: list[bytes]
) -> None:
    """Neither what is sent nor what the server asks; not even the length of either, as far as AUTH has room for it."""

    def reply(peer: Peer, _: bytes) -> bytes:
        for each in replies[:-1]:
            peer.send(each)
            peer.read_line()
        return replies[-1]

    def login(password: str) -> list[str]:
        script = honest(auth=("me", "x"), replies={"AUTH": reply, "EHLO": offering(mechanism)})
        oauth = mechanism == "XOAUTH2"
        result = check(serve(script), username="me", password=password, oauth=oauth)
        return [each for each in said(result) if "Trying" not in each]

    shown = login("a")
    assert shown == login("b" * 200)
    responses = [each for each in shown if each.startswith("~>") and "EHLO" not in each and "QUIT" not in each]
    first = f"~> AUTH {mechanism}" + " (not shown)" * (mechanism != "LOGIN")
    assert set(responses) == {first, "~> (not shown)"} - ({"~> (not shown)"} if mechanism == "PLAIN" else set())
    # As a code: a random fingerprint may have the three digits.
    challenges = [each for each in shown if each.split()[1] == "334"]
    assert challenges == ["<~ 334 (not shown)"] * shown.count("<~ 334 (not shown)")


def test_a_secret_is_not_shown_at_any_stage() -> None:
    """Whatever command has it."""
    transcript = Transcript()

    def dialogue() -> Dialogue[None]:
        yield Send(line(b"X", b"secret", secrets=(b"secret",)), Stage.MAIL)

    steps = transcript.follow(dialogue(), lambda *_: None)
    next(steps)
    assert [each.text for each in transcript.lines] == ["(not shown)"]


def offering(mechanism: str) -> Answer:
    """Return the reply to EHLO of a server that offers one mechanism, and STARTTLS before TLS."""

    def reply(peer: Peer, _: bytes) -> bytes:
        last = f"AUTH {mechanism}".encode() if peer.log.encrypted else b"STARTTLS"
        return b"250-mx.test\r\n250-PIPELINING\r\n250 " + last + b"\r\n"

    return reply


def echo(how: str) -> Answer:
    """Return the reply to AUTH of a server that repeats what it has received, in one of several forms."""

    def reply(peer: Peer, received: bytes) -> bytes:
        words = received.split(b" ")[2:]
        if not words:
            for challenge in (b"VXNlcm5hbWU6", b"UGFzc3dvcmQ6"):
                peer.send(b"334 " + challenge + b"\r\n")
                words.append(peer.read_line())
        if how == "scram":
            return exchange("me", "another", lambda _: None)(peer, received)
        decoded = b" ".join(base64.b64decode(each) for each in words).replace(b"\r", b"").replace(b"\n", b"")
        texts = {
            "base64": b" ".join(words),
            "plain": decoded,
            "spread": b" ".join(decoded[i : i + 1] for i in range(99)),
        }
        lines = [b"535-5.7.8 " + texts[how][:900], b"535 5.7.8 " + texts[how][-900:]]
        return b"\r\n".join(lines) + b"\r\n"

    return reply


PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cc"]), min_size=8)


@given(password=PASSWORDS.filter(lambda text: len(set("".join(text.casefold().split()))) > 5), data=st.data())
@settings(max_examples=examples(60))
def test_no_secret_is_in_a_result(
    server_tls: ssl.SSLContext, ca_file: Path, password: str, data: st.DataObject
) -> None:
    """Not in the transcript, the faults or the error, whatever the server repeats, in either mode."""
    # No result has this character, so none has the password by accident (hypothesis tries words of the source).
    password = f"§{password}"
    mode: Mode = data.draw(st.sampled_from(["implicit", "starttls"]))
    how = data.draw(st.sampled_from(["base64", "plain", "spread", "scram"]))
    mechanism = "SCRAM-SHA-256" if how == "scram" else data.draw(st.sampled_from(["PLAIN", "LOGIN"]))
    script = honest(mode, auth=("me", "x"), replies={"AUTH": echo(how), "EHLO": offering(mechanism)})
    with ScriptedServer(script, tls=server_tls) as server:
        request = Request(
            host="localhost", port=server.port, tls=mode, ca_file=ca_file, username="me", password=password, timeout=5
        )
        result = probe(request)
    shown = "".join(f"{request!r} {result!r}".casefold().split())
    assert result.error is not None
    # SCRAM refuses some characters before anything is sent.
    assert f"~> AUTH {mechanism}" in " ".join(said(result)) or "SASLprep" in str(result.error)
    for form in forms(password, "me"):
        assert "".join(form.casefold().split()) not in shown


@pytest.mark.parametrize("mode", ["implicit", "starttls"])
def test_what_a_server_knows_from_before_is_not_shown(serve: Serve, check: Check, mode: Mode) -> None:
    """A password that is fetched at the login is not known yet when the greeting comes; nothing printed has it."""
    password = "Tr0ub4dor-staple-horse"
    known = base64.b64encode(f"\0me\0{password}".encode())
    offer = b"".join(b"250-%s\r\n" % each for each in (b"AUTH PLAIN " + password.encode(), b"X " + known, known))
    starttls = b"250-STARTTLS\r\n" if mode == "starttls" else b""
    hello = b"250-mx " + password.encode() + b"\r\n" + starttls + offer + b"250 PIPELINING\r\n"
    replies = {"GREETING": b"220 " + known + b"\r\n", "EHLO": hello}
    script = honest(mode, auth=("me", password), replies=replies)
    result = check(serve(script), mode, username="me", password=lambda: password)
    assert (result.error, result.stage) == (None, "auth")
    assert result.report is not None
    assert "PIPELINING" in (result.after_tls or {})
    shown = repr((replace(result, report=None), result.report.mechanisms)).casefold()
    for form in forms(password, "me"):
        assert form.casefold() not in shown


def test_no_result_shows_a_tokens_callable(serve: Serve, check: Check) -> None:
    """A callable is called once, inside TLS, and its token is shown nowhere."""
    calls: list[str] = []

    def token() -> str:
        calls.append("called")
        return "ya29.tokentokentoken"

    script = honest(extensions=("AUTH XOAUTH2",), auth=("me", "x"), replies={"AUTH": b"454 4.7.0 later\r\n"})
    result: CheckResult = check(serve(script), username="me", password=token, oauth=True)
    assert calls == ["called"]
    assert "ya29" not in repr(result)
