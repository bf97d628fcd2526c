"""What the result of a check means for the one who runs it: whether the server is fine, and the exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from securesmtp._cli.check.result import Fault
from securesmtp._cli.exit_codes import CheckCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securesmtp._cli.check.result import Certificate, CheckResult

# As monitoring plugins rank them: UNKNOWN is not worse than a fault.
_RANK = (CheckCode.OK, CheckCode.UNKNOWN, CheckCode.WARNING, CheckCode.CRITICAL)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """
    How many days before a certificate expires that is a fault.

    Attributes:
        warning: With fewer days left, it is a warning.
        critical: With fewer, it is an error.
    """

    warning: int
    critical: int


@dataclass(frozen=True, slots=True)
class Checked:
    """
    The result of one check, and what follows from it.

    Attributes:
        result: What the check found.
        faults: Its faults, and that of a certificate that expires soon; worst first.
        expiring: The certificate of the chain that expires first; None if the server sent none.
        per_address: Whether the result is about one address of several of the same server.
    """

    result: CheckResult
    faults: tuple[Fault, ...]
    expiring: Certificate | None
    per_address: bool = False

    @property
    def code(self) -> CheckCode:
        """What this alone would make the exit code."""
        levels = {fault.level for fault in self.faults}
        if "error" in levels or self.result.error is not None:
            return CheckCode.CRITICAL
        return CheckCode.WARNING if levels else CheckCode.OK

    @property
    def days_left(self) -> int | None:
        """Whole days until a certificate of the chain expires; None if the server sent none."""
        return None if self.expiring is None else self.expiring.days_left

    @property
    def server(self) -> str:
        """The server, as this command takes it."""
        host = f"[{self.result.host}]" if ":" in self.result.host else self.result.host
        return f"{host}:{self.result.port}"

    @property
    def label(self) -> str:
        """The server, and its address if that was checked by itself."""
        at = f" at {self.result.address}" if self.per_address and self.result.address != self.result.host else ""
        return self.server + at


def judge(result: CheckResult, thresholds: Thresholds, *, per_address: bool = False) -> Checked:
    """Add the verdict to *result*."""
    first = _first_to_expire(result)
    expiring = () if first is None or result.error is not None else _expiring(first, result, thresholds)
    faults = sorted((*result.faults, *expiring), key=lambda fault: fault.level != "error")
    return Checked(result, tuple(faults), first, per_address)


def worst(codes: Iterable[CheckCode]) -> CheckCode:
    """Return the exit code for several servers."""
    return max(codes, key=_RANK.index)


def _first_to_expire(result: CheckResult) -> Certificate | None:
    """Return the certificate that expires first: of those that were verified, or if there are none, the server's."""
    used = result.chain[:1]
    if result.session is not None:
        # The last is the trusted root: that one is replaced here, not on the server. What the server sends beyond the
        # verified chain may have expired.
        verified = {each.sha256 for each in result.session.chain[:-1]}
        used = tuple(each for each in result.chain if each.sha256 in verified) or used
    return min(used, key=lambda each: each.days_left, default=None)


def _expiring(first: Certificate, result: CheckResult, thresholds: Thresholds) -> tuple[Fault, ...]:
    if first.days_left >= thresholds.warning:
        return ()
    level: Literal["error", "warning"] = "error" if first.days_left < thresholds.critical else "warning"
    which = "certificate" if first == result.chain[0] else f"intermediate certificate {first.subject}"
    days = "1 day" if first.days_left == 1 else f"{first.days_left} days"
    cause = f"the {which} expires in {days}, on {first.not_after[:10]}"
    return (Fault(level, "expires-soon", cause, "renew it on the server, and make the mail server load the new one"),)
