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


@pytest.mark.parametrize("name", ["asyncio", "anyio", "trio"])
def test_a_program_that_sends_synchronously_does_not_load(name: str) -> None:
    """They would cost its start 40 ms and more."""
    program = f"import sys, securesmtp; securesmtp.SecureMailer('localhost'); assert {name!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
