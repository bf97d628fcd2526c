"""Run each example as a program, with real TLS to a mail server."""

from __future__ import annotations

import getpass
import re
import runpy
import sys
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path

import pytest

import bulk_with_results
import handle_errors
import unknown_outcome
from conftest import Mailer, Serve
from examples.worlds import PASSWORD, WORDS, WORLDS, Enter, World
from scripted import Peer, honest
from securesmtp import SecureMailer
from securesmtp.errors import OutcomeUnknownError
from securesmtp.ledger import SQLiteLedger

EXAMPLES = Path(handle_errors.__file__).parent


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    """Run the example *name* as a program."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.setattr(getpass, "getpass", lambda: PASSWORD)
    # What a program passes itself is not in the environment, too.
    source = (EXAMPLES / name).read_text("utf-8")
    for argument, variable in {"password=getpass": "SMTP_PASSWORD", "ca_file=ca_file": "SMTP_CA_FILE"}.items():
        if argument in source:
            monkeypatch.delenv(variable)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.fixture
def mail() -> EmailMessage:
    """Return a message to one recipient."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "me@example.com", "you@example.net", "Hello"
    message["Message-ID"] = "<once@example.com>"
    message.set_content("Is it there?")
    return message


def test_each_example_has_a_test() -> None:
    """A new example fails this test until a test of this folder runs it, or an example that is run imports it."""
    examples = {path.stem: path.read_text("utf-8") for path in EXAMPLES.glob("*.py")}
    pending = [path.read_text("utf-8") for path in Path(__file__).parent.glob("*.py")]
    untested = set(examples)
    while pending:
        source = pending.pop()
        named = set(re.findall(r'^(?:import|from) (\w+)|"(\w+)\.py"', source, re.MULTILINE))
        found = {name for pair in named for name in pair} & untested
        untested -= found
        pending += [examples[name] for name in found]
    assert untested == set()


MODES = pytest.mark.parametrize("mode", ["normal", "starttls"], ids=["implicit", "starttls"])


@MODES
@pytest.mark.parametrize(
    ("name", "arguments", "shown"),
    [
        pytest.param("first_mail.py", ["you@example.net"], "accepted: 250 2.0.0 queued", id="first_mail"),
        pytest.param("own_ca.py", ["ca.pem", "you@example.net"], "verified by: ca_file ca.pem", id="own_ca"),
        pytest.param("bulk_with_results.py", ["you@example.net"], "nothing: you@example.net", id="bulk_with_results"),
        pytest.param("handle_errors.py", ["you@example.net"], "accepted: 250 2.0.0 queued", id="handle_errors"),
        pytest.param("unknown_outcome.py", ["you@example.net", "log"], "accepted: 250", id="unknown_outcome"),
        pytest.param("trio_script.py", ["you@example.net"], "you@example.net: accepted: 250 2.0.0", id="trio_script"),
    ],
)
def test_each_example_sends_a_message(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    enter: Enter,
    ca_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    arguments: list[str],
    shown: str,
    mode: str,
) -> None:
    """The server accepts it for the recipient, over the configured TLS mode, and the program prints the result."""
    server = enter(WORLDS[mode])
    Path("ca.pem").write_bytes(ca_file.read_bytes())
    run(monkeypatch, name, *arguments)
    assert [message.recipients for message in server.accepted] == [(b"RCPT TO:<you@example.net>",)]
    assert shown in capsys.readouterr().out


def test_a_refused_recipient_does_not_stop_the_other_tasks(
    enter: Enter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """trio_script.py prints the outcome of each message, and sends the others."""
    addresses = [f"you{number}@example.net" for number in range(8)]

    def rcpt(peer: Peer, line: bytes) -> bytes:
        return b"550 5.1.1 no such user\r\n" if b"you3@" in line else b"250 2.1.5 ok\r\n"

    server = enter(World({"RCPT": rcpt}, {}))
    run(monkeypatch, "trio_script.py", *addresses)
    server.joined()
    lines = sorted(capsys.readouterr().out.splitlines())
    assert [line.split(":")[:2] for line in lines] == [
        [address, " refused" if address.startswith("you3@") else " accepted"] for address in addresses
    ]
    assert (len(server.accepted), len(server.connections)) == (7, 4)


def test_another_ca_is_refused(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    """own_ca.py prints the reason; the server gets neither a message nor the password."""
    server = enter(WORLDS["normal"])
    with pytest.raises(SystemExit, match=r"refused, untrusted: .*its issuer is .*Hint: ca_file has '"):
        run(monkeypatch, "own_ca.py", "other.pem", "you@example.net")
    assert server.secret == b""


@MODES
def test_the_shown_pin_is_accepted_and_another_is_refused(
    enter: Enter, ca_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """pins.py accepts a server if one of several pins is its own, and refuses it if none is."""
    server = enter(WORLDS[mode])
    scheme = "smtps" if WORLDS[mode].mode == "implicit" else "smtp+starttls"
    url = f"{scheme}://localhost:{server.port}?ca_file={ca_file}"
    run(monkeypatch, "pins.py", url)
    pin = capsys.readouterr().out.strip()
    other = f"sha256/{'A' * 43}="
    run(monkeypatch, "pins.py", f"{url}&pin={other}&pin={pin}")
    assert capsys.readouterr().out.strip() == pin
    with pytest.raises(SystemExit, match=r"refused, pin: "):
        run(monkeypatch, "pins.py", f"{url}&pin={other}")


def test_each_result_of_many_says_what_to_do(enter: Enter) -> None:
    """Accepted, refused temporarily or permanently, a wrong address, unknown: each address is in one list."""

    def rcpt(peer: Peer, line: bytes) -> bytes:
        return {b"later": b"451 4.7.1 later\r\n", b"never": b"550 5.1.1 no\r\n"}.get(line[9:14], b"250 ok\r\n")

    def content(peer: Peer, octets: bytes) -> bytes:
        if b"To: maybe@" in octets:
            peer.cut()
        return b"250 2.0.0 queued\r\n"

    server = enter(World({"RCPT": rcpt, "CONTENT": content}, {}))
    addresses = ["first@example.net", "later@example.net", "never@example.net", "no address", "maybe@example.net"]
    for _ in range(2):
        with SecureMailer.from_env() as mailer, SQLiteLedger("news.ledger") as ledger:
            assert bulk_with_results.send_all(mailer, ledger, addresses) == {
                "nothing": ["first@example.net"],
                "send again": ["later@example.net"],
                "fix": ["never@example.net", "no address"],
                "ask the server's log": ["maybe@example.net"],
            }
    # What was accepted, or may have been, was sent in the first run alone.
    assert sorted(message.recipients[0] for message in server.accepted) == [
        b"RCPT TO:<first@example.net>",
        b"RCPT TO:<maybe@example.net>",
    ]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        pytest.param("normal", "accepted: 250 2.0.0 queued", id="accepted"),
        pytest.param("recipient-refused", f"never, refused for you@example.net: 550 5.1.1 {WORDS}", id="recipient"),
        pytest.param("later", f"later, refused for you@example.net: 451 4.7.1 {WORDS}", id="recipient-later"),
        pytest.param("sender-refused", f"never, refused: 550 5.7.1 {WORDS}", id="sender"),
        pytest.param("content-refused", f"never, refused: 554 5.7.1 {WORDS}", id="content"),
        pytest.param("busy", "later: localhost:", id="busy"),
        pytest.param("down", "later: localhost:", id="down"),
        pytest.param("greeting-refused", "ask who runs the server: localhost:", id="greeting"),
        pytest.param("out-of-step", "ask who runs the server: localhost:", id="protocol"),
        pytest.param("login-later", "later: localhost:", id="login-later"),
        pytest.param("wrong-password", "fix the login: localhost:", id="login"),
        pytest.param("stripped", "do not send, there may be an attacker: localhost:", id="stripped"),
        pytest.param("untrusted", "do not send, the certificate is untrusted: ca_file has '", id="certificate"),
        pytest.param("cut", "unknown: look for <once@example.com> in", id="unknown"),
    ],
)
def test_each_fault_of_a_server_gets_its_advice(enter: Enter, mail: EmailMessage, name: str, advice: str) -> None:
    """handle_errors.py says what to do about each thing that a server can do wrong."""
    enter(WORLDS[name])
    with SecureMailer.from_env() as mailer:
        assert handle_errors.send(mailer, mail).startswith(advice)


def test_each_mistake_of_the_program_gets_its_advice(enter: Enter, mail: EmailMessage) -> None:
    """handle_errors.py names what to fix, and nothing was sent: the server has no connection."""
    server = enter(WORLDS["normal"])
    with SecureMailer.from_env() as mailer:
        mail.replace_header("To", "you")
        assert handle_errors.send(mailer, mail).startswith("fix the address: ")
        del mail["To"]
        assert handle_errors.send(mailer, mail).startswith("fix the message: ")
    mail["To"] = "you@example.net"
    assert re.match(r"fix the settings: localhost:\d+: the mailer is closed", handle_errors.send(mailer, mail))
    server.joined()
    assert server.connections == []


def test_a_deadline_that_expires_before_the_content_means_later(
    serve: Serve, mailer: Mailer, mail: EmailMessage
) -> None:
    """handle_errors.py does not report it as an unknown outcome."""

    def waits(peer: Peer, line: bytes) -> bytes:
        peer.sleep_until_peer_closes()
        return b""

    mine = mailer(serve(honest(replies={"MAIL": waits})), deadline=0.3)
    assert handle_errors.send(mine, mail).startswith("later: ")


def _log(*lines: str) -> str:
    return "".join(f"Nov 26 23:19:13 mx postfix/{line}\n" for line in lines)


READ = "cleanup[177]: F2C6D28A32C: message-id=<once@example.com>"
QUEUED = "qmgr[176]: F2C6D28A32C: from=<me@example.com>, size=9226, nrcpt=1 (queue active)"
OTHER = "cleanup[177]: 0BE5C28A358: message-id=<other@example.com>"


@pytest.mark.parametrize(
    ("lines", "accepted"),
    [
        pytest.param((OTHER, QUEUED.replace("F2C6D28A32C", "0BE5C28A358")), False, id="another message"),
        pytest.param((READ, "smtpd[164]: lost connection after DATA (9062 bytes) from x[127.0.0.1]"), False, id="cut"),
        pytest.param((READ, "cleanup[177]: F2C6D28A32C: milter-reject: END-OF-MESSAGE from x"), False, id="refused"),
        pytest.param((READ, QUEUED), True, id="accepted"),
        pytest.param((READ, OTHER, QUEUED), True, id="accepted, others in between"),
        pytest.param((QUEUED, READ), False, id="the queue id was used before"),
        pytest.param(
            (READ, OTHER.replace("0BE5C28A358", "F2C6D28A32C"), QUEUED),
            False,
            id="the queue id is used again",
        ),
        pytest.param((READ.replace("once@", "at.once@"), QUEUED), False, id="an id with the same end"),
        pytest.param((READ, QUEUED.replace("qmgr", "pickup")), False, id="another program's line"),
        pytest.param((READ, f"smtpd[9]: NOQUEUE: reject: helo=</{QUEUED}>"), False, id="forged in a HELO"),
        pytest.param((READ, f"cleanup[9]: 0BE5C28A358: message-id=</{QUEUED}>"), False, id="forged in a Message-ID"),
        pytest.param((f"smtpd[9]: NOQUEUE: reject: helo=</{READ}", QUEUED), False, id="both forged"),
        pytest.param(
            (READ, "smtpd[9]: F2C6D28A32C: client=x[192.0.2.1]", QUEUED),
            False,
            id="used again by a client",
        ),
        pytest.param(
            (READ, "pickup[9]: F2C6D28A32C: uid=0 from=<root>", QUEUED),
            False,
            id="used again by this machine",
        ),
    ],
)
def test_only_the_line_of_qmgr_is_an_acceptance(lines: tuple[str, ...], *, accepted: bool) -> None:
    """Postfix logs the Message-ID before it accepts the message (RFC 5321 §4.2.5); test_delivery.py has a real log."""
    log = _log(*lines).splitlines(keepends=True)
    assert unknown_outcome.was_accepted("<once@example.com>", log) is accepted
    rfc3339 = [line.replace("Nov 26 23:19:13", "2026-11-26T23:19:13.123456+00:00") for line in log]
    assert unknown_outcome.was_accepted("<once@example.com>", rfc3339) is accepted


@pytest.mark.parametrize(
    ("log", "printed", "copies"),
    [
        pytest.param(_log(READ), "accepted the second time: 250", 2, id="not-accepted-in-the-log"),
        pytest.param(_log(READ, QUEUED), "it had arrived", 1, id="accepted-in-the-log"),
    ],
)
def test_a_second_copy_is_sent_only_if_the_log_has_no_first(
    enter: Enter, mail: EmailMessage, log: str, printed: str, copies: int
) -> None:
    """And the second copy has the same Message-ID."""
    cut = [True]

    def content(peer: Peer, octets: bytes) -> bytes:
        if cut:
            cut.pop()
            peer.cut()
        return b"250 2.0.0 queued\r\n"

    server = enter(World({"CONTENT": content}, {}))
    Path("mail.log").write_text(log, "ascii")
    with SecureMailer.from_env() as mailer:
        assert unknown_outcome.send(mailer, mail, Path("mail.log"), wait=0).startswith(printed)
    server.joined()
    ids = [message_from_bytes(accepted.content)["Message-ID"] for accepted in server.accepted]
    assert ids == ["<once@example.com>"] * copies


def test_a_second_unknown_outcome_is_raised(enter: Enter, mail: EmailMessage) -> None:
    """unknown_outcome.py does not send a third time."""
    server = enter(WORLDS["cut"])
    Path("mail.log").touch()
    with SecureMailer.from_env() as mailer, pytest.raises(OutcomeUnknownError):
        unknown_outcome.send(mailer, mail, Path("mail.log"), wait=0)
    # The server may record a message after its client has seen the cut.
    server.joined()
    assert len(server.accepted) == 2
