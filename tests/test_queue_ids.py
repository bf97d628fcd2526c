"""`Receipt.queue_id`: the id in a reply of a known form, and nothing in any other."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp import Receipt, Recipient, Reply, SecureMailer, TLSInfo, TLSMode
from securesmtp._protocol.wire import RawReply
from securesmtp._queue_id import _ENHANCED, _FORMS, find_queue_id
from securesmtp.testing import MailServer

PATTERNS = {name: re.compile(_ENHANCED + form, re.ASCII) for name, form in _FORMS.items()}
TOKEN = re.compile(r"[0-9A-Za-z._-]{1,64}", re.ASCII)
SES = "0106018e41ac6000-8a4d954a-6764-4e9b-a54f-0c74059ad112-000000"
HARAKA = "9E4BCB7C-6006-451E-BA1D-7F80FCABBE72.1"
GMAIL = "30-20020a630c5e000000b005cd835182c5sm1827492pgm.79"
LONG_MESSAGE_ID = "0100017b0e35a8c6-2021949e-71e7-4802-aa95-ae62b696b836-000000@email.amazonses.com"
OUTLOOK = (
    f"2.6.0 <{LONG_MESSAGE_ID}> [InternalId=95992519094146, Hostname=HE1EUR04HT112.eop-eur04.prod.protection."
    "outlook.com] 13478 bytes in 0.277, 47.373 KB/sec Queued mail for delivery"
)

# As real servers replied: by the sources in `_queue_id.py`, or as tests/servers gets it. Courier's and the one of Exim
# 4.97 are written after the source code.
REAL = [
    pytest.param("Postfix", "2.0.0 Ok: queued as 38C6F2208F", "38C6F2208F", id="Postfix"),
    pytest.param("Postfix", "2.0.0 Ok: 14 bytes queued as 899332108BA", "899332108BA", id="Postfix after BDAT"),
    pytest.param("Postfix", "2.0.0 Ok: queued as 3mPVKl0Mhjz7sXv", "3mPVKl0Mhjz7sXv", id="Postfix, a long id"),
    pytest.param("Postfix", "Ok: queued as EFD4020904", "EFD4020904", id="Postfix 2.2"),
    pytest.param("Exim", "OK id=1dKaul-0006os-LE", "1dKaul-0006os-LE", id="Exim"),
    pytest.param("Exim", " 14 byte chunk, total 14 OK id=1xWzcQ-0005TR-0i", "1xWzcQ-0005TR-0i", id="Exim after BDAT"),
    pytest.param("Exim", "OK id=1tKq3F-00000002Zxc-1aBc", "1tKq3F-00000002Zxc-1aBc", id="Exim 4.97"),
    pytest.param("Sendmail", "2.0.0 v8T8xJvo021562 Message accepted for delivery", "v8T8xJvo021562", id="Sendmail"),
    pytest.param("OpenSMTPD", "2.0.0 0afaa93a Message accepted for delivery", "0afaa93a", id="OpenSMTPD"),
    pytest.param("Courier", "Ok. 4D026173.000051A4", "4D026173.000051A4", id="Courier, 32 bits"),
    pytest.param("Courier", "Ok. 000000005F3E1A2B.000051A4", "000000005F3E1A2B.000051A4", id="Courier, 64 bits"),
    pytest.param("Haraka", f"Message Queued ({HARAKA})", HARAKA, id="Haraka"),
    pytest.param("Microsoft", OUTLOOK, "95992519094146", id="Microsoft 365"),
    pytest.param("Microsoft", f"{OUTLOOK} -> 250 2.1.5", "95992519094146", id="Outlook.com"),
    pytest.param(
        "Microsoft", "2.6.0 <1@a.example> [InternalId=274498] Queued mail for delivery", "274498", id="Exchange 2010"
    ),
    pytest.param("Gmail", f"2.0.0 OK 1704818159 {GMAIL} - gsmtp", GMAIL, id="Gmail"),
    pytest.param("Gmail", "2.0.0 OK  1640467005 k9sm10841846wro.80 - gsmtp", "k9sm10841846wro.80", id="Gmail, short"),
    pytest.param("Amazon SES", f"Ok {SES}", SES, id="Amazon SES"),
    pytest.param("SendGrid", "Ok: queued as nhIMmON9SFOPcT0ii4nt2A", "nhIMmON9SFOPcT0ii4nt2A", id="SendGrid"),
    pytest.param(
        "Mailjet",
        "OK queued as a08b7f37-ed61-423a-ba75-38ed2fd4b54c",
        "a08b7f37-ed61-423a-ba75-38ed2fd4b54c",
        id="Mailjet",
    ),
    pytest.param(
        "MailerSend", "Message queued as 6232416d01542d6b321d000d", "6232416d01542d6b321d000d", id="MailerSend"
    ),
    pytest.param(
        "Yandex",
        "2.0.0 Ok: queued on smtp3m.mail.yandex.net as 1430081058-6ltgNFKSir-iHEKdOrm",
        "1430081058-6ltgNFKSir-iHEKdOrm",
        id="Yandex",
    ),
    pytest.param("securesmtp.testing", "2.0.0 queued as 17", "17", id="our test server"),
]

NO_ID = [
    # Real replies without an id.
    pytest.param("", id="empty"),
    pytest.param("OK", id="aiosmtpd"),
    pytest.param("OK: message queued", id="smtp-server"),
    pytest.param("2.0.0 Message queued for delivery.", id="Stalwart"),
    pytest.param("Great success", id="Mailgun"),
    pytest.param("Message Queued", id="Haraka without an id"),
    pytest.param("ok 1715608800 qp 12345", id="qmail: the number of a process"),
    # Real replies with the Message-ID, which is the client's own, or with two ids.
    pytest.param("2.6.0 <1@a.example> Queued mail for delivery", id="Exchange 2003"),
    pytest.param("2.0.0 OK: queued as <202611270900.1@relay.example>", id="Message-ID"),
    pytest.param("Ok: queued as cHQR7GZI1DOjOeB0g3pvMptrYeEkVzE2PQkK-y1TyFg=@mailhog.example", id="MailHog"),
    pytest.param(f"Message Queued ({HARAKA}) ({HARAKA})", id="Haraka, twice"),
    pytest.param("2.0.0 t5UI2nBt018923-t5UI2nBw018923 Message accepted for delivery", id="two of Sendmail's"),
    pytest.param("2.6.0 Ok, id=04497-01, from MTA([::1]:10025): 250 Ok: queued as EFD4020904", id="amavisd"),
    # Near misses.
    pytest.param("2.0.0 Ok: queued as", id="nothing"),
    pytest.param("2.0.0 Ok: queued as ", id="a blank"),
    pytest.param("2.0.0 Ok: queued as  38C6F2208F", id="two blanks"),
    pytest.param("2.0.0 Ok: queued as 38C6F2208F ", id="a blank at the end"),
    pytest.param("2.0.0 Ok: queued as 38C6F2208F\n", id="LF"),
    pytest.param("2.0.0 Ok: queued as 38C6F2208F\r\n250 OK id=1dKaul-0006os-LE", id="two lines"),
    pytest.param("2.0.0 Ok: queued as 38C6F2208F 38C6F2208F", id="two ids"),
    pytest.param("2.0.0 Ok: queued as 38C6F2208F.", id="a dot"),
    pytest.param("2.0.0 Ok: queued as 38c6f2208f", id="lower case"),
    pytest.param("2.0.0 Ok: queued as 38C6F", id="too short"),
    pytest.param("2.0.0 Ok: queued as " + "A" * 23, id="too long"),
    pytest.param("2.0.0 Ok: queued as spam", id="a word"),
    pytest.param("2.0.0 Ok: queued as 38C6F2208F…", id="cut"),
    pytest.param("2.0.0 Ok: queued as (redacted: repeats what was sent to log in)", id="redacted"),
    pytest.param("2.0.0 Ok: queued as 38C6(redacted: repeats what was sent to log in)", id="redacted in part"),
    pytest.param("2.0.0 Ok: queued as \N{ARABIC-INDIC DIGIT ONE}8C6F2208F", id="a digit of another script"),
    pytest.param("2.0.0 queued as \N{ARABIC-INDIC DIGIT ONE}", id="a number of another script"),
    pytest.param("2.0.0 Ok: queued as ../../etc/passwd", id="a path"),
    pytest.param("2.0.0 Ok: queued as $(reboot)", id="a command"),
    pytest.param("2.0.0 Ok: queued as 38C6F2208F\\x1b[2J", id="an escaped control character"),
    pytest.param("4.0.0 Ok: queued as 38C6F2208F", id="the enhanced code of a refusal"),
    pytest.param("not Ok: queued as 38C6F2208F", id="a text in front"),
    pytest.param("OK id=1dKaul-0006os-LE2", id="Exim: one character more"),
    pytest.param("OK id=1tKq3F-00000002Zx-1aBc", id="Exim: one character less"),
    pytest.param("2.0.0 your Message accepted for delivery", id="a sentence"),
    pytest.param("2.0.0 whatever0afaa93a Message accepted for delivery", id="a sentence without a blank"),
    pytest.param(f"Ok {SES}0", id="Amazon SES: one character more"),
    pytest.param("2.6.0 <1@a.example> [InternalId=] Queued mail for delivery", id="Microsoft: no number"),
]


def _receipt(text: str) -> Receipt:
    reply = Reply(250, None, text, text.encode())
    now = datetime.now(UTC)
    tls = TLSInfo(TLSMode.IMPLICIT, "TLSv1.3", "x", "mx.example", "ca_data", "", "", now)
    recipients = (Recipient("a@b.example", accepted=True, reply=reply),)
    return Receipt("<1@a.example>", "", recipients, reply, tls, 1, timedelta(), (reply,))


@pytest.mark.parametrize(("server", "text", "queue_id"), REAL)
def test_the_queue_id_of_a_real_reply_is_found(server: str, text: str, queue_id: str) -> None:
    """One form matches, that of the server."""
    assert _receipt(text).queue_id == queue_id
    names = [name for name, pattern in PATTERNS.items() if pattern.fullmatch(text)]
    assert names == [server]


def test_each_form_has_an_example() -> None:
    """A form without one could match nothing."""
    assert {row.values[0] for row in REAL} == set(_FORMS)


@pytest.mark.parametrize("text", NO_ID)
def test_another_reply_has_no_queue_id(text: str) -> None:
    """A wrong id is worse than none."""
    assert _receipt(text).queue_id is None


@st.composite
def _changed_replies(draw: st.DrawFn) -> bytes:
    """Make a real reply with a part of it replaced by other bytes."""
    known = [str(row.values[1]).encode() for row in REAL]
    reply = draw(st.sampled_from(known))
    start = draw(st.integers(0, len(reply)))
    end = draw(st.integers(start, len(reply)))
    return reply[:start] + draw(st.binary(max_size=8) | st.sampled_from(known)) + reply[end:]


@settings(max_examples=examples(300))
@given(st.lists(_changed_replies() | st.binary(max_size=80), min_size=1, max_size=3))
def test_any_reply_has_a_short_token_or_none(lines: list[bytes]) -> None:
    """The token is in the reply, and has no character that a terminal, a log or a shell could mistake."""
    text = RawReply(250, tuple(lines)).reply().text
    found = find_queue_id(text)
    assert found is None or (TOKEN.fullmatch(found) and found in text)


@settings(max_examples=examples(300))
@given(st.data())
def test_any_text_of_a_known_form_has_a_short_token(data: st.DataObject) -> None:
    """Each form limits its id, so no server can make it longer."""
    pattern = data.draw(st.sampled_from([*PATTERNS.values()]))
    text = data.draw(st.from_regex(pattern, fullmatch=True))
    found = find_queue_id(text)
    assert found is not None
    assert TOKEN.fullmatch(found)
    assert found in text


def test_a_stored_receipt_has_its_queue_id() -> None:
    """It is computed, so data of an earlier version has it too, and none can contradict the reply."""
    data = json.loads(json.dumps(_receipt("2.0.0 Ok: queued as 38C6F2208F").as_dict()))
    assert "queue_id" not in data
    assert Receipt.from_dict(data).queue_id == "38C6F2208F"
    assert Receipt.from_dict({**data, "queue_id": "another"}).queue_id == "38C6F2208F"


def test_a_sent_message_has_the_queue_id_of_the_server() -> None:
    """The test server calls its messages 1, 2 and so on."""
    with MailServer(login=None) as server, SecureMailer(server.host, server.port, ca_file=server.ca_file) as mailer:
        receipts = [mailer.send_bytes(b"Subject: x\n\n", mail_from="", recipients=["a@b.example"]) for _ in range(2)]
    assert [receipt.queue_id for receipt in receipts] == ["1", "2"]
