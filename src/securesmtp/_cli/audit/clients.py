"""What clients of `smtplib` do: in which state each is when it logs in or sends."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit import rules_password
from securesmtp._cli.audit.arguments import text_of
from securesmtp._cli.audit.findings import Level, Rule
from securesmtp._cli.audit.judge import Observation
from securesmtp._cli.audit.rules_smtplib import (
    ALTERNATIVES,
    IMPLICIT,
    LOGIN,
    NO_TIMEOUT,
    RULES,
    SEND,
    STARTTLS,
    highest_level,
    is_loopback,
)
from securesmtp._cli.audit.rules_ssl import Verdict, verdict_on
from securesmtp._cli.audit.values import NONE, Const, Object, Unknown, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from securesmtp._cli.audit.families import Call
    from securesmtp._cli.audit.machine import Machine, Results
    from securesmtp._cli.audit.paths import Path

_CLIENT: Final = "smtplib.SMTP()"
_PLAIN, _UNVERIFIED, _VERIFIED, _UNKNOWN = (Const(text) for text in ("plain", "unverified", "verified", "unknown"))


# ------------------------------------------------------------------------------------------------------- constructors


def _client(call: Call) -> Object:
    made = call.make(f"{call.qual}()")
    path = call.path
    host = call.argument(0, "host")
    for name, value in (("%tls", _PLAIN), ("debuglevel", NONE), ("%failed", NONE), ("%host", host or NONE)):
        path.put(made.key, name, value)
    if call.arguments.has_more and host is None:
        path.put(made.key, "%host", Unknown(f"{made.key}.host"))
    path.put(made.key, "%named", Const(host is not None or call.arguments.has_more))
    for cls in made.owner.lineage() if made.owner is not None else ():
        level = path.get(cls.key, "debuglevel")
        if isinstance(level, Const):
            path.put(made.key, "debuglevel", level)
            path.put(made.key, "@debuglevel", Const(None, level.node))
            break
    return made


def _smtp(call: Call) -> Value:
    made = _client(call)
    _limit(call, 3)
    return made


def _limit(call: Call, position: int) -> None:
    timeout = call.argument(position, "timeout")
    host = call.argument(0, "host")
    is_given = timeout is not None and not (isinstance(timeout, Const) and timeout.value is None)
    if not (is_given or call.arguments.has_more or is_loopback(host)):
        call.notes.limitless.append(call.node)


def _smtp_ssl(call: Call) -> Results:
    made = _client(call)
    _limit(call, 5)
    results: Results = []
    context = call.argument(7, "context")
    if context is None and call.arguments.has_more:
        call.path.put(made.key, "%tls", _UNKNOWN)
        return [(call.path, made)]
    for path, verdict in verdict_on(context, call.machine, call.path):
        _observe_context(call, made.key, path, verdict, IMPLICIT)
        results.append((path, made))
    return results


def _lmtp(call: Call) -> Value:
    made = _client(call)
    call.path.put(made.key, "%tls", _UNKNOWN)
    return made


def _observe_context(call: Call, key: str, path: Path, verdict: Verdict, missing: Rule) -> None:
    is_bad = verdict.is_missing or verdict.rule is not None
    path.put(key, "%tls", _UNVERIFIED if is_bad else _VERIFIED)
    path.put(key, "%failed", NONE)
    host = path.get(key, "%host")
    if is_loopback(path.narrow(host)) if host is not None and host != NONE else False:
        return
    what = "SMTP_SSL()" if missing is IMPLICIT else "starttls()"
    message = f"{what} without a context accepts every certificate"
    if verdict.is_missing:
        argument = call.argument(2 if missing is STARTTLS else 7, "context")
        if argument is not None:
            message = f"the context of {what} is None, so every certificate is accepted"
        if verdict.is_default:
            message = f"the context of {what} is None by default, and then every certificate is accepted"
    most = highest_level(host)
    call.notes.observe(
        path,
        Observation(
            topic="context",
            sink=call.node,
            rule=verdict.rule or missing,
            is_bad=is_bad,
            where=verdict.where or call.node,
            message=verdict.message or message,
            most=Level.WARNING if verdict.is_default else most,
        ),
    )


# ------------------------------------------------------------------------------------------------------------ methods


def _connect(call: Call) -> None:
    host = call.argument(0, "host")
    call.put("%host", host or NONE)
    call.put("%named", Const(host is not None or call.arguments.has_more))


def _starttls(call: Call) -> Results | None:
    context = call.arguments.get(2, "context")
    first = call.argument(0, "keyfile")
    if context is None and isinstance(first, Object | Unknown):
        # A context in the wrong place is a TypeError, or what the author means.
        is_context = isinstance(first, Object) or "context" in first.symbol.lower()
        context = first if is_context else None
    if context is None and call.arguments.has_more:
        call.put("%tls", _UNKNOWN)
        return None
    results: Results = []
    for path, verdict in verdict_on(context, call.machine, call.path):
        _observe_context(call, call.key, path, verdict, STARTTLS)
        results.append((path, Unknown(call.machine.site(call.node))))
    return results


def _observe(call: Call, rule: Rule, message: str) -> None:
    path = call.path
    state = path.get(call.key, "%tls")
    socket = path.get(call.key, "sock")
    if isinstance(socket, Object) and socket.qual == "ssl.SSLSocket()":
        context = path.get(socket.key, "context")
        for after, verdict in verdict_on(context, call.machine, path.copy()):
            _observe_context(call, call.key, after, verdict, STARTTLS)
        return
    host = path.get(call.key, "%host")
    if state is None or host is None:
        return
    is_local = is_loopback(path.narrow(host)) or host == NONE
    failed = path.get(call.key, "%failed")
    call.notes.observe(
        path,
        Observation(
            topic="tls",
            sink=call.node,
            rule=rule,
            is_bad=state == _PLAIN and not is_local,
            where=call.node,
            message=message,
            fault=call.receiver.node if isinstance(call.receiver, Object) else None,
            failed=failed.node if isinstance(failed, Const) else None,
            most=min(
                highest_level(host), Level.WARNING if path.is_cut or path.get(call.key, "%mixed") else Level.ERROR
            ),
            alternatives=ALTERNATIVES,
        ),
    )


def _login(call: Call) -> None:
    _observe(call, LOGIN, f"{call.name}() without TLS: the password can be read on the way")
    rules_password.check_debug(call)
    password = call.argument(1, "password")
    if call.name == "auth":
        password = call.get("password")
    rules_password.check(call, password)


def _send(call: Call) -> None:
    _observe(call, SEND, f"{call.name}() without TLS: the message can be read and changed on the way")
    call.notes.sends.add(call.node)


def _command(call: Call) -> None:
    """`docmd("AUTH", "PLAIN …")` and its like."""
    command = call.argument(0, "cmd") or call.argument(0, "s") or NONE
    text = command.prefix if isinstance(command, Unknown) else text_of(command) or ""
    verb = text.strip().upper()
    if verb.startswith("AUTH"):
        _observe(call, LOGIN, f"{text.split()[0]} without TLS: the password can be read on the way")
        rules_password.check_debug(call)
        rules_password.check_command(call, command)


def _debug(call: Call) -> None:
    call.put("debuglevel", call.argument(0, "debuglevel") or NONE)
    call.put("@debuglevel", Const(None, call.node))


class SmtplibFamily:
    """Clients of `smtplib`."""

    words: tuple[bytes, ...] = (b"smtplib",)
    rules = (*RULES, *rules_password.RULES)
    bases: Mapping[str, str] = {
        "smtplib.SMTP_SSL": "smtplib.SMTP",
        "smtplib.LMTP": "smtplib.SMTP",
    }
    exports: Mapping[str, tuple[str, ...]] = {
        "smtplib": (
            "SMTP",
            "SMTP_SSL",
            "SMTPException",
            "SMTPNotSupportedError",
            "SMTPServerDisconnected",
            "SMTPResponseException",
            "SMTPSenderRefused",
            "SMTPRecipientsRefused",
            "SMTPDataError",
            "SMTPConnectError",
            "SMTPHeloError",
            "SMTPAuthenticationError",
        ),
    }
    annotated: tuple[str, ...] = ("smtplib.SMTP", "smtplib.SMTP_SSL", "smtplib.LMTP")

    def handlers(self) -> Mapping[str, Callable[[Call], Results | Value | None]]:
        """Return what is to be done at the calls of clients."""
        methods: dict[str, Callable[[Call], Results | Value | None]] = {
            "connect": _connect,
            "starttls": _starttls,
            "login": _login,
            "auth": _login,
            "sendmail": _send,
            "send_message": _send,
            "data": _send,
            "docmd": _command,
            "putcmd": _command,
            "send": _command,
            "set_debuglevel": _debug,
        }
        return {
            "smtplib.SMTP": _smtp,
            "smtplib.SMTP_SSL": _smtp_ssl,
            "smtplib.LMTP": _lmtp,
            **{f"{_CLIENT}.{name}": handler for name, handler in methods.items()},
        }

    def finish(self, tree: ast.Module, machine: Machine, path: Path) -> None:  # noqa: ARG002 -- the families' signature
        """Report clients without a time limit, unless the module sets one for all sockets."""
        for each in ast.walk(tree):
            if isinstance(each, ast.Attribute | ast.Name) and "setdefaulttimeout" in {
                getattr(each, "attr", ""),
                getattr(each, "id", ""),
            }:
                return
        for node in machine.notes.limitless:
            machine.notes.report(NO_TIMEOUT, node, "no time limit: give timeout=30")
