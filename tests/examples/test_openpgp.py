"""The recipe for OpenPGP: gpg verifies what a server received."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

import openpgp_sign
from securesmtp.testing import MailServer

ADDRESS = "ada@example.org"


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ada's key, in a keyring of this test; its agent ends with the test."""
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    unlocked = ("--batch", "--passphrase", "", "--pinentry-mode", "loopback")
    command = ["gpg", *unlocked, "--quick-generate-key", ADDRESS, "ed25519", "sign", "never"]
    subprocess.run(command, check=True, capture_output=True)
    yield
    subprocess.run(["gpgconf", "--kill", "all"], check=True)


def _verify(signed: bytes, signature: bytes, folder: Path) -> str:
    (folder / "signature").write_bytes(signature)
    command = ["gpg", "--batch", "--status-fd", "1", "--verify", str(folder / "signature"), "-"]
    return subprocess.run(command, input=signed, capture_output=True, check=False).stdout.decode()


@pytest.mark.usefixtures("keys")
def test_gpg_verifies_what_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not what was changed."""
    with MailServer() as server:
        for name, value in {**server.env(), "MAIL_FROM": ADDRESS}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.stdin", io.StringIO("Grüße \nFrom here\n"))
        openpgp_sign.main("bob@example.net")
    assert "accepted" in capsys.readouterr().out
    (received,) = server.messages
    boundary = message_from_bytes(received.content).get_boundary()
    _, signed, second = received.content.split(f"\r\n--{boundary}\r\n".encode())
    signature = second.partition(b"\r\n\r\n")[2].rpartition(f"\r\n--{boundary}--".encode())[0]
    assert "GOODSIG" in _verify(signed, signature, tmp_path)
    assert "BADSIG" in _verify(signed.replace(b"R3L", b"r3L"), signature, tmp_path)
    text = next(received.message.iter_parts())
    assert text.get_payload(decode=True) == "Grüße \r\nFrom here\r\n".encode()
