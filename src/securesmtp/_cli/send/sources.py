"""
What is to be sent: one message for each row of a table, or each file.

A source is read twice, once to check all of it before anything is sent, and once to send it: two readings take time,
keeping a hundred thousand messages takes memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import blake2b, sha256
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from unicodedata import normalize

from securesmtp._cli.send.message import Message, parse_addresses, read_eml
from securesmtp._cli.send.rows import Fault, unreadable_error
from securesmtp._compose.message import compose
from securesmtp._envelope import Envelope
from securesmtp._protocol.address import Mailbox, addr_spec
from securesmtp._shown import escape, quote
from securesmtp.errors import MessageError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from email.headerregistry import Address

    from securesmtp._cli.send.rows import Table
    from securesmtp._cli.send.templates import Filler


@dataclass(frozen=True, slots=True)
class Ready:
    """
    A message that can be sent.

    Attributes:
        key: Its name in the ledger.
        place: Where it comes from, for errors.
        envelope: The message with its addresses and its key.
        is_repeated: Whether an earlier row has the same address.
    """

    key: str
    place: str
    envelope: Envelope
    is_repeated: bool = False


class Source(Protocol):
    """What is to be sent; each iteration reads it anew."""

    def __iter__(self) -> Iterator[Ready | Fault]:
        """Yield each message, or what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """
    The message that is made of each row.

    Attributes:
        sender: Who writes it.
        subject: The subject.
        text: The body as text; None for none.
        html: The body as HTML; None for none.
        to_column: The column with the address.
        name_column: The column with the name that is shown with it; None for none.
        cc: Who gets a copy of each message.
        bcc: Who gets a copy that nobody else sees.
        reply_to: Who gets the answers.
        headers: More fields, by name.
        unsubscribe: Where to unsubscribe.
        images: The paths of the images that the HTML shows, by their names in it, each with the folder that the image
            must be in; None for any.
        attachments: The paths of the files to attach, in the same way.
    """

    sender: Address
    subject: Filler
    text: Filler | None
    html: Filler | None
    to_column: str
    name_column: str | None
    cc: Sequence[Address]
    bcc: Sequence[Address]
    reply_to: Sequence[Address]
    headers: Mapping[str, Filler]
    unsubscribe: Sequence[Filler]
    images: Mapping[str, tuple[Filler, Path | None]]
    attachments: Sequence[tuple[Filler, Path | None]]

    def write(self, cells: Mapping[str, str]) -> Envelope:
        """
        Return the message for the row with these *cells*.

        Raises:
            MessageError: It cannot be sent, for example because a cell in its header has a line end.
        """
        address = cells[self.to_column].strip()
        name = cells[self.name_column].strip() if self.name_column else ""
        subject = self.subject.fill(cells)
        text = None if self.text is None else self.text.fill(cells)
        html = None if self.html is None else self.html.fill(cells)
        images = {name: path for name, each in self.images.items() for path in _files("image", [each], cells)}
        attachments = list(_files("attachment", self.attachments, cells))
        unsubscribe = [each.fill(cells) for each in self.unsubscribe]
        headers = {field: each.fill(cells) for field, each in self.headers.items()}
        try:
            message = compose(
                sender=self.sender,
                subject=subject,
                to=[(name, address)],
                cc=self.cc,
                bcc=self.bcc,
                reply_to=self.reply_to,
                text=text,
                html=html,
                inline=images,
                attachments=attachments,
                unsubscribe=unsubscribe or None,
                headers=headers,
            )
        except SecureSMTPError as error:
            # It is for programs.
            error.hint = None
            raise
        return Envelope(addr_spec(self.sender), [address, *map(addr_spec, [*self.cc, *self.bcc])], message)


@dataclass(frozen=True, slots=True)
class Rows:
    """The messages of a table: a `Source`. Their keys are the addresses, so that rows may be added and sorted."""

    table: Table
    letter: Letter

    def __iter__(self) -> Iterator[Ready | Fault]:
        """Yield the message of each row, or what is wrong with it."""
        # Eight bytes for each address, not the address.
        seen: dict[bytes, int] = {}
        for row in self.table:
            if isinstance(row, Fault):
                yield row
                continue
            place = f"{self.table.path}, line {row.line}"
            try:
                envelope = self.letter.write(row.cells)
            except SecureSMTPError as error:
                yield Fault(place, _reason(error))
                continue
            key = address_key(row.cells[self.letter.to_column])
            digest = blake2b(key.encode(), digest_size=8).digest()
            seen[digest] = count = seen.get(digest, 0) + 1
            key += f"#{count}" * (count > 1)
            yield Ready(key, place, replace(envelope, key=key), count > 1)


@dataclass(frozen=True, slots=True)
class Files:
    """
    The messages in files: a `Source`. Their keys are their paths from the folder of the ledger.

    Attributes:
        paths: The files.
        base: The folder of the ledger: the keys stay the same if both are moved, and in each current folder.
        mail_from: The envelope's sender; None for the one in the header of each.
    """

    paths: Sequence[Path]
    base: Path
    mail_from: str | None

    def __iter__(self) -> Iterator[Ready | Fault]:
        """Yield the message of each file, or what is wrong with it."""
        for path in self.paths:
            key = Path(relpath(path.resolve(), self.base.resolve())).as_posix()
            try:
                envelope = _read(path)
                if self.mail_from is not None:
                    envelope = replace(envelope, mail_from=self.mail_from)
            except SecureSMTPError as error:
                yield Fault(str(path), _reason(error))
                continue
            yield Ready(key, str(path), replace(envelope, key=key))


def find_files(paths: Sequence[Path]) -> list[Path]:
    """
    Return the files of *paths*, each once: a folder means the ``.eml`` files in it, by name, not those of its folders.

    Raises:
        MessageError: A folder cannot be read, or has none.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            found[path] = None
            continue
        try:
            files = sorted(each for each in path.iterdir() if each.suffix.lower() == ".eml" and each.is_file())
        except OSError as error:
            raise unreadable_error(path, error) from None
        if not files:
            message = f"{path} has no .eml file"
            raise MessageError(message, hint="its folders are not searched: name the one that has them")
        found.update(dict.fromkeys(files))
    return list(found)


def read_people(texts: Sequence[str], option: str) -> list[Address]:
    """
    Return the addresses of *texts*, each with its display name if it has one; *option* names them.

    Raises:
        AddressError: One of them is not a list of addresses.
    """
    people: list[Address] = []
    for text in texts:
        people += parse_addresses(text, option)
    return people


def address_key(address: str) -> str:
    """
    Return the key in the ledger of the message to *address*.

    Raises:
        AddressError: It is not an address.
    """
    mailbox = Mailbox.parse(address.strip())
    # Servers may tell upper and lower case apart in what is before the @ (RFC 5321 §2.4); people do not. Nor do
    # they see whether an é is one character or two, which depends on the system (RFC 6532 §3.1 wants NFC).
    return f"{normalize('NFC', mailbox.local.casefold())}@{mailbox.domain.lower()}"


def _files(what: str, paths: Sequence[tuple[Filler, Path | None]], cells: Mapping[str, str]) -> Iterator[Path]:
    for template, folder in paths:
        path = template.fill(cells).strip()
        # A cell with "../" must not send any file of this machine.
        if path and folder is not None and not Path(path).resolve().is_relative_to(folder.resolve()):
            message = f"the {what} {quote(path)} is not in the folder {quote(str(folder))}"
            raise MessageError(message, hint="name the folder before the cell, as in 'invoices/$file'")
        if path:
            yield Path(path)


def _read(path: Path) -> Envelope:
    try:
        data, modified = path.read_bytes(), path.stat().st_mtime
    except OSError as error:
        raise unreadable_error(path, error) from None
    message = Message.parse(data)
    names = message.names()
    # The same each time, so that the ledger recognises the message, and a reader a second copy.
    if "date" not in names:
        message = message.with_field("Date", format_datetime(datetime.fromtimestamp(modified, UTC)))
    if "message-id" not in names:
        domain = Mailbox.parse(message.sender()).domain
        message = message.with_field("Message-ID", f"<{sha256(data).hexdigest()[:32]}@{domain}>")
    return read_eml(message.to_bytes())


def _reason(error: SecureSMTPError) -> str:
    return escape(f"{error.args[0]}. Hint: {error.hint}" if error.hint else str(error.args[0]))
