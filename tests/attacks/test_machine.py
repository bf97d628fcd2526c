"""Random server faults at random steps of many messages: the reported outcomes are what the server did."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from audit import audit
from conftest import Mailer, thorough
from faces import Face
from scripted import Accepted, Answer, Chunking, Gone, Mode, Peer, ScriptedServer, honest
from securesmtp import Envelope, Outcome, SecureSMTPError, Window

pytestmark = pytest.mark.faces("state machine")

RIGHT = {
    "GREETING": b"220 mx.test\r\n",
    "STARTTLS": b"220 go\r\n",
    "AUTH": b"235 welcome\r\n",
    "DATA": b"354 go\r\n",
}
STEPS = [*RIGHT, "EHLO", "MAIL", "RCPT", "CONTENT", "RSET"]
SAID = {
    "later": b"451 4.3.0 later\r\n",
    "never": b"554 5.0.0 no\r\n",
    "closing": b"421 4.3.2 bye\r\n",
    "login wanted": b"530 5.7.0 log in\r\n",
    "malformed": b"2 5 0\r\n",
    "other success": b"214 help\r\n",
    "go on": b"354 go\r\n",
    "challenge": b"334 \r\n",
    "two codes": b"250-a\r\n550 b\r\n",
    "bare LF": b"250 ok\n",
}
ENDS: dict[str, Callable[[Peer], None]] = {"close": Peer.close, "cut": Peer.cut, "reset": Peer.reset}
FAULTS = [*SAID, *ENDS, "twice", "early", "half", "taken and cut", "said and closed"]


class Machine(RuleBasedStateMachine):
    """One mailer, one server whose next faults are drawn, and a record of the reported outcomes."""

    def __init__(self, make_mailer: Mailer, tls: ssl.SSLContext, ca_file: Path) -> None:
        super().__init__()
        self._make_mailer, self._tls, self._ca_file = make_mailer, tls, ca_file
        self.faults: dict[str, list[str | None]] = {}
        self.told: dict[bytes, tuple[Outcome, tuple[str, ...]]] = {}
        self.errors: list[SecureSMTPError] = []

    @initialize(
        mode=st.sampled_from(["implicit", "starttls"]),
        chunking=st.sampled_from(["whole", "by_line", "by_byte"]),
        offer=st.sampled_from([(), ("PIPELINING",), ("PIPELINING", "CHUNKING")]),
        window=st.none() | st.integers(1, 4),
    )
    def begin(self, mode: Mode, chunking: Chunking, offer: tuple[str, ...], window: int | None) -> None:
        """Start the server, and make the mailer."""
        self.ehlo = b"".join(b"250-%s\r\n" % word.encode() for word in ("mx.test", *offer, "AUTH PLAIN LOGIN"))
        self.in_flight, self.overlaps = bool(offer), bool(window)
        replies: dict[str, Answer] = {step: self._answer(step) for step in STEPS}
        script = honest(mode, extensions=offer, auth=("me", "secret"), replies=replies)
        self.server = ScriptedServer(script, tls=self._tls, chunking=chunking, connections=200, overlaps=bool(window))
        self.mailer = self._make_mailer(
            "localhost",
            self.server.port,
            tls=mode,
            ca_file=self._ca_file,
            username="me",
            password="secret",
            timeout=5,
            # One connection, so that the faults occur in the order in which they were drawn.
            max_connections=1,
            pipelining="session" if window else "message",
            window=Window(window or 1),
        )

    def _answer(self, step: str) -> Callable[[Peer, bytes], bytes]:
        right = self.ehlo + b"250 STARTTLS\r\n" if step == "EHLO" else RIGHT.get(step, b"250 2.0.0 ok\r\n")

        def answer(peer: Peer, line: bytes) -> bytes:
            fault = self.faults[step].pop(0) if self.faults.get(step) else None
            is_taken = self.in_flight and step in {"MAIL", "RCPT", "DATA", "RSET"}
            if fault in {"twice", "early"} and (is_taken or (self.overlaps and step == "CONTENT")):
                # With several commands or messages in flight, an extra reply is taken as the next one's: no client can
                # know. (With messages, seen on a busy machine: the last is accepted by the reply to its RCPT.)
                fault = None
            if fault in SAID:
                return SAID[fault]
            if fault in {"twice", "early"}:
                # In one piece: if the extra reply came after the next command, it could not be told from that one's.
                self.server.chunking = "whole"
            if fault == "twice":
                return right + right
            if fault == "early":
                # The second reply belongs to a command that was not sent.
                return right + b"250 2.0.0 queued\r\n"
            if fault in {"taken and cut", "said and closed"} and step == "CONTENT":
                # Noted before the reply is sent, because the client compares at once.
                peer.log.accepted.append(Accepted(b"", (), line, b""))
            if fault == "said and closed":
                peer.send(right)
            if fault == "half":
                peer.send(right[:5])
            if fault is not None:
                ENDS.get(fault, Peer.cut)(peer)
                raise Gone
            return right

        return answer

    @rule(step=st.sampled_from(STEPS), fault=st.sampled_from(FAULTS), later=st.integers(0, 2))
    def misbehave(self, step: str, fault: str, later: int) -> None:
        """Make one of the next replies at *step* wrong."""
        self.faults.setdefault(step, []).extend([None] * later + [fault])

    @rule(recipients=st.integers(1, 3), policy=st.sampled_from(["raise", "allow"]))
    def send(self, recipients: int, policy: str) -> None:
        """Send one message, then compare the outcomes with what the server did up to now."""
        content = b"Subject: %d\r\n\r\n.\r\n" % len(self.told)
        forward = [f"r{number}@d.example" for number in range(recipients)]
        try:
            receipt = self.mailer.send_bytes(content, mail_from="a@b.example", recipients=forward, partial=policy)  # type: ignore[arg-type]
        except SecureSMTPError as error:
            self.told[content] = error.outcome, ()
            self.errors.append(error)
        else:
            self.told[content] = Outcome.ACCEPTED, receipt.accepted
        self.compare()

    @rule(count=st.integers(2, 9))
    def send_many(self, count: int) -> None:
        """Send several, overlapping if the server supports it."""
        contents = [b"Subject: %d\r\n\r\n.\r\n" % (len(self.told) + number) for number in range(count)]
        envelopes = [Envelope("a@b.example", ["r@d.example"], content) for content in contents]
        for content, result in zip(contents, self.mailer.send_many(envelopes), strict=True):
            self.told[content] = result.outcome, result.receipt.accepted if result.receipt else ()
            if isinstance(result.error, SecureSMTPError):
                self.errors.append(result.error)
        self.compare()

    def compare(self) -> None:
        """Fail if a reported outcome is not true."""
        taken = [message.content for message in self.server.accepted]
        assert len(taken) == len(set(taken)), "accepted twice"
        for content, (outcome, recipients) in self.told.items():
            if outcome is Outcome.ACCEPTED:
                (message,) = [message for message in self.server.accepted if message.content == content]
                written = [line.partition(b"<")[2].partition(b">")[0].decode() for line in message.recipients]
                assert not message.recipients or tuple(written) == recipients
            elif outcome is not Outcome.UNKNOWN:
                assert content not in taken, outcome
        for error in self.errors:
            assert error.outcome is not Outcome.ACCEPTED
            assert not (error.retryable and error.outcome is Outcome.UNKNOWN)

    def teardown(self) -> None:
        """Compare once more when the server has read everything, and audit each connection."""
        if hasattr(self, "mailer"):
            self.mailer.close()
            with self.server:
                self.server.joined()
            self.compare()
            audit(self.server)


@pytest.mark.parametrize("sessions", thorough(20, 200))
def test_what_the_caller_is_told_is_what_the_server_did(
    face: Face, make_mailer: Mailer, server_tls: ssl.SSLContext, ca_file: Path, sessions: int
) -> None:
    """Accepted, refused and not sent are true of each message (MSG-05, MSG-06); retryable never goes with unknown."""
    run_state_machine_as_test(
        partial(Machine, make_mailer, server_tls, ca_file),  # type: ignore[arg-type]  # annotated as a class, documented as any callable
        settings=settings(
            max_examples=sessions if face == "sync" else sessions // 5,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
