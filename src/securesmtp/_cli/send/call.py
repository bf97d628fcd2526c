"""What is asked for a message that exists: by the arguments of sendmail, or by options beside a file."""

from __future__ import annotations

from dataclasses import dataclass

from securesmtp import Envelope
from securesmtp._cli.send.message import Message, parse_addresses, to_mailbox
from securesmtp._cli.send.names import Names
from securesmtp.errors import AddressError, MessageError

_NOBODY = Names()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """
    Who gets a message, who sends it, and what is changed in it.

    Attributes:
        recipients: Those of the arguments.
        reads_recipients: Whether those of the message are added.
        sender: The reverse-path; None for that of the message.
        full_name: The display name for a From that is missing.
        names: What becomes of names without a domain.
        removed: The fields to leave out.
    """

    recipients: tuple[str, ...]
    reads_recipients: bool
    sender: str | None = None
    full_name: str | None = None
    names: Names = _NOBODY
    removed: tuple[str, ...] = ()

    def envelope(self, data: bytes) -> Envelope:
        """
        Return the message *data* with its envelope.

        Raises:
            AddressError: An address cannot be read, or has no domain.
            MessageError: The message cannot be sent as it is, or has no sender or no recipient.
        """
        message = Message.parse(data).without(self.removed).map_addresses(self.names.qualify)
        recipients = [address for each in self.recipients for address in self._read(each, "a recipient")]
        if self.reads_recipients:
            recipients += message.recipients()
        if not recipients:
            hint = "name them as arguments, or use -t to take them from To, Cc and Bcc"
            raise MessageError(
                "the message has no recipient", hint="set To, Cc or Bcc" if self.reads_recipients else hint
            )
        sender = message.sender() if self.sender is None else self._read_sender(self.sender)
        if "from" not in message.names() and sender:
            message = message.with_author(self.full_name, sender)
        return Envelope(sender, recipients, message.complete(sender).to_bytes())

    def _read(self, text: str, what: str) -> list[str]:
        return [to_mailbox(each, what) for each in parse_addresses(self.names.qualify(text), what)]

    def _read_sender(self, text: str) -> str:
        # The null reverse-path, as some write it.
        if text.strip() in {"", "<>"}:
            return ""
        found = self._read(text, "the sender")
        if len(found) != 1:
            raise AddressError(f"the sender has {len(found)} addresses, not one")
        return found[0]
