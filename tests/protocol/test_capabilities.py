"""The answer to EHLO."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from securesmtp._protocol.capabilities import Capabilities, parse_capabilities


def parsed(*lines: bytes) -> Capabilities:
    """Return what the lines after the server's name offer."""
    return parse_capabilities([b"mx.example.org", *lines])


def test_the_first_line_offers_nothing() -> None:
    """It is the server's name, even where it looks like a keyword."""
    assert parse_capabilities([b"STARTTLS"]) == Capabilities({}, ())
    assert parse_capabilities([]) == Capabilities({}, ())


def test_keywords_are_in_capitals_and_parameters_as_given() -> None:
    """A keyword is compared without regard to case (RFC 5321 §2.4); what follows it is kept."""
    offered = parsed(b"starttls", b"Size 100", b"x-y a B=c", b"8BITMIME")
    assert offered.keywords == {"STARTTLS": "", "SIZE": "100", "X-Y": "a B=c", "8BITMIME": ""}
    assert "STARTTLS" in offered
    assert "PIPELINING" not in offered


def test_a_keyword_that_comes_twice_counts_the_first_time() -> None:
    """A later line does not change what an earlier one said."""
    assert parsed(b"SIZE 1", b"size 2", b"SIZE").keywords == {"SIZE": "1"}


def test_the_lines_of_auth_add_up() -> None:
    """AUTH and AUTH= are one list, each mechanism once, in the server's order and in capitals."""
    offered = parsed(b"AUTH=LOGIN plain", b"AUTH PLAIN  XOAUTH2", b"auth login")
    assert offered.auth == ("LOGIN", "PLAIN", "XOAUTH2")
    assert "AUTH" not in offered


@pytest.mark.parametrize("text", [b"AUTH", b"AUTH ", b"AUTH=", b"AUTHPLAIN", b"X-AUTH PLAIN", b"AUTH\tPLAIN"])
def test_auth_without_a_mechanism_offers_none(text: bytes) -> None:
    """Empty parameters and keywords that only look alike give no mechanism."""
    assert parsed(text).auth == ()


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b" STARTTLS", b"-STARTTLS", b"STARTTLS\0", b"STARTTLS\t", b"START_TLS", b"SIZE=10", b"STARTTLS=",
     b"SIZE \xff", b"\xc5\xbfTARTTLS", b"A: b", b"SIZE 10\x1b"],
)  # fmt: skip
def test_what_is_no_keyword_is_passed_over(text: bytes) -> None:
    """Junk offers nothing and spoils nothing around it."""
    assert parsed(b"A", text, b"B").keywords == {"A": "", "B": ""}


def test_a_hundred_keywords_are_looked_at() -> None:
    """Exactly so many lines count; what stands behind them is not read."""
    lines = [b"K%d" % number for number in range(99)]
    assert "STARTTLS" in parsed(*lines, b"STARTTLS")
    assert "STARTTLS" not in parsed(*lines, b"K99", b"STARTTLS")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (b"SIZE 35882577", 35882577),
        (b"SIZE 1", 1),
        (b"SIZE 0", None),
        (b"SIZE 00", None),
        (b"SIZE", None),
        (b"SIZE ", None),
        (b"SIZE -1", None),
        (b"SIZE +1", None),
        (b"SIZE 1 2", None),
        (b"SIZE 1_0", None),
        (b"SIZE  10", None),
        (b"SIZE ten", None),
        (b"SIZE " + b"9" * 20, 10**20 - 1),
        (b"SIZE " + b"9" * 21, None),
        (b"X", None),
    ],
)
def test_size_is_a_number_or_no_limit(text: bytes, size: int | None) -> None:
    """At most 20 digits (RFC 1870 §4); 0 and what is no number are no limit."""
    assert parsed(text).size == size


@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"AUTH PLAIN", b"SIZE 5", b"STARTTLS"]), max_size=8))
@settings(max_examples=examples(200), deadline=None)
def test_whatever_a_server_says_is_parsed(lines: list[bytes]) -> None:
    """No line raises, and all that is kept is printable ASCII."""
    offered = parse_capabilities(lines)
    for text in (*offered.keywords, *offered.keywords.values(), *offered.auth):
        assert text.isascii()
        assert text.isprintable()
    assert offered.size is None or offered.size > 0
