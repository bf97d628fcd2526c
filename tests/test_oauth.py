"""OAuth 2: one token for a mailer, fetched after TLS was verified, and fetched once more when the server refuses it."""

from __future__ import annotations

import base64
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.message import EmailMessage
from functools import partial as bind
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trustme

from conftest import Mailer, Positions, Serve
from scripted import Mode, Peer
from securesmtp import (
    AuthenticationError,
    CertificateError,
    ConfigurationError,
    ConnectError,
    DataRefusedError,
    DeadlineExceededError,
    Envelope,
    NoUsableMechanismError,
    OAuth2,
    Outcome,
    Secret,
    SecureMailer,
    SecureSMTPError,
    Stage,
    TLSPolicy,
)
from securesmtp._protocol.effects import FetchToken
from securesmtp._transport import token_threads
from securesmtp._transport.deadline import Deadline
from securesmtp._transport.slot import Lease
from securesmtp._transport.token_login import fetch_usable_token
from securesmtp._transport.token_threads import fetch_token
from securesmtp._transport.tokens import Fetch, Tokens
from securesmtp.credentials import from_command, from_file
from securesmtp.events import Authenticated, Event
from tokens import ERROR, Grants, Source

pytestmark = pytest.mark.faces("oauth", sample=(2, 1))
OLD, NEW, OTHER = "old-token.AAAAAAAA", "new-token.BBBBBBBB", "other-token.CCCCCCCC"
RAW = b"Subject: x\r\nMessage-ID: <outer@x>\r\n\r\nx\r\n"


def send(mailer: SecureMailer, **options: float) -> int:
    """Send a message."""
    return mailer.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"], **options).reply.code  # type: ignore[arg-type]


def login(source: Source | str, mechanisms: list[str] | None = None) -> OAuth2:
    """Return a login with the tokens of *source*, which is told of refusals."""
    on_refused = source.refused if isinstance(source, Source) else None
    return OAuth2("me@b.example", source, mechanisms, on_refused=on_refused)


def refused(mailer: SecureMailer, kind: type[SecureSMTPError] = AuthenticationError) -> SecureSMTPError:
    """Send a message, and return the error."""
    with pytest.raises(kind) as caught:
        send(mailer)
    assert type(caught.value) is kind
    assert caught.value.outcome is Outcome.NOT_SENT
    return caught.value


# The token is fetched after TLS, once, and kept.


def test_the_token_is_fetched_after_the_verified_handshake(serve: Serve, mailer: Mailer, mode: Mode) -> None:
    """Not when the mailer is made, nor before the server is known (OAU-03); then it is sent."""
    grants, seen = Grants(NEW), list[bytes]()
    server = serve(grants.script(mode))

    def token() -> str:
        seen.append(server.secret)
        return NEW

    mine = mailer(server, tls=mode, auth=OAuth2("me@b.example", token))
    assert not seen
    assert send(mine) == 250
    ((ehlo),) = seen
    assert ehlo.startswith(b"EHLO ")
    assert b"AUTH" not in ehlo
    assert (grants.shown, grants.names) == ([NEW], {"me@b.example"})


def test_an_unverified_server_gets_no_token(serve: Serve, mailer: Mailer) -> None:
    """The source is not even called."""
    source = Source(NEW)
    other = TLSPolicy(ca_data=trustme.CA().cert_pem.bytes().decode())
    refused(mailer(serve(Grants(NEW).script()), auth=login(source), policy=other), CertificateError)
    assert source.calls == 0


def test_without_a_mechanism_for_tokens_none_is_fetched(serve: Serve, mailer: Mailer) -> None:
    """A token is never sent as a password."""
    source = Source(NEW)
    server = serve(Grants(NEW).script(mechanisms="PLAIN LOGIN"))
    error = refused(mailer(server, auth=login(source)), NoUsableMechanismError)
    assert "XOAUTH2, OAUTHBEARER" in str(error)
    assert source.calls == 0
    assert b"AUTH" not in server.secret


def test_connections_that_open_together_share_one_fetch(serve: Serve, mailer: Mailer) -> None:
    """Four sends meet at the source, which is called once; each logs in with its token."""
    grants, waiting = Grants(NEW), threading.Event()
    greeted = threading.Barrier(5)

    def greet(peer: Peer, _: bytes) -> bytes:
        greeted.wait(10)
        return b"220 mx.test\r\n"

    def token() -> str:
        waiting.wait(10)
        return source()

    source = Source(NEW)
    mine = mailer(serve(grants.script(replies={"GREETING": greet})), auth=OAuth2("me@b.example", token))
    with ThreadPoolExecutor(4) as threads:
        codes = [threads.submit(send, mine) for _ in range(4)]
        greeted.wait(10)
        waiting.set()
        assert [code.result(10) for code in codes] == [250] * 4
    assert source.calls == 1
    assert grants.shown == [NEW] * 4


def test_the_token_is_kept_for_later_connections(serve: Serve, mailer: Mailer) -> None:
    """Until a login with it fails: a new connection for each message, one fetch, also for `check`."""
    grants, source = Grants(NEW), Source(NEW, OTHER)
    mine = mailer(serve(grants.script()), auth=login(source), max_messages=1)
    assert [send(mine) for _ in range(3)] == [250] * 3
    assert mine.check().login is True
    assert (source.calls, source.refusals, grants.shown) == (1, 0, [NEW] * 4)


@pytest.mark.parametrize("token", ["opaque", "ya29.a0Af_-~+/==", "a" * 3000], ids=["opaque", "signs", "long"])
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_token_is_sent_as_it_is(
    serve: Serve, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, token: str, mechanism: str
) -> None:
    """Nothing is read from it, and no clock counts (PITFALLS O8); a long one goes on a line of its own (AUTH-03)."""
    monkeypatch.setattr(time, "time", lambda: 4e9)
    grants = Grants(token)
    assert send(mailer(serve(grants.script(mechanisms=mechanism)), auth=OAuth2("me", token))) == 250
    assert grants.shown == [token]


# A refused token is replaced, once.


@pytest.mark.parametrize(
    ("refusal", "error", "renewed"),
    [
        pytest.param(b"535 5.7.8 no", None, True, id="535"),
        pytest.param(b"535 5.7.3 Authentication unsuccessful", None, True, id="exchange"),
        pytest.param(b"501 5.5.127 Token will expire soon", None, True, id="expires-soon"),
        pytest.param(b"535 5.7.8 no", ERROR, True, id="json"),
        pytest.param(b"554 5.7.0 no", ERROR, True, id="json-554"),
        pytest.param(b"501 5.5.124 Invalid XOAUTH2 auth data", None, False, id="unreadable"),
        pytest.param(b"535 5.7.139 disabled for the Tenant", None, False, id="tenant"),
        pytest.param(b"535 5.7.139 disabled for the Tenant", ERROR, False, id="tenant-json"),
        pytest.param(b"534 5.7.9 log in with your web browser", ERROR, False, id="browser"),
        pytest.param(b"454 4.7.0 Too many login attempts", None, False, id="temporary"),
    ],
)
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_which_refusals_renew_the_token(  # noqa: PLR0913 -- fixtures and a row
    serve: Serve, mailer: Mailer, mechanism: str, refusal: bytes, error: bytes | None, *, renewed: bool
) -> None:
    """Then it is fetched once more and tried once more, over the same connection; else once (PITFALLS O1)."""
    challenge = None if error is None else base64.b64encode(error)
    grants, source = Grants(NEW, refusal=refusal + b"\r\n", error=challenge), Source(OLD, NEW)
    server = serve(grants.script(mechanisms=mechanism))
    mine = mailer(server, auth=login(source))
    if renewed:
        assert send(mine) == 250
        assert (grants.shown, source.calls, source.refusals) == ([OLD, NEW], 2, 1)
        assert len(server.connections) == 1
    else:
        found = refused(mine)
        assert found.reply is not None
        assert found.reply.code == int(refusal[:3])
        assert (grants.shown, source.calls, source.refusals) == ([OLD], 1, 0)
        assert (ERROR.decode() in str(found)) is (error is not None)


@pytest.mark.parametrize("many", [False, True], ids=["send", "send_many"])
def test_a_second_refusal_is_final(serve: Serve, mailer: Mailer, *, many: bool) -> None:
    """Two attempts on the wire, and the second reply in the error, with the server's JSON."""
    grants, source = Grants(error=base64.b64encode(ERROR)), Source(OLD, NEW, OTHER)
    server = serve(grants.script())
    mine = mailer(server, auth=login(source), max_connections=1)
    if many:
        results = list(mine.send_many([Envelope("a@b.example", ["c@d.example"], RAW)] * 3))
        errors = [result.error for result in results]
        assert [type(error) for error in errors] == [AuthenticationError] * 3
        assert {result.outcome for result in results} == {Outcome.NOT_SENT}
        found = str(errors[0])
    else:
        found = str(refused(mine))
    assert ERROR.decode() in found
    assert grants.shown == [OLD, NEW]
    assert (source.calls, source.refusals) == (2, 1)
    assert server.secret.count(b"AUTH ") == 2


def test_a_login_that_is_refused_again_later_is_tried_anew(serve: Serve, mailer: Mailer) -> None:
    """A final refusal is of one login: the next send fetches again, and again tries twice."""
    names = [f"token-{number}" for number in range(5)]
    grants, source = Grants(names[-1]), Source(*names)
    mine = mailer(serve(grants.script()), auth=login(source))
    refused(mine)
    refused(mine)
    assert send(mine) == 250
    assert (grants.shown, source.refusals) == (names, 4)


@pytest.mark.parametrize(
    "challenge",
    [base64.b64encode(b'{"status": "inv'), base64.b64encode(b"no json"), b"eyJz", b"!", b""],
    ids=["broken", "no-json", "broken-base64", "no-base64", "empty"],
)
@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_broken_error_is_answered_too(serve: Serve, mailer: Mailer, mechanism: str, challenge: bytes) -> None:
    """Each mechanism in its way, so that the 535 is read and the token renewed (PITFALLS O14)."""
    grants, source = Grants(NEW, error=challenge), Source(OLD, NEW)
    assert send(mailer(serve(grants.script(mechanisms=mechanism)), auth=login(source))) == 250
    assert grants.shown == [OLD, NEW]


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_server_that_repeats_tokens(serve: Serve, mailer: Mailer, mechanism: str) -> None:
    """In its JSON, its replies and in base64, also that of the login before: none is shown (AUTH-08)."""
    grants, source = Grants(), Source(OLD, NEW)

    def decide(peer: Peer, line: bytes) -> bytes:
        both = f"{OLD.lower()} {NEW}".encode()
        grants.error = base64.b64encode(b'{"status":"401","tokens":"%s"}' % both)
        grants.refusal = b"535 5.7.8 no: %s %s\r\n" % (both, line.rpartition(b" ")[2])
        return grants.decide(peer, line)

    server = serve(grants.script(mechanisms=mechanism, replies={"AUTH": decide}))
    error = refused(mailer(server, auth=login(source)))
    assert error.args[0].count("redacted") >= 2
    assert '{"status":"401","tokens":"' in error.args[0]
    assert grants.shown == [OLD, NEW]


@pytest.mark.parametrize("ends", ["close", "421", "503"])
@pytest.mark.parametrize("accepts", [True, False], ids=["accepted", "refused"])
def test_the_new_token_goes_over_a_new_connection_if_it_must(
    serve: Serve, mailer: Mailer, ends: str, *, accepts: bool
) -> None:
    """Some servers close after a refusal, or allow one login for each connection; the refusal is final there, too."""
    grants, source, events = Grants(ends=ends), Source(OLD, NEW, OTHER), list[Event]()
    if accepts:
        grants.accepted.add(NEW)
    server = serve(grants.script())
    mine = mailer(server, auth=login(source), on_event=events.append)
    if accepts:
        assert send(mine) == 250
        assert sum(isinstance(event, Authenticated) for event in events) == 1
    else:
        assert "535 5.7.8 no" in str(refused(mine))
    assert (grants.shown, source.calls, source.refusals) == ([OLD, NEW], 2, 1)
    assert len(server.connections) == 2


@pytest.mark.parametrize(
    ("reply", "kind", "retryable"),
    [
        (b"454 4.7.0 later\r\n", AuthenticationError, True),
        (b"535 5.7.139 disabled\r\n", AuthenticationError, False),
        (b"", ConnectError, True),
    ],
    ids=["later", "disabled", "closed"],
)
@pytest.mark.parametrize("ends", ["", "close"])
def test_the_second_login_fails_in_another_way(  # noqa: PLR0913 -- fixtures and a row
    serve: Serve,
    mailer: Mailer,
    ends: str,
    reply: bytes,
    kind: type[SecureSMTPError],
    *,
    retryable: bool,
) -> None:
    """That is the error, because it says nothing of the first token; the new one is kept."""
    grants, source = Grants(ends=ends), Source(OLD, NEW, OTHER)

    def decide(peer: Peer, line: bytes) -> bytes:
        if not grants.shown or grants.has_ended(peer):
            return grants.decide(peer, line)
        grants.shown.append(line.decode())
        if not reply:
            peer.cut()
        return reply

    mine = mailer(serve(grants.script(mechanisms="XOAUTH2", replies={"AUTH": decide})), auth=login(source))
    error = refused(mine, kind)
    assert error.retryable is retryable
    assert len(grants.shown) == (3 if not reply and not ends else 2)
    assert source.calls == 2


@pytest.mark.parametrize("ends", ["", "close", "503"])
@pytest.mark.parametrize("accepts", [True, False], ids=["accepted", "refused"])
def test_check_renews_the_token_too(serve: Serve, mailer: Mailer, ends: str, *, accepts: bool) -> None:
    """Its report says whether a send would log in."""
    grants, source = Grants(ends=ends), Source(OLD, NEW, OTHER)
    if accepts:
        grants.accepted.add(NEW)
    report = mailer(serve(grants.script()), auth=login(source)).check()
    assert report.login is accepts
    assert (report.login_error is None) is accepts
    assert grants.shown == [OLD, NEW]


def test_a_refusal_on_each_connection_renews_the_token_once(serve: Serve, mailer: Mailer) -> None:
    """Four connections log in with the old token together; the source is told once, and asked once more."""
    grants, source, met = Grants(NEW), Source(OLD, NEW, OTHER), threading.Barrier(4)

    def decide(peer: Peer, line: bytes) -> bytes:
        reply = grants.decide(peer, line)
        if reply.startswith(b"535"):
            met.wait(10)
        return reply

    mine = mailer(serve(grants.script(replies={"AUTH": decide})), auth=login(source))
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: send(mine), range(4))) == [250] * 4
    assert (sorted(grants.shown), source.calls, source.refusals) == ([NEW] * 4 + [OLD] * 4, 2, 1)


@pytest.mark.parametrize("ends", ["", "close"])
def test_a_renewal_that_is_cut_at_any_octet(serve: Serve, mailer: Mailer, positions: Positions, ends: str) -> None:
    """The outcome is what the server knows, and the refused token is not sent again over the connections after it."""
    server = serve(Grants(NEW, ends=ends).script())
    assert send(mailer(server, auth=login(Source(OLD, NEW)))) == 250
    for cut in positions(sum(connection.written for connection in server.connections)):
        grants = Grants(NEW, ends=ends)
        server = serve(grants.script(), cut_after_written=cut)
        mine = mailer(server, auth=login(Source(OLD, NEW)), max_connections=1)
        outcome = Outcome.ACCEPTED
        try:
            send(mine)
        except SecureSMTPError as error:
            outcome = error.outcome
        accepted = len(server.accepted)
        assert accepted <= 1
        assert outcome is Outcome.UNKNOWN or accepted == (outcome is Outcome.ACCEPTED)
        assert grants.shown.count(OLD) <= 1, cut


# A refused token is never sent again.


@pytest.mark.parametrize("told", [False, True], ids=["without", "with"])
def test_a_source_that_repeats_itself(serve: Serve, mailer: Mailer, *, told: bool) -> None:
    """The refused token is not sent again, in this send or a later one; the error is the server's (PITFALLS O2)."""
    grants, source = Grants(), Source(OLD)
    server = serve(grants.script())
    mine = mailer(server, auth=OAuth2("me", source, on_refused=source.refused if told else None))
    first, later = refused(mine), refused(mine)
    assert first.args[0] == 'the server refused the login: "535 5.7.8 no"'
    assert later.args[0] == f"no login was attempted: the token is one that the server has refused: {first.args[0]}"
    assert first.reply == later.reply
    for error in (first, later):
        assert ("on_refused must" if told else "pass on_refused") in str(error.hint)
        assert not error.retryable
    assert (grants.shown, source.refusals) == ([OLD], 2 * told)
    # The source has a new one at last.
    source.tokens.append(NEW)
    source.calls, grants.accepted = 1, {NEW}
    assert send(mine) == 250


def test_a_fixed_string_is_sent_once(serve: Serve, mailer: Mailer) -> None:
    """The server's reply is the error; nothing can be renewed (PITFALLS O7)."""
    grants = Grants()
    mine = mailer(serve(grants.script()), auth=OAuth2("me", Secret(OLD)))
    assert "535 5.7.8 no" in str(refused(mine))
    assert "pass a callable" in str(refused(mine).hint)
    assert grants.shown == [OLD]


def test_a_renewal_that_fails_is_the_cause_of_the_refusal(serve: Serve, mailer: Mailer) -> None:
    """The error is what the server said, not what the source raised (PITFALLS O7)."""
    grants, source = Grants(), Source(OLD, LookupError("no grant"))
    error = refused(mailer(serve(grants.script()), auth=login(source)))
    assert error.args[0] == 'the server refused the login: "535 5.7.8 no"'
    assert isinstance(error.__cause__, AuthenticationError)
    assert error.__cause__.args[0] == "the token callable raised LookupError"
    assert error.__cause__.__cause__ is source.tokens[1]
    assert grants.shown == [OLD]


# The source fails, is slow, or is wrong.


@pytest.mark.parametrize("deadline", [None, 5.0])
def test_what_a_source_raises_is_the_cause_and_forgotten(serve: Serve, mailer: Mailer, deadline: float | None) -> None:
    """It does not show in the text, because it may have a secret; the next send fetches anew (PITFALLS O3, O5)."""
    grants = Grants(NEW)
    source = Source(ConnectionResetError("client_secret=hunter2"), SystemExit(3), NEW)
    mine = mailer(serve(grants.script()), auth=login(source), deadline=deadline)
    for raised in source.tokens[:2]:
        error = refused(mine)
        assert error.args[0] == f"the token callable raised {type(raised).__name__}"
        assert (error.__cause__, error.stage, error.retryable) == (raised, Stage.AUTH, True)
    assert send(mine) == 250
    assert source.calls == 3


@pytest.mark.parametrize(
    ("inner", "kind", "retryable"),
    [
        (ConnectError("gone", retryable=True), AuthenticationError, True),
        (DataRefusedError("no"), AuthenticationError, False),
        (ConfigurationError("no"), ConfigurationError, False),
    ],
    ids=["gone", "refused", "configuration"],
)
def test_an_error_of_ours_from_a_source_is_not_the_outcome_of_the_message(
    serve: Serve, mailer: Mailer, inner: SecureSMTPError, kind: type[SecureSMTPError], *, retryable: bool
) -> None:
    """It may be about a message that the source sent."""
    error = refused(mailer(serve(Grants().script()), auth=login(Source(inner))), kind)
    assert (error.__cause__, error.retryable) == (inner, retryable)
    assert type(inner).__name__ in error.args[0]


@pytest.mark.parametrize("token", ["Bearer " + NEW, NEW + "\n", "", 73550, b"bytes", print], ids=ascii)
def test_a_source_that_returns_no_token(serve: Serve, mailer: Mailer, token: Any) -> None:
    """The caller's mistake: nothing is sent, and the value is not shown."""
    server = serve(Grants().script())
    error = refused(mailer(server, auth=OAuth2("me", lambda: token)), ConfigurationError)
    assert error.args[0].startswith("the token ")
    assert (error.stage, error.__cause__) == (Stage.AUTH, None)
    assert b"AUTH" not in server.secret


def test_each_send_waits_for_its_own_deadline_and_a_late_token_is_kept(serve: Serve, mailer: Mailer) -> None:
    """The first stops waiting, the second gets the token of the same fetch, the third too (PITFALLS O5, O6)."""
    grants, source, release, called = Grants(NEW), Source(NEW), threading.Event(), threading.Event()

    def token() -> str:
        called.set()
        release.wait(20)
        return source()

    server = serve(grants.script())
    mine = mailer(server, auth=OAuth2("me@b.example", token))
    while not called.is_set():
        # A busy machine may need more time to connect.
        with pytest.raises(DeadlineExceededError) as caught:
            send(mine, deadline=0.5)
    assert "waiting for the token callable" in str(caught.value)
    assert (caught.value.outcome, caught.value.stage) == (Outcome.NOT_SENT, Stage.AUTH)
    with ThreadPoolExecutor(2) as threads:
        codes = [threads.submit(send, mine, deadline=20) for _ in range(2)]
        release.set()
        assert [code.result(20) for code in codes] == [250] * 2
    assert source.calls == 1
    assert send(mine) == 250
    assert source.calls == 1


@pytest.mark.faces("oauth", threads_only=True)
@pytest.mark.parametrize("most", [1, 2])
def test_a_send_inside_the_source_does_not_wait_for_itself(serve: Serve, mailer: Mailer, most: int) -> None:
    """With a free connection or without one: it would wait for the token that it is to fetch."""

    def token() -> str:
        send(mine)
        return NEW

    mine = mailer(serve(Grants(NEW).script()), auth=OAuth2("me", token), max_connections=most)
    error = refused(mine, ConfigurationError)
    assert isinstance(error.__cause__, ConfigurationError)
    assert "a mailer of its own" in str(error.__cause__.hint)


def test_a_program_or_a_file_may_have_the_token(serve: Serve, mailer: Mailer, tmp_path: Path) -> None:
    """As they may have a password; they are asked again after a refusal."""
    path = tmp_path / "token"
    path.write_text(f"{OLD}\n")
    path.chmod(0o600)
    renew = "import sys; open(sys.argv[1], 'r+').write(sys.argv[2]); print(sys.argv[2])"
    command = from_command([sys.executable, "-c", renew, str(path), NEW])
    for token in (from_file(path), command, from_file(path)):
        grants = Grants(NEW)
        mine = mailer(serve(grants.script()), auth=OAuth2("me", token, on_refused=command))
        assert send(mine) == 250
        assert grants.shown[-1] == NEW


# What else comes after a login.


def test_a_lost_login_is_replaced_with_a_fresh_token(serve: Serve, mailer: Mailer) -> None:
    """530 to the second message of a connection: the next login asks the source, which was not told (PITFALLS O13)."""
    grants, source, mails = Grants(OLD, NEW), Source(OLD, NEW), list[bytes]()

    def mail(_: Peer, line: bytes) -> bytes:
        mails.append(line)
        return b"530 5.7.57 Client not authenticated\r\n" if len(mails) == 2 else b"250 ok\r\n"

    server = serve(grants.script(replies={"MAIL": mail}))
    mine = mailer(server, auth=login(source))
    assert [send(mine), send(mine)] == [250, 250]
    assert (grants.shown, source.calls, source.refusals) == ([OLD, NEW], 2, 0)
    assert len(server.accepted) == 2


def test_a_temporary_refusal_pauses_logins_and_keeps_the_token(serve: Serve, mailer: Mailer) -> None:
    """One AUTH in the pause, whoever sends (PITFALLS O12); the token is not at fault."""
    grants, source = Grants(refusal=b"454 4.7.0 Too many login attempts\r\n"), Source(OLD, NEW)
    mine = mailer(serve(grants.script()), auth=login(source))
    errors = [refused(mine) for _ in range(3)]
    assert [error.retryable for error in errors] == [True] * 3
    assert (grants.shown, source.calls) == ([OLD], 1)
    grants.accepted.add(OLD)
    mine._pool.slots._pause.end()
    assert send(mine) == 250
    assert (grants.shown, source.calls) == ([OLD] * 2, 1)


def test_send_as_denied_names_the_mailbox(serve: Serve, mailer: Mailer, message: EmailMessage) -> None:
    """After the content, by Exchange: REFUSED, not retried, and the hint names the ways out (PITFALLS O10)."""
    server = serve(
        Grants(NEW).script(replies={"CONTENT": b"554 5.2.252 SendAsDenied; me not allowed to send as you\r\n"})
    )
    with pytest.raises(DataRefusedError) as caught:
        mailer(server, auth=login(Source(NEW))).send(message)
    assert (caught.value.outcome, caught.value.retryable) == (Outcome.REFUSED, False)
    assert "one mailer for each mailbox" in str(caught.value.hint)
    assert server.secret.count(b"MAIL FROM") == 1


def test_many_messages_go_on_with_a_new_token(serve: Serve, mailer: Mailer) -> None:
    """The token expires in the middle of a run: each message arrives once."""
    grants, source = Grants(OLD), Source(OLD, NEW)

    def content(_: Peer, octets: bytes) -> bytes:
        if grants.shown.count(OLD) >= 3:
            grants.accepted = {NEW}
        return b"250 ok\r\n"

    server = serve(grants.script(replies={"CONTENT": content}))
    mine = mailer(server, auth=login(source), max_messages=2, max_connections=2)
    results = list(mine.send_many([Envelope("a@b.example", ["c@d.example"], RAW)] * 20))
    assert {result.outcome for result in results} == {Outcome.ACCEPTED}
    assert len(server.accepted) == 20
    assert (source.calls, source.refusals) == (2, 1)


@pytest.mark.faces("oauth", threads_only=True)
def test_a_token_that_another_connection_has_worn_out_is_fetched_again() -> None:
    """It was right when this connection asked for it. One that had been refused before is not waited for."""
    source = Source(OLD)
    tokens = Tokens(login(source))
    steps = fetch_usable_token(tokens, lambda: Secret("unused"))
    assert isinstance(next(steps), FetchToken)
    tokens.refuse(Secret(OLD), AuthenticationError("expired"))
    assert isinstance(steps.send(Secret(OLD)), FetchToken)
    with pytest.raises(StopIteration) as stopped:
        steps.send(Secret(NEW))
    assert stopped.value.value.reveal() == NEW
    again = fetch_usable_token(tokens, lambda: Secret("unused"))
    next(again)
    with pytest.raises(AuthenticationError, match="has refused: expired"):
        again.send(Secret(OLD))


@pytest.mark.faces("oauth", threads_only=True)
def test_a_coroutine_function_needs_an_async_mailer() -> None:
    """Found when the mailer is made."""

    async def function() -> str:
        return NEW

    for auth, what in ((OAuth2("me", function), "token"), (OAuth2("me", NEW, on_refused=function), "on_refused")):
        with pytest.raises(ConfigurationError, match=f"the {what} callable is a coroutine function"):
            SecureMailer("localhost", auth=auth)


# Threads, forks and interrupts.


@pytest.mark.faces("oauth", threads_only=True)
def test_the_source_is_called_in_the_same_thread_if_none_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example while the interpreter shuts down; an interrupt is raised there, and the next fetch works."""

    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", fails)
    source = Source(KeyboardInterrupt(), LookupError(), NEW)
    tokens = Tokens(login(source))
    with pytest.raises(KeyboardInterrupt):
        fetch_token(tokens, None, ())
    with pytest.raises(AuthenticationError, match="LookupError"):
        fetch_token(tokens, Deadline("deadline", 5), ())
    assert fetch_token(tokens, None, ()).reveal() == NEW
    assert set(source.threads) == {threading.current_thread()}


@pytest.mark.faces("oauth", threads_only=True)
def test_an_interrupt_leaves_the_next_send_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever line of the fetch it strikes: another thread, or a later send, begins it again or gets its token."""
    monkeypatch.setattr(token_threads, "_POLL_INTERVAL", 0.001)
    left = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_globals.get("__name__") not in {token_threads.__name__, Tokens.__module__}:
            return None
        if event == "line":
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
        return trace

    for at in range(200):
        tokens = Tokens(login(Source(NEW)))
        left, before = at, sys.gettrace()
        sys.settrace(trace)
        try:
            with suppress(KeyboardInterrupt):
                fetch_token(tokens, None, ())
        finally:
            sys.settrace(before)
        assert fetch_token(tokens, Deadline("deadline", 10), ()).reveal() == NEW, at
        if left >= 0:
            return
    pytest.fail("it has no two hundred lines")


@pytest.mark.faces("oauth", threads_only=True)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_child_does_not_wait_for_its_parents_fetch(serve: Serve, mailer: Mailer) -> None:
    """The thread of the fetch is not in the child, which fetches a token of its own (PITFALLS O5)."""
    release, called, child = threading.Event(), threading.Event(), False

    def token() -> str:
        if not child:
            called.set()
            release.wait(20)
        return NEW

    grants = Grants(NEW)
    mine = mailer(serve(grants.script()), auth=OAuth2("me", token))
    with ThreadPoolExecutor(1) as threads:
        parent = threads.submit(send, mine)
        called.wait(10)
        if (pid := os.fork()) == 0:
            child = True
            try:
                os._exit(send(mine, deadline=10) - 250)
            finally:
                os._exit(1)
        status = os.waitpid(pid, 0)[1]
        release.set()
        assert parent.result(10) == 250
    assert status == 0
    assert grants.shown == [NEW] * 2


@pytest.mark.faces("oauth", threads_only=True)
def test_a_send_that_joins_later_is_inside_the_fetch_too() -> None:
    """What the source sends holds the leases of all who wait, as long as it runs."""
    fetch, leases = Tokens(login(Source(NEW))).fetch(), [Lease(number) for number in range(2)]
    fetch.join("first", leases[:1], list)
    assert fetch.begin("runner")
    fetch.join("second", leases[1:], list)
    assert [lease.is_held_by("runner") for lease in leases] == [True, True]
    fetch.finish(Secret(NEW))
    assert [lease.is_held_by("runner") for lease in leases] == [False, False]
    woken = list[int]()
    fetch.join("too late", (), bind(woken.append, 1))
    assert woken == [1]


@pytest.mark.faces("oauth", threads_only=True)
def test_a_fetch_is_run_by_one_thread() -> None:
    """Two may start a thread for it at the same time; the second one calls nothing."""
    source = Source(NEW)
    tokens = Tokens(login(source))
    fetch = tokens.fetch()
    assert fetch.begin("another thread")
    assert token_threads._run(tokens, fetch) is None
    assert (source.calls, fetch.result) == (0, None)


@pytest.mark.faces("oauth", threads_only=True)
def test_a_fetch_that_begins_late_finds_the_token_of_another() -> None:
    """A thread may be slow between its look for a token and the beginning of its fetch."""
    source = Source(NEW, OTHER)
    tokens = Tokens(login(source))
    assert fetch_token(tokens, None, ()).reveal() == NEW
    late = tokens.fetch()
    assert token_threads._run(tokens, late) is None
    assert late.token().reveal() == NEW
    assert source.calls == 1


@pytest.mark.faces("oauth", threads_only=True)
def test_few_refused_tokens_are_remembered() -> None:
    """A mailer that runs for years does not grow."""
    tokens = Tokens(login(Source(NEW)))
    for number in range(100):
        tokens.refuse(Secret(f"token{number}"), AuthenticationError("no"))
    assert tokens.refusal_of(Secret("token99")) is not None
    assert tokens.refusal_of(Secret("token0")) is None


@pytest.mark.faces("oauth", threads_only=True)
def test_a_fetch_that_is_under_way_has_no_token() -> None:
    """A mistake of ours would show, and not look like a login that was refused."""
    with pytest.raises(RuntimeError, match="under way"):
        Tokens(login(Source(NEW))).fetch().token()


def test_who_joins_a_fetch_that_has_just_ended_is_notified_at_once() -> None:
    """The result may come between the look at the token and the wait for it."""
    fetch, notified = Fetch(), list[int]()
    fetch.finish(Secret("token"))
    fetch.join("me", [], lambda: notified.append(1))
    assert notified == [1]
    assert fetch.token().reveal() == "token"
