"""`TLSPolicy(trust="system")`: the file of the distribution, and nothing else."""

from __future__ import annotations

import ssl
import sys
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import certifi
import pytest

from conftest import Mailer, Serve
from scripted import Mode, honest
from securesmtp import CertificateError, ConfigurationError, SecureMailer, TLSPolicy
from securesmtp._transport import system_trust
from securesmtp._transport.tls import build_context

SYSTEM = TLSPolicy(trust="system")


@pytest.fixture
def bundles(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that says where this system's file may be."""
    monkeypatch.setattr(sys, "platform", "linux")
    return lambda *paths: monkeypatch.setattr(system_trust, "BUNDLES", tuple(map(str, paths)))


def test_the_systems_file_takes_the_place_of_certifi(  # noqa: PLR0913, PLR0917 -- fixtures
    serve: Serve, mailer: Mailer, ca_file: Path, tmp_path: Path, message: EmailMessage, mode: Mode, bundles: Any
) -> None:
    """The first path that is a file counts; the receipt names it."""
    bundles(tmp_path / "nowhere", tmp_path, ca_file, certifi.where())
    receipt = mailer(serve(honest(mode)), tls=mode, policy=SYSTEM).send(message)
    assert receipt.tls.trust == f"system {ca_file}"


def test_further_roots_can_be_added(
    serve: Serve, mailer: Mailer, ca_file: Path, message: EmailMessage, bundles: Any
) -> None:
    """By the argument that does so for certifi's."""
    bundles(certifi.where())
    policy = TLSPolicy(trust="system", extra_ca_file=ca_file)
    receipt = mailer(serve(honest()), policy=policy).send(message)
    assert receipt.tls.trust == f"system {certifi.where()} + extra_ca_file {ca_file}"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_the_environment_adds_nothing_to_the_systems_file(  # noqa: PLR0913, PLR0917 -- fixtures and a row
    serve: Serve,
    mailer: Mailer,
    ca_file: Path,
    message: EmailMessage,
    monkeypatch: pytest.MonkeyPatch,
    bundles: Any,
    variable: str,
) -> None:
    """These change OpenSSL's own default, which the package truststore uses on Linux."""
    monkeypatch.setenv(variable, str(ca_file if variable == "SSL_CERT_FILE" else ca_file.parent))
    bundles(certifi.where())
    server = serve(honest())
    with pytest.raises(CertificateError):
        mailer(server, policy=SYSTEM).send(message)


def test_the_context_is_as_strict_as_with_certifi(bundles: Any) -> None:
    """Only the roots differ."""
    bundles(certifi.where())
    found, usual = build_context(SYSTEM), build_context(TLSPolicy())
    names = ("verify_mode", "check_hostname", "verify_flags", "options", "minimum_version", "maximum_version")
    assert [getattr(found, name) for name in names] == [getattr(usual, name) for name in names]
    assert found.cert_store_stats() == usual.cert_store_stats()
    assert found.verify_mode is ssl.CERT_REQUIRED


def test_this_machines_file_has_roots() -> None:
    """Found on the real system, and read."""
    there = [path for path in system_trust.BUNDLES if Path(path).is_file()]
    if sys.platform != "linux" or not there:
        pytest.skip("this machine has none of the files: install ca-certificates")
    assert system_trust.system_bundle() == there[0]
    assert build_context(SYSTEM).cert_store_stats()["x509_ca"] > 50


def test_a_system_without_the_file_is_refused_when_the_mailer_is_made(tmp_path: Path, bundles: Any) -> None:
    """Without roots, every server would be refused later, for a reason that misleads."""
    bundles(tmp_path / "nowhere", tmp_path)
    with pytest.raises(ConfigurationError, match=r"finds no file.*ca-certificates"):
        SecureMailer("mail.example", policy=SYSTEM)
    (tmp_path / "empty.pem").touch()
    bundles(tmp_path / "empty.pem")
    with pytest.raises(ConfigurationError, match=r"empty\.pem"):
        SecureMailer("mail.example", policy=SYSTEM)


@pytest.mark.parametrize("platform", ["darwin", "win32", "freebsd14"])
def test_another_system_is_refused(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """There the roots are in a store of the system, and a file of this name is not what it trusts."""
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(ConfigurationError, match=f"is for Linux, and this system is {platform}"):
        SecureMailer("mail.example", policy=SYSTEM)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trust": "mine"}, "neither None nor"), ({"trust": True}, "neither None nor"),
        ({"trust": "system", "ca_file": "ca.pem"}, "not both"), ({"trust": "system", "ca_data": "x"}, "not both"),
    ],
    ids=["another", "True", "ca_file", "ca_data"],
)  # fmt: skip
def test_the_policy_refuses_contradictions(options: dict[str, Any], words: str) -> None:
    """When it is made."""
    with pytest.raises(ConfigurationError, match=words):
        TLSPolicy(**options)
