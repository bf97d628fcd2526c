"""A send in both modes of TLS: a real session with a server on loopback, and the diagram of it."""

from __future__ import annotations

import re
import ssl
import tempfile
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Final

import trustme

from diagrams.canvas import LINE, WIDTH, Canvas, Ink, width_of
from scripted import Mode, ScriptedServer, Turn, honest
from securesmtp import Event, SecureMailer
from securesmtp.events import Connected

_LEFT, _RIGHT = 40, WIDTH - 40
_INSET: Final = 8
_EXTENSIONS = ("PIPELINING", "SIZE")
_GREETING = {"GREETING": b"220 smtp.example.com ESMTP\r\n"}


@dataclass
class Session:
    """
    What happened in one send.

    Attributes:
        turns: What both sides wrote, up to the receipt.
        version: The version of TLS.
        asked: How many turns there were when the mailer asked for the password.
    """

    turns: list[Turn] = field(default_factory=list)
    version: str = ""
    asked: int = 0


def record(mode: Mode) -> Session:
    """Send a message over a new connection, with a login; the server offers PIPELINING."""
    session, ca = Session(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "me@example.com", "you@example.org", "Your order 7"
    message.set_content("It is on its way.")

    def keep_version(event: Event) -> None:
        if isinstance(event, Connected):
            session.version = event.tls.version

    def password() -> str:
        session.asked = len(server.connections[0].turns)
        return "secret"

    script = honest(mode, extensions=_EXTENSIONS, auth=("me", "secret"), replies=_GREETING)
    with tempfile.TemporaryDirectory() as folder, ScriptedServer(script, tls=context) as server:
        ca_file = Path(folder, "ca.pem")
        ca.cert_pem.write_to_path(ca_file)
        with SecureMailer(
            "127.0.0.1",
            server.port,
            tls=mode,
            ca_file=ca_file,
            username="me",
            password=password,
            local_hostname="shop.example.com",
            on_event=keep_version,
        ) as mailer:
            mailer.send(message)
            session.turns = server.connections[0].turns[:]
    return session


def lines_of(turn: Turn) -> list[str]:
    """Return what a reader needs of a turn: secrets and sizes are cut out, and of a content only its end is left."""
    lines = bytes(turn.octets).decode("ascii").splitlines()
    if turn.who == "client" and lines[-1] == ".":
        return ["… the message …", "."]
    if turn.who == "client":
        return [re.sub(r"^(AUTH \w+ ).*|( SIZE=)\d+$", r"\1\2…", line) for line in lines]
    # A reply of several lines: the first has the server's name, each other one what it offers.
    if lines[0].startswith("250-"):
        return [f"250 {' '.join(line[4:] for line in lines[1:])}"]
    return lines


def draw(mode: Mode) -> Canvas:
    """Draw a send that was just recorded."""
    session = record(mode)
    canvas = Canvas()
    canvas.text(_LEFT, LINE, "your program", kind="strong")
    canvas.text(_RIGHT, LINE, "mail server", kind="strong", anchor="end")
    y = _note(canvas, 2 * LINE, "mailer.send(message)", code=True)
    if before := [turn for turn in session.turns if not turn.encrypted]:
        y = _band(canvas, y + LINE / 2, "in plaintext", before, is_safe=False)
    y = _handshake(canvas, y + LINE, session.version.replace("v", " "))
    y = _band(canvas, y, "inside TLS", session.turns[len(before) :], asked=session.asked - len(before))
    y = _note(canvas, y + LINE / 2, "send returns the receipt: ACCEPTED")
    for x in (_LEFT, _RIGHT):
        canvas.lifeline(x, 1.4 * LINE)
    canvas.text(WIDTH / 2, y + LINE, "The connection stays open for the next message.", ink="faint", anchor="middle")
    return canvas


def _note(canvas: Canvas, y: float, text: str, *, code: bool = False) -> float:
    """Draw a box on the program's side; return where it ends."""
    canvas.box(_LEFT, y, width_of(text) + 2 * _INSET, 1.5 * LINE, ink="blue")
    canvas.text(_LEFT + _INSET, y + LINE, text, ink="blue", kind="code" * code)
    return y + 1.5 * LINE


def _handshake(canvas: Canvas, y: float, version: str) -> float:
    canvas.text(WIDTH / 2, y, f"{version} handshake", ink="green", kind="strong", anchor="middle")
    for x in (_LEFT, _RIGHT):
        canvas.arrow((WIDTH / 2, y + _INSET), (x, y + _INSET), ink="green")
    text = "certificate checked: chain, name, validity, key"
    canvas.text(WIDTH / 2, y + _INSET + LINE, text, ink="green", anchor="middle")
    return y + 2 * LINE


def _band(  # noqa: PLR0913 -- keyword-only, with defaults
    canvas: Canvas, top: float, title: str, turns: list[Turn], *, is_safe: bool = True, asked: int | None = None
) -> float:
    """Draw a frame with what was written before or inside TLS; return where it ends."""
    ink: Ink = "green" if is_safe else "red"
    y = top + LINE
    canvas.text(WIDTH / 2, y, title, ink=ink, kind="strong", anchor="middle")
    for number, turn in enumerate(turns):
        if number == asked:
            y = _note(canvas, y + LINE / 2, "only now, the mailer asks for the password")
        y = _turn(canvas, y, turn)
    canvas.box(_INSET, top, WIDTH - 2 * _INSET, y - top + LINE / 2, ink=ink)
    return y + LINE / 2


def _turn(canvas: Canvas, y: float, turn: Turn) -> float:
    """Draw what one side wrote as one arrow; return where it ends."""
    is_client = turn.who == "client"
    for line in lines_of(turn):
        y += LINE
        x = _LEFT + _INSET if is_client else _RIGHT - _INSET
        canvas.text(x, y, line, kind="code", anchor="start" if is_client else "end")
    y += _INSET
    ends = [(_LEFT, y), (_RIGHT, y)]
    canvas.arrow(*(ends if is_client else reversed(ends)), dashed=not is_client)
    return y
