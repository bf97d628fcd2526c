"""`securesmtp explain`: every section of the troubleshooting page, found by what people have at hand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import unmeasured
from securesmtp import CertificateReason, errors
from securesmtp._cli import main
from securesmtp._cli.explain import SITE, Section, find, read_sections, with_numbered_links
from securesmtp.errors import CertificateError
from test_errors import ALL_ERRORS

PAGE = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text("utf-8")
SECTIONS = read_sections()


def test_the_sections_are_those_of_the_page() -> None:
    """Whole: every line between the first section and the last that is not a heading, or the text below one."""
    assert list(SECTIONS) == re.findall(r"^\(([\w-]+)\)=$", PAGE, re.MULTILINE)
    written = "".join(section.text for section in SECTIONS.values())
    for lead in ("**What it means.**", "**Why it happens.**", "**What to do.**", "**Was something sent?**", "```"):
        assert written.count(f"\n{lead}") == PAGE.count(f"\n{lead}") - {"```": 6}.get(lead, 0)


@pytest.mark.parametrize("error", ALL_ERRORS, ids=lambda error: error.url.partition("#")[2])
def test_the_text_of_an_error_finds_its_section(error: errors.SecureSMTPError) -> None:
    """As in a log line, and by its address alone."""
    name = error.url.partition("#")[2]
    for text in (f"ERROR app: {error}", error.url):
        assert [section.name for section in find(text, SECTIONS)] == [name]


_REASONS = [f"certificateerror-{reason.name.lower().replace('_', '-')}" for reason in CertificateReason]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("DowngradeError", ["downgradeerror"]),
        ("downgradeerror", ["downgradeerror"]),
        ("certificateerror-pin", ["certificateerror-pin"]),
        ("CertificateError pin", ["certificateerror-pin"]),
        ("CertificateError: not yet valid", ["certificateerror-not-yet-valid"]),
        ("NAME_MISMATCH", ["certificateerror-name-mismatch"]),
        ("expired", ["certificateerror-expired"]),
        ("CertificateError", _REASONS),
        ("securesmtp.errors.ConnectError", ["connecterror"]),
        ("Traceback …\nsecuresmtp.errors.CertificateError: text that was cut", _REASONS),
        ("ConnectError, then OutcomeUnknownError: lost", ["outcomeunknownerror"]),
    ],
)
def test_a_section_is_found_by_what_is_at_hand(text: str, names: list[str]) -> None:
    """The class, the reason, or the last line of a traceback."""
    assert sorted(section.name for section in find(text, SECTIONS)) == sorted(names)


def test_a_section_is_shown_with_its_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    """The links of the page are numbered, and each address is on one line."""
    assert main(["explain", "CertificateError", "untrusted"]) == 0
    shown = capsys.readouterr().out
    assert "CertificateError: untrusted" in shown
    assert "see your own CA [2]" in " ".join(shown.split())
    assert shown.splitlines()[-4:] == [
        f"[0] {SITE}troubleshooting.html#certificateerror-untrusted",
        f"[1] {SITE}troubleshooting.html#whom-to-ask-and-for-what",
        f"[2] {SITE}how-to/own-ca.html",
        f"[3] {SITE}how-to/own-ca.html#trust-what-the-system-trusts",
    ]
    assert "<!--" not in shown


def test_links_lead_to_pages_of_the_site() -> None:
    """To a page, to a part of it, and to another section of the same page."""
    text, links = with_numbered_links(Section("x", "X", "[a](how-to/a.md), [b](how-to/a.md#b) and [c](#c)\n"))
    assert text == "a \\[1\\], b \\[2\\] and c \\[3\\]\n"
    assert links[1:] == [f"{SITE}how-to/a.html", f"{SITE}how-to/a.html#b", f"{SITE}troubleshooting.html#c"]


def test_without_a_name_all_errors_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its first sentence."""
    assert main(["explain"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name in errors.__all__:
        assert name in shown or name == CertificateError.__name__
    assert "certificateerror-expired The certificate, or one above it, has expired." in shown
    assert "ProxyError The proxy cannot be reached" in shown


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CertificateErorr", "Did you mean CertificateError?"),
        ("x", "`securesmtp explain` lists all errors"),
        ("smt104", "`securesmtp audit --explain SMT104` explains a rule of the audit"),
    ],
)
def test_a_name_that_is_none_gets_a_hint(capsys: pytest.CaptureFixture[str], name: str, hint: str) -> None:
    """On one line, with the nearest class if there is one."""
    assert main(["explain", name]) == 1
    assert capsys.readouterr().err == f"Error: there is no error {name!r}. Hint: {hint}\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_any_encoding_will_do(encoding: str) -> None:
    """A character that it does not have is a question mark, and no traceback."""
    command = [sys.executable, "-m", "securesmtp", "explain", "CertificateError"]
    env = unmeasured() | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "CertificateError: untrusted" in done.stdout.decode(encoding)


@pytest.mark.parametrize("name", [[], ["CertificateError"]], ids=["list", "sections"])
def test_a_reader_that_has_gone_is_no_error(name: list[str]) -> None:
    """As after ``| head``, also of what fits into no pipe."""
    reader, writer = os.pipe()
    os.close(reader)
    # Measured, if this process is.
    command = [sys.executable, "-m", "securesmtp", "explain", *name]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_is_an_error() -> None:
    """Without a traceback."""
    command = [sys.executable, "-m", "securesmtp", "explain"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == b"Error: standard output cannot be written: No space left on device\n"
