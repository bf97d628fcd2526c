"""What becomes of a message, as states: where it can go from each, and what takes it there."""

from __future__ import annotations

from typing import Final, NamedTuple

from diagrams.canvas import LINE, WIDTH, Canvas, Ink
from securesmtp import Outcome


class Arrow(NamedTuple):
    """What takes a message from one state to another."""

    source: Outcome
    target: Outcome
    label: str


FULLY_SENT: Final = "content fully sent"
ENDS: Final = "lost connection, time limit, Ctrl-C: it stays so"
NO_LOGIN: Final = "no verified TLS, login refused: it stays so"
# Each is tried with a real send by the tests.
ARROWS: Final = (
    Arrow(Outcome.NOT_SENT, Outcome.NOT_SENT, NO_LOGIN),
    Arrow(Outcome.NOT_SENT, Outcome.NOT_SENT, ENDS),
    Arrow(Outcome.NOT_SENT, Outcome.REFUSED, "refusal of MAIL, RCPT or DATA"),
    Arrow(Outcome.NOT_SENT, Outcome.UNKNOWN, FULLY_SENT),
    Arrow(Outcome.UNKNOWN, Outcome.UNKNOWN, ENDS),
    Arrow(Outcome.UNKNOWN, Outcome.ACCEPTED, "reply 250"),
    Arrow(Outcome.UNKNOWN, Outcome.REFUSED, "reply 4xx or 5xx"),
)
_AGAIN = {
    Outcome.NOT_SENT: "send it again when the cause is gone",
    Outcome.UNKNOWN: "send it again only if twice is better than never",
    Outcome.ACCEPTED: "never send it again",
    Outcome.REFUSED: "4xx: later; 5xx: change it",
}
_INKS: dict[Outcome, Ink] = {
    Outcome.NOT_SENT: "blue",
    Outcome.UNKNOWN: "amber",
    Outcome.ACCEPTED: "green",
    Outcome.REFUSED: "red",
}
_INSET: Final = 12
# Left edge, top and width.
_PLACES = {
    Outcome.NOT_SENT: (0, 50, 372),
    Outcome.UNKNOWN: (0, 200, 372),
    Outcome.ACCEPTED: (0, 332, 190),
    Outcome.REFUSED: (250, 332, WIDTH - 250),
}


def draw() -> Canvas:
    """Draw the states and what leads from one to another."""
    canvas = Canvas()
    canvas.text(20, LINE, "mailer.send(message)", kind="code")
    canvas.arrow((40, LINE + 8), (40, 49))
    for state, (x, y, width) in _PLACES.items():
        stays = [arrow.label for arrow in ARROWS if arrow.source is arrow.target is state]
        ink = _INKS[state]
        canvas.box(x + 1, y, width - 2, (2 + len(stays)) * LINE + 8, ink=ink)
        canvas.text(x + _INSET, y + LINE, state.name, ink=ink, kind="strong")
        canvas.text(x + _INSET, y + 2 * LINE, _AGAIN[state])
        for number, label in enumerate(stays):
            canvas.text(x + _INSET, y + (3 + number) * LINE, label, ink="faint")
    ways = {(arrow.source, arrow.target): arrow.label for arrow in ARROWS if arrow.source is not arrow.target}
    canvas.arrow((40, 130), (40, 199))
    canvas.text(52, 170, ways[Outcome.NOT_SENT, Outcome.UNKNOWN])
    canvas.arrow((40, 262), (40, 331), ink="green")
    canvas.text(52, 302, ways[Outcome.UNKNOWN, Outcome.ACCEPTED], ink="green")
    canvas.arrow((280, 262), (280, 331), ink="red")
    canvas.text(292, 302, ways[Outcome.UNKNOWN, Outcome.REFUSED], ink="red")
    canvas.arrow((372, 90), (440, 90), (440, 331), ink="red")
    canvas.text(432, 170, ways[Outcome.NOT_SENT, Outcome.REFUSED], ink="red", anchor="end")
    return canvas
