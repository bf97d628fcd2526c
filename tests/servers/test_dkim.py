"""Signed messages through a real Postfix whose next hop does not offer 8BITMIME, verified by two programs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from email.message import EmailMessage
from itertools import islice
from pathlib import Path

import pytest

from conftest import Mailer, thorough
from dkim_verifiers import opendkim, records, signer, verify_with_dkimpy
from securesmtp import Envelope, Outcome, SecureMailer, compose
from servers.messages import MAILS, PIXEL, raw_messages
from servers.real import ALICE, RealServer

pytestmark = pytest.mark.faces("DKIM", sample=(2, 2))

# What German, Japanese and English texts, and texts with traps, are made of.
_WORDS = ("Grüße", "żółw", "漢字", "word", "  ", "\t", " \n", "\n", ".\n", "From ", "=20", "✓", "x" * 80, "=\n", ".")


@pytest.fixture
def connect(seven_bit_postfix: RealServer, make_mailer: Mailer, ca_file: Path) -> Mailer:
    """Make mailers for the server, with the login of a user who has one."""

    def make(**options: object) -> SecureMailer:
        port, login = seven_bit_postfix.implicit_port, {"username": ALICE.username, "password": ALICE.password}
        return make_mailer("localhost", port, ca_file=ca_file, timeout=60, **login, **options)

    return make


def _kinds(source: random.Random) -> Iterator[EmailMessage | Envelope]:
    """Yield messages of each kind of these tests, and of random texts in each of the forms that `compose` makes."""
    while True:
        for make in MAILS.values():
            mail = make()
            mail.replace_header("Subject", f"{mail['Subject']} {_text(source, 4)!r}")
            yield mail
        yield _labelled()
        for raw in raw_messages():
            if raw.isascii() and len(raw) < 100_000:
                yield Envelope("alice@example.test", ["to@example.test"], raw)
        for options in (
            {"html": f"<p>{_text(source)}</p>"},
            {"html": '<img src="cid:pixel">', "inline": {"pixel": ("pixel.gif", PIXEL)}},
            {"attachments": [("ä\u0308.bin", source.randbytes(source.randrange(3000)))]},
            {"attachments": [("table.csv", _text(source).encode())]},
            {"unsubscribe": "https://example.test/u?" + "x" * source.randrange(200)},
            {"automatic": True, "reply_to": ("Grüße", "r@example.test"), "cc": ["c@example.test", "d@example.test"]},
        ):
            yield compose(
                sender="alice@example.test", to="to@example.test", subject=_text(source, 12, ends=False),
                text=_text(source), **options,
            )  # fmt: skip


def _labelled() -> EmailMessage:
    """Return a message whose parts say 8bit of what is ASCII, as Python does; Postfix corrects that word on the way."""
    inner, mail = MAILS["8-bit"](), MAILS["attachments"]()
    inner.set_content("ASCII\n", cte="8bit")
    mail.add_attachment(inner)
    mail["Content-Transfer-Encoding"] = "8bit"
    return mail


def _text(source: random.Random, words: int = 60, *, ends: bool = True) -> str:
    chosen = [each for each in _WORDS if ends or each.isprintable()]
    return " ".join(source.choices(chosen, k=source.randrange(1, words)))


@pytest.mark.parametrize("count", thorough(40, 1000))
def test_each_kind_of_message_arrives_with_valid_signatures(
    seven_bit_postfix: RealServer, connect: Mailer, count: int
) -> None:
    """X4, X9: nothing of it is encoded on the way, and both programs say that both signatures are valid."""
    seed = random.randrange(1 << 32)
    dkim = signer("example.test", ed25519=True)
    known = records(dkim)
    seven_bit_postfix.deliver(0)
    with connect(sign=dkim, pipelining="session") as mailer:
        results = list(mailer.send_many(islice(_kinds(random.Random(seed)), count)))
    assert [result.error for result in results if result.outcome is not Outcome.ACCEPTED] == [], f"seed {seed}"
    delivered = seven_bit_postfix.deliver(count, timeout=60 + count / 5)
    with opendkim(known) as library:
        for each in delivered:
            assert each.content.isascii()
            assert verify_with_dkimpy(each.content, known) == [True, True], f"seed {seed}: {each.content!r}"
            assert library.verify(each.content) == [True, True], f"seed {seed}: {each.content!r}"


def test_the_next_hop_gets_no_eight_bit_message(seven_bit_postfix: RealServer, connect: Mailer) -> None:
    """So the test above can fail: Postfix encodes what is 8-bit, which would void a signature."""
    seven_bit_postfix.deliver(0)
    with connect() as mailer:
        mailer.send(MAILS["8-bit"]())
    (delivered,) = seven_bit_postfix.deliver(1)
    assert b"Content-Transfer-Encoding: quoted-printable" in delivered.content
