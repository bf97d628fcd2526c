"""A file that OPENSSL_CONF names weakens nothing; each test runs an interpreter of its own."""

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
    from securesmtp.testing import MailServer
    with MailServer(login=None) as server:
        check(server.port, server.ca_pem)
"""


def _run(conf: Path, line: str, program: str, *arguments: str) -> str:
    """Return the output of *program* in a process whose OPENSSL_CONF contains *line*."""
    conf.write_text(f"{_CONF}{line}\n")
    command = [sys.executable, "-c", program, *arguments]
    run = subprocess.run(
        command, env={"OPENSSL_CONF": str(conf)}, capture_output=True, text=True, timeout=30, check=True
    )
    return run.stdout


def _check(conf: Path, line: str, *arguments: str, before: str = "") -> str:
    """Return the TLS version and cipher that a mailer gets in such a process, or its error."""
    return _run(conf, line, before + _CHECK, *arguments)


@pytest.mark.parametrize(
    ("line", "newest", "expected"),
    [
        ("MaxProtocol = TLSv1.2", "TLSv1_3", "TLSv1.3 TLS_AES"),
        ("Protocol = -TLSv1.3", "TLSv1_3", "TLSv1.3 TLS_AES"),
        ("Protocol = -TLSv1.2, -TLSv1.3", "TLSv1_2", "TLSv1.2 ECDHE"),
        ("MinProtocol = TLSv1.3", "TLSv1_2", "TLSv1.2 ECDHE"),
        ("CipherString = AES128-SHA256:@SECLEVEL=5", "TLSv1_2", "TLSv1.2 ECDHE"),
    ],
)
def test_the_file_removes_no_version_and_no_suite_of_tls_1_2(
    serve: Serve, tmp_path: Path, line: str, newest: str, expected: str
) -> None:
    """The context sets all of them after OpenSSL has read the file."""
    context = GOOD.certificate.context()
    context.maximum_version = ssl.TLSVersion[newest]
    port = serve(tls=context).port
    assert _check(tmp_path / "openssl.cnf", line, str(port), GOOD.trust.decode()).startswith(expected)


def test_a_file_with_another_suite_of_tls_1_3_prevents_the_session_or_is_ignored(serve: Serve, tmp_path: Path) -> None:
    """Python can set these suites from 3.15 on; before, the file and the server have no suite in common."""
    context = GOOD.certificate.context()
    port = serve(tls=context).port
    output = _check(tmp_path / "openssl.cnf", "Ciphersuites = TLS_AES_128_CCM_SHA256", str(port), GOOD.trust.decode())
    assert output.startswith("TLSv1.3 TLS_AES" if sys.version_info >= (3, 15) else "TLSError")


def test_a_session_with_another_suite_is_refused(tmp_path: Path) -> None:
    """Client and server have the file, so they agree on its suite, which is not one of RFC 9325 §4.2."""
    # On 3.15 the file alone cannot do this, so the client's own list is changed too, to test the check of the session.
    output = _check(
        tmp_path / "openssl.cnf", "Ciphersuites = TLS_AES_128_CCM_SHA256",
        before="from securesmtp._transport import tls\ntls._SUITES = 'TLS_AES_128_CCM_SHA256'\n",
    )  # fmt: skip
    assert output.startswith("TLSError the session has a cipher suite that was not asked for")


def test_from_python_3_15_on_only_our_suites_are_offered(tmp_path: Path) -> None:
    """Before, the file decides which suites of TLS 1.3 are offered, and the session is checked (see above)."""
    program = (
        "from securesmtp import TLSPolicy\nfrom securesmtp._transport.tls import build_context\n"
        "suites = build_context(TLSPolicy()).get_ciphers()\n"
        "print(*[each['name'] for each in suites if each['protocol'] == 'TLSv1.3'])"
    )
    output = _run(tmp_path / "openssl.cnf", "Ciphersuites = TLS_AES_128_CCM_SHA256", program).split()
    ours = ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"]
    assert output == (ours if sys.version_info >= (3, 15) else ["TLS_AES_128_CCM_SHA256"])


def test_the_file_cannot_disable_the_extended_master_secret(tmp_path: Path) -> None:
    """Nor enable options for legacy servers (RFC 9325 §3.5, RFC 7627)."""
    program = (
        "from securesmtp import TLSPolicy\nfrom securesmtp._transport.tls import build_context\n"
        "print(build_context(TLSPolicy()).options & 0x40085)"
    )
    line = "Options = -ExtendedMasterSecret, UnsafeLegacyServerConnect, UnsafeLegacyRenegotiation"
    assert _run(tmp_path / "openssl.cnf", line, program) == "0\n"
