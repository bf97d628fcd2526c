"""Which servers are checked: arguments, URLs and files of them."""

from __future__ import annotations

import errno
import io

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp import ConfigurationError
from securesmtp._cli.check.hosts import Target, find_targets, parse

PIN = f"sha256/{'A' * 43}%3D"
GOOD = {
    "smtp.example.com": ("smtp.example.com", 465, "implicit"),
    "smtp.example.com:587": ("smtp.example.com", 587, "starttls"),
    "smtp.example.com:25": ("smtp.example.com", 25, "implicit"),
    "SMTP.Example.com.": ("smtp.example.com", 465, "implicit"),
    "192.0.2.1:2525": ("192.0.2.1", 2525, "implicit"),
    "[::1]": ("::1", 465, "implicit"),
    "[::1]:587": ("::1", 587, "starttls"),
    "2001:DB8:0::1": ("2001:db8::1", 465, "implicit"),
    "bücher.example": ("xn--bcher-kva.example", 465, "implicit"),
    "smtps://smtp.example.com": ("smtp.example.com", 465, "implicit"),
    "smtps://smtp.example.com:4650/": ("smtp.example.com", 4650, "implicit"),
    "smtps://[::1]:4650": ("::1", 4650, "implicit"),
    "smtp+starttls://smtp.example.com": ("smtp.example.com", 587, "starttls"),
    "smtp+starttls://smtp.example.com:25": ("smtp.example.com", 25, "starttls"),
}
BAD = {
    "": "host '' is neither",
    ":25": "host '' is neither",
    "smtp.example.com:": "is not HOST:PORT",
    "smtp.example.com:smtp": "is not HOST:PORT",
    "smtp.example.com:+587": "is not HOST:PORT",
    "smtp.example.com:0": "port is 0",
    "smtp.example.com:65536": "port is 65536",
    "smtp.example.com:587:587": "is not HOST:PORT",
    "two words": "neither a host name nor an IP address",
    "127.1": "neither a host name nor an IP address",
    "-file": "neither a host name nor an IP address",
    "[::1": r"is not \[IPV6\]:PORT",
    "[::1]587": r"is not \[IPV6\]:PORT",
    "[a.example]:587": r"is not \[IPV6\]:PORT",
    "fe80::1%eth0": "is neither a host name nor an IP address|is not HOST:PORT",
    "http://smtp.example.com": "has another scheme",
    "smtp://smtp.example.com": "begins with smtp://",
    "smtps://smtp.example.com:587": "its port is for STARTTLS",
    "smtps://me:hunter22@smtp.example.com": "no login and no parameters",
    "smtps://me@smtp.example.com": "no login and no parameters|there is no password",
    "smtps://smtp.example.com?timeout=3": "no login and no parameters",
}


@pytest.mark.parametrize("text", GOOD)
def test_a_server_is_read(text: str) -> None:
    """By host and port, or by the library's URL; port and mode follow from each other."""
    assert parse(text) == Target(*GOOD[text])  # type: ignore[arg-type]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_server_is_refused(text: str) -> None:
    """Nothing is guessed, and no password is shown."""
    with pytest.raises(ConfigurationError, match=BAD[text]) as caught:
        parse(text)
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("smtps://me:hunter22@a.example", ", and use --login"),
        ("smtps://me:hunter22@a.example?auth=PLAIN", ", and use --login"),
        ("smtps://a.example?timeout=3", ", and use --timeout"),
        ("smtps://a.example?ca_file=ca.pem", ", and use --ca-file"),
        (f"smtps://a.example?pin={PIN}", ", and use --pin"),
        (f"smtps://me:hunter22@a.example?pin={PIN}&ca_file=ca.pem", ", and use --login and --pin and --ca-file"),
        ("smtps://a.example?rate=3", ""),
    ],
)
def test_what_a_url_may_not_have_is_an_option(url: str, options: str) -> None:
    """The hint names those that fit."""
    with pytest.raises(ConfigurationError, match="no login and no parameters") as caught:
        parse(url)
    assert caught.value.hint == f"write smtps://smtp.example.com{options}"


@given(st.text(max_size=30) | st.from_regex(r"[\[\]:a-z0-9./%@#-]{1,20}", fullmatch=True))
@settings(max_examples=examples(300))
def test_any_text_is_a_server_or_an_error(text: str) -> None:
    """What is read is read again from what is shown."""
    try:
        target = parse(text)
    except ConfigurationError:
        return
    scheme = "smtps" if target.tls == "implicit" else "smtp+starttls"
    other = {("implicit", 587), ("starttls", 465)}
    if (target.tls, target.port) not in other:
        assert parse(f"{scheme}://{target}") == target


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smtp.example.com:25", ("smtp.example.com", 25, "starttls")),
        ("smtp.example.com", ("smtp.example.com", 587, "starttls")),
        ("smtp+starttls://smtp.example.com", ("smtp.example.com", 587, "starttls")),
    ],
)
def test_starttls_applies_to_all(text: str, expected: tuple[str, int, str]) -> None:
    """The port is then that of STARTTLS."""
    assert parse(text, starttls=True) == Target(*expected)  # type: ignore[arg-type]


def test_starttls_contradicts_a_url_for_implicit_tls() -> None:
    """One of them is a mistake."""
    with pytest.raises(ConfigurationError, match="means implicit TLS"):
        parse("smtps://smtp.example.com", starttls=True)


def _file(data: bytes, name: str = "servers.txt") -> io.BytesIO:
    file = io.BytesIO(data)
    file.name = name
    return file


@pytest.mark.parametrize(
    "data",
    [
        b"# ours\na.example\n\n  b.example:587  # the old one\n",
        b"\xef\xbb\xbfa.example\r\nb.example:587\r\n",
        b"a.example\nb.example:587",
        b"a.example\nA.Example.\nsmtps://a.example:465\nb.example:587\nb.example:587\n",
    ],
    ids=["comments", "from Windows", "no last line end", "twice"],
)
def test_a_file_has_one_server_a_line(data: bytes) -> None:
    """Comments and blank lines are left out, and each server is checked once, after those of the command line."""
    expected = [Target("first.example", 465, "implicit"), Target("a.example", 465, "implicit")]
    expected.append(Target("b.example", 587, "starttls"))
    assert find_targets(["first.example"], _file(data), starttls=False) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a.example\nb example\n#\nc.example:x", "servers.txt, line 2: .*\nservers.txt, line 4: "),
        (b"a.example#1\n", "servers.txt, line 1: "),
        (b"\n".join([b"bad line"] * 12), "line 10: [^\n]*\nand 2 more$"),
        (b"# nothing\n", "there is no server to check"),
        (b"\xff\xfe", "servers.txt is not a text in UTF-8"),
        (b"a" * 1_000_001, "servers.txt is larger than 1,000,000 bytes"),
    ],
    ids=["two lines", "a hash inside", "many", "empty", "not UTF-8", "too large"],
)
def test_each_wrong_line_is_named_before_anything_is_checked(data: bytes, message: str) -> None:
    """So that a file is corrected once."""
    with pytest.raises(click.UsageError, match=message):
        find_targets([], _file(data), starttls=False)


def test_a_file_that_cannot_be_read_is_named() -> None:
    """An error in reading is none of opening, which click reports."""

    class Broken(io.BytesIO):
        name = "a\x1b.txt"

        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(click.UsageError, match=r"^a\\x1b.txt cannot be read: Input/output error$"):
        find_targets([], Broken(), starttls=False)


def test_standard_input_has_a_name() -> None:
    """Rather than that of Python's file."""
    with pytest.raises(click.UsageError, match="standard input, line 1: "):
        find_targets([], _file(b"a b", "<stdin>"), starttls=False)
