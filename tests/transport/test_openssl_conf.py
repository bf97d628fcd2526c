"""A file that OPENSSL_CONF names: what it can take away, and that it weakens nothing. In an interpreter of its own."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from certificates import GOOD
from conftest import Serve

_CONF = "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n"
_CHECK = """
import sys
from securesmtp import SecureMailer, TLSError, TLSPolicy

def check(port, trust):
    try:
        with SecureMailer("localhost", port, policy=TLSPolicy(ca_data=trust), timeout=5) as mailer:
            tls = mailer.check().tls
            print(tls.version, tls.cipher)
    except TLSError as error:
        print(type(error).__name__, error.args[0])

if len(sys.argv) > 1:
    check(int(sys.argv[1]), sys.argv[2])
else:
    from securesmtp.testing import LocalServer
    with LocalServer() as server:
        check(server.port, server.ca_pem)
"""


def _run(conf: Path, line: str, program: str, *arguments: str) -> str:
    """Return what *program* prints in a process whose OPENSSL_CONF has this line."""
    conf.write_text(f"{_CONF}{line}\n")
    command = [sys.executable, "-c", program, *arguments]
    run = subprocess.run(
        command, env={"OPENSSL_CONF": str(conf)}, capture_output=True, text=True, timeout=30, check=True
    )
    return run.stdout


def _checked(conf: Path, line: str, *arguments: str, before: str = "") -> str:
    """Return what a mailer finds in such a process."""
    return _run(conf, line, before + _CHECK, *arguments)


@pytest.mark.parametrize(
    ("line", "newest", "told"),
    [
        ("MaxProtocol = TLSv1.2", "TLSv1_3", "TLSv1.3 TLS_AES"),
        ("Protocol = -TLSv1.3", "TLSv1_3", "TLSv1.3 TLS_AES"),
        ("Protocol = -TLSv1.2, -TLSv1.3", "TLSv1_2", "TLSv1.2 ECDHE"),
        ("MinProtocol = TLSv1.3", "TLSv1_2", "TLSv1.2 ECDHE"),
        ("CipherString = AES128-SHA256:@SECLEVEL=5", "TLSv1_2", "TLSv1.2 ECDHE"),
    ],
)
def test_no_version_and_no_suite_of_tls_1_2_is_taken_away(
    serve: Serve, tmp_path: Path, line: str, newest: str, told: str
) -> None:
    """All of them are set on the context, whatever OpenSSL has read before."""
    context = GOOD.certificate.context()
    context.maximum_version = ssl.TLSVersion[newest]
    port = serve(tls=context).port
    assert _checked(tmp_path / "openssl.cnf", line, str(port), GOOD.trust.decode()).startswith(told)


def test_the_suites_of_tls_1_3_are_ours_or_there_is_no_session(serve: Serve, tmp_path: Path) -> None:
    """Python sets them since 3.15; before, what the file leaves has nothing in common with the server."""
    context = GOOD.certificate.context()
    port = serve(tls=context).port
    told = _checked(tmp_path / "openssl.cnf", "Ciphersuites = TLS_AES_128_CCM_SHA256", str(port), GOOD.trust.decode())
    assert told.startswith("TLSv1.3 TLS_AES" if sys.version_info >= (3, 15) else "TLSError")


def test_a_suite_that_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    """Both sides have the file, so it would be agreed on; it is not among those of RFC 9325 §4.2 that we ask for."""
    # Since 3.15 the file cannot bring it: the last barrier is tried with the one before it opened.
    told = _checked(
        tmp_path / "openssl.cnf", "Ciphersuites = TLS_AES_128_CCM_SHA256",
        before="from securesmtp._transport import tls\ntls._SUITES = 'TLS_AES_128_CCM_SHA256'\n",
    )  # fmt: skip
    assert told.startswith("TLSError the session has a cipher suite that was not asked for")


def test_since_python_3_15_nothing_else_is_offered(tmp_path: Path) -> None:
    """Before, the file decides what is offered in TLS 1.3, and it is the session that is judged (above)."""
    program = (
        "from securesmtp import TLSPolicy\nfrom securesmtp._transport.tls import build_context\n"
        "suites = build_context(TLSPolicy()).get_ciphers()\n"
        "print(*[each['name'] for each in suites if each['protocol'] == 'TLSv1.3'])"
    )
    told = _run(tmp_path / "openssl.cnf", "Ciphersuites = TLS_AES_128_CCM_SHA256", program).split()
    ours = ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"]
    assert told == (ours if sys.version_info >= (3, 15) else ["TLS_AES_128_CCM_SHA256"])


def test_the_extended_master_secret_is_not_given_up(tmp_path: Path) -> None:
    """RFC 9325 §3.5, RFC 7627: an option of the file like those of legacy servers."""
    program = (
        "from securesmtp import TLSPolicy\nfrom securesmtp._transport.tls import build_context\n"
        "print(build_context(TLSPolicy()).options & 0x40085)"
    )
    line = "Options = -ExtendedMasterSecret, UnsafeLegacyServerConnect, UnsafeLegacyRenegotiation"
    assert _run(tmp_path / "openssl.cnf", line, program) == "0\n"
