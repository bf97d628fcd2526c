"""One check of one server: the same way as a send takes, up to MAIL."""

from __future__ import annotations

from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING

from securesmtp import OAuth2, Password, SecureMailer, SecureSMTPError, TLSPolicy
from securesmtp._cli.check.result import AddressTried, CheckResult, Fault

if TYPE_CHECKING:
    from securesmtp._cli.check.result import Request


def probe(request: Request) -> CheckResult:
    """
    Check one server, at the first of its addresses that answers.

    Raises:
        ConfigurationError: The request is wrong; nothing was connected to.
    """
    began = monotonic()
    auth = None
    if request.username is not None and request.password is not None:
        auth = (OAuth2 if request.oauth else Password)(request.username, request.password)
    policy = TLSPolicy(ca_file=request.ca_file, pins=request.pins or None)
    with SecureMailer(
        request.host, request.port, tls=request.tls, auth=auth, policy=policy, timeout=request.timeout
    ) as mailer:
        settings, report, error = mailer._settings, None, None  # noqa: SLF001 -- a first version
        try:
            report = mailer.check()
        except SecureSMTPError as raised:
            error = raised
        faults: tuple[Fault, ...] = ()
        if error is not None:
            faults = (Fault("error", error.url.partition("#")[2], str(error.args[0]), error.hint or ""),)
        return CheckResult(
            settings.host,
            settings.port,
            settings.mode.value,
            "" if report is None else "auth" if report.login else "ehlo",
            () if report is None else tuple(AddressTried(each, "connected") for each in report.addresses),
            (),
            report,
            error,
            faults,
            None,
            (),
            timedelta(seconds=monotonic() - began),
        )


def probe_all(request: Request) -> list[CheckResult]:
    """
    Check each address of a server.

    Raises:
        ConfigurationError: The request is wrong; nothing was connected to.
    """
    return [probe(request)]
