"""What a result means: the exit code, and a certificate that expires soon."""

from __future__ import annotations

import pytest

from cli.results import THRESHOLDS, certificate, checked, faulty, result
from securesmtp._cli.check.verdict import judge, worst
from securesmtp._cli.exit_codes import CheckCode

OK, WARNING, CRITICAL, UNKNOWN = CheckCode


@pytest.mark.parametrize(
    ("days", "intermediate", "code", "cause"),
    [
        (14, 900, OK, None),
        (13, 900, WARNING, "the certificate expires in 13 days, on 2026-12-10"),
        (7, 900, WARNING, "the certificate expires in 7 days, on 2026-12-04"),
        (6, 900, CRITICAL, "the certificate expires in 6 days, on 2026-12-03"),
        (1, 900, CRITICAL, "the certificate expires in 1 day, on 2026-11-28"),
        (61, 13, WARNING, "the intermediate certificate Example CA 1 expires in 13 days, on 2026-12-10"),
        (13, 1, CRITICAL, "the intermediate certificate Example CA 1 expires in 1 day, on 2026-11-28"),
    ],
)
def test_a_certificate_that_expires_soon_is_a_fault(
    days: int, intermediate: int, code: CheckCode, cause: str | None
) -> None:
    """By the thresholds, and by that of the verified chain which expires first; the trusted root is not in question."""
    (each,) = checked(result(days=days, intermediate_days=intermediate))
    assert each.code is code
    assert [fault.cause for fault in each.faults] == ([] if cause is None else [cause])
    assert {fault.name for fault in each.faults} <= {"expires-soon"}
    assert each.days_left == min(days, intermediate)


def test_what_was_not_verified_is_not_what_expires() -> None:
    """A server may send an old cross-signed certificate that no client uses, or the root, which is replaced here."""
    found = result()
    root = certificate("Example Root", 3, "Example Root")
    assert found.session is not None
    assert found.session.chain[-1].sha256 == root.sha256
    (each,) = checked(result(chain=(*found.chain, certificate("Old Root X3", -1000), root)))
    assert (each.code, each.days_left) == (OK, 61)


def test_without_a_verified_session_the_servers_certificate_counts() -> None:
    """Its days are shown; that it expires soon is no second fault beside the one that ended the check."""
    (each,) = checked(faulty(chain=(certificate("a.example", 3), certificate("b.example", 1))))
    assert (each.days_left, len(each.faults)) == (3, 1)
    (empty,) = checked(faulty(chain=()))
    assert empty.days_left is None


def test_errors_come_first() -> None:
    """A warning of the check stands after a certificate that is about to expire."""
    (each,) = checked(faulty(level="warning", days=2))
    assert [fault.level for fault in each.faults] == ["error", "warning"]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([OK], OK),
        ([OK, WARNING], WARNING),
        ([WARNING, CRITICAL, OK], CRITICAL),
        ([OK, UNKNOWN], UNKNOWN),
        ([UNKNOWN, WARNING], WARNING),
        ([UNKNOWN, CRITICAL], CRITICAL),
    ],
)
def test_the_worst_verdict_counts(codes: list[CheckCode], expected: CheckCode) -> None:
    """As monitoring plugins rank them: a fault is worse than what is not known."""
    assert worst(codes) is expected


def test_an_error_without_a_fault_is_an_error() -> None:
    """The exit code does not depend on the words that were found for it."""
    assert judge(faulty(faults=()), THRESHOLDS).code is CRITICAL
    assert judge(faulty(level="warning"), THRESHOLDS).code is WARNING


@pytest.mark.parametrize(
    ("host", "address", "per_address", "label"),
    [
        ("smtp.example.com", "192.0.2.1", False, "smtp.example.com:465"),
        ("smtp.example.com", "192.0.2.1", True, "smtp.example.com:465 at 192.0.2.1"),
        ("2001:db8::1", "2001:db8::1", True, "[2001:db8::1]:465"),
    ],
)
def test_a_server_is_named_so_that_it_can_be_checked_again(
    host: str, address: str, *, per_address: bool, label: str
) -> None:
    """HOST:PORT, with brackets; the address where each is checked by itself."""
    (each,) = checked(result(host=host, address=address), per_address=per_address)
    assert each.label == label
