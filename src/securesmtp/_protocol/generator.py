"""Python's generator, which writes signed and attached parts exactly as they are."""

from __future__ import annotations

import io
from email.generator import BytesGenerator
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeGuard

from securesmtp._protocol.content import BLOCK
from securesmtp._protocol.header_fields import CheckedPolicy, signature_error
from securesmtp._protocol.message_bounds import raw_payload

if TYPE_CHECKING:
    from email.message import Message

# Replaces a large payload while the rest of the message is serialised.
_PLACEHOLDER = "securesmtp: a payload is put in here"


def generate(message: Message, policy: CheckedPolicy) -> tuple[bytes | str, ...]:
    """Return *message* in pieces; each large payload is a piece of its own, the same str, so that it is not copied."""
    large = [(part, payload) for part in message.walk() if is_large(payload := raw_payload(part))]
    try:
        for part, _ in large:
            part.set_payload(_PLACEHOLDER)
        between = _flatten(message, policy).split(_PLACEHOLDER.encode("ascii"))
    finally:
        for part, payload in large:
            part.set_payload(payload)
    if len(between) != len(large) + 1:
        # The placeholder also occurs in the message.
        return (_flatten(message, policy),)
    payloads = [payload for _, payload in large]
    return tuple(piece for pair in zip_longest(between, payloads, fillvalue="") for piece in pair)


def is_large(payload: object) -> TypeGuard[str]:
    """Return whether *payload* is a text that is worth not to be copied, and can be a piece of a `Content`."""
    return isinstance(payload, str) and len(payload) > BLOCK and payload.isascii() and "\r" not in payload


def _flatten(message: Message, policy: CheckedPolicy) -> bytes:
    buffer = io.BytesIO()
    _Generator(buffer, mangle_from_=False, policy=policy).flatten(message)
    return buffer.getvalue()


def is_parsed(part: Message) -> bool:
    """Return whether a multipart was parsed; then Python has lost bytes of it, such as spaces after a boundary."""
    return part.epilogue is not None or bool(part.defects)


class _Generator(BytesGenerator):
    """Write a text in one step, and keep signed and attached parts as they are."""

    policy: CheckedPolicy

    def _write_lines(self, lines: str) -> None:
        self.write(lines.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n"))

    def _dispatch(self, msg: Message) -> None:
        policy = self.policy
        self.policy = self._policy_inside(msg)
        try:
            super()._dispatch(msg)  # type: ignore[misc] # typeshed lacks it
        finally:
            self.policy = policy

    def _policy_inside(self, part: Message) -> CheckedPolicy:
        """Return the policy for everything inside of *part*."""
        if self.policy.signed_fields:
            return self.policy.with_changes(signed="body", signed_fields=frozenset())
        if part.is_multipart():
            kind = part.get_content_type()
            if kind == "multipart/signed":
                if is_parsed(part):
                    text = "the message has a signed part (multipart/signed) and was parsed: the part may have changed"
                    raise signature_error(text)
                return self.policy.with_changes(signed="part", refold_source="none")
            if part.get_content_maintype() == "message":
                # The header of an attached message is not folded again.
                return self.policy.with_changes(attached=True, refold_source="none")
        return self.policy

    def _handle_multipart_signed(self, msg: Message) -> None:
        self._handle_multipart(msg)  # type: ignore[attr-defined] # typeshed lacks it

    def _handle_text(self, msg: Message) -> None:
        is_kept = bool(self.policy.signed) or self.policy.attached
        if self.policy.cte_type == "7bit" and is_kept and not str(msg.get_payload()).isascii():
            text = "a part that is signed or attached has non-ASCII bytes, and the server does not offer 8BITMIME"
            raise signature_error(text)
        super()._handle_text(msg)  # type: ignore[misc] # typeshed lacks it

    _writeBody = _handle_text  # noqa: N815 -- Python's name
