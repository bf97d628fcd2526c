"""Contexts of `ssl`: which ones verify, and the rules on those that do not (SMT2xx)."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.findings import Level, Rule
from securesmtp._cli.audit.machine import PATCHES
from securesmtp._cli.audit.values import NONE, Const, Object, Unknown, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from securesmtp._cli.audit.families import Call
    from securesmtp._cli.audit.machine import Machine
    from securesmtp._cli.audit.paths import Path

_FIX_CONTEXT = """\
context = ssl.create_default_context()  # cafile="ca.pem" for a CA of your own
server.starttls(context=context)"""

WEAKENED: Final = Rule(
    "SMT201",
    "verification-turned-off",
    295,
    Level.ERROR,
    "The TLS context does not verify the server's certificate",
    "With CERT_NONE anybody on the way can present a certificate of their own and read passwords and messages.",
    _FIX_CONTEXT,
)
NEVER_VERIFIES: Final = Rule(
    "SMT202",
    "context-never-verifies",
    295,
    Level.ERROR,
    "The TLS context is made by a function that turns verification off",
    "Contexts from _create_unverified_context(), _create_stdlib_context(), SSLContext() with any protocol but"
    " PROTOCOL_TLS_CLIENT, or for Purpose.CLIENT_AUTH, accept every certificate.",
    _FIX_CONTEXT,
)
ANY_NAME: Final = Rule(
    "SMT203",
    "host-name-not-checked",
    295,
    Level.ERROR,
    "The TLS context does not check the server's name",
    "With check_hostname=False a certificate for any other name is accepted, and anybody can get one.",
    _FIX_CONTEXT,
)
RULES: Final = (WEAKENED, NEVER_VERIFIES, ANY_NAME)

_VERIFYING: Final = {"ssl.PROTOCOL_TLS_CLIENT", "ssl._SSLMethod.PROTOCOL_TLS_CLIENT"}
_CONTEXT: Final = "ssl.SSLContext()"
_STDLIB: Final = "ssl._create_stdlib_context"


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What a context does on one path.

    Attributes:
        rule: The rule that it breaks; None if it verifies, or if nothing is known.
        where: The expression that makes it so.
        message: What that does.
        is_missing: Whether there is no context.
    """

    rule: Rule | None = None
    where: ast.AST | None = None
    message: str = ""
    is_missing: bool = False
    is_default: bool = False


def _text(node: ast.AST | None) -> str:
    return ast.unparse(node) if node is not None else "the context"


def verdict_on(context: Value | None, machine: Machine, path: Path) -> list[tuple[Path, Verdict]]:
    """Return what a context that was given does, on each path; None where it was not given."""
    context = NONE if context is None else path.narrow(context)
    match context:
        case Const(value=None):
            return _missing(path)
        case Unknown(default=Const(value=None)):
            return [(path, Verdict(is_missing=True, is_default=True))]
        case Unknown(default=Object(qual="ssl.SSLContext()") as default):
            return _context(default, machine, path)
        case Object(qual="ssl.SSLContext()"):
            return _context(context, machine, path)
        case _:
            return [(path, Verdict())]


def _missing(path: Path) -> list[tuple[Path, Verdict]]:
    # `ssl._create_stdlib_context = ssl.create_default_context` makes smtplib verify.
    patched = path.get(PATCHES, _STDLIB)
    if isinstance(patched, Unknown) and patched.qual == "ssl.create_default_context":
        return [(path, Verdict())]
    return [(path, Verdict(is_missing=True))]


def _context(context: Object, machine: Machine, path: Path) -> list[tuple[Path, Verdict]]:
    """Read the fields of a context: `check_hostname` and `verify_mode`, as constructor and assignments left them."""
    results = []
    mode = path.narrow(path.get(context.key, "verify_mode") or NONE)
    for after, verifies in _is_verifying(mode, path):
        name = after.narrow(after.get(context.key, "check_hostname") or NONE)
        made = after.get(context.key, "%made")
        origin = made.node if isinstance(made, Const) and made.node is not None else context.node
        if not verifies:
            where = _assigned(context, "verify_mode", after)
            if where is None:
                verdict = Verdict(NEVER_VERIFIES, origin, f"{_text(origin)} verifies nothing")
            else:
                verdict = Verdict(WEAKENED, where, f"{_text(where)} is set to CERT_NONE: no certificate is verified")
            results.append((after, verdict))
            continue
        for end, checks in machine_test(machine, name, context, after):
            where = _assigned(context, "check_hostname", end)
            if checks:
                verdict = Verdict()
            else:
                where = where or origin
                verdict = Verdict(ANY_NAME, where, f"{_text(where)} is off: a certificate for any name is accepted")
            results.append((end, verdict))
    return results


def machine_test(machine: Machine, value: Value, context: Object, path: Path) -> list[tuple[Path, bool]]:
    """Return the paths on which a field of a context is true and is false."""
    node = context.node if isinstance(context.node, ast.expr) else ast.Constant(None)
    return machine.test_value(value, node, path)


def _is_verifying(mode: Value, path: Path) -> list[tuple[Path, bool]]:
    match mode:
        case Unknown(qual=qual) if qual.startswith("ssl."):
            return [(path, not qual.endswith("CERT_NONE"))]
        case Const(value=value):
            return [(path, bool(value))]
        case _:
            # Chosen elsewhere.
            return [(path, True)]


def _assigned(context: Object, name: str, path: Path) -> ast.AST | None:
    noted = path.get(context.key, f"@{name}")
    return noted.node if isinstance(noted, Const) else None


# ------------------------------------------------------------------------------------------------------- constructors


def _made(call: Call, *, verifies: bool, checks: bool | None = None) -> Object:
    made = call.make(_CONTEXT)
    call.path.put(made.key, "verify_mode", Const(2 if verifies else 0))
    call.path.put(made.key, "check_hostname", Const(verifies if checks is None else checks))
    call.path.put(made.key, "%made", Const(None, call.node))
    return made


def _default_context(call: Call) -> Value:
    purpose = call.argument(0, "purpose")
    is_server = isinstance(purpose, Unknown) and purpose.qual.endswith("CLIENT_AUTH")
    return _made(call, verifies=not is_server)


def _plain_context(call: Call) -> Value:
    protocol = call.argument(0, "protocol")
    if isinstance(protocol, Unknown) and not protocol.qual.startswith("ssl."):
        return _made(call, verifies=True)
    return _made(call, verifies=isinstance(protocol, Unknown) and protocol.qual in _VERIFYING)


def _unverified_context(call: Call) -> Value:
    mode = call.argument(-1, "cert_reqs")
    checks = call.argument(-1, "check_hostname")
    verifies = isinstance(mode, Unknown) and not mode.qual.endswith("CERT_NONE")
    return _made(call, verifies=verifies, checks=isinstance(checks, Const) and bool(checks.value))


def _verifying_context(call: Call) -> Value:
    return _made(call, verifies=True)


def _wrap(call: Call) -> Value:
    """`context.wrap_socket(sock)`: the socket remembers its context."""
    made = call.make("ssl.SSLSocket()")
    made = Object(f"{made.key}:socket", "ssl.SSLSocket()", node=call.node)
    call.path.put(made.key, "context", call.receiver or NONE)
    return made


def _wrap_unverified(call: Call) -> Value:
    made = Object(f"{call.machine.site(call.node)}:socket", "ssl.SSLSocket()", node=call.node)
    mode = call.argument(-1, "cert_reqs")
    verifies = isinstance(mode, Unknown) and not mode.qual.endswith("CERT_NONE")
    call.path.put(made.key, "context", _made(call, verifies=verifies, checks=False))
    return made


class SSLFamily:
    """Contexts: they are judged where a client uses them."""

    words: tuple[bytes, ...] = ()
    rules = RULES
    bases: Mapping[str, str] = {"truststore.SSLContext": "ssl.SSLContext"}
    exports: Mapping[str, tuple[str, ...]] = {
        "ssl": (
            "SSLContext",
            "create_default_context",
            "wrap_socket",
            "Purpose",
            "CERT_NONE",
            "CERT_OPTIONAL",
            "CERT_REQUIRED",
            "PROTOCOL_TLS",
            "PROTOCOL_TLS_CLIENT",
            "PROTOCOL_TLSv1_2",
            "PROTOCOL_SSLv23",
            "SSLError",
        ),
    }
    annotated: tuple[str, ...] = ()

    def handlers(self) -> Mapping[str, Callable[[Call], Value]]:
        """Return the constructors of contexts."""
        return {
            "ssl.create_default_context": _default_context,
            "ssl.SSLContext": _plain_context,
            "ssl._create_unverified_context": _unverified_context,
            "ssl._create_stdlib_context": _unverified_context,
            "ssl.wrap_socket": _wrap_unverified,
            "ssl.SSLContext().wrap_socket": _wrap,
            "truststore.SSLContext": _verifying_context,
        }

    def finish(self, tree: ast.Module, machine: Machine, path: Path) -> None:
        """Nothing is left to do."""
