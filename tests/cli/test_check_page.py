"""The page on checking a server: its commands run, and its tables are complete."""

from __future__ import annotations

import html
import json
import re
import shlex
import socket
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import certifi
import click
import pytest
import trustme

from cli.checks import TRUST_VARIABLES
from cli.results import NOW, certificate, checked, faulty, result
from conftest import Serve
from scripted import honest
from securesmtp._cli import main
from securesmtp._cli.check import command
from securesmtp._cli.check.json_output import to_json
from securesmtp._cli.check.prometheus import to_prometheus
from securesmtp.testing import FaultName, MailServer

PAGE_PATH = Path(__file__).parent.parent.parent / "docs/how-to/check-a-server.md"
PAGE = PAGE_PATH.read_text("utf-8")
COMMANDS = re.findall(r"run by: test_the_commands_of_the_page_run -->\n *```sh\n *securesmtp (check .*)\n", PAGE)


@pytest.fixture
def example_net(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve the page's host on loopback, with a certificate of a "public" CA; make the file that the page reads."""
    ca = trustme.CA(organization_name="Example CA", organization_unit_name="R1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    end = datetime.now(UTC) + timedelta(days=61)
    ca.issue_cert("mail.example.com", common_name="mail.example.com", not_after=end).configure_cert(context)
    extensions = ("PIPELINING", "8BITMIME", "SIZE 35882577", "SMTPUTF8", "CHUNKING")
    server = serve(honest(auth=("me", "secret"), extensions=extensions), tls=context)
    look_up = socket.getaddrinfo

    def find(host: str, port: int, *more: Any, **options: Any) -> Any:
        # An address that was found is looked up again, by itself.
        here = host in {"mail.example.com", "127.0.0.1"}
        return look_up("127.0.0.1" if here else host, server.port if here else port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", find)
    ca.cert_pem.write_to_path(tmp_path / "public.pem")
    monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "public.pem"))
    monkeypatch.setenv("SMTP_PASSWORD", "secret")
    # The check notes that they are set.
    for name in TRUST_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("servers.txt").write_text("mail.example.com  # ours\n")


@pytest.mark.usefixtures("example_net")
@pytest.mark.parametrize("line", dict.fromkeys(COMMANDS))
def test_the_commands_of_the_page_run(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As printed, with a server that is fine."""
    assert main(shlex.split(line)) == 0
    shown = capsys.readouterr().out
    assert "--output" in line or "mail.example.com" in shown
    if "nagios" in line:
        printed = re.search(r"^SMTP OK - .*$", PAGE, re.MULTILINE)
        assert printed
        assert _shape(shown.strip()) == _shape(printed[0])


def _shape(line: str) -> str:
    return re.sub(r"=[\d.]+s", "=_s", line.replace("valid for 60", "valid for 61").replace("=60;", "=61;"))


def _walk(value: Any, path: str, found: dict[str, set[str]]) -> None:
    """Note the type of *value*, and what is in it, by the names of the page."""
    kinds = {str: "text", bool: str(value).lower(), type(None): "null", list: "list", dict: "object"}
    found.setdefault(path, set()).add(kinds.get(type(value), "number"))
    # What is in these has names of the server's or of the library's.
    if isinstance(value, dict) and not path.endswith((".error", ".before_tls", ".after_tls", ".limits")):
        for name, each in value.items():
            _walk(each, f"{path}.{name}".lstrip("."), found)
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, dict):
                _walk(each, f"{path}[]", found)
            else:
                assert isinstance(each, str)


# A fault of a server, or None for a server without a login; and the arguments after the server.
FAULTY: tuple[tuple[FaultName | None, list[str]], ...] = (
    ("untrusted", []),
    ("self_signed", []),
    ("expired", []),
    ("wrong_name", []),
    ("starttls_stripped", []),
    ("bad_login", ["--login", "me"]),
    ("silent", ["--timeout", "0.1"]),
    (None, ["--login", "me"]),
)


def test_what_you_see_on_the_page_is_printed(
    serve: Serve, ca_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each text of the table is the beginning of a cause; "…" stands for what differs."""
    monkeypatch.setenv("SMTP_PASSWORD", "wrong")
    for fault, more in FAULTY:
        with MailServer("starttls", fault=fault, login=("me", "secret") if fault else None) as faulty_server:
            url = f"smtp+starttls://{faulty_server.host}:{faulty_server.port}"
            assert main(["check", url, "--ca-file", str(faulty_server.ca_file), *more]) != 0
    # A server that sends its root, too; and one that is gone.
    stranger = trustme.CA()
    leaf, context = stranger.issue_cert("localhost"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with leaf.private_key_and_cert_chain_pem.tempfile() as own, stranger.cert_pem.tempfile() as root:
        Path(own).write_bytes(Path(own).read_bytes() + Path(root).read_bytes())
        context.load_cert_chain(own)
    server = serve(tls=context)
    assert main(["check", f"localhost:{server.port}", "--ca-file", str(ca_file)]) != 0
    server.stop()
    assert main(["check", f"localhost:{server.port}"]) != 0
    causes = re.findall(r"^  cause +(.*)", capsys.readouterr().out, re.MULTILINE)
    rows = re.findall(r"^\| (.*?) \|", PAGE.partition("| you see |")[2].partition("\n\n")[0], re.MULTILINE)[1:]
    texts = [re.escape(row).replace("…", ".*").replace("10\\ s", r"[\d.]+\ s") for row in rows]
    assert len(rows) == len(FAULTY) + 2
    for row, text in zip(rows, texts, strict=True):
        assert any(re.match(text, each) for each in causes), row


def test_each_field_of_the_json_is_on_the_page() -> None:
    """With its types, and none is on the page that is not there."""
    found: dict[str, set[str]] = {}
    fine = result()
    assert fine.report is not None
    report = replace(fine.report, login=False, size=None)
    results = [
        fine,
        result(report=report, days=3, before_tls={"STARTTLS": ""}),
        faulty(address=None, stage="", chain=(certificate("a.example", -3),)),
        faulty(chain=()),
    ]
    for transcript in (True, False):
        _walk(json.loads(to_json(checked(*results), NOW, transcript=transcript)), "", found)
    rows = dict(re.findall(r"^\| `(version|checked_at|verdict|servers[^`]*)` \| ([\w, ]+) \|", PAGE, re.MULTILINE))
    documented = {name: set(kinds.split(", ")) for name, kinds in rows.items()}
    objects = {"", "servers[]", *(f"servers[].{name}[]" for name in ("faults", "addresses", "chain", "transcript"))}
    assert {name: kinds for name, kinds in found.items() if name not in objects} == documented


def test_the_json_is_ascii() -> None:
    """So that it is right in any locale, whatever a server's name is."""
    text = to_json(checked(result(host="bücher\udcff.example")), NOW, transcript=False)
    assert text.isascii()
    assert json.loads(text)["servers"][0]["host"] == "bücher\udcff.example"
    assert json.loads(text)["checked_at"] == "2026-11-27T12:00:00+00:00"


def test_each_metric_is_on_the_page() -> None:
    """In the order in which they are written."""
    written = re.findall(r"^# TYPE (\w+)", to_prometheus(checked(result()), NOW), re.MULTILINE)
    assert re.findall(r"^\| `(securesmtp_check_\w+)` ", PAGE, re.MULTILINE) == written


def test_each_option_is_on_the_page_with_its_default() -> None:
    """None is missing, and none is there that the command does not have."""
    section = PAGE.partition("\n## Options\n")[2]
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \|", section, re.MULTILINE)
    documented = {name: default for names, default in rows for name in re.findall(r"`(-[\w-]+)`", names)}
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    assert set(documented) == {name for each in options for name in each.opts}
    for each in options:
        if isinstance(each.default, int | float) and not each.is_flag:
            assert documented[each.opts[0]] == f"{each.default:g}"


@pytest.mark.usefixtures("example_net")
def test_the_picture_shows_what_is_printed_today(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise, `nox -s pictures` draws it again. Where lines end, numbers and the pin differ."""
    arguments = ["check", "mail.example.com", "--login", "me"]
    assert main(arguments) == 0
    assert _words(_shown("check-fine")) == _words(f"$ securesmtp {' '.join(arguments)} {capsys.readouterr().out}")


def test_the_picture_of_a_fault_shows_what_is_printed_today(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As above, with a server whose certificate is from a private CA."""
    ca = trustme.CA(organization_name="Corp CA", organization_unit_name="R1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    end = datetime.now(UTC) + timedelta(days=300, hours=1)
    ca.issue_cert("mail.corp.example", common_name="mail.corp.example", not_after=end).configure_cert(context)
    port, look_up = serve(tls=context).port, socket.getaddrinfo

    def find(host: str, *more: Any, **options: Any) -> Any:
        here = host in {"mail.corp.example", "127.0.0.1"}
        return look_up("127.0.0.1", port, *more[1:], **options) if here else look_up(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", find)
    for name in TRUST_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert main(["check", "mail.corp.example"]) != 0
    assert _words(_shown("check-fault")) == _words(f"$ securesmtp check mail.corp.example {capsys.readouterr().out}")


def _shown(name: str) -> str:
    """Return the text of a picture."""
    picture = (PAGE_PATH.parent / f"pictures/{name}-light.svg").read_text("utf-8")
    return html.unescape("".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture)))


def _words(text: str) -> str:
    text = re.sub(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", "", re.sub(r"\s|sha256/.{43}=", "", text))
    return re.sub(r"[\d.]+", "_", text)


def test_the_pictures_show_nothing_of_the_machine_and_load_nothing() -> None:
    """Each is there in light and dark, and is shown by a page."""
    folder = PAGE_PATH.parent / "pictures"
    # The diagram is no picture of a terminal, and is for either ground.
    pictures = sorted({*folder.iterdir()} - {folder / "metrics.svg"})
    pages = "".join(page.read_text("utf-8") for page in PAGE_PATH.parent.glob("*.md"))
    assert pictures
    assert {each.stem.rpartition("-")[2] for each in pictures} == {"light", "dark"}
    for each in pictures:
        assert f"pictures/{each.name}" in pages
        # The others are of a browser, and hold no text.
        if each.suffix != ".svg":
            assert each.read_bytes().startswith(b"\x89PNG")
            continue
        text = each.read_text("utf-8")
        # What is printed may have an address in it, which loads nothing.
        drawn = re.sub(r"(<text[^>]*>)[^<]*", r"\1", text)
        assert re.findall(r"https?://[^\s\"]+", drawn) == ["http://www.w3.org/2000/svg"]
        assert not re.search(r"href|url\((?!#)|@font-face|@import|<script", drawn)
        assert not re.search("/tmp|/root|/home", text)
