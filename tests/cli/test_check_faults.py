"""What `securesmtp check` makes of each error, and of what is odd about a server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripted import Mode
from securesmtp import CertificateReason, ConnectError, Reply, SecureSMTPError, Stage
from securesmtp._cli.check.faults import Facts, explain_error, warn, warn_of_addresses, warn_of_differences
from securesmtp._cli.check.result import NOT_TRIED, OVERTAKEN, AddressTried, Certificate, Fault, Request
from securesmtp._cli.explain import find, read_sections
from securesmtp._protocol.capabilities import Capabilities
from securesmtp.errors import (
    AuthenticationError,
    CertificateError,
    DeadlineExceededError,
    DowngradeError,
    NoUsableMechanismError,
    WrongTLSModeError,
)
from test_errors import ALL_ERRORS

PAGE = Path(__file__).parents[2] / "docs/troubleshooting.md"
# Of the warning that the command itself gives, by its thresholds.
BY_THRESHOLD = "expires-soon"


def _certificate(*names: str, signature: str = "SHA256 with RSA", is_root: bool = False) -> Certificate:
    pin = "sha256/" + "A" * 43 + "="
    return Certificate("leaf", "issuer", "RSA 2048", "", "", 9, pin, names, signature, "ab", is_self_issued=is_root)


def _facts(mode: str = "implicit", *, port: int = 465, chain: tuple[Certificate, ...] = (), **request: object) -> Facts:
    return Facts(Request(**{"host": "mail.example.com", **request}), port, mode, chain)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", ALL_ERRORS, ids=lambda error: error.url.partition("#")[2])
def test_every_error_is_a_fault_with_a_fix_and_a_section(error: SecureSMTPError) -> None:
    """Also without a hint; `securesmtp explain` finds the section by its name, and it alone."""
    fault = explain_error(error, _facts())
    assert (fault.level, fault.cause) == ("error", error.args[0])
    assert len(fault.fix) > 20
    assert [each.name for each in find(fault.name, read_sections()) if each.name == fault.name] == [fault.name]
    error.hint = "do this"
    assert explain_error(error, _facts()).fix.startswith("do this")


def _refused(reason: CertificateReason, hint: str = "pass a private CA's root as ca_file; or …") -> CertificateError:
    error = CertificateError("refused", hint=hint)
    error.reason = reason
    return error


# Each reason, with the names in the certificate, and the line to write.
REASONS: dict[str, tuple[CertificateReason, tuple[str, ...], str | None]] = {
    "untrusted": (CertificateReason.UNTRUSTED, (), 'ca_file="ca.pem"'),
    "self-signed": (CertificateReason.SELF_SIGNED, (), 'ca_file="ca.pem"'),
    "expired": (CertificateReason.EXPIRED, (), None),
    "not yet valid": (CertificateReason.NOT_YET_VALID, (), None),
    "name": (
        CertificateReason.NAME_MISMATCH,
        ("*.example.org", "mx.example.org"),
        (
            'SecureMailer("mx.example.org")\n'
            'SecureMailer("mail.example.com", policy=TLSPolicy(server_hostname="mx.example.org"))'
        ),
    ),
    "no name": (CertificateReason.NAME_MISMATCH, (), None),
    "wildcard": (CertificateReason.NAME_MISMATCH, ("*.example.org",), None),
    "quote in a name": (CertificateReason.NAME_MISMATCH, ('x"); import os; ("',), None),
    "line end in a name": (CertificateReason.NAME_MISMATCH, ("mx.example.org\n",), None),
    "the host's own name": (CertificateReason.NAME_MISMATCH, ("mail.example.com",), None),
    "purpose": (CertificateReason.PURPOSE, (), None),
    "weak key": (CertificateReason.WEAK_KEY, (), None),
    "strict": (CertificateReason.STRICT, (), 'policy=TLSPolicy(ca_file="ca.pem", allow_legacy_ca=True)'),
    "pin": (CertificateReason.PIN, (), f'policy=TLSPolicy(pins=("sha256/{"A" * 43}=",))'),
    "other": (CertificateReason.OTHER, (), None),
}


def test_the_table_has_every_reason() -> None:
    """A new one needs a row."""
    assert {reason for reason, _, _ in REASONS.values()} == set(CertificateReason)


@pytest.mark.parametrize("case", REASONS)
def test_each_reason_has_its_line(case: str) -> None:
    """Without the certificate, none that needs it."""
    reason, names, line = REASONS[case]
    assert explain_error(_refused(reason), _facts(chain=(_certificate(*names),))).line == line
    needs_chain = reason in {CertificateReason.NAME_MISMATCH, CertificateReason.PIN}
    assert explain_error(_refused(reason), _facts()).line == (None if needs_chain else line)


@pytest.mark.parametrize(
    ("mode", "port", "where"),
    [
        ("implicit", 465, ""),
        ("starttls", 587, ', tls="starttls"'),
        ("implicit", 2525, ", 2525"),
        ("starttls", 2525, ', 2525, tls="starttls"'),
    ],
)
def test_the_other_name_has_the_same_port(mode: Mode, port: int, where: str) -> None:
    """A line that is copied connects to the server that was checked, or accepts its certificate."""
    facts = _facts(mode, port=port, chain=(_certificate("mx.example.org"),))
    fault = explain_error(_refused(CertificateReason.NAME_MISMATCH), facts)
    assert fault.line == (
        f'SecureMailer("mx.example.org"{where})\n'
        f'SecureMailer("mail.example.com"{where}, policy=TLSPolicy(server_hostname="mx.example.org"))'
    )
    assert fault.fix.endswith("; whoever has a certificate for that name is then accepted")


PIN, OTHER_PIN = f"sha256/{'A' * 43}=", f"sha256/{'B' * 43}="
# What was passed, and what of it a line has for each reason.
KEPT: dict[str, tuple[dict[str, object], CertificateReason, str | None]] = {
    "a CA": (
        {"ca_file": Path("my.pem")},
        CertificateReason.NAME_MISMATCH,
        (
            'SecureMailer("mx.example.org", ca_file="my.pem")\n'
            'SecureMailer("mail.example.com", policy=TLSPolicy(ca_file="my.pem", server_hostname="mx.example.org"))'
        ),
    ),
    "a CA and pins": (
        {"ca_file": Path("my.pem"), "pins": (PIN, OTHER_PIN)},
        CertificateReason.NAME_MISMATCH,
        (
            f'SecureMailer("mx.example.org", policy=TLSPolicy(ca_file="my.pem", pins=("{PIN}", "{OTHER_PIN}")))\n'
            f'SecureMailer("mail.example.com", policy=TLSPolicy(ca_file="my.pem", pins=("{PIN}", "{OTHER_PIN}"), '
            'server_hostname="mx.example.org"))'
        ),
    ),
    "another name": (
        {"server_name": "old.example.org"},
        CertificateReason.NAME_MISMATCH,
        (
            'SecureMailer("mx.example.org")\n'
            'SecureMailer("mail.example.com", policy=TLSPolicy(server_hostname="mx.example.org"))'
        ),
    ),
    "another name, which was right for the host": (
        {"host": "mx.example.org", "server_name": "old.example.org"},
        CertificateReason.NAME_MISMATCH,
        'SecureMailer("mx.example.org")',
    ),
    "a CA and no trust": ({"ca_file": Path("my.pem")}, CertificateReason.UNTRUSTED, None),
    "a self-signed certificate": ({"ca_file": Path("my.pem")}, CertificateReason.SELF_SIGNED, None),
    "a name and no CA": (
        {"server_name": "b.example.org"},
        CertificateReason.UNTRUSTED,
        'policy=TLSPolicy(ca_file="ca.pem", server_hostname="b.example.org")',
    ),
    "a legacy CA": (
        {"ca_file": Path("my.pem"), "server_name": "b.example.org"},
        CertificateReason.STRICT,
        'policy=TLSPolicy(ca_file="my.pem", server_hostname="b.example.org", allow_legacy_ca=True)',
    ),
    "a wrong pin": (
        {"ca_file": Path("my.pem"), "server_name": "b.example.org", "pins": (OTHER_PIN,)},
        CertificateReason.PIN,
        f'policy=TLSPolicy(ca_file="my.pem", pins=("{PIN}",), server_hostname="b.example.org")',
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_the_line_keeps_what_was_passed(case: str) -> None:
    """Copied, it does not fail for want of the CA; and none says to pass a CA if one was passed."""
    passed, reason, line = KEPT[case]
    facts = _facts(chain=(_certificate("mx.example.org"),), **passed)  # type: ignore[arg-type]
    assert explain_error(_refused(reason), facts).line == line


def test_the_fix_of_an_untrusted_chain_is_the_librarys() -> None:
    """One place has the words. Where the server is to send more, no line in a program helps."""
    untrusted = _refused(CertificateReason.UNTRUSTED, "the server does not send the certificate of its issuer")
    fault = explain_error(untrusted, _facts(chain=(_certificate(),)))
    assert (fault.fix, fault.line) == (untrusted.hint, None)


@pytest.mark.parametrize("sent", [1, 2])
def test_a_lone_self_signed_certificate_can_be_compared_by_phone(sent: int) -> None:
    """Of a chain, the root is needed, and another way than the connection."""
    fault = explain_error(_refused(CertificateReason.SELF_SIGNED), _facts(chain=(_certificate(is_root=True),) * sent))
    assert fault.fix.endswith("; or compare the SHA-256 of your copy with theirs, by phone") is (sent == 1)


def test_a_rejected_machine_is_told_apart_from_a_lost_connection() -> None:
    """By the reply; without one, the command to try by hand has the right host, port and mode."""
    reply = Reply(554, None, "blocked", b"blocked")
    rejected = ConnectError("x", stage=Stage.GREETING, reply=reply)
    assert "block list" in explain_error(rejected, _facts()).fix
    lost = ConnectError("x", stage=Stage.GREETING)
    assert explain_error(lost, _facts()).fix.endswith(": openssl s_client -connect mail.example.com:465")
    facts = Facts(Request(host="2001:db8::1"), 587, "starttls", ())
    assert explain_error(lost, facts).fix.endswith("-connect [2001:db8::1]:587 -starttls smtp")


def test_a_path_is_written_as_python_writes_it() -> None:
    """Whatever is in it."""
    facts = _facts(ca_file=Path('a"b\\c/ca.pem'), chain=(_certificate(),))
    line = explain_error(_refused(CertificateReason.PIN), facts).line
    assert line is not None
    found = re.search(r"ca_file=(.*), pins", line)
    assert found is not None
    assert eval(found[1]) == 'a"b\\c/ca.pem'  # noqa: S307 -- a program would have it


LINES: dict[str, tuple[SecureSMTPError, str, str | None]] = {
    "wrong mode": (WrongTLSModeError("x", hint='use tls="starttls" (usually'), "implicit", 'tls="starttls"'),
    "the other mode": (WrongTLSModeError("x", hint='use tls="implicit"'), "starttls", 'tls="implicit"'),
    "no STARTTLS": (DowngradeError("x", hint='or use tls="implicit"'), "starttls", 'tls="implicit"'),
    "STARTTLS refused": (DowngradeError("x"), "starttls", None),
    "silence": (DeadlineExceededError("x", stage=Stage.HANDSHAKE), "implicit", 'tls="starttls"'),
    "silence after STARTTLS": (DeadlineExceededError("x", stage=Stage.HANDSHAKE), "starttls", None),
    "EHLO": (DowngradeError("x", hint="pass local_hostname=…"), "starttls", 'local_hostname="app.example.com"'),
    "token": (NoUsableMechanismError("x", hint="pass auth=OAuth2(…)"), "implicit", "auth=OAuth2(username, token)"),
    "login": (AuthenticationError("x", hint="check it"), "implicit", None),
    "refused": (ConnectError("the connection failed: Connection refused"), "implicit", None),
    "client certificate": (
        ConnectError("the connection failed: TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        "implicit",
        'policy=TLSPolicy(client_cert="me.pem", client_key="me.key")',
    ),
}


@pytest.mark.parametrize("case", LINES)
def test_the_line_follows_from_the_error(case: str) -> None:
    """What the hint names, or what the stage says."""
    error, mode, line = LINES[case]
    assert explain_error(error, _facts(mode)).line == line


def test_a_short_limit_is_named() -> None:
    """A check waits less long than a program."""
    error = DeadlineExceededError("timed out", stage=Stage.GREETING)
    assert explain_error(error, _facts(timeout=10)).fix.endswith("(this check waited 10 s; a program waits 60 s)")
    assert "waited" not in explain_error(error, _facts(timeout=60)).fix


GOOD = Capabilities({"PIPELINING": "", "SIZE": "10240000"})
PLAIN = Capabilities({"STARTTLS": "", **GOOD.keywords})
# What is known of a server, and the names of its warnings.
ODD: dict[str, tuple[list[Fault], list[str]]] = {
    "nothing": (warn(_facts(), PLAIN, GOOD, "TLSv1.3"), []),
    "nothing known": (warn(_facts(), None, None, None), []),
    "TLS 1.2": (warn(_facts(), None, GOOD, "TLSv1.2"), ["tls-1-2"]),
    "port 25": (warn(_facts(port=25), None, GOOD, "TLSv1.3"), ["port-25"]),
    "port 25 without TLS": (warn(_facts(port=25), None, None, None), ["port-25"]),
    "a login before TLS": (warn(_facts(), Capabilities({}, ("PLAIN",)), None, "TLSv1.3"), ["auth-before-tls"]),
    "more before TLS": (
        warn(_facts(), Capabilities({"X": "", **PLAIN.keywords}), GOOD, "TLSv1.3"),
        ["different-capabilities"],
    ),
    "REQUIRETLS inside TLS": (
        warn(_facts(), PLAIN, Capabilities({"REQUIRETLS": "", **GOOD.keywords}), "TLSv1.3"),
        [],
    ),
    "more inside TLS": (
        warn(_facts(), PLAIN, Capabilities({"X": "", **GOOD.keywords}), "TLSv1.3"),
        ["different-capabilities"],
    ),
    "no PIPELINING": (warn(_facts(), None, Capabilities({}), "TLSv1.3"), ["no-pipelining"]),
    "a small SIZE": (
        warn(_facts(), None, Capabilities({"PIPELINING": "", "SIZE": "4999999"}), "TLSv1.3"),
        ["small-size"],
    ),
    "no limit of SIZE": (warn(_facts(), None, Capabilities({"PIPELINING": "", "SIZE": "0"}), "TLSv1.3"), []),
    "an old signature": (
        warn(_facts(chain=(_certificate(), _certificate(signature="SHA1 with RSA"))), None, GOOD, "TLSv1.3"),
        ["legacy-signature"],
    ),
    "an old signature in a refused chain": (
        warn(_facts(chain=(_certificate(signature="SHA1 with RSA"),)), None, None, None),
        [],
    ),
    "a root with an old signature": (
        warn(_facts(chain=(_certificate(signature="MD5 with RSA", is_root=True),)), None, GOOD, "TLSv1.3"),
        [],
    ),
    "a dead address": (
        warn_of_addresses((AddressTried("192.0.2.1", "connected"), AddressTried("::1", "Network is unreachable"))),
        ["dead-address"],
    ),
    "all addresses dead": (warn_of_addresses((AddressTried("192.0.2.1", "Connection refused"),)), []),
    "addresses that were not needed": (
        warn_of_addresses(
            (AddressTried("192.0.2.1", "connected"), AddressTried("x", NOT_TRIED), AddressTried("y", OVERTAKEN))
        ),
        [],
    ),
    "addresses alike": (warn_of_differences({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}}), []),
    "addresses that differ": (
        warn_of_differences({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        ["different-addresses"],
    ),
    "no address": (warn_of_differences({}), []),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_odd_is_a_warning(case: str) -> None:
    """With a cause and a fix."""
    found, names = ODD[case]
    assert [fault.name for fault in found] == names
    assert all(fault.level == "warning" and len(fault.cause) > 20 and len(fault.fix) > 20 for fault in found)


def test_each_warning_has_a_section_and_each_section_a_warning() -> None:
    """The page has one for each row of the table, and for the expiry."""
    sections = PAGE.read_text("utf-8").partition("\n## Warnings of the check\n")[2]
    anchors = re.findall(r"^\(([\w-]+)\)=\n+#+ ", sections, re.MULTILINE)
    assert sorted(anchors) == sorted({BY_THRESHOLD, *(name for _, names in ODD.values() for name in names)})
    for name in anchors:
        assert [each.name for each in find(name, read_sections())] == [name]
