"""
Rules on aiosmtplib, whose source was read in version 5.1.3.

By default (`start_tls=None`) it begins TLS only if the server offers STARTTLS. Certificates are verified unless
`validate_certs` is false or `tls_context` does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.findings import Level, Rule
from securesmtp._cli.audit.observing import Subject, is_given
from securesmtp._cli.audit.rules_password import check as check_password
from securesmtp._cli.audit.values import NONE, Const, Object, Unknown, Value

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Mapping

    from securesmtp._cli.audit.families import Call
    from securesmtp._cli.audit.machine import Machine, Results
    from securesmtp._cli.audit.paths import Path

_FIX: Final = """\
await aiosmtplib.send(message, hostname=host, port=465, use_tls=True)
# or
await aiosmtplib.send(message, hostname=host, port=587, start_tls=True)"""
PLAINTEXT: Final = Rule(
    "SMT611",
    "aiosmtplib-without-tls",
    319,
    Level.ERROR,
    "aiosmtplib: start_tls=False without use_tls or starttls()",
    "With start_tls=False aiosmtplib does not begin TLS: the password and each message go in plaintext.",
    _FIX,
)
OPPORTUNISTIC: Final = Rule(
    "SMT612",
    "aiosmtplib-opportunistic",
    319,
    Level.WARNING,
    "aiosmtplib: neither use_tls nor start_tls",
    "By default aiosmtplib begins TLS only if the server offers STARTTLS. An attacker in between removes the offer, and"
    " the password and each message go in plaintext.",
    _FIX,
)
UNVERIFIED: Final = Rule(
    "SMT613",
    "aiosmtplib-unverified",
    295,
    Level.ERROR,
    "aiosmtplib: validate_certs=False",
    "Without validate_certs any certificate is accepted: an attacker in between reads the password and each message.",
    """\
await aiosmtplib.send(message, hostname=host, port=465, use_tls=True)
# with a CA of your own:
await aiosmtplib.send(message, hostname=host, port=465, use_tls=True, cert_bundle="ca.pem")""",
)
RULES: Final = (PLAINTEXT, OPPORTUNISTIC, UNVERIFIED)

_CLIENT: Final = "aiosmtplib.SMTP()"
_OPTIONS: Final = ("hostname", "username", "password", "use_tls", "start_tls", "validate_certs", "tls_context")
_SENDS: Final = ("sendmail", "send_message", "data")
_PLAIN, _SECURE = Const("plain"), Const("secure")


def _make(call: Call) -> Results:
    made = call.make(_CLIENT)
    options = {name: call.argument(0 if name == "hostname" else -1, name) for name in _OPTIONS}
    for name, value in options.items():
        call.path.put(made.key, f"%{name}", value or NONE)
    call.path.put(made.key, "%more", Const(call.arguments.has_more))
    call.path.put(made.key, "%tls", _SECURE)
    if not is_given(options["hostname"]):
        # `connect` names the host, or it is this machine.
        return [(call.path, made)]
    return [(path, made) for path in _connect(call, made, options)]


def _on_connect(call: Call) -> Results | None:
    options = {name: call.argument(0 if name == "hostname" else -1, name) for name in _OPTIONS}
    if not (isinstance(call.receiver, Object) and any(is_given(value) for value in options.values())):
        return None
    if is_given(options["use_tls"]) or is_given(options["start_tls"]):
        # What the constructor was given no longer counts.
        for rule in (PLAINTEXT, OPPORTUNISTIC):
            call.notes.withdraw(rule, call.receiver.node or call.node)
    kept = {name: value or call.get(f"%{name}") for name, value in options.items()}
    if not is_given(kept["hostname"]):
        return None
    return [(path, Unknown(call.machine.site(call.node))) for path in _connect(call, call.receiver, kept)]


def _connect(call: Call, client: Object, options: dict[str, Value | None]) -> list[Path]:
    """Judge the options of a client that connects, and return the paths with its state."""
    subject = Subject(call, options["hostname"])
    check_password(call, options["password"])
    has_more = call.arguments.has_more or call.path.get(client.key, "%more") == Const(value=True)
    call.path.put(client.key, "%hostname", options["hostname"] or NONE)
    _verification(subject, options, call.path.copy())
    ends = []
    for path, state in _states(subject, options, call.path, has_more=has_more):
        path.put(client.key, "%tls", _PLAIN if state is PLAINTEXT else _SECURE)
        is_bad = state is OPPORTUNISTIC or (state is PLAINTEXT and is_given(options["username"]))
        message = "TLS is used only if the server offers STARTTLS"
        if state is PLAINTEXT:
            message = "logs in and sends in plaintext"
        subject.observe(state or OPPORTUNISTIC, path, message, is_bad=is_bad)
        ends.append(path)
    return ends


def _states(
    subject: Subject, options: dict[str, Value | None], path: Path, *, has_more: bool
) -> list[tuple[Path, Rule | None]]:
    """Return the paths with the rule that each breaks; None with TLS."""
    start = options["start_tls"]
    if has_more and not is_given(start) and not is_given(options["use_tls"]):
        return [(path, None)]
    results: list[tuple[Path, Rule | None]] = []
    for after, is_implicit in subject.split(options["use_tls"], path, default=False):
        if is_implicit:
            results.append((after, None))
        elif not is_given(start):
            results.append((after, OPPORTUNISTIC))
        else:
            results += [(end, None if met else PLAINTEXT) for end, met in subject.split(start, after, default=False)]
    return results


def _verification(subject: Subject, options: dict[str, Value | None], path: Path) -> None:
    if is_given(options["tls_context"]):
        subject.observe_context(UNVERIFIED, options["tls_context"], path, "tls_context verifies nothing")
        return
    value = options["validate_certs"]
    for after, is_on in subject.split(value if is_given(value) else None, path, default=True):
        subject.observe(UNVERIFIED, after, "validate_certs is off: any certificate is accepted", is_bad=not is_on)


def _starttls(call: Call) -> None:
    host = call.get("%hostname")
    options = {name: call.argument(-1, name) for name in ("validate_certs", "tls_context")}
    _verification(Subject(call, host), options, call.path.copy())
    call.put("%tls", _SECURE)


def _use(call: Call) -> None:
    """A login or a send: in plaintext if nothing began TLS."""
    host = call.get("%hostname")
    if is_given(host) and call.get("%tls") is not None:
        is_bad = call.get("%tls") == _PLAIN
        subject = Subject(call, host)
        subject.observe(PLAINTEXT, call.path, f"{call.name}() without TLS, in plaintext", is_bad=is_bad)
    if call.name in _SENDS:
        call.notes.sends.add(call.node)
    else:
        check_password(call, call.argument(1, "password"))


def _send(call: Call) -> None:
    options = {name: call.argument(-1, name) for name in _OPTIONS}
    call.notes.sends.add(call.node)
    check_password(call, options["password"])
    # Its default is this machine.
    if not is_given(options["hostname"]):
        return
    subject = Subject(call, options["hostname"])
    _verification(subject, options, call.path.copy())
    for path, state in _states(subject, options, call.path.copy(), has_more=call.arguments.has_more):
        message = "sends in plaintext" if state is PLAINTEXT else "TLS is used only if the server offers STARTTLS"
        subject.observe(state or OPPORTUNISTIC, path, message, is_bad=state is not None)


class AiosmtplibFamily:
    """aiosmtplib."""

    words: tuple[bytes, ...] = (b"aiosmtplib",)
    rules = RULES
    bases: Mapping[str, str] = {}
    exports: Mapping[str, tuple[str, ...]] = {"aiosmtplib": ("SMTP", "send")}
    annotated: tuple[str, ...] = ()

    def handlers(self) -> Mapping[str, Callable[[Call], Results | Value | None]]:
        """Return what is to be done at its calls."""
        uses = ("login", "auth_login", "auth_plain", "auth_crammd5", "auth_xoauth2", *_SENDS)
        return {
            "aiosmtplib.SMTP": _make,
            "aiosmtplib.send": _send,
            f"{_CLIENT}.connect": _on_connect,
            f"{_CLIENT}.starttls": _starttls,
            **{f"{_CLIENT}.{name}": _use for name in uses},
        }

    def finish(self, tree: ast.Module, machine: Machine, path: Path) -> None:
        """Nothing is left to do."""
