"""
For the tests of programs that send mail: a real server, mailers that keep messages in memory, and faults by name.

The pytest plugin is the module `securesmtp_pytest`, outside of this package: pytest imports it at each start, before
coverage is measured.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from securesmtp.testing._async_recording import AsyncRecordingMailer
    from securesmtp.testing._faults import FAULTS, Fault, FaultName
    from securesmtp.testing._received import Attachment, Received
    from securesmtp.testing._recording import RecordingMailer
    from securesmtp.testing._server import MailServer

__all__ = [
    "FAULTS",
    "AsyncRecordingMailer",
    "Attachment",
    "Fault",
    "FaultName",
    "MailServer",
    "Received",
    "RecordingMailer",
]
_MODULES = {
    "FAULTS": "_faults",
    "AsyncRecordingMailer": "_async_recording",
    "Attachment": "_received",
    "Fault": "_faults",
    "FaultName": "_faults",
    "MailServer": "_server",
    "Received": "_received",
    "RecordingMailer": "_recording",
}


def __getattr__(name: str) -> object:
    """Import a name when it is first used: RecordingMailer needs neither aiosmtpd nor trustme nor anyio."""
    if name not in _MODULES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    globals()[name] = found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return found


def __dir__() -> list[str]:
    """Return the public names, imported or not yet."""
    return __all__
