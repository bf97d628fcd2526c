"""The result of a check in words, for the table and for monitoring."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from securesmtp._cli.exit_codes import CheckCode
from securesmtp.errors import NoUsableMechanismError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from securesmtp._cli.check.result import CheckResult, Fault
    from securesmtp._cli.check.verdict import Checked

HEADLINE = {
    CheckCode.OK: "is fine",
    CheckCode.WARNING: "works, with a warning",
    CheckCode.CRITICAL: "has a fault",
}
_COUNTED = {CheckCode.CRITICAL: "with a fault", CheckCode.WARNING: "with a warning", CheckCode.OK: "fine"}
# By the last stage of a check without a fault.
_ENDS = {
    "connect": "connected, nothing else checked",
    "tls": "nothing after TLS checked",
    "ehlo": "login not tried",
    "auth": "login accepted",
}

_UNTRUSTED = {"certificateerror-untrusted", "certificateerror-self-signed"}
_CA_FILE = re.compile(r'\bca_file=("[^"]*")')


def summarise(results: Sequence[Checked]) -> str:
    """Return the verdict on several servers in one line, the worst first."""
    counts = Counter(each.code for each in results)
    parts = [f"{counts[code]} {words}" for code, words in _COUNTED.items() if counts[code]]
    return f"{len(results)} checked: {', '.join(parts)}"


def faulty_first(results: Iterable[Checked]) -> list[Checked]:
    """Return the results, the worst first, otherwise in their order."""
    return sorted(results, key=lambda each: list(_COUNTED).index(each.code))


def describe(checked: Checked) -> str:
    """Return what is fine in a few words, or the first fault."""
    if checked.faults:
        more = f" (and {len(checked.faults) - 1} more)" if len(checked.faults) > 1 else ""
        return f"{checked.faults[0].cause}{more}"
    result = checked.result
    parts = [] if result.session is None else [result.session.version]
    if checked.days_left is not None:
        parts.append(f"certificate valid for {count(checked.days_left, 'day')}")
    parts.append(_ENDS[result.stage])
    return ", ".join(parts)


def found(checked: Checked) -> Iterator[tuple[str, str]]:
    """Yield each thing that was found out, as its name and a text."""
    result = checked.result
    yield from _addresses(result)
    if result.session is not None:
        start = "from the first byte" if result.tls == "implicit" else "after STARTTLS"
        yield "TLS", f"{result.session.version}, {result.session.cipher}, {start}"
    if result.trust:
        yield "trust", result.trust
    yield from _chain(result)
    yield from _capabilities(result)
    if result.round_trips is not None:
        yield "speed", f"{count(result.round_trips, 'round trip')} for a small message, over an open connection"
    for note in result.notes:
        yield "note", note
    yield "took", f"{result.elapsed.total_seconds():.2f} s"


def option_for(fault: Fault, checked: Checked) -> str | None:
    """Return what does here what the fault's line does in a program; None if no option of this command does."""
    line = fault.line or ""
    if line.startswith("SecureMailer("):
        scheme, name = "smtps" if checked.result.tls == "implicit" else "smtp+starttls", line.split('"')[1]
        return f"check {scheme}://{name}:{checked.result.port} instead, or add --server-name {name} to this command"
    if 'tls="starttls"' in line:
        # Not --starttls, which is for all servers of the command. Port 465 is for implicit TLS.
        return f"check smtp+starttls://{checked.server.removesuffix(':465')} instead"
    if 'tls="implicit"' in line:
        # Port 587 is for STARTTLS, so a URL for implicit TLS cannot have it.
        return f"check smtps://{checked.server.removesuffix(':587')} instead"
    ca_file = _CA_FILE.search(line)
    if ca_file is not None and fault.name in _UNTRUSTED:
        return f"add --ca-file {ca_file[1]} to this command"
    return None


def days_word(checked: Checked) -> str:
    """Return the days that are left of a verified certificate, or since when a refused one has expired."""
    days = checked.days_left
    is_fine = days is not None and (checked.result.session is not None or days < 0)
    return str(days) if is_fine else "-"


def login_word(result: CheckResult) -> str:
    """Say in a word or two what became of the login."""
    if isinstance(result.error, NoUsableMechanismError):
        return "not possible"
    login = None if result.report is None else result.report.login
    return {None: "not tried", True: "accepted", False: "refused"}[login]


def count(number: int, thing: str) -> str:
    """Return ``1 day`` or ``2 days``."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _addresses(result: CheckResult) -> Iterator[tuple[str, str]]:
    for position, each in enumerate(result.addresses):
        yield "" if position else "address", f"{each.address}, {each.result}"


def _chain(result: CheckResult) -> Iterator[tuple[str, str]]:
    # What is copied from a server that was not verified would trust whoever replied.
    is_verified = result.session is not None
    for position, each in enumerate(result.chain):
        days = each.days_left
        left = f"{count(days, 'day')} left" if days >= 0 else f"expired {count(-days, 'day')} ago"
        state = left if is_verified else f"unverified, {left}"
        yield "" if position else "certificate", f"{each.subject}, {each.key}, {state}; issued by {each.issuer}"
    if not result.chain:
        return
    first = result.chain[0]
    is_untrusted = any(fault.name == "certificateerror-untrusted" for fault in result.faults)
    if len(result.chain) == 1 and is_untrusted and not first.is_self_issued:
        yield "", "the server sent one certificate; its issuer was not sent"
    yield "pin", first.spki_sha256 + ("" if is_verified else " unverified")
    if not is_verified:
        # As `openssl x509 -fingerprint -sha256` shows it.
        yield "SHA-256", bytes.fromhex(first.sha256).hex(":").upper()


def _capabilities(result: CheckResult) -> Iterator[tuple[str, str]]:
    if result.before_tls is not None:
        yield "before TLS", _keywords(result.before_tls)
    if result.after_tls is not None:
        yield "inside TLS", _keywords(result.after_tls)
    login = None if result.report is None else result.report.login
    if login is not None:
        yield "login", login_word(result)
    if result.report is not None:
        yield "mechanisms", ", ".join(result.report.mechanisms) or "none offered"
    if result.mechanism_reason:
        yield "would use" if login is None else "used", f"{result.mechanism or 'none'}: {result.mechanism_reason}"
    if result.report is not None:
        size = result.report.size
        yield "size limit", "none given" if size is None else f"{count(size, 'byte')} for a message"
        if result.report.limits:
            yield "limits", ", ".join(f"{name} {number:,}" for name, number in result.report.limits.items())


def _keywords(offered: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}".rstrip() for name, value in offered.items()) or "nothing"
