"""A message of `securesmtp send` that is written by options."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from securesmtp import Envelope, compose
from securesmtp._cli.send.message import parse_addresses
from securesmtp._cli.send.options import read_file
from securesmtp._cli.send.outcome import print_error
from securesmtp.errors import AddressError, MessageError

if TYPE_CHECKING:
    from email.headerregistry import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The values of the options that write one message."""

    sender: str | None
    to: tuple[str, ...]
    cc: tuple[str, ...]
    bcc: tuple[str, ...]
    reply_to: tuple[str, ...]
    subject: str | None
    text: str | None
    html: str | None
    inline: tuple[str, ...]
    attach: tuple[str, ...]
    headers: tuple[str, ...]

    def envelope(self) -> Envelope:
        """
        Return the message with its envelope.

        Raises:
            click.UsageError: An option is missing, or a file cannot be read.
            SecureSMTPError: `compose` refuses something.
        """
        if not any(getattr(self, name) for name in self.__slots__):
            hint = "write one by options, or name a file; --help ends with examples"
            raise click.UsageError(f"there is no message. Hint: {hint}")
        if self.sender is None or self.subject is None:
            raise click.UsageError(f"{'--subject' if self.sender else '--from'} is missing")
        if not (self.to or self.cc or self.bcc):
            raise click.UsageError("there is no recipient. Hint: use --to, --cc or --bcc")
        if self.text is None and self.html is None and not self.attach:
            hint = "use --text FILE, or --text - for standard input"
            raise click.UsageError(f"there is nothing to send. Hint: {hint}")
        if self.text == self.html == "-":
            raise click.UsageError("standard input cannot be both the text and the HTML")
        sender = _one(self.sender, "--from")
        to, cc, bcc = _people(self.to, "--to"), _people(self.cc, "--cc"), _people(self.bcc, "--bcc")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            message = compose(
                sender=sender,
                to=to,
                cc=cc,
                bcc=bcc,
                reply_to=_people(self.reply_to, "--reply-to"),
                subject=self.subject,
                text=_read(self.text),
                html=_read(self.html),
                inline=read_inline(self.inline),
                attachments=[*self.attach],
                headers=_headers(self.headers),
            )
        for warning in caught:
            print_error(str(warning.message), "warning")
        return Envelope(sender, [*to, *cc, *bcc], message)


def _people(given: tuple[str, ...], option: str) -> list[Address]:
    return [address for each in given for address in parse_addresses(each, option)]


def _one(given: str, option: str) -> Address:
    found = parse_addresses(given, option)
    if len(found) != 1:
        raise AddressError(f"{option} has {len(found)} addresses, not one")
    return found[0]


def _read(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = f"{'standard input' if path == '-' else path} is not in UTF-8: byte {error.start + 1}"
    raise MessageError(text, hint="convert it with iconv, or attach it as a file")


def read_inline(given: tuple[str, ...]) -> dict[str, str]:
    """
    Return the paths of the images by the names that the HTML has for them.

    Raises:
        click.UsageError: One is not NAME=PATH, or a name is there twice.
    """
    found: dict[str, str] = {}
    for each in given:
        name, _, path = each.partition("=")
        if not path:
            raise click.UsageError('--inline is not NAME=PATH, such as logo=logo.png for <img src="cid:logo">')
        if name in found:
            raise click.UsageError(f"--inline gives {name} twice")
        found[name] = path
    return found


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon:
            raise click.UsageError('--header is not "Name: value"')
        if name in found:
            raise click.UsageError(f"--header gives {name} twice")
        found[name] = value.strip()
    return found
