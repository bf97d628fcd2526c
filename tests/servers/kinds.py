"""The kinds of real servers, and how a test starts one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from servers.aiosmtpd_server import Aiosmtpd
from servers.chasquid import Chasquid
from servers.courier import Courier
from servers.dovecot import Dovecot, NewDovecot
from servers.exim import Exim
from servers.haraka import Haraka
from servers.opensmtpd import OpenSMTPD
from servers.postfix import Postfix
from servers.real import PATIENCE, RealServer
from servers.sendmail import Sendmail
from servers.smtp_server import SMTPServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trustme

S = TypeVar("S", bound=RealServer)
# By the name of the fixture that starts it, once per session.
KINDS: dict[str, type[RealServer]] = {
    "postfix": Postfix,
    "exim": Exim,
    "opensmtpd": OpenSMTPD,
    "dovecot": Dovecot,
    "dovecot24": NewDovecot,
    "sendmail": Sendmail,
    "courier": Courier,
    "chasquid": Chasquid,
    "haraka": Haraka,
    "smtp_server": SMTPServer,
    "aiosmtpd": Aiosmtpd,
}


def running(kind: type[S], ca: trustme.CA, patience: int = PATIENCE, greeting_delay: int = 0) -> Iterator[S]:
    """Run a server until it is no longer needed; skip the test if it cannot be started here."""
    reason = kind.missing()
    if reason is not None:
        # If servers are required, as in .ci/run, a skip would hide that nothing was tested.
        if os.environ.get("SECURESMTP_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    # pytest's folders (tmp_path) are closed to other users, and the servers do not run as root.
    with (
        tempfile.TemporaryDirectory(prefix="securesmtp-") as directory,
        kind(Path(directory), ca, patience, greeting_delay) as server,
    ):
        yield server
