"""Results of checks, made by hand, for the tests of how they are shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from securesmtp import ServerReport, TLSInfo, TLSMode
from securesmtp import errors as library_errors
from securesmtp._cli.check.result import AddressTried, Certificate, CheckResult, Fault, Line
from securesmtp._cli.check.verdict import Checked, Thresholds, judge
from securesmtp._values import Certificate as VerifiedCertificate

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
THRESHOLDS = Thresholds(14, 7)
# What a hostile server can say: markup, escapes, data of monitoring, a bell, a line end.
HOSTILE = "[bold]a|b=1;2 'c'\x1b[31m\x07\r\nSMTP OK - fine\u202e"


def certificate(subject: str, days: int, issuer: str = "Example CA 1") -> Certificate:
    """Return a certificate with so many days left."""
    end = NOW + timedelta(days=days)
    return Certificate(
        subject,
        issuer,
        "EC P-256",
        (end - timedelta(days=90)).isoformat(),
        end.isoformat(),
        days,
        "sha256/" + "A" * 43 + "=",
        (subject,),
        "ECDSA with SHA256",
        f"{subject}{days}".encode("utf-8", "replace").hex().ljust(64, "0"),
    )


def result(*, days: int = 61, intermediate_days: int = 900, **changed: Any) -> CheckResult:
    """Return the result of a check that found no fault, with *changed* attributes."""
    host, port = changed.pop("host", "smtp.example.com"), changed.pop("port", 465)
    chain = (certificate(host, days), certificate("Example CA 1", intermediate_days, "Example Root"))
    root = certificate("Example Root", 3, "Example Root")
    session = TLSInfo(
        TLSMode.IMPLICIT,
        "TLSv1.3",
        "TLS_AES_256_GCM_SHA384",
        host,
        "certifi 2026.10.1",
        chain[0].sha256,
        chain[0].spki_sha256,
        datetime.fromisoformat(chain[0].not_after),
        tuple(map(_verified, (*chain, root))),
    )
    after = {"PIPELINING": "", "SIZE": "35882577", "AUTH": "PLAIN LOGIN", "CHUNKING": "", "LIMITS": "RCPTMAX=100"}
    limits = {"RCPTMAX": 100}
    report = ServerReport(
        host, port, ("192.0.2.1",), "192.0.2.1", session, days, None, after, ("PLAIN", "LOGIN"), "PLAIN", 35882577,
        limits=limits, round_trips=2, login=True,
    )  # fmt: skip
    found = CheckResult(
        host,
        port,
        "implicit",
        "auth",
        (AddressTried("192.0.2.1", "connected"), AddressTried("2001:db8::1", "not tried")),
        chain,
        report,
        None,
        (),
        2,
        (Line("===", "Connected to 192.0.2.1."), Line("<~", "220 smtp.example.com"), Line("~>", "EHLO me.example")),
        timedelta(seconds=0.1234567),
        "192.0.2.1",
        "certifi 2026.10.1",
        session,
        None,
        after,
        "PLAIN",
        "the best that the server offers",
        ("the server offers LOGIN as well",),
    )
    return replace(found, **changed)


def faulty(*, level: Literal["error", "warning"] = "error", cause: str = "", **changed: Any) -> CheckResult:
    """Return the result of a check that found a fault: an error, or a warning about a server that works."""
    cause = cause or "the certificate is not signed by a trusted CA"
    fault = Fault(level, "certificateerror-untrusted", cause, "pass the root of your CA", 'ca_file="corp-ca.pem"')
    if level == "warning":
        return result(faults=(fault,), **changed)
    nothing: dict[str, Any] = {"session": None, "report": None, "round_trips": None, "after_tls": None, "notes": ()}
    nothing |= {"mechanism": None, "mechanism_reason": "", "stage": "connect"}
    return result(**(nothing | {"error": library_errors.CertificateError(cause), "faults": (fault,)} | changed))


def checked(*results: CheckResult, per_address: bool = False) -> list[Checked]:
    """Return the verdicts on *results*."""
    return [judge(each, THRESHOLDS, per_address=per_address) for each in results]


def _verified(each: Certificate) -> VerifiedCertificate:
    begin, end = datetime.fromisoformat(each.not_before), datetime.fromisoformat(each.not_after)
    return VerifiedCertificate(each.subject, each.issuer, each.names, begin, end, each.sha256)
