"""The table for people: at a terminal of any width, in a pipe, in any encoding."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cli.results import HOSTILE, certificate, checked, faulty, result
from securesmtp import NoUsableMechanismError
from securesmtp._cli.check.result import CheckResult
from securesmtp._cli.check.table import TableWriter

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.TextIOWrapper):
    """A file that says it is a terminal, and keeps what was written."""

    def __init__(self, encoding: str = "utf-8", *, is_terminal: bool = True) -> None:
        super().__init__(io.BytesIO(), encoding, write_through=True)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    @property
    def text(self) -> str:
        data = self.buffer
        assert isinstance(data, io.BytesIO)
        return data.getvalue().decode(self.encoding)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of the one who runs the tests choose colours or a width."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def shown(*results: CheckResult, columns: int = 80, terminal: Terminal | None = None, **options: Any) -> str:
    """Return what a terminal of this width gets."""
    terminal = terminal or Terminal()
    transcript, per_address = options.pop("transcript", False), options.pop("per_address", False)
    with pytest.MonkeyPatch.context() as patch:
        if columns:
            patch.setenv("COLUMNS", str(columns))
        TableWriter(terminal, **options).write(checked(*results, per_address=per_address), transcript=transcript)
    return terminal.text


def test_the_verdict_is_the_first_line() -> None:
    """Then, in a few words, what is fine; then what was found."""
    first, second, third, *_ = shown(result()).splitlines()
    assert first == "\x1b[1;32m✓ smtp.example.com:465 \x1b[0m\x1b[1;32mis fine\x1b[0m"
    assert (second, third) == ("  TLSv1.3, certificate valid for 61 days, login accepted", "")


def test_a_fault_is_red_and_has_its_fix_and_its_line() -> None:
    """Cause, fix and line stand before what was found; the line is alone, so that it can be copied."""
    lines = shown(faulty()).splitlines()
    assert lines[0] == "\x1b[1;31m✗ smtp.example.com:465 \x1b[0m\x1b[1;31mhas a fault\x1b[0m"
    plain = [ESCAPE.sub("", line) for line in lines]
    assert plain[1:9] == [
        "",
        "  cause        the certificate is not signed by a trusted CA",
        "  fix          pass the root of your CA",
        '  write        ca_file="corp-ca.pem"',
        '  here         add --ca-file "corp-ca.pem" to this command',
        "  more         securesmtp explain certificateerror-untrusted",
        "",
        "  address      192.0.2.1, connected",
    ]
    assert "\x1b[31mthe certificate is not signed by a trusted CA\x1b[0m" in lines[2]
    assert "31m" not in lines[3]


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ('tls="starttls"', "check smtp+starttls://smtp.example.com instead"),
        ('tls="implicit"', "check smtps://smtp.example.com:465 instead"),
        ('ca_file="a.pem"\nport=465', 'add --ca-file "a.pem" to this command'),
        (
            'SecureMailer("mail.example.com")',
            "check smtps://mail.example.com:465 instead, or add --server-name mail.example.com to this command",
        ),
        ('policy=TLSPolicy(ca_file="ca.pem", server_hostname="x")', 'add --ca-file "ca.pem" to this command'),
        ("auth=OAuth2(username, token)", None),
        (None, None),
    ],
)
def test_an_operator_gets_the_option_instead_of_the_line(line: str | None, option: str | None) -> None:
    """Who runs this command may have no program to write the line into."""
    found = faulty()
    text = shown(replace(found, faults=(replace(found.faults[0], line=line),)), columns=200)
    assert (f"here         \x1b[0m{option}" in text) == (option is not None)
    assert ("here  " in text) == (option is not None)
    other = shown(replace(found, port=587, faults=(replace(found.faults[0], line='tls="implicit"'),)))
    assert "check smtps://smtp.example.com instead" in other


def test_a_warning_is_yellow() -> None:
    """The server works, so it is no fault."""
    first, _, cause, *_ = shown(result(days=9)).splitlines()
    assert ESCAPE.sub("", first) == "! smtp.example.com:465 works, with a warning"
    assert "\x1b[33mthe certificate expires in 9 days, on 2026-12-06\x1b[0m" in cause


def test_everything_that_was_found_is_there() -> None:
    """In words that the reader need not look up."""
    text = ESCAPE.sub("", shown(result(), columns=200))
    assert [line.split(None, 1) for line in text.splitlines()[3:]] == [
        ["address", "192.0.2.1, connected"],
        ["2001:db8::1,", "not tried"],
        ["TLS", "TLSv1.3, TLS_AES_256_GCM_SHA384, from the first byte"],
        ["trust", "certifi 2026.10.1"],
        ["certificate", "smtp.example.com, EC P-256, 61 days left; issued by Example CA 1"],
        ["Example", "CA 1, EC P-256, 900 days left; issued by Example Root"],
        ["pin", f"sha256/{'A' * 43}="],
        ["inside", "TLS   PIPELINING, SIZE 35882577, AUTH PLAIN LOGIN, CHUNKING, LIMITS RCPTMAX=100"],
        ["login", "accepted"],
        ["mechanisms", "PLAIN, LOGIN"],
        ["used", "PLAIN: the best that the server offers"],
        ["size", "limit   35,882,577 bytes for a message"],
        ["limits", "RCPTMAX 100"],
        ["speed", "2 round trips for a small message, over an open connection"],
        ["note", "the server offers LOGIN as well"],
        ["took", "0.12 s"],
    ]


def test_what_differs_is_said() -> None:
    """STARTTLS, a refused login, no limits, an expired certificate, a pin of a server that was not verified."""
    found = result()
    assert found.report is not None
    report = replace(found.report, login=False, mechanisms=(), size=None, limits={})
    expired = replace(found.chain[0], days_left=-1)
    changed: dict[str, Any] = {
        "tls": "starttls",
        "before_tls": {},
        "report": report,
        "chain": (expired,),
        "mechanism": None,
    }
    text = shown(result(**changed), columns=200)
    for words in (
        "after STARTTLS", "before TLS   \x1b[0mnothing", "refused", "none offered", "none given",
        "expired 1 day ago", "none: the best",
    ):  # fmt: skip
        assert words in text
    assert "limits" not in text
    # Nothing was sent that the server could have refused.
    unable = shown(result(report=report, error=NoUsableMechanismError("the server offers no login")), columns=200)
    assert "login        \x1b[0mnot possible" in unable
    assert "= unverified" in shown(faulty())
    assert "trust" in shown(result())
    assert "trust" not in shown(result(trust=""))
    assert "would use" in shown(result(report=replace(found.report, login=None)))
    assert "login not tried" in shown(result(stage="ehlo"))
    assert "nothing after TLS checked" in shown(result(stage="tls", report=None))
    assert "connected, nothing else checked" in shown(result(stage="connect", report=None, session=None, chain=()))


@pytest.mark.parametrize("columns", [20, 40, 59, 60, 80, 200])
@pytest.mark.parametrize("kind", ["one", "faulty", "several"])
def test_no_line_is_wider_than_the_terminal(columns: int, kind: str) -> None:
    """Except a line that is to be copied, and the dialogue, which the terminal itself wraps."""
    results = {
        "one": (result(),),
        "faulty": (faulty(cause="x" * 500),),
        "several": (result(), faulty(host="a-long-name-of-a-server.example.com"), result(days=9)),
    }[kind]
    for line in ESCAPE.sub("", shown(*results, columns=columns)).splitlines():
        assert len(line) <= columns or "ca_file=" in line or "sha256/" in line
        assert kind == "several" or line == line.rstrip()


def test_a_line_to_copy_is_one_line_at_any_width() -> None:
    """A pin that is broken by the layout does not fit when it is pasted."""
    text = ESCAPE.sub("", shown(faulty(), columns=20))
    assert '\n  ca_file="corp-ca.pem"\n' in text


def test_at_a_wide_terminal_nothing_is_stretched() -> None:
    """The eye need not cross an empty space."""
    assert max(map(len, ESCAPE.sub("", shown(result(), faulty(), columns=200)).splitlines())) < 100


def test_several_servers_are_side_by_side() -> None:
    """In the order in which they were given, and then the faults, worst first."""
    lines = ESCAPE.sub("", shown(result(), result(host="b.example", days=9), faulty(host="c.example"))).splitlines()
    assert lines[:7] == [
        "3 checked: 1 with a fault, 1 with a warning, 1 fine",
        "",
        "   server                days  TLS  login      round trips  seconds",
        "✓  smtp.example.com:465    61  1.3  accepted             2     0.12",
        "!  b.example:465            9  1.3  accepted             2     0.12",
        "✗  c.example:465            -  -    not tried            -     0.12",
        "",
    ]
    assert [line for line in lines[7:] if not line.startswith(" ") and line] == ["✗ c.example:465", "! b.example:465"]


@pytest.mark.parametrize(("days", "cell"), [(0, "-"), (355415, "-"), (-3, "-3")])
def test_the_days_of_a_refused_certificate_do_not_look_fine(days: int, cell: str) -> None:
    """What a stranger's certificate says of itself is no news, unless it has expired."""
    refused = faulty(host="c.example", chain=(certificate("c.example", days),))
    row = ESCAPE.sub("", shown(result(), refused)).splitlines()[4]
    assert row.split()[:4] == ["✗", "c.example:465", cell, "-"]


def test_a_refused_certificate_is_shown_as_unverified() -> None:
    """With the digest that a person can compare by phone, as OpenSSL prints it; and what was not sent."""
    alone = replace(certificate("c.example", 9), sha256="00ff" * 16)
    text = ESCAPE.sub("", shown(faulty(chain=(alone,)), columns=200))
    assert "certificate  c.example, EC P-256, unverified, 9 days left; issued by Example CA 1\n" in text
    assert "               the server sent one certificate; its issuer was not sent\n" in text
    assert f"  SHA-256      {('00:FF:' * 16)[:-1]}\n" in text
    for chain in ((replace(alone, is_self_issued=True),), (alone, alone)):
        assert "its issuer was not sent" not in shown(faulty(chain=chain), columns=200)
    found = faulty(chain=(alone,))
    expired = replace(found, faults=(replace(found.faults[0], name="certificateerror-expired"),))
    assert "its issuer was not sent" not in shown(expired, columns=200)
    text = ESCAPE.sub("", shown(result(chain=(alone,)), columns=200))
    assert not any(words in text for words in ("unverified", "its issuer was not sent", "SHA-256      "))


def test_each_address_has_a_row() -> None:
    """With what it is about."""
    text = shown(result(), result(address="192.0.2.2"), per_address=True)
    assert "smtp.example.com:465 at 192.0.2.2" in text


def test_a_narrow_terminal_gets_what_matters_most() -> None:
    """At 40 columns: the server and the days; names and values are one below the other."""
    assert "round trips" not in shown(result(), result(), columns=40)
    assert "trust: \x1b[0mcertifi" in shown(result(), columns=40)


def test_a_pipe_gets_plain_lines_that_are_not_wrapped() -> None:
    """So that each fact is one line for grep."""
    text = shown(faulty(cause="x " * 100), terminal=Terminal(is_terminal=False), columns=0)
    assert "\x1b" not in text
    assert f"  cause        {'x ' * 100}".rstrip() in text.splitlines()


@pytest.mark.parametrize("variable", [("NO_COLOR", "1"), ("TERM", "dumb")], ids=lambda each: each[0])
def test_colours_can_be_turned_off(variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By https://no-color.org, and by a terminal that has none. Bold is no colour."""
    monkeypatch.setenv(*variable)
    colours = re.findall(r"\x1b\[(?:\d+;)*3\dm", shown(faulty()))
    assert colours == []


def test_a_file_has_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """FORCE_COLOR is for what is shown."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = Terminal(is_terminal=False)
    assert "\x1b" not in shown(faulty(), terminal=text, plain=True)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_will_do(encoding: str) -> None:
    """What it cannot write is escaped, and the marks are of ASCII."""
    text = shown(faulty(cause="Zürich 東京"), result(host="東京.example"), terminal=Terminal(encoding))
    assert ("✗" if encoding == "utf-8" else "x") in text
    assert {"ascii": r"Z\xfcrich \u6771\u4eac", "latin-1": r"Zürich \u6771", "utf-8": "Zürich 東京"}[encoding] in text


def test_no_text_of_a_server_controls_the_terminal() -> None:
    """Neither by an escape nor by markup nor by a line end, wherever it stands."""
    found = result()
    assert found.report is not None
    hostile = result(
        host=HOSTILE,
        trust=HOSTILE,
        notes=(HOSTILE,),
        after_tls={HOSTILE: HOSTILE},
        mechanism_reason=HOSTILE,
        report=replace(found.report, mechanisms=(HOSTILE,)),
        transcript=(replace(found.transcript[0], text=HOSTILE),),
        chain=(replace(found.chain[0], subject=HOSTILE, issuer=HOSTILE, days_left=1),),
    )
    terminal = Terminal(is_terminal=False)
    text = shown(hostile, faulty(cause=HOSTILE), terminal=terminal, transcript=True, columns=0)
    text += shown(hostile, transcript=True, terminal=Terminal(is_terminal=False), columns=0)
    assert set(text) - {"\n"} == {character for character in text if character.isprintable()}
    assert not re.search(r"^SMTP OK", text, re.MULTILINE)
    assert "[bold]" in text


def test_the_dialogue_is_last() -> None:
    """With the hints of swaks, a refusal in red."""
    found = result()
    refused = replace(found.transcript[1], hint="<~*", text="535 5.7.8 wrong")
    text = shown(replace(found, transcript=(*found.transcript, refused)), transcript=True)
    assert text.splitlines()[-5:] == [
        "",
        "\x1b[2m=== Connected to 192.0.2.1.\x1b[0m",
        "<~  220 smtp.example.com",
        "~>  EHLO me.example",
        "\x1b[31m<~* 535 5.7.8 wrong\x1b[0m",
    ]
    assert "=== Connected" not in shown(found)
    assert shown(found, found, transcript=True).count("=== Connected") == 2


def test_numbers_are_counted() -> None:
    """One of them is singular."""
    text = shown(result(days=1, round_trips=1, elapsed=timedelta(seconds=2)), columns=200)
    assert "1 day left" in text
    assert "1 round trip for" in text
