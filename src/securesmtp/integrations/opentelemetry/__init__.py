"""
Spans and metrics for OpenTelemetry: ``SecureMailer(…, on_event=OpenTelemetry())``.

There is no semantic convention for SMTP. Attributes that have a name elsewhere keep it (``server.*``, ``tls.*``,
``error.type``); the others begin with ``smtp.``.
"""

from __future__ import annotations

try:
    from securesmtp.integrations.opentelemetry._bridge import OpenTelemetry
except ModuleNotFoundError as _error:
    if str(_error.name).partition(".")[0] != "opentelemetry":
        raise
    _message = "spans and metrics need opentelemetry-api: install securesmtp[otel]"
    raise ModuleNotFoundError(_message, name=_error.name) from _error

__all__ = ["OpenTelemetry"]
