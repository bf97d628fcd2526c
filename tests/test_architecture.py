"""The choke points of the house, held by the syntax tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import securesmtp

PACKAGE = Path(securesmtp.__file__).parent
MODULES = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
CORE = {name: tree for name, tree in MODULES.items() if not name.startswith(("_cli", "testing"))}


def _modules_with(found: object) -> set[str]:
    assert callable(found)
    return {name for name, tree in CORE.items() if any(found(node) for node in ast.walk(tree))}


def _named(*names: str) -> object:
    return lambda node: isinstance(node, ast.Attribute) and node.attr in names


def _called(*names: str) -> object:
    return lambda node: isinstance(node, ast.Call) and getattr(node.func, "attr", "") in names


@pytest.mark.parametrize(
    ("found", "allowed"),
    [
        pytest.param(
            lambda n: isinstance(n, ast.Constant) and isinstance(n.value, bytes) and b"\r\n" in n.value,
            {"_protocol/wire.py", "_protocol/content.py"},
            id="crlf",
        ),
        pytest.param(_called("SSLContext", "create_default_context"), {"_transport/tls.py"}, id="context"),
        pytest.param(_called("wrap_socket", "wrap_bio"), {"_transport/tls.py"}, id="wrap"),
        pytest.param(_named("sendall", "makefile", "sendmail", "set_debuglevel"), set(), id="second-ways-to-write"),
        pytest.param(_named("environ", "getenv"), set(), id="environment"),
        pytest.param(_named("reveal"), {"_protocol/sasl/__init__.py", "_protocol/sasl/simple.py"}, id="secrets"),
    ],
)
def test_each_thing_is_done_in_one_place(found: object, allowed: set[str]) -> None:
    """No second path, by whatever name it is called."""
    assert _modules_with(found) <= allowed


def test_no_pattern_is_possessive() -> None:
    """`re.fullmatch` gets possessive quantifiers and atomic groups wrong on early 3.11, which Debian 12 has."""
    literals = {n.value for tree in MODULES.values() for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    texts = {str(v, "latin-1") if isinstance(v, bytes) else v for v in literals if isinstance(v, str | bytes)}
    assert not [text for text in texts if re.search(r"(?<!\\)[*+?}]\+|\(\?>", text)]


def test_only_the_link_and_the_errors_import_smtplib() -> None:
    """`errors` for its base class, the link for its engine."""

    def imports(node: ast.AST) -> bool:
        return isinstance(node, ast.Import) and any(alias.name == "smtplib" for alias in node.names)

    assert _modules_with(imports) == {"errors.py", "_transport/link.py"}


def test_the_public_names_are_what_is_there() -> None:
    """`__all__` is sorted and complete."""
    assert securesmtp.__all__ == sorted(securesmtp.__all__)
    assert dir(securesmtp) == securesmtp.__all__
    assert securesmtp.__getattr__("errors") is securesmtp.errors
    assert {getattr(securesmtp, name).__name__ for name in securesmtp.__all__} == set(securesmtp.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        securesmtp.nonsense  # noqa: B018 -- the look-up is the test


@pytest.mark.parametrize("use", ["securesmtp.SecureMailer", "securesmtp.errors.TLSError", "securesmtp.Secret"])
def test_importing_the_library_is_cheap_until_it_is_used(use: str) -> None:
    """Neither TLS nor SMTP is loaded before the first name is asked for."""
    program = f"import sys, securesmtp; assert not {{'ssl', 'smtplib', 'socket'}} & set(sys.modules); {use}"
    subprocess.run([sys.executable, "-c", program], timeout=30, check=True)
