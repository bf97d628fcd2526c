"""Which exceptions of `smtplib` a handler catches, and what the connection is then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp._cli.audit.values import Class, Const, Object, Unknown, Value

if TYPE_CHECKING:
    import ast

    from securesmtp._cli.audit.machine import Machine, Snapshot
    from securesmtp._cli.audit.paths import Path

EVERYTHING = {"", "BaseException", "Exception"}
# What `starttls()` raises when the server, or an attacker in its place, does not begin TLS: the connection stays open.
_NOT_STARTED = EVERYTHING | {
    "OSError",
    "IOError",
    "EnvironmentError",
    "error",
    "SMTPException",
    "SMTPNotSupportedError",
    "SMTPResponseException",
    "SMTPHeloError",
    "RuntimeError",
}
_LOGIN_ONLY = {"SMTPAuthenticationError"}
_SEND_ONLY = {"SMTPRecipientsRefused", "SMTPSenderRefused", "SMTPDataError"}


def exceptions_of(node: ast.expr | None, machine: Machine, path: Path) -> set[str]:
    """Return the last names of the exceptions that a handler catches; an empty name for all of them."""
    if node is None:
        return {""}
    return {name for after, value in machine.evaluate(node, path.copy())[:1] for name in _names(value, after)}


def _names(value: Value, path: Path) -> set[str]:
    match value:
        case Unknown(qual=qual, symbol=symbol):
            return {(qual or symbol).rpartition(".")[2].removeprefix("name:")}
        case Class(node=node):
            return {node.name}
        case Object(qual="sequence", key=key):
            return {name for each in path.fields(key).values() for name in _names(each, path)}
        case _:
            return set()


def starts_of(snapshots: list[Snapshot]) -> list[tuple[Object, ast.expr]]:
    """Return the clients that begin TLS in a `try`, with the calls."""
    return [
        (receiver, node)
        for snapshot in snapshots
        for qual, receiver, node in snapshot.cause
        if isinstance(receiver, Object) and qual.endswith(".starttls")
    ]


def caught(names: set[str], snapshot: Snapshot, starts: list[tuple[Object, ast.expr]]) -> list[Path]:
    """Return the path on which a handler of *names* begins, if it catches what a statement of its `try` may raise."""
    called = {qual.rpartition(".")[2] for qual, _, _ in snapshot.cause}
    if names <= _LOGIN_ONLY and not called & {"login", "auth"}:
        return []
    if names <= _SEND_ONLY and not called & {"sendmail", "send_message"}:
        return []
    path = snapshot.path.copy()
    for receiver, node in starts:
        if names & _NOT_STARTED and path.get(receiver.key, "%tls") == Const("plain"):
            path.put(receiver.key, "%failed", Const("failed", node))
        elif any(node is each for _, _, each in snapshot.cause):
            # The handshake failed, or the connection is lost: nothing more can be sent on it.
            path.put(receiver.key, "%tls", Const("lost"))
    return [path]
