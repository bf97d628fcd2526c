"""
Check mailboxes and domain names (RFC 5321 §4.1.2).

A mailbox is sent exactly as it was given, or refused. It is never repaired.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from securesmtp._shown import quote, withhold
from securesmtp.errors import AddressError, ConfigurationError

if TYPE_CHECKING:
    from email.headerregistry import Address

# RFC 5321 §4.5.3.1.2 and .3: a path has 256 octets with its angle brackets, which leaves 254 for the mailbox. Local
# parts above 64 octets (.1) are to be avoided, not refused: VERP, SRS and reply tokens need them.
_MAX_DOMAIN = 255
_MAX_MAILBOX = 254
# The hint searches only this many characters for the mailbox: it may follow a long display name.
_MAX_HINTED = 1000

# An atom may contain any non-ASCII character (RFC 6531 §3.3). Listing what it may not contain avoids a range up to
# U+10FFFF, which takes longer to compile (8 ms) than the rest of this library takes to import.
_ATOM = r"""[^\x00-\x20"(),.:;<>@\[\\\]\x7f]+"""
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
# No < or > even in quotes: they are legal and never used, and some servers end the path there (CVE-2025-59937).
_QUOTED_STRING = re.compile(r'"(?:[^\x00-\x1f"<>\\\x7f]|\\[ -;=?-~])*"')
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# Most mailboxes: all that the checks below would find is found by one match.
_ASCII_ATOM = r"[A-Za-z0-9!#$%&'+*/=?^_`{|}~-]+"
_ASCII_MAILBOX = re.compile(rf"({_ASCII_ATOM}(?:\.{_ASCII_ATOM})*)@({_LABEL}(?:\.{_LABEL})*)")
# Underscores occur in the DNS (RFC 2181 §11), in names of containers, and in certificates of private CAs.
_HOST_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*")
# A last label that inet_aton and the WHATWG host parser ("ends in a number") read as part of an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """
    One valid mailbox.

    Attributes:
        address: The address as the caller gave it.
        local: The local part, including its quotes.
        domain: The domain in ASCII (A-labels, RFC 5890) or an address literal.
    """

    address: str
    local: str
    domain: str

    @classmethod
    def parse(cls, address: str | Address) -> Mailbox:
        """
        Return *address* as a mailbox.

        Raises:
            AddressError: It is not a valid mailbox (RFC 5321 §4.1.2, RFC 6531 §3.3).
        """
        if not isinstance(address, str):
            address = _to_text(address)
        # Check the length first: it bounds the work of every later check (CVE-2025-14874).
        if len(address) > _MAX_MAILBOX:
            raise _address_error(address, f"is longer than {_MAX_MAILBOX} bytes (RFC 5321 §4.5.3.1.3)")
        if match := _ASCII_MAILBOX.fullmatch(address):
            return cls(address, match[1], match[2])
        local, at, domain = address.rpartition("@")
        if not at:
            raise _address_error(address, "has no @" if address else "is empty")
        # Characters such as U+0085, U+2028 and U+202E break lines or reverse text where the address is displayed.
        if not (_DOT_STRING.fullmatch(local) or _QUOTED_STRING.fullmatch(local)) or not local.isprintable():
            raise _address_error(address, "has a local part that RFC 5321 §4.1.2 does not allow")
        ascii_domain = _domain(address, domain)
        if len(local.encode()) + 1 + len(ascii_domain) > _MAX_MAILBOX:
            raise _address_error(address, f"is longer than {_MAX_MAILBOX} bytes (RFC 5321 §4.5.3.1.3)")
        return cls(address, local, ascii_domain)

    @property
    def encoded(self) -> bytes:
        """The bytes between < and > in MAIL and RCPT."""
        return f"{self.local}@{self.domain}".encode() if self.address else b""

    @property
    def needs_smtputf8(self) -> bool:
        """Whether the server must offer SMTPUTF8: a domain has an ASCII form, a local part has none."""
        return not self.local.isascii()


# RFC 5321 §4.5.5: the sender of automatic replies and notifications, which must not be replied to automatically.
NULL_PATH = Mailbox("", "", "")


def reverse_path(address: str | Address) -> Mailbox:
    """
    Return *address* as a mailbox; the empty string is the null reverse-path.

    Raises:
        AddressError: It is neither empty nor a valid mailbox.
    """
    return NULL_PATH if address == "" else Mailbox.parse(address)


def validate_address(address: str | Address) -> str:
    """
    Return *address* as text if it can be the sender or a recipient of a message.

    Call it for every address from outside, before ``message["To"] = address``. It checks the length first; Python's
    email package takes quadratic time for a long address.

    Args:
        address: The address alone, without a display name; or an `email.headerregistry.Address`, whose display name is
            ignored.

    Raises:
        AddressError: It is not a valid mailbox (RFC 5321 §4.1.2, RFC 6531 §3.3), or is longer than 254 bytes.
    """
    return Mailbox.parse(address).address


def _to_text(address: object) -> str:
    # Imported only when needed: it takes 4 ms, and who passes an Address has it already.
    from email.headerregistry import Address

    if not isinstance(address, Address):
        raise _address_error(address, f"is a {type(address).__name__}, not a str")
    return addr_spec(address)


def addr_spec(address: Address) -> str:
    """Return *address* as text, with quotes if necessary; Python's own ``addr_spec`` forgets them in ``"a..b"@c``."""
    local = address.username
    if not _DOT_STRING.fullmatch(local) and (local or address.domain):
        escaped = re.sub(r'(["\\])', r"\\\1", local)
        local = f'"{escaped}"'
    return f"{local}@{address.domain}" if address.domain else local or "<>"


def ascii_domain(domain: str) -> str:
    """
    Return *domain* with each non-ASCII label as its A-label (IDNA 2008, RFC 5891).

    Raises:
        ValueError: It is not a valid domain name.
    """
    return _ascii(domain, _DOMAIN)


def host_name(name: str) -> str:
    """
    Return the name of a host in ASCII, as `ascii_domain` does; it may contain underscores.

    Raises:
        ValueError: It is not a valid host name, or its last label is a number. The system reads ``0177.1`` as an IPv4
            address (octal, parts missing), so it would connect to an address that the certificate is not compared with.
    """
    ascii_name = _ascii(name, _HOST)
    if _NUMBER.fullmatch(ascii_name.rpartition(".")[2]):
        message = "ends in a number"
        raise ValueError(message)
    return ascii_name


def _ascii(domain: str, grammar: re.Pattern[str]) -> str:
    # Label by label: idna.encode also splits at characters such as U+3002, which gives a different domain.
    name = domain
    if not domain.isascii():
        name = ".".join(label if label.isascii() else _a_label(label) for label in domain.split("."))
    if len(name) > _MAX_DOMAIN or not grammar.fullmatch(name):
        message = "not a domain name"
        raise ValueError(message)
    return name


def address_literal(text: str) -> str | None:
    """Return *text* if it is an address literal such as ``[192.0.2.1]`` or ``[IPv6:::1]`` (RFC 5321 §4.1.3)."""
    if not (text.startswith("[") and text.endswith("]") and text.isascii()):
        return None
    inner = text[1:-1]
    has_tag = inner[:5].lower() == "ipv6:"
    try:
        # ipaddress accepts a zone ("%eth0"), RFC 5321 does not.
        address = ipaddress.ip_address(inner[5:] if has_tag and "%" not in inner else inner)
    except ValueError:
        return None
    return text if has_tag == isinstance(address, ipaddress.IPv6Address) else None


def ehlo_name(name: str) -> bytes:
    """
    Return *name* as the argument of EHLO: a domain name or an address literal (RFC 5321 §4.1.4).

    Raises:
        ConfigurationError: It is neither of them.
    """
    try:
        if isinstance(name, str):
            return (address_literal(name) or ascii_domain(name)).encode("ascii")
    except ValueError:
        pass
    message = "local_hostname is neither a domain name nor an address literal"
    raise ConfigurationError(message, hint='pass a name such as "app.example.org", or leave it out')


def _domain(address: str, domain: str) -> str:
    try:
        return address_literal(domain) or ascii_domain(domain)
    except ValueError as error:
        # The errors of idna are UnicodeErrors.
        why = f" ({error})" if isinstance(error, UnicodeError) else ""
        raise _address_error(address, f"has an invalid domain{why}") from None


def _a_label(label: str) -> str:
    # Imported only when needed: it takes 2 ms, and few addresses need it.
    import unicodedata

    import idna

    # Case and composition depend on how the name was typed; it is the same name (RFC 5895 §2, steps 1 and 3).
    mapped = unicodedata.normalize("NFC", label.lower())
    if mapped.isascii():
        # Such as the Kelvin sign: it must not become a K.
        message = "not a domain name"
        raise ValueError(message)
    return idna.alabel(mapped).decode("ascii")


def _address_error(address: object, why: str) -> AddressError:
    address = withhold(address, allow_at=True)
    mailbox = _find_mailbox(address) if isinstance(address, str) else None
    hint = 'pass the address alone, such as "user@example.org", without display name, comment or brackets'
    hint = hint if mailbox is None else f"pass the address alone: {mailbox!r}"
    hint = 'for the empty reverse-path of automatic replies, pass mail_from=""' if address == "<>" else hint
    error = AddressError(f"{quote(address, allow_at=True)} {why}", hint=hint)
    error.address = address if isinstance(address, str) else None
    return error


def _find_mailbox(address: str) -> str | None:
    """Return the mailbox that *address* has in brackets, in a link, before a comment or between blanks, if any."""
    text = address[:_MAX_HINTED].strip().removeprefix("mailto:")
    if text.endswith(">"):
        text = text[:-1].rpartition("<")[2]
    elif text.endswith(")"):
        text = text.partition("(")[0].strip()
    # `Mailbox.parse` calls this again if the text is no mailbox: without this check, once for each bracket.
    if text == address or ">" in text:
        return None
    try:
        return Mailbox.parse(text).address
    except AddressError:
        return None
