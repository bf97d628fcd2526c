"""The results of a check as one JSON document. The page on checking a server describes each field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from securesmtp._cli.check.verdict import worst

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from securesmtp._cli.check.result import CheckResult
    from securesmtp._cli.check.verdict import Checked

# It changes when a field is removed or means something else, not when one is added.
VERSION: Final = 1
_CERTIFICATE = (
    *("subject", "issuer", "names", "key", "signature"),
    *("not_before", "not_after", "days_left", "spki_sha256", "sha256"),
)


def to_json(results: Sequence[Checked], when: datetime, *, transcript: bool) -> str:
    """Return the document, with a line end."""
    document = {
        "version": VERSION,
        "checked_at": when.isoformat(timespec="seconds"),
        "verdict": worst(each.code for each in results).name.lower(),
        "servers": [_server(each, transcript=transcript) for each in results],
    }
    return json.dumps(document, indent=2) + "\n"


def _server(checked: Checked, *, transcript: bool) -> dict[str, Any]:
    result = checked.result
    return {
        "host": result.host,
        "port": result.port,
        "tls": result.tls,
        "address": result.address,
        "verdict": checked.code.name.lower(),
        "stage": result.stage or None,
        "days_left": checked.days_left,
        "faults": [_chosen(fault, "level", "name", "cause", "fix", "line") for fault in checked.faults],
        "notes": list(result.notes),
        "addresses": [_chosen(each, "address", "result") for each in result.addresses],
        "session": _session(result),
        "chain": [_chosen(each, *_CERTIFICATE) for each in result.chain],
        "before_tls": None if result.before_tls is None else dict(result.before_tls),
        "after_tls": None if result.after_tls is None else dict(result.after_tls),
        "login": _login(result),
        "size": None if result.report is None else result.report.size,
        "limits": {} if result.report is None else dict(result.report.limits),
        "round_trips": result.round_trips,
        "error": None if result.error is None else result.error.as_dict(),
        "elapsed": round(result.elapsed.total_seconds(), 6),
        "transcript": [_chosen(line, "hint", "text") for line in result.transcript] if transcript else None,
    }


def _chosen(value: object, *names: str) -> dict[str, Any]:
    """Return these attributes; others are for this program alone."""
    return {name: getattr(value, name) for name in names}


def _session(result: CheckResult) -> dict[str, Any] | None:
    return None if result.session is None else _chosen(result.session, "version", "cipher", "server_name", "trust")


def _login(result: CheckResult) -> dict[str, Any]:
    report = result.report
    return {
        "accepted": None if report is None else report.login,
        "mechanism": result.mechanism,
        "reason": result.mechanism_reason or None,
        "offered": [] if report is None else list(report.mechanisms),
    }
