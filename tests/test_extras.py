"""What is missing when an extra is not installed, and what says so."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_without_anyio_the_error_names_the_extra() -> None:
    """Everything else works; an import of another name that fails is not taken for it."""
    program = """
import sys
sys.modules["anyio"] = None
import securesmtp
securesmtp.SecureMailer
try:
    securesmtp.AsyncSecureMailer
except ModuleNotFoundError as error:
    assert "securesmtp[async]" in str(error), error
    assert error.name.startswith("anyio")
else:
    raise AssertionError
del sys.modules["anyio"]
sys.modules["securesmtp._async_results"] = None
try:
    securesmtp.AsyncSecureMailer
except ModuleNotFoundError as error:
    assert error.name == "securesmtp._async_results", error
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("missing", ["trustme", "aiosmtpd"])
def test_without_its_engine_the_test_server_names_the_extra(missing: str) -> None:
    """The table of the faults, and what needs no server, can be used; another import that fails is not taken for it."""
    program = f"""
import sys
sys.modules[{missing!r}] = None
from securesmtp.testing import FAULTS
try:
    from securesmtp.testing import MailServer
except ModuleNotFoundError as error:
    assert "its extra 'testing'" in str(error), error
    assert error.name.partition(".")[0] == {missing!r}
else:
    raise AssertionError
del sys.modules[{missing!r}]
sys.modules["securesmtp.testing._listener"] = None
try:
    from securesmtp.testing import MailServer
except ModuleNotFoundError as error:
    assert error.name == "securesmtp.testing._listener", error
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("name", ["asyncio", "anyio", "trio"])
def test_a_program_that_sends_synchronously_does_not_load(name: str) -> None:
    """They would cost its start 40 ms and more."""
    program = f"import sys, securesmtp; securesmtp.SecureMailer('localhost'); assert {name!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
