"""The diagrams of the docs show what is true today, can be read in light and dark, and load nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import securesmtp
from conftest import Serve
from diagrams import DIAGRAMS, FOLDER, draw
from diagrams.architecture import PARTS
from diagrams.canvas import COLOURS, GROUNDS, WIDTH, Canvas, Theme
from diagrams.flights import RECORDED, read
from diagrams.outcome import ARROWS, ENDS, FULLY_SENT, NO_LOGIN, Arrow
from scripted import Answer, Gone, Peer, honest
from securesmtp import Outcome, SecureMailer
from securesmtp.errors import SecureSMTPError

DOCS = FOLDER.parent.parent
Replies = dict[str, Answer]


def _leave(peer: Peer, _: bytes) -> bytes:
    peer.cut()
    raise Gone


# What the server does, for each arrow of the diagram of outcomes; other tests try time limits and interrupts.
CASES: dict[Arrow, list[Replies]] = {
    Arrow(Outcome.NOT_SENT, Outcome.NOT_SENT, NO_LOGIN): [{"AUTH": b"535 5.7.8 wrong\r\n"}],
    Arrow(Outcome.NOT_SENT, Outcome.NOT_SENT, ENDS): [{verb: _leave} for verb in ("EHLO", "MAIL", "DATA")],
    Arrow(Outcome.NOT_SENT, Outcome.REFUSED, "refusal of MAIL, RCPT or DATA"): [
        {verb: code + b" no\r\n"} for verb in ("MAIL", "RCPT", "DATA") for code in (b"450", b"550")
    ],
    Arrow(Outcome.NOT_SENT, Outcome.UNKNOWN, FULLY_SENT): [{"CONTENT": _leave}],
    Arrow(Outcome.UNKNOWN, Outcome.UNKNOWN, ENDS): [{"CONTENT": _leave}],
    Arrow(Outcome.UNKNOWN, Outcome.ACCEPTED, "reply 250"): [{}],
    Arrow(Outcome.UNKNOWN, Outcome.REFUSED, "reply 4xx or 5xx"): [
        {"CONTENT": b"451 later\r\n"},
        {"CONTENT": b"554 no\r\n"},
    ],
}


@pytest.mark.parametrize("name", DIAGRAMS)
def test_each_diagram_is_what_is_drawn_today(name: str) -> None:
    """Otherwise `nox -s pictures -- pictures_diagrams` draws it again; a send is recorded anew."""
    for path, svg in draw(name):
        assert path.read_text("utf-8") == svg


def test_no_other_diagram_is_there() -> None:
    """A diagram that nothing draws would not change any more."""
    names = {f"{name}-{theme}.svg" for name in DIAGRAMS for theme in COLOURS}
    assert {path.name for path in FOLDER.iterdir()} == names


@pytest.mark.parametrize("name", DIAGRAMS)
def test_each_diagram_is_on_a_page_in_both_themes_with_the_same_words(name: str) -> None:
    """Somebody who cannot see it gets a description."""
    pages = "".join(page.read_text("utf-8") for page in (DOCS / "explanation").glob("*.md"))
    block = r"```\{image\} pictures/%s-%s\.svg\n:alt: (.{80,})\n:class: only-%s\n:width: %d\n```\n"
    found = [re.findall(block % (name, theme, theme, WIDTH), pages) for theme in COLOURS]
    assert len(found[0]) == 1
    assert found[0] == found[1]


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_a_diagram_loads_nothing_and_shows_no_secret(path: Path) -> None:
    """No address, no font, no script; neither the password nor the port of the recording."""
    svg = path.read_text("utf-8")
    assert re.findall(r"https?://[^\s\"]+", svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"href|url\(|@font-face|@import|<script", svg)
    assert not re.search(r"secret|AG1lA|127\.0\.0\.1", svg)


@pytest.mark.parametrize("theme", COLOURS)
def test_each_colour_can_be_read(theme: Theme) -> None:
    """WCAG 2.2, 1.4.3: a contrast of at least 4.5."""
    ground = _luminance(GROUNDS[theme])
    for colour in COLOURS[theme].values():
        low, high = sorted((_luminance(colour), ground))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def _luminance(colour: str) -> float:
    parts = [part / 255 for part in bytes.fromhex(colour[1:])]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("place", [{"x": 400}, {"x": 400, "anchor": "middle"}, {"x": 100, "anchor": "end"}])
def test_text_that_does_not_fit_is_not_drawn(place: dict[str, object]) -> None:
    """It would be cut off at the picture's edge."""
    write: Callable[..., None] = Canvas().text
    with pytest.raises(ValueError, match="too wide for the picture"):
        write(y=10, text="a text of thirty letters, or so", **place)


@pytest.mark.parametrize("arrow", ARROWS, ids=lambda arrow: f"{arrow.source.name}-{arrow.target.name}-{arrow.label}")
def test_each_arrow_of_the_outcome_is_what_a_send_gives(arrow: Arrow, serve: Serve, ca_file: Path) -> None:
    """A server does what the arrow says, and the send ends in the state that it leads to."""
    for replies in CASES[arrow]:
        server = serve(honest(auth=("me", "secret"), replies=replies))
        with SecureMailer("127.0.0.1", server.port, username="me", password="secret", ca_file=ca_file) as mailer:
            assert _outcome(mailer) is arrow.target


def test_without_verified_tls_a_message_stays_not_sent(serve: Serve) -> None:
    """The other half of an arrow's words: nobody here trusts the CA of the tests."""
    server = serve(honest())
    with SecureMailer("127.0.0.1", server.port) as mailer:
        assert _outcome(mailer) is Outcome.NOT_SENT


def test_no_arrow_is_missing() -> None:
    """What is tried above is drawn."""
    assert set(CASES) == set(ARROWS)


def _outcome(mailer: SecureMailer) -> Outcome | None:
    content = b"Subject: Hello\r\n\r\nHello\r\n"
    try:
        mailer.send_bytes(content, mail_from="me@example.com", recipients=["you@example.org"])
    except SecureSMTPError as error:
        return error.outcome
    return Outcome.ACCEPTED


def test_each_file_of_the_architecture_is_there() -> None:
    """In the folder of its part."""
    package = Path(securesmtp.__file__).parent
    assert [name for part in PARTS for name in part.files if not (package / part.folder / name).exists()] == []


def test_each_way_has_as_many_round_trips_as_its_title_says() -> None:
    """The words above a row are not another row's."""
    ways = read(RECORDED.read_text("ascii"))
    assert [int(way.count.split()[0]) for way in ways] == [len(way.flights) for way in ways]
    assert len({way.title for way in ways}) == len(ways)
