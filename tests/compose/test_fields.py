"""Unsubscribe, automatic messages, and other fields."""

from __future__ import annotations

from typing import Any

import pytest

from compose.wire import arrived, composed, wire
from securesmtp import AddressError, MessageError

MAILTO, HTTPS = "mailto:leave@example.org?subject=leave%20list", "https://example.org/leave?t=a%2Cb,c"


@pytest.mark.parametrize(
    ("unsubscribe", "fields"),
    [
        pytest.param((MAILTO, HTTPS), (f"<{MAILTO}>, <{HTTPS}>", "List-Unsubscribe=One-Click"), id="both"),
        pytest.param([HTTPS, MAILTO], (f"<{HTTPS}>, <{MAILTO}>", "List-Unsubscribe=One-Click"), id="both-as-a-list"),
        pytest.param(HTTPS, (f"<{HTTPS}>", "List-Unsubscribe=One-Click"), id="https"),
        pytest.param(MAILTO, (f"<{MAILTO}>", None), id="mailto"),
    ],
)
def test_the_fields_for_unsubscribing_are_written(unsubscribe: Any, fields: tuple[str, str | None]) -> None:
    """The second one only with https (RFC 8058)."""
    message = arrived(unsubscribe=unsubscribe)
    assert (message["List-Unsubscribe"], message["List-Unsubscribe-Post"]) == fields


def test_a_long_url_is_folded_before_it_only() -> None:
    """A folded URL broke signatures."""
    long = f"https://example.org/{'a' * 800}"
    assert f",\r\n <{long}>\r\n".encode() in wire(composed(unsubscribe=(MAILTO, long)))


@pytest.mark.parametrize(
    ("unsubscribe", "text", "hint"),
    [
        pytest.param("http://example.org/leave", "scheme 'http'", "needs https", id="http"),
        pytest.param((MAILTO, "http://example.org/leave"), "scheme 'http'", "needs https", id="mailto-and-http"),
        pytest.param("ftp://example.org", "scheme 'ftp'", "mailto", id="ftp"),
        pytest.param("leave@example.org", "without a scheme", "mailto:", id="an-address"),
        pytest.param("https:///leave", "without address or host", "https", id="no-host"),
        pytest.param("mailto:", "without address or host", "mailto", id="no-address"),
        pytest.param("mailto:nobody", "without address or host", "mailto", id="half-an-address"),
        pytest.param((HTTPS, HTTPS), "has 2 URLs", "one of them", id="two"),
        pytest.param((MAILTO, HTTPS, MAILTO), "has 3 URLs", "one of them", id="three"),
        pytest.param((), "has 0 URLs", "one of them", id="none"),
        pytest.param(7, "has a int", "mailto", id="a-number"),
        pytest.param([b"https://x"], "has a bytes", "mailto", id="bytes"),
        pytest.param("https://example.org/a b", "not percent-encoded", "quote", id="blank"),
        pytest.param("https://example.org/ü", "not percent-encoded", "quote", id="umlaut"),
        pytest.param("https://example.org/%zz", "not percent-encoded", "quote", id="percent"),
        pytest.param("https://example.org/>,<mailto:x@y", "not percent-encoded", "quote", id="brackets"),
        pytest.param("https://example.org/\r\nBcc: x@y", "not percent-encoded", "quote", id="injection"),
        pytest.param(f"https://example.org/{'a' * 900}", "longer than 900", "quote", id="long"),
    ],
)
def test_a_url_that_would_not_work_is_refused(unsubscribe: Any, text: str, hint: str) -> None:
    """Without its path, which may have a token."""
    with pytest.raises(MessageError, match=text) as caught:
        composed(unsubscribe=unsubscribe)
    assert hint in (caught.value.hint or "")


def test_an_automatic_message_says_so() -> None:
    """So nobody's automatic reply comes back; never by Precedence."""
    message = arrived(automatic=True)
    assert (message["Auto-Submitted"], message["X-Auto-Response-Suppress"]) == ("auto-generated", "All")
    assert "Precedence" not in message
    assert "Auto-Submitted" not in arrived()


def test_other_fields_are_written() -> None:
    """Also the ones that a mailer completes, and the sender of somebody else's message."""
    given = {
        "Message-ID": "<42@example.org>", "Date": "Fri, 27 Nov 2026 09:00:00 +0100", "Sender": "desk@example.org",
        "X-Order": "Nr. 42: Grüße", "References": "<1@example.org> <2@example.org>", "Auto-Submitted": "no",
    }  # fmt: skip
    message = arrived(headers=given)
    assert {name: str(message[name]) for name in given} == given


@pytest.mark.parametrize(
    ("headers", "text", "hint"),
    [
        pytest.param([("X-A", "b")], "headers is a list", "dict", id="a-list"),
        pytest.param({"X A": "b"}, "'X A' has a name", "hyphens", id="blank"),
        pytest.param({"X-A:": "b"}, "has a name", "hyphens", id="colon"),
        pytest.param({"": "b"}, "has a name", "hyphens", id="empty"),
        pytest.param({"Ü": "b"}, "has a name", "hyphens", id="umlaut"),
        pytest.param({"X-A\r\nBcc": "b"}, "has a name", "hyphens", id="injection-in-the-name"),
        pytest.param({7: "b"}, "has a name", "hyphens", id="a-number"),
        pytest.param({"X" * 61: "b"}, "has a name", "60", id="long-name"),
        pytest.param({"X-A": "b\r\nBcc: eve@example.net"}, r"X-A has the character U\+000D", "remove", id="injection"),
        pytest.param({"X-A": "b\n c"}, r"U\+000A", "remove", id="folded"),
        pytest.param({"X-A": 7}, "X-A is a int", "", id="value-a-number"),
        pytest.param({"X-A": "b" * 10_001}, "X-A is longer than 10000", "shorten", id="long"),
        pytest.param({"x-a": "1", "X-A": "2"}, "is set twice", "upper and lower", id="twice"),
        pytest.param({"from": "b@example.org"}, "has an argument", "sender=", id="from"),
        pytest.param({"BCC": "b@example.org"}, "has an argument", "bcc=", id="bcc"),
        pytest.param({"Subject": "b"}, "has an argument", "subject=", id="subject"),
        pytest.param({"List-Unsubscribe": "<https://x>"}, "has an argument", "unsubscribe=", id="unsubscribe"),
        pytest.param({"Content-Type": "text/html"}, "cannot be set", "returns", id="type"),
        pytest.param({"MIME-Version": "1.0"}, "cannot be set", "returns", id="version"),
        pytest.param({"Resent-To": "b@example.org"}, "cannot be set", "returns", id="resent"),
        pytest.param({"Date": "today"}, "Date is not a date", r"\+0000", id="no-date"),
        pytest.param({"Date": "Fri, 27 Nov 2026 09:00:00 -0000"}, "Date is not a date with the offset", "", id="naive"),
        pytest.param({"Date": "Fri, 99 Nov 2026 09:00:00 +0000"}, "Date is not a date", "", id="wrong-date"),
    ],
)
def test_a_field_that_cannot_be_set_is_refused(headers: Any, text: str, hint: str) -> None:
    """The error names the field, or the argument to use."""
    with pytest.raises(MessageError, match=text) as caught:
        composed(headers=headers)
    assert hint.replace("\\", "") in (caught.value.hint or "")


def test_fields_of_arguments_are_not_set_again() -> None:
    """`automatic` is one."""
    with pytest.raises(MessageError, match="is set twice"):
        composed(automatic=True, headers={"auto-submitted": "no"})
    with pytest.raises(AddressError, match="the header field Sender: 'desk' has no @"):
        composed(headers={"Sender": "desk"})


@pytest.mark.parametrize("subject", [None, 7, b"Hello", "x" * 10_001])
def test_what_is_no_subject_is_refused(subject: Any) -> None:
    """Python takes a second for a megabyte."""
    with pytest.raises(MessageError, match="subject is"):
        composed(subject=subject)
