"""Bad replies at every step: malformed in every chunking, with another step's code, dripping, endless."""

from __future__ import annotations

import base64

import pytest

from conftest import Mailer, Serve
from scripted import Chunking, Peer, Script, honest
from securesmtp import (
    AuthenticationError,
    ConnectError,
    DataRefusedError,
    DeadlineExceededError,
    Outcome,
    OutcomeUnknownError,
    ProtocolError,
    RecipientsRefusedError,
    RefusedError,
    SecureMailer,
    SecureSMTPError,
    SenderRefusedError,
    Stage,
)

pytestmark = pytest.mark.faces("attacks", sample=(13, 12))

RAW = b"Subject: x\r\n\r\nx\r\n"
# Each step, and what the client writes last before it reads the reply.
STEPS: dict[str, bytes] = {
    "GREETING": b"",
    "EHLO": b"EHLO [127.0.0.1]\r\n",
    "AUTH": b"AUTH PLAIN " + base64.b64encode(b"\0me\0secret") + b"\r\n",
    "MAIL": b"MAIL FROM:<a@b.example>\r\n",
    "RCPT": b"RCPT TO:<c@d.example>\r\n",
    "DATA": b"DATA\r\n",
    "CONTENT": RAW + b".\r\n",
    "RSET": b"RSET\r\n",
}
CHUNKINGS: list[Chunking] = ["whole", "by_line", "by_byte"]
# RPL-01, RPL-02: smtplib accepts these as replies, or attributes the following replies to the wrong commands.
MALFORMED: dict[str, bytes] = {
    "bare LF": b"%d ok\n",
    "bare CR": b"%d ok\r%d ok\r\n",
    "CR in the text": b"%d o\rk\r\n",
    "CR CR LF": b"%d ok\r\r\n",
    "LF CR": b"%d ok\n\r",
    "plus": b"+%d ok\r\n",
    "minus": b"-%d ok\r\n",
    "blank in front": b" %d ok\r\n",
    "underscore": b"2_5 ok\r\n",
    "code 999": b"999 ok\r\n",
    "code 000": b"000 ok\r\n",
    "code 199": b"199 ok\r\n",
    "code 260": b"260 ok\r\n",
    "four digits": b"%d0 ok\r\n",
    "two digits": b"25\r\n",
    "no blank": b"%dok\r\n",
    "tab": b"%d\tok\r\n",
    "other digits": "\uff12\uff15\uff10 ok\r\n".encode(),
    "empty line": b"\r\n%d ok\r\n",
    "no code": b"ok\r\n",
    "two codes": b"%d-a\r\n550 b\r\n",
    "another code first": b"550-a\r\n%d b\r\n",
    "a line without code": b"%d-a\r\nb\r\n%d c\r\n",
    "NUL first": b"\0%d ok\r\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n",
    "a TLS alert inside TLS": b"\x15\x03\x01\x00\x02\x02\x28\r\n",
    "too many lines": b"%d-x\r\n" * 129,
    "too long a line": b"%d " + b"x" * 2100 + b"\r\n",
}
RIGHT = {"GREETING": 220, "AUTH": 235, "DATA": 354}
# The steps at which the reply's own error is only the cause of the one that is raised.
WRAPPED: dict[str, tuple[type[SecureSMTPError], Outcome]] = {
    "CONTENT": (OutcomeUnknownError, Outcome.UNKNOWN),
    "RSET": (RecipientsRefusedError, Outcome.REFUSED),
}
REFUSALS: dict[str, type[SecureSMTPError]] = {
    "EHLO": RefusedError,
    "MAIL": SenderRefusedError,
    "RCPT": RecipientsRefusedError,
    "DATA": DataRefusedError,
    "CONTENT": DataRefusedError,
}
CODES = [211, 214, 220, 221, 235, 250, 251, 252, 334, 354, 421, 450, 451, 452, 454, 455]
REFUSED_FROM = CODES.index(450)
CODES += [500, 501, 502, 503, 504, 521, 530, 534, 535, 538, 550, 551, 552, 553, 554, 555, 556]


def _answers(step: str, reply: bytes) -> Script:
    """Play an honest server that sends *reply* at this one step."""
    refused = {"RCPT": b"550 5.1.1 no\r\n"} if step == "RSET" else {}
    return honest(extensions=(), auth=("me", "secret"), replies={**refused, step: reply})


def _fails(mine: SecureMailer) -> SecureSMTPError:
    with pytest.raises(SecureSMTPError) as caught:
        mine.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"])
    return caught.value


def _written(step: str) -> bytes:
    order = [name for name in STEPS if name not in ({"DATA", "CONTENT"} if step == "RSET" else {"RSET"})]
    return b"".join(STEPS[name] for name in order[: order.index(step) + 1])


@pytest.mark.parametrize("chunking", CHUNKINGS)
@pytest.mark.parametrize("step", STEPS)
def test_a_malformed_reply_ends_the_session(
    serve: Serve, mailer: Mailer, stride: int, step: str, chunking: Chunking
) -> None:
    """
    Nothing more is written, the next message takes a new connection, the outcome is true (RPL-01, RPL-02, RPL-05).

    Each run sends every shape at every step, in one of the three chunkings.
    """
    code = b"%d" % RIGHT.get(step, 250)
    start = (list(STEPS).index(step) + CHUNKINGS.index(chunking)) % stride
    for what, shape in list(MALFORMED.items())[start::stride]:
        server = serve(_answers(step, shape.replace(b"%d", code)), honest(auth=("me", "secret")), chunking=chunking)
        mine = mailer(server, username="me", password="secret")
        error = _fails(mine)
        assert (type(error), error.outcome) == WRAPPED.get(step, (ProtocolError, Outcome.NOT_SENT)), what
        cause = error.__cause__ if step in WRAPPED else error
        assert isinstance(cause, ProtocolError), what
        assert cause.stage is Stage(step.lower()), what
        # The next session needs no chunking.
        server.chunking = "whole"
        mine.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"])
        mine.close()
        server.joined()
        first, second = server.connections
        assert first.secret == _written(step), what
        assert len(second.accepted) == 1, what
        server.stop()


def _expected(step: str, code: int) -> tuple[type[SecureSMTPError], Outcome] | None:
    """Return the caller's error and outcome for *code* at *step*, None for success (RFC 5321 §4.3.2, RFC 4954 §6)."""
    if code in {RIGHT.get(step, 250)} | ({251, 252} if step == "RCPT" else set()):
        return None
    if step in WRAPPED and (code < 400 or step == "RSET"):
        return WRAPPED[step]
    if step == "GREETING":
        return ConnectError, Outcome.NOT_SENT
    if code < 400:
        return ProtocolError, Outcome.NOT_SENT
    if step == "AUTH" or (step == "MAIL" and code in {530, 535, 538}):
        return AuthenticationError, Outcome.NOT_SENT
    if code == 421 and step in {"MAIL", "RCPT", "DATA"}:
        return ConnectError, Outcome.NOT_SENT
    return REFUSALS[step], Outcome.REFUSED


@pytest.mark.parametrize("step", STEPS)
def test_a_step_takes_only_its_own_codes(serve: Serve, mailer: Mailer, stride: int, step: str) -> None:
    """No other 2xx is success; after a code that is neither success nor refusal, nothing is sent (RPL-06, RPL-09)."""
    # The success codes and 421 always; of the refusals every third.
    for code in [*CODES[:REFUSED_FROM], *CODES[REFUSED_FROM + list(STEPS).index(step) % stride :: stride]]:
        if step == "AUTH" and code == 334:
            continue  # Tested in test_login.py.
        server = serve(_answers(step, b"%d-x\r\n%d AUTH PLAIN\r\n" % (code, code)))
        mine = mailer(server, username="me", password="secret")
        expected = _expected(step, code)
        if expected is None and step != "RSET":
            assert mine.send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"]).reply.code == 250
            server.stop()
            continue
        error = _fails(mine)
        assert (type(error), error.outcome) == (expected or WRAPPED["RSET"]), code
        # At RSET, the 550 to RCPT decides.
        assert error.retryable is (400 <= code < 500 and step != "RSET"), code
        mine.close()
        server.joined()
        # A lost login is repeated once, on a new connection.
        assert len(server.connections) == 1 + (step == "MAIL" and code in {530, 535, 538}), code
        for connection in server.connections:
            rest = bytes(connection.secret).removeprefix(_written(step))
            assert rest in {b"", b"QUIT\r\n", b"RSET\r\nQUIT\r\n"}, code
            if code == 421 or code < 400:
                assert rest == (b"QUIT\r\n" if expected is None else b""), code
        server.stop()


@pytest.mark.parametrize("step", [step for step in STEPS if step != "CONTENT"])
def test_a_drip_is_bounded_at_every_step(serve: Serve, mailer: Mailer, step: str) -> None:
    """A single octet does not restart the time limit (TMO-01), and after it the connection is closed (RPL-05)."""

    def drips(peer: Peer, line: bytes) -> bytes:
        peer.drip(b"250-" + b"x" * 100, 0.1)
        return b""

    refused = {"RCPT": b"550 5.1.1 no\r\n"} if step == "RSET" else {}
    server = serve(honest(extensions=(), auth=("me", "secret"), replies={**refused, step: drips}), honest())
    mine = mailer(server, username="me", password="secret", timeout=0.5)
    error = _fails(mine)
    cause = error.__cause__ if step == "RSET" else error
    assert isinstance(cause, DeadlineExceededError)
    assert (cause.stage, cause.limit) == (Stage(step.lower()), "data" if step == "DATA" else "command")
    server.joined()
    assert server.secret == _written(step)


def test_a_drip_as_the_final_reply_is_bounded_by_the_deadline(serve: Serve, mailer: Mailer) -> None:
    """The final reply's own limit is at least a minute; the send's deadline ends it earlier, the outcome is unknown."""

    def drips(peer: Peer, content: bytes) -> bytes:
        peer.drip(b"250-" + b"x" * 100, 0.1)
        return b""

    server = serve(honest(replies={"CONTENT": drips}))
    with pytest.raises(OutcomeUnknownError) as caught:
        mailer(server).send_bytes(RAW, mail_from="a@b.example", recipients=["c@d.example"], deadline=0.8)
    assert isinstance(caught.value.__cause__, DeadlineExceededError)
    assert caught.value.__cause__.limit == "deadline"


@pytest.mark.parametrize(
    "flood",
    [
        b"250-mx.test\r\n" + b"".join(b"250-X%d\r\n" % number for number in range(100_000)) + b"250 SIZE 1\r\n",
        b"250-" + b"x" * 3_000_000,
        b"250-mx.test\r\n" + (b"250-" + b"x" * 1000 + b"\r\n") * 3000,
    ],
    ids=["100,000 capabilities", "endless line", "endless reply"],
)
@pytest.mark.parametrize("step", ["GREETING", "EHLO", "AUTH", "MAIL", "DATA"])
def test_a_flood_is_cut_short(serve: Serve, mailer: Mailer, step: str, flood: bytes) -> None:
    """The limits of `wire` end it, long before the flood does (RPL-03, invariant 7)."""

    def floods(peer: Peer, line: bytes) -> bytes:
        for start in range(0, len(flood), 65536):
            peer.send(flood[start : start + 65536])
        return b""

    server = serve(honest(extensions=(), auth=("me", "secret"), replies={step: floods}))
    assert isinstance(_fails(mailer(server, username="me", password="secret")), ProtocolError)
    server.joined()
    assert server.secret == _written(step)
