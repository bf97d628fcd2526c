"""SCRAM (RFC 5802, RFC 7677): the examples, a peer, and servers that lie about every part of the exchange."""

from __future__ import annotations

import base64
import re
import string
import stringprep
from collections.abc import Callable
from functools import cache

import pytest
import scramp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import examples
from leaks import shown
from protocol.play import TLS, Played, plain_id, play, raw
from scram_server import Server
from securesmtp._protocol.capabilities import Capabilities
from securesmtp._protocol.dialogue import Session, authenticate
from securesmtp._protocol.sasl import RANKED, ChannelBinding, Credentials, Password
from securesmtp._protocol.sasl import scram as module
from securesmtp._protocol.sasl.saslprep import saslprep
from securesmtp._protocol.sasl.scram import Scram
from securesmtp._secret import Secret
from securesmtp.errors import (
    AuthenticationError,
    ConfigurationError,
    NoUsableMechanismError,
    ProtocolError,
    SecureSMTPError,
    ServerNotAuthenticError,
)

SCRAMS = [name for name in RANKED if name.startswith("SCRAM-")]
PLAIN_SCRAMS = [name for name in SCRAMS if not name.endswith("-PLUS")]
UNIQUE = ChannelBinding("tls-unique", b"\x00\x01finished\xff\xfe")
PASSWORD = "hunter2 secret"


def encode(text: bytes | str) -> bytes:
    """Return *text* in base64."""
    return base64.b64encode(text.encode() if isinstance(text, str) else text)


def ask(text: bytes | str) -> bytes:
    """Return a 334 with *text* as its challenge."""
    return b"334 " + encode(text)


def decoded(played: Played[str]) -> list[bytes]:
    """Return the messages of the client in an exchange."""
    first, *responses = played.commands
    return [base64.b64decode(part) for part in (first.split(b" ")[2], *responses)]


@pytest.fixture
def nonce(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Fix the nonce of the client."""
    return lambda text: monkeypatch.setattr(module, "token_urlsafe", lambda octets: text)


# The examples.

EXAMPLES = {
    "RFC 5802 §5": (
        "SCRAM-SHA-1",
        "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
        "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    "RFC 7677 §3": (
        "SCRAM-SHA-256",
        "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_examples_of_the_rfcs(example: tuple[str, ...], nonce: Callable[[str], None]) -> None:
    """Octet for octet; the proof is not in the effects' repr."""
    name, client_first, server_first, client_final, server_final = example
    nonce(client_first.partition("r=")[2])
    session = Session(TLS, Capabilities(auth=(name,)))
    played = play(authenticate(session, Password("user", "pencil")), ask(server_first), ask(server_final), b"235 in")
    assert played.value == name
    assert decoded(played) == [client_first.encode(), client_final.encode(), b""]
    assert client_final[-20:] not in repr(played.effects)
    assert encode(client_final)[-20:].decode() not in repr(played.effects)


def test_a_nonce_is_new_and_has_24_random_octets() -> None:
    """At least 18 (SCR-01), and printable without a comma."""
    nonces = {Scram_for("SCRAM-SHA-256").start().partition(b"r=")[2] for _ in range(100)}
    assert len(nonces) == 100
    assert all(re.fullmatch(rb"[\w-]{32}", each) for each in nonces)


def Scram_for(name: str, username: str = "user", password: str = PASSWORD) -> Scram:  # noqa: N802 -- makes one
    """Return a new exchange."""
    made = RANKED[name](Credentials(username, Secret(password)))
    assert isinstance(made, Scram)
    return made


# The peer.


@cache
def _assigned() -> str:
    """Return what Unicode 3.2 assigns, since scramp refuses the rest; of three planes, and without surrogates."""
    numbers = (number for number in range(1, 0x30000) if not 0xD800 <= number < 0xE000)
    return "".join(each for each in map(chr, numbers) if not stringprep.in_table_a1(each))


@cache
def _usable() -> str:
    """Return each of these that a password may be."""
    return "".join(each for each in _assigned() if saslprep(each) is not None)


_ASSIGNED = st.deferred(
    lambda: st.text(st.sampled_from(_assigned()) | st.sampled_from(string.printable), min_size=1, max_size=20)
)
# A text in both directions is refused, though each of its characters may be used.
_WORDS = st.deferred(
    lambda: st.text(st.sampled_from(_usable()) | st.sampled_from(string.printable[:95]), min_size=1, max_size=20)
).filter(lambda text: saslprep(text) is not None)


@given(st.sampled_from(SCRAMS), _WORDS, _WORDS)
@settings(max_examples=examples(60), deadline=None)
def test_a_peer_takes_any_name_and_password(name: str, username: str, password: str) -> None:
    """And each side believes the other; with -PLUS, both have the same binding."""
    binding = UNIQUE if name.endswith("-PLUS") else None
    mechanism = RANKED[name](Credentials(username, Secret(password), binding, is_binding_offered=True))
    server = Server(name, username, password, binding)
    initial = mechanism.start()
    assert initial is not None
    proof = mechanism.respond(server.first(initial))
    assert proof is not None
    assert password.encode() not in proof or len(password) < 6
    assert mechanism.respond(server.final(proof)) == b""
    mechanism.finish()
    assert mechanism.respond(b"") is None
    # scramp looks a name up as it was sent, but for the escapes.
    assert server.asked == [saslprep(username)]
    assert {password.encode(), proof.rpartition(b",p=")[2]} < {*mechanism.secrets, b""}


def test_a_wrong_password_is_refused_with_what_the_server_says() -> None:
    """`e=` in a 334: nothing more is written, and the error says what to check."""
    mechanism, server = Scram_for("SCRAM-SHA-256", password="wrong"), Server("SCRAM-SHA-256", "user", "right")
    proof = mechanism.respond(server.first(mechanism.start()))
    assert proof is not None
    with pytest.raises(AuthenticationError, match="invalid-proof") as caught:
        mechanism.respond(server.final(proof))
    assert type(caught.value) is AuthenticationError
    assert "mechanisms=" in str(caught.value.hint)


# The order (O16, O17).


class Lying:
    """A server that knows the password, and changes one of its messages."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fix the nonces, so that the answers are known before the exchange."""
        monkeypatch.setattr(module, "token_urlsafe", lambda octets: "clientnonce")
        self.server_first = b"r=clientnonceserver,s=" + encode(b"salt" * 4) + b",i=4096"
        probe = Scram_for("SCRAM-SHA-256")
        probe.start()
        proof = probe.respond(self.server_first)
        assert proof is not None
        self.proof = proof
        self.server_final = b"v=" + encode(probe._signature)

    def answers(self, *answers: bytes) -> list[bytes]:
        """Return *answers* with FIRST and FINAL replaced by the true messages."""
        return [
            answer.replace(b"FIRST", encode(self.server_first)).replace(b"FINAL", encode(self.server_final))
            for answer in answers
        ]


FIRST, FINAL = b"334 FIRST", b"334 FINAL"
# What the server sends, how many lines the client writes before it ends the exchange, and its error.
ORDER: dict[str, tuple[list[bytes], int, type[SecureSMTPError]]] = {
    "235 at once": ([b"235 in"], 1, ServerNotAuthenticError),
    "235 after the proof": ([FIRST, b"235 in"], 2, ServerNotAuthenticError),
    "the proof in the text of 235": ([FIRST, b"235 FINAL"], 2, ServerNotAuthenticError),
    "two server-first": ([FIRST, FIRST], 2, ProtocolError),
    "server-final first": ([FINAL], 1, ProtocolError),
    "two server-final": ([FIRST, FINAL, FINAL], 3, ProtocolError),
    "334 after the final": ([FIRST, FINAL, b"334 "], 3, ProtocolError),
    "e= and then 235": ([FIRST, ask("e=invalid-proof"), b"235 in"], 2, AuthenticationError),
    "e= at first": ([ask("e=unknown-user"), b"235 in"], 1, ProtocolError),
    "empty final": ([FIRST, b"334 ", b"235 in"], 2, ProtocolError),
    "empty first": ([b"334 ", b"235 in"], 1, ProtocolError),
    "not base64 at first": ([b"334 r=clientnonce", b"235 in"], 1, ProtocolError),
    "not base64 at last": ([FIRST, b"334 v=!", b"235 in"], 2, ProtocolError),
    "250 after the final": ([FIRST, FINAL, b"250 in"], 3, ProtocolError),
    "535 after the final": ([FIRST, FINAL, b"535 no"], 3, AuthenticationError),
    "535 after the proof": ([FIRST, b"535 no"], 2, AuthenticationError),
}


@pytest.mark.parametrize("case", ORDER)
def test_only_the_whole_exchange_in_order_is_a_login(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is missing, doubled or early ends it, and nothing more is written (O16, O17, SCR-03)."""
    answers, written, error = ORDER[case]
    lying = Lying(monkeypatch)
    session = Session(TLS, Capabilities(auth=("SCRAM-SHA-256", "PLAIN")))
    played = play(authenticate(session, Password("user", PASSWORD)), *lying.answers(*answers))
    assert type(played.error) is error
    assert len(played.commands) == written
    assert PASSWORD not in shown(played.error)
    assert lying.proof.rpartition(b"p=")[2].decode() not in shown(played.error)


def test_the_whole_exchange_is_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """The final message in a 334 is answered by an empty line, and 235 is read (O17)."""
    lying = Lying(monkeypatch)
    session = Session(TLS, Capabilities(auth=("SCRAM-SHA-256",)))
    played = play(authenticate(session, Password("user", PASSWORD)), *lying.answers(FIRST, FINAL, b"235 in"))
    assert played.value == "SCRAM-SHA-256"
    assert decoded(played) == [b"n,,n=user,r=clientnonce", lying.proof, b""]


# The messages (O18).

SALT = encode(b"salt" * 4).decode()
FIRSTS = {
    "empty": "",
    "nonce is ours": f"r=clientnonce,s={SALT},i=4096",
    "nonce is another": f"r=anothernonce,s={SALT},i=4096",
    "nonce has ours inside": f"r=xclientnonce,s={SALT},i=4096",
    "nonce has another case": f"r=CLIENTNONCEserver,s={SALT},i=4096",
    "nonce with a comma": f"r=clientnonce,server,s={SALT},i=4096",
    "nonce with a blank": f"r=clientnonce server,s={SALT},i=4096",
    "nonce with a control": f"r=clientnonce\r\nserver,s={SALT},i=4096",
    "nonce with a letter beyond ASCII": f"r=clientnonceü,s={SALT},i=4096",
    "nonce of 1025 octets": f"r=clientnonce{'x' * 1014},s={SALT},i=4096",
    "no nonce": f"s={SALT},i=4096",
    "no salt": "r=clientnonceserver,i=4096",
    "empty salt": "r=clientnonceserver,s=,i=4096",
    "salt is not base64": "r=clientnonceserver,s=!!!!,i=4096",
    "salt without padding": "r=clientnonceserver,s=QQ,i=4096",
    "salt with bits left over": "r=clientnonceserver,s=QR==,i=4096",
    "salt of 1025 octets": f"r=clientnonceserver,s={encode(b'x' * 1025).decode()},i=4096",
    "no count": f"r=clientnonceserver,s={SALT}",
    "count of 1": f"r=clientnonceserver,s={SALT},i=1",
    "count of 4095": f"r=clientnonceserver,s={SALT},i=4095",
    "count of 1000001": f"r=clientnonceserver,s={SALT},i=1000001",
    "count of a milliard": f"r=clientnonceserver,s={SALT},i=1000000000",
    "count of 5000 digits": f"r=clientnonceserver,s={SALT},i={'9' * 5000}",
    "count below nought": f"r=clientnonceserver,s={SALT},i=-4096",
    "count with a plus": f"r=clientnonceserver,s={SALT},i=+4096",
    "count with a nought in front": f"r=clientnonceserver,s={SALT},i=04096",
    "count with a low line": f"r=clientnonceserver,s={SALT},i=4_096",
    "count in Arabic digits": f"r=clientnonceserver,s={SALT},i=٤٠٩٦",
    "count with a blank": f"r=clientnonceserver,s={SALT},i=4096 ",
    "count with an end of line": f"r=clientnonceserver,s={SALT},i=4096\n",
    "mandatory extension": f"m=x,r=clientnonceserver,s={SALT},i=4096",
    "mandatory extension at the end": f"r=clientnonceserver,s={SALT},i=4096,m=x",
    "another order": f"s={SALT},r=clientnonceserver,i=4096",
    "second count": f"r=clientnonceserver,s={SALT},i=4096,i=5000",
    "second nonce": f"r=clientnonceserver,s={SALT},i=4096,r=x",
    "extension without a name": f"r=clientnonceserver,s={SALT},i=4096,=x",
    "extension without a value": f"r=clientnonceserver,s={SALT},i=4096,x=",
    "comma at the end": f"r=clientnonceserver,s={SALT},i=4096,",
    "NUL": f"r=clientnonceserver,s={SALT},i=4096,x=\0",
}


@pytest.mark.parametrize("case", FIRSTS)
def test_a_bad_first_message_of_the_server_gets_no_proof(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anything is computed (SCR-01, SCR-02, O18)."""
    monkeypatch.setattr(module, "token_urlsafe", lambda octets: "clientnonce")
    monkeypatch.setattr(module, "_proofs", None)
    session = Session(TLS, Capabilities(auth=("SCRAM-SHA-512",)))
    played = play(authenticate(session, Password("user", PASSWORD)), ask(FIRSTS[case]))
    error = played.failure(ProtocolError)
    assert decoded(played) == [b"n,,n=user,r=clientnonce"]
    assert error.reply == raw(ask(FIRSTS[case])).reply()
    assert str(error).isprintable()


@pytest.mark.parametrize("count", [4096, 1_000_000])
@pytest.mark.parametrize("salt", [b"x", b"x" * 1024])
@pytest.mark.parametrize("more", ["", ",x=y", ",x=y=z,Q=ü"])
def test_what_is_just_allowed_is_taken(count: int, salt: bytes, more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds themselves, and optional extensions, which are ignored."""
    monkeypatch.setattr(module, "token_urlsafe", lambda octets: "clientnonce")
    asked: list[object] = []

    def proofs(*arguments: object) -> tuple[bytes, bytes]:
        asked.append(arguments)
        return b"proof", b"signature"

    monkeypatch.setattr(module, "_proofs", proofs)
    mechanism = Scram_for("SCRAM-SHA-1")
    mechanism.start()
    nonce = "clientnonce" + "x" * 1013
    message = f"r={nonce},s={encode(salt).decode()},i={count}{more}".encode()
    assert mechanism.respond(message) == f"c=biws,r={nonce},p=proof".encode()
    signed = b"n=user,r=clientnonce," + message + f",c=biws,r={nonce}".encode()
    assert asked == [("sha1", mechanism._prepared, salt, count, signed)]


FINALS = {
    "another proof": b"v=" + encode(b"x" * 32),
    "empty proof": b"v=",
    "proof cut": b"v=CUT",
    "proof is not base64": b"v=!!!!",
    "proof without padding": b"v=NOPAD",
    "in capitals": b"V=GOOD",
    "blank before": b" v=GOOD",
    "something before": b"x=y,v=GOOD",
    "twice": b"v=GOOD,v=GOOD",
    "with an error": b"v=GOOD,e=other-error",
    "with an end of line": b"v=GOOD\n",
    "mandatory extension": b"v=GOOD,m=x",
    "the client's proof": b"v=PROOF",
}


@pytest.mark.parametrize("case", FINALS)
def test_a_wrong_proof_of_the_server_ends_the_login(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more is written, and 235 would not be read (SCR-03)."""
    lying = Lying(monkeypatch)
    good = lying.server_final[2:]
    final = FINALS[case].replace(b"GOOD", good).replace(b"CUT", good[:-4]).replace(b"NOPAD", good.rstrip(b"="))
    final = final.replace(b"PROOF", lying.proof.rpartition(b"p=")[2])
    session = Session(TLS, Capabilities(auth=("SCRAM-SHA-256",)))
    played = play(authenticate(session, Password("user", PASSWORD)), *lying.answers(FIRST), ask(final), b"235 in")
    assert isinstance(played.error, ServerNotAuthenticError | ProtocolError)
    assert (len(played.commands), played.unused) == (2, 1)


def test_what_a_server_says_in_its_error_is_shown_only_if_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5802 §7 has a list; anything else could be the password."""
    lying = Lying(monkeypatch)
    session = Session(TLS, Capabilities(auth=("SCRAM-SHA-256",)))
    for said, told in (("unknown-user", "unknown-user"), (PASSWORD, "an unknown reason")):
        answers = [*lying.answers(FIRST), ask(f"e={said}")]
        played = play(authenticate(session, Password("user", PASSWORD)), *answers)
        error = played.failure(AuthenticationError)
        assert error.args[0] == f"the server refused the login: {told}"
        assert PASSWORD not in shown(error)
        assert encode(PASSWORD)[:-2].decode() not in shown(error)


_PIECES = [b"r=nserver", b",s=" + SALT.encode(), b",i=4096", b",x=y", b",m=x", b",", b"=", b"r=n", b"n", b"\0", b"\n"]


@given(st.lists(st.one_of(st.sampled_from(_PIECES), st.binary(max_size=3)), max_size=6).map(b"".join))
@example(b"r=nserver,s=" + SALT.encode() + b",i=4096,x=y")
@settings(max_examples=examples(300), deadline=None)
def test_any_first_message_gets_a_proof_or_is_refused(challenge: bytes) -> None:
    """The proof is one line of printable ASCII without anything but the nonce from the server."""
    mechanism = Scram_for("SCRAM-SHA-1")
    mechanism._nonce = b"n"
    mechanism.start()
    try:
        proof = mechanism.respond(challenge)
    except ProtocolError:
        assert mechanism._proof == b""
        return
    assert proof is not None
    assert re.fullmatch(rb"c=biws,r=n[!-+\--~]+,p=[A-Za-z0-9+/=]{28}", proof)
    assert challenge.startswith(proof.split(b",")[1])


_FINAL_PIECES = [b"v=", encode(b"x" * 20), encode(b"\x01" * 19), b"e=", b"other-error", b",x=y", b",m=x", b"=", b"\n"]


@given(st.lists(st.one_of(st.sampled_from(_FINAL_PIECES), st.binary(max_size=3)), max_size=5).map(b"".join))
@settings(max_examples=examples(300), deadline=None)
def test_no_final_message_but_one_is_believed(challenge: bytes) -> None:
    """A server that does not know the password finds none."""
    mechanism = Scram_for("SCRAM-SHA-1")
    mechanism.start()
    mechanism._proof, mechanism._signature = b"proof", b"\x01" * 20
    with pytest.raises((ProtocolError, AuthenticationError)):
        mechanism.respond(challenge)
    with pytest.raises(ServerNotAuthenticError):
        mechanism.finish()


# The choice, and the channel binding (O20, SCR-04, SCR-05).

EXPORTER = ChannelBinding("tls-exporter", b"e" * 32)
# What is allowed and offered, the binding, and the mechanism with the start of its first message.
CHOICES: dict[str, tuple[list[str] | None, list[str], ChannelBinding | None, str, bytes]] = {
    "all, bound": (None, SCRAMS, UNIQUE, "SCRAM-SHA-512-PLUS", b"p=tls-unique,,n=user,r="),
    "all, not bound": (None, SCRAMS, None, "SCRAM-SHA-512", b"n,,n=user,r="),
    "exporter": (None, ["SCRAM-SHA-256-PLUS"], EXPORTER, "SCRAM-SHA-256-PLUS", b"p=tls-exporter,,n=user,r="),
    "could bind, not offered": (None, ["SCRAM-SHA-256"], UNIQUE, "SCRAM-SHA-256", b"y,,n=user,r="),
    "could bind, not allowed": (["SCRAM-SHA-256"], SCRAMS, UNIQUE, "SCRAM-SHA-256", b"n,,n=user,r="),
    "another offered with PLUS": (["SCRAM-SHA-1"], ["SCRAM-SHA-1", "SCRAM-SHA-256-PLUS"], UNIQUE, "SCRAM-SHA-1",
                                  b"n,,n=user,r="),
    "SHA-1 last": (None, ["SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256"], UNIQUE, "SCRAM-SHA-256", b"n,,n=user"),
    "SHA-1 before PLAIN": (None, ["PLAIN", "LOGIN", "SCRAM-SHA-1"], None, "SCRAM-SHA-1", b"n,,n=user,r="),
    "our order": (["SCRAM-SHA-1", "SCRAM-SHA-512"], SCRAMS, None, "SCRAM-SHA-1", b"n,,n=user,r="),
}  # fmt: skip


@pytest.mark.parametrize("case", CHOICES)
def test_the_strongest_that_is_possible_is_used(case: str) -> None:
    """The flag tells the truth: p if bound, y if it could be and is not offered, n else, as always on TLS 1.3."""
    allowed, offered, binding, name, start = CHOICES[case]
    session = Session(TLS, Capabilities(auth=tuple(offered)))
    played = play(authenticate(session, Password("user", PASSWORD, allowed)), b"535 no", binding=binding)
    played.failure(AuthenticationError)
    (command,) = played.commands
    assert command.startswith(b"AUTH %b " % name.encode())
    assert base64.b64decode(command.split(b" ")[2]).startswith(start)
    assert session.choice is not None
    assert (session.choice.name, session.choice.binding) == (name, binding)


def test_the_binding_is_in_the_proof() -> None:
    """A peer with another binding, as somebody in between has, refuses it."""
    credentials = Credentials("user", Secret(PASSWORD), UNIQUE, is_binding_offered=True)
    for theirs, said in ((UNIQUE, b"v="), (ChannelBinding("tls-unique", b"other"), b"e=channel-bindings-dont-match")):
        mechanism = RANKED["SCRAM-SHA-256-PLUS"](credentials)
        server = Server("SCRAM-SHA-256-PLUS", "user", PASSWORD, theirs)
        initial = mechanism.start()
        assert initial is not None
        proof = mechanism.respond(server.first(initial))
        assert proof is not None
        assert base64.b64decode(proof.split(b",")[0][2:]) == b"p=tls-unique,," + UNIQUE.data
        assert server.final(proof).startswith(said)


def test_the_offer_of_a_binding_that_was_removed_is_noticed() -> None:
    """The server hears "y" although it offered -PLUS, and refuses (RFC 5802 §6)."""
    mechanism = RANKED["SCRAM-SHA-256"](Credentials("user", Secret(PASSWORD), UNIQUE, is_binding_offered=False))
    server = Server("SCRAM-SHA-256", "user", PASSWORD, UNIQUE)
    initial = mechanism.start()
    assert initial is not None
    assert initial.startswith(b"y,,")
    with pytest.raises(scramp.ScramException, match="channel binding"):
        server.first(initial)


def test_without_a_binding_plus_alone_is_not_usable() -> None:
    """The error says why; nothing is sent, and no password is fetched."""
    asked: list[str] = []

    def fetch() -> str:
        asked.append("asked")
        return PASSWORD

    login = Password("user", fetch, ["SCRAM-SHA-256-PLUS"])
    session = Session(TLS, Capabilities(auth=tuple(SCRAMS)))
    error = play(authenticate(session, login)).failure(NoUsableMechanismError)
    needs = "this connection has no channel binding, which SCRAM-SHA-256-PLUS needs"
    assert error.hint == f"{needs}: allow a mechanism without -PLUS, too"
    assert asked == []
    assert session.choice is not None
    assert session.choice.passed_over == {"SCRAM-SHA-256-PLUS": "this connection has no channel binding"}


def test_the_choice_says_why_it_is_no_better() -> None:
    """Each mechanism that the login may use and that ranks above the chosen one."""
    session = Session(TLS, Capabilities(auth=("LOGIN", "PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS")))
    play(authenticate(session, Password("user", PASSWORD)), b"535 no")
    assert session.choice is not None
    assert session.choice.name == "SCRAM-SHA-1"
    assert session.choice.passed_over == {
        "SCRAM-SHA-512-PLUS": "not offered by the server",
        "SCRAM-SHA-256-PLUS": "this connection has no channel binding",
        "SCRAM-SHA-512": "not offered by the server",
        "SCRAM-SHA-256": "not offered by the server",
        "SCRAM-SHA-1-PLUS": "not offered by the server",
    }


# SASLprep (O19).

PREPARED = {
    # RFC 4013 §3.
    "I\u00adX": "IX",
    "user": "user",
    "USER": "USER",
    "\u00aa": "a",
    "\u2168": "IX",
    # Others.
    "a\u00a0b": "a b",
    "a\u1680b": "a b",
    "\u3000": " ",
    "e\u0301": "é",
    "é": "é",
    "\u212b": "Å",
    "\uff21": "A",
    "a\u200db": "ab",
    "p\U0001f600": "p\U0001f600",
    "\u2764\ufe0f": "\u2764",
    "\u0627\u0644": "\u0627\u0644",
    "\u06271\u0627": "\u06271\u0627",
    " =,": " =,",
}
REFUSED = ["\u0007", "\u00ad", "\u200d", "", "\x7f", "\x80", "\u06dd", "\u2028", "\ue000", "\ufdd0", "\uffff", "\ufffd",
           "\u2ff0", "\u202a", "\U000e0001", "\ud800", "\u06271", "1\u0627", "\u0627a\u0627"]  # fmt: skip


@pytest.mark.parametrize(("text", "prepared"), PREPARED.items(), ids=plain_id)
def test_what_saslprep_makes(text: str, prepared: str) -> None:
    """Mapped, normalised, and the same when it is prepared again; emoji are allowed."""
    assert saslprep(text) == prepared
    assert saslprep(prepared) == prepared


@pytest.mark.parametrize("text", REFUSED, ids=plain_id)
def test_what_saslprep_refuses(text: str) -> None:
    """Controls, private and unused characters, text that mixes directions; and what leaves nothing."""
    assert saslprep(text) is None


@given(_ASSIGNED)
@settings(max_examples=examples(300), deadline=None)
def test_a_peer_prepares_the_same(text: str) -> None:
    """And refuses the same."""
    try:
        theirs: str | None = scramp.utils.saslprep(text)
    except scramp.ScramException:
        theirs = None
    assert saslprep(text) == (theirs or None)


@pytest.mark.parametrize("username", ["a,b=c", "=2C,", "ü,\u00aa"])
def test_only_the_name_is_escaped(username: str) -> None:
    """A comma or an equals sign of the password stays what it is (O19)."""
    for password in ("p,w=d", "=2C"):
        mechanism, server = Scram_for("SCRAM-SHA-1", username, password), Server("SCRAM-SHA-1", username, password)
        initial = mechanism.start()
        assert (
            initial.split(b",")[2] == b"n=" + str(saslprep(username)).replace("=", "=3D").replace(",", "=2C").encode()
        )
        proof = mechanism.respond(server.first(initial))
        assert proof is not None
        assert mechanism.respond(server.final(proof)) == b""


@pytest.mark.parametrize("bad", ["bell\u0007hunter2", "hunter2\u06271", "\u00ad"], ids=plain_id)
@pytest.mark.parametrize("what", ["username", "password"])
def test_what_cannot_be_prepared_is_not_sent(what: str, bad: str) -> None:
    """Before connecting if only SCRAM may be used, else before AUTH; the error does not quote it (AUTH-07)."""
    username, password = (bad, "right") if what == "username" else ("user", bad)
    with pytest.raises(ConfigurationError, match="SASLprep") as caught:
        Password(username, password, PLAIN_SCRAMS)
    found: list[SecureSMTPError] = [caught.value]
    for source in (password, lambda: password):
        session = Session(TLS, Capabilities(auth=("SCRAM-SHA-256", "PLAIN")))
        played = play(authenticate(session, Password(username, source)))
        assert played.commands == []
        found.append(played.failure(ConfigurationError))
        assert what in str(found[-1])
    if what == "password":
        assert not any(bad in shown(error) for error in found)
    # PLAIN sends it as it is.
    session = Session(TLS, Capabilities(auth=("PLAIN",)))
    assert play(authenticate(session, Password(username, password)), b"235 in").value == "PLAIN"
