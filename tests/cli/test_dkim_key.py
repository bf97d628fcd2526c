"""`securesmtp dkim-key`: a key, and its record."""

from __future__ import annotations

import errno
import json
import re
import stat
import sys
from pathlib import Path

import pytest

from dkim_verifiers import ed25519_pem, rsa_pem, verify_with_dkimpy
from securesmtp._cli import dkim_key, main
from securesmtp.signing import DKIM, DNSRecord


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a new folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return the exit code, standard output and standard error."""
    code = main(["dkim-key", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_new_key_signs_and_its_record_verifies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """X11: the zone file's strings are those of the one line; the file can be read by its owner only."""
    code, out, err = run(capsys, "Bücher.example", "mail2027")
    path = folder / "mail2027.xn--bcher-kva.example.pem"
    assert code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.name in err
    name, kind, value = re.findall(r"^(?:name|type|value) +(.*)$", out, re.MULTILINE)
    assert (name, kind) == ("mail2027._domainkey.xn--bcher-kva.example", "TXT")
    assert DNSRecord(name, value).zone in out
    assert '"' not in value
    message = b"From: a@example.org\r\n\r\nx\r\n"
    dkim = DKIM("Bücher.example", "mail2027", path)
    assert verify_with_dkimpy(dkim.sign(message) + message, {name: value}) == [True]
    assert path.read_text() not in out + err


def test_the_record_of_a_key_is_shown_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a new key, and as JSON."""
    path = folder / "mine.pem"
    path.write_text(rsa_pem())
    code, out, err = run(capsys, "example.org", "m", "--key", "mine.pem", "--show", "--json")
    (record,) = DKIM("example.org", "m", rsa_pem()).dns_records()
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "key": "mine.pem", "name": record.name, "type": "TXT", "value": record.value, "zone": record.zone,
    }  # fmt: skip
    assert path.read_text() == rsa_pem()


def test_an_ed25519_key(capsys: pytest.CaptureFixture[str]) -> None:
    """For a second signature."""
    assert run(capsys, "example.org", "e", "--ed25519")[0] == 0
    (_, record) = DKIM(
        "example.org", "m", rsa_pem(), ed25519_selector="e", ed25519_key=Path("e.example.org.pem")
    ).dns_records()
    assert record.value.startswith("v=DKIM1; k=ed25519; p=")


def test_a_longer_key(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its length is what was asked for."""
    asked = list[int | None]()

    def make_key(bits: int | None) -> bytes:
        asked.append(bits)
        return ed25519_pem().encode()

    monkeypatch.setattr("securesmtp._cli.dkim_key.make_key", make_key)
    assert run(capsys, "example.org", "m", "--bits", "4096")[0] == 0
    assert run(capsys, "example.org", "n")[0] == 0
    assert asked == [4096, 2048]


def test_a_file_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be the key that signs today."""
    path = folder / "m.example.org.pem"
    path.write_text("mine")
    code, out, err = run(capsys, "example.org", "m")
    assert (code, out) == (1, "")
    assert "is there already" in err
    assert "--show" in err
    assert path.read_text() == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_a_key_that_is_not_finished_leaves_no_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    """It would be in the way of the next try."""

    def fail(_: object) -> bytes:
        assert [*folder.iterdir()] == [folder / "m.example.org.pem"]
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(dkim_key, "make_key", fail)
        code, out, err = run(capsys, "example.org", "m")
    assert (code, out) == (1 if isinstance(error, OSError) else 130, "")
    assert ("m.example.org.pem cannot be written: No space left on device" in err) is isinstance(error, OSError)
    assert [*folder.iterdir()] == []
    assert run(capsys, "example.org", "m")[0] == 0


def test_a_file_without_a_key_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of one line, which `DKIM` takes for a path where it is given a text."""
    (folder / "m.example.org.pem").write_text("x\n")
    code, out, err = run(capsys, "example.org", "m", "--show")
    assert (code, out) == (1, "")
    assert "Hint: it has to begin with -----BEGIN PRIVATE KEY-----; securesmtp dkim-key makes one" in err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["localhost", "m"], 2, "not a domain name"),
        (["example.org", "../m"], 2, "not a name of letters"),
        (["example.org", "m", "--bits", "1024"], 2, "1024"),
        (["example.org", "m", "--ed25519", "--bits", "2048"], 2, "exclude each other"),
        (["example.org", "m", "--show", "--ed25519"], 2, "exclude each other"),
        (["example.org", "m", "--show"], 1, "cannot be read: No such file"),
        (["example.org", "m", "--key", "none/m.pem"], 1, "cannot be written: No such file"),
        (["example.org"], 2, "SELECTOR"),
    ],
)
def test_what_is_wrong_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str) -> None:
    """And nothing is written."""
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert text in err
    assert list(Path().iterdir()) == []


def test_without_its_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The other commands work."""
    monkeypatch.delitem(sys.modules, "securesmtp._cli.dkim_key", raising=False)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    code, _, err = run(capsys, "example.org", "m")
    assert code == 1
    assert "needs cryptography" in err
    assert "'sign'" in err
