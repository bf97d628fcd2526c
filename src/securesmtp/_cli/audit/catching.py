"""Which exceptions of `smtplib` a handler catches, and what the connection is then."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from securesmtp._cli.audit.values import Const, Object

if TYPE_CHECKING:
    from securesmtp._cli.audit.machine import Snapshot
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


def names_of(node: ast.expr | None) -> set[str]:
    """Return the last names of the exceptions that a handler catches; an empty name for all of them."""
    match node:
        case None:
            return {""}
        case ast.Tuple(elts=elements):
            return {name for element in elements for name in names_of(element)}
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return {name}
        case _:
            return set()


def caught(handler: ast.ExceptHandler, snapshot: Snapshot, snapshots: list[Snapshot]) -> list[Path]:
    """Return the path on which a handler begins, if it catches what a statement may raise, of those of its `try`."""
    names = names_of(handler.type)
    called = {qual.rpartition(".")[2] for qual, _, _ in snapshot.cause}
    if names <= _LOGIN_ONLY and not called & {"login", "auth"}:
        return []
    if names <= _SEND_ONLY and not called & {"sendmail", "send_message"}:
        return []
    path = snapshot.path.copy()
    for qual, receiver, node in [cause for each in snapshots for cause in each.cause]:
        if isinstance(receiver, Object) and qual.endswith(".starttls"):
            is_own = any(node is each for _, _, each in snapshot.cause)
            if names & _NOT_STARTED and path.get(receiver.key, "%tls") == Const("plain"):
                path.put(receiver.key, "%failed", Const("failed", node))
            elif is_own:
                # The handshake failed, or the connection is lost: nothing more can be sent on it.
                path.put(receiver.key, "%tls", Const("lost"))
    return [path]
