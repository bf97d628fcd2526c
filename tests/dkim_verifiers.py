"""
Two independent verifiers of DKIM signatures: dkimpy (Python), and OpenDKIM's library (C), called by ctypes.

Both get the records from the test, and none asks the DNS.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import dkim
import pytest

from securesmtp.signing import DKIM
from securesmtp.signing._keys import make_key

_OP_SET, _QUERY_METHOD, _QUERY_INFO, _QUERY_FILE = 1, 6, 7, 1
_PASSED, _BODY_MATCHES = 4, 0


@cache
def rsa_pem(bits: int = 2048) -> str:
    """Return an RSA key, the same each time."""
    return make_key(bits).decode()


@cache
def ed25519_pem() -> str:
    """Return an Ed25519 key, the same each time."""
    return make_key(None).decode()


@cache
def signer(domain: str = "example.org", *, ed25519: bool = False, **options: Any) -> DKIM:
    """Return what signs for *domain*; with two signatures if *ed25519* is set."""
    # The same each time: to read a key takes a tenth of a second.
    if ed25519:
        options |= {"ed25519_selector": "ed2027", "ed25519_key": ed25519_pem()}
    return DKIM(domain, "mail2027", rsa_pem(), **options)


def records(*signers: DKIM) -> dict[str, str]:
    """Return the values of the DNS records of *signers*, by name."""
    return {each.name: each.value for signer in signers for each in signer.dns_records()}


def count_signatures(message: bytes) -> int:
    """Return how many signatures *message* has."""
    header = message.partition(b"\r\n\r\n")[0]
    return sum(line.lower().startswith(b"dkim-signature:") for line in header.split(b"\r\n"))


def verify_with_dkimpy(message: bytes, known: Mapping[str, str]) -> list[bool]:
    """Return whether each of the signatures of *message* is valid, from the top."""

    def look_up(name: bytes, timeout: float = 0) -> bytes:
        return known[name.decode().rstrip(".")].encode()

    def is_valid(number: int) -> bool:
        try:
            found: bool = dkim.DKIM(message).verify(number, dnsfunc=look_up)
        except dkim.ValidationError:
            return False
        return found

    return [is_valid(number) for number in range(count_signatures(message))]


class OpenDKIM:
    """OpenDKIM's library, with the records in a file."""

    def __init__(self, known: Mapping[str, str]) -> None:
        """
        Load it.

        Raises:
            OSError: It is not installed.
        """
        self._library = ctypes.CDLL("libopendkim.so.11")
        for name in ("dkim_init", "dkim_verify"):
            getattr(self._library, name).restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p(self._library.dkim_init(None, None))
        with tempfile.NamedTemporaryFile("w", suffix=".records", delete=False) as file:
            file.writelines(f"{name} {value}\n" for name, value in known.items())
        self._records = Path(file.name)
        method, path = ctypes.c_int(_QUERY_FILE), ctypes.create_string_buffer(os.fsencode(file.name))
        self._set(_QUERY_METHOD, ctypes.byref(method), ctypes.sizeof(method))
        self._set(_QUERY_INFO, path, len(path.value))

    def _set(self, option: int, value: object, size: int) -> None:
        assert self._library.dkim_options(self._handle, _OP_SET, option, value, ctypes.c_size_t(size)) == 0

    def verify(self, message: bytes) -> list[bool]:
        """Return whether each of the signatures of *message* is valid, from the top."""
        library, status = self._library, ctypes.c_int()
        one = ctypes.c_void_p(library.dkim_verify(self._handle, b"test", None, ctypes.byref(status)))
        try:
            library.dkim_chunk(one, message, ctypes.c_size_t(len(message)))
            library.dkim_chunk(one, None, ctypes.c_size_t(0))
            library.dkim_eom(one, None)
            found, count = ctypes.POINTER(ctypes.c_void_p)(), ctypes.c_int()
            if library.dkim_getsiglist(one, ctypes.byref(found), ctypes.byref(count)) != 0:
                return []
            return [self._is_valid(ctypes.c_void_p(found[number])) for number in range(count.value)]
        finally:
            library.dkim_free(one)

    def _is_valid(self, signature: ctypes.c_void_p) -> bool:
        has_passed: bool = self._library.dkim_sig_getflags(signature) & _PASSED != 0
        return has_passed and self._library.dkim_sig_getbh(signature) == _BODY_MATCHES

    def close(self) -> None:
        """Free it."""
        self._library.dkim_close(self._handle)
        self._records.unlink()


@contextmanager
def opendkim(known: Mapping[str, str]) -> Iterator[OpenDKIM]:
    """Return OpenDKIM's library; without it, the test is skipped, or fails where servers are required."""
    try:
        library = OpenDKIM(known)
    except OSError:
        reason = "libopendkim is not installed: run tests/servers/install as root"
        if os.environ.get("SECURESMTP_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield library
    finally:
        library.close()
