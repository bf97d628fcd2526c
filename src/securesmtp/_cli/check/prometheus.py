"""
The results of a check in Prometheus's text format, for the textfile collector of the node exporter.

No sample has a timestamp: the collector skips a file that has one. When the check was made is a value.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from securesmtp._cli.check.verdict import Checked

# By name without the prefix: the help text, and the value of one result; None leaves the sample out.
_METRICS: dict[str, tuple[str, Callable[[Checked], float | None]]] = {
    "up": ("1 if a message could be sent, else 0.", lambda each: int(each.result.error is None and _is_usable(each))),
    "status": (
        "Verdict as a monitoring plugin's exit code: 0 fine, 1 warning, 2 fault.",
        lambda each: each.code.value,
    ),
    "certificate_expiry_timestamp_seconds": (
        "When the first certificate of the chain expires, in Unix time.",
        lambda each: None if each.expiring is None else datetime.fromisoformat(each.expiring.not_after).timestamp(),
    ),
    "login_accepted": (
        "1 if the login was accepted, 0 if it was refused; absent if there was none.",
        lambda each: None if (login := _login(each)) is None else int(login),
    ),
    "round_trips": (
        "Round trips of one small message over an open connection.",
        lambda each: each.result.round_trips,
    ),
    "duration_seconds": ("How long the check took.", lambda each: each.result.elapsed.total_seconds()),
}


def to_prometheus(results: Sequence[Checked], when: datetime) -> str:
    """Return all samples, each metric's HELP and TYPE once and before them."""
    lines: list[str] = []
    for name, (text, value) in _METRICS.items():
        samples = [(each, value(each)) for each in results]
        lines += _header(name, text)
        lines += [
            f"securesmtp_check_{name}{_labels(each)} {number!r}" for each, number in samples if number is not None
        ]
    # Also if each server has a fault: its age shows that the job has stopped.
    lines += _header("last_run_timestamp_seconds", "When the check was made, in Unix time.")
    lines.append(f"securesmtp_check_last_run_timestamp_seconds {when.timestamp()!r}")
    return "".join(f"{line}\n" for line in lines)


def _header(name: str, text: str) -> tuple[str, str]:
    return f"# HELP securesmtp_check_{name} {text}", f"# TYPE securesmtp_check_{name} gauge"


def _is_usable(checked: Checked) -> bool:
    return all(fault.level != "error" or fault.name == "expires-soon" for fault in checked.faults)


def _login(checked: Checked) -> bool | None:
    return None if checked.result.report is None else checked.result.report.login


def _labels(checked: Checked) -> str:
    result = checked.result
    labels = {"host": result.host, "port": str(result.port), "tls": result.tls}
    if checked.per_address:
        labels["address"] = result.address or ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
