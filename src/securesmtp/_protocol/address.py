"""The mailbox of RFC 5321 §4.1.2, taken exactly as given: never repaired, never re-parsed."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from email.headerregistry import Address

from securesmtp._shown import quote, withhold
from securesmtp.errors import AddressError, ConfigurationError

# RFC 5321 §4.5.3.1.2 and .3: a path is 256 with its angle brackets, which leaves 254 for the mailbox. A local part of
# more than 64 (.1) is to be avoided, not refused: VERP, SRS and reply tokens have such.
_MAX_DOMAIN = 255
_MAX_MAILBOX = 254
# A display name and brackets make an address longer than a mailbox; a hint looks no further than this.
_MAX_HINTED = 1000

# What an atom may not have, so that all beyond ASCII may be in it (RFC 6531 §3.3): a range up to U+10FFFF would take
# longer to compile than all the rest of this library to import (8 ms).
_ATOM = r"""[^\x00-\x20"(),.:;<>@\[\\\]\x7f]+"""
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
# No < or > even in quotes: legal, used by nobody, and read as the path's end by some (CVE-2025-59937).
_QUOTED_STRING = re.compile(r'"(?:[^\x00-\x1f"<>\\\x7f]|\\[ -;=?-~])*"')
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# The DNS has names with underscores (RFC 2181 §11), containers have them, and a private CA's certificate can.
_HOST_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*")
# What inet_aton and the WHATWG host parser ("ends in a number") read as the last part of an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """
    One mailbox that is known to be one.

    Attributes:
        address: As the caller gave it.
        local: The local part, quotes included.
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
            AddressError: It is not a mailbox by RFC 5321 §4.1.2 or RFC 6531 §3.3.
        """
        if isinstance(address, Address):
            address = addr_spec(address)
        if not isinstance(address, str):
            raise _refused(address, f"is a {type(address).__name__}, not a str")
        # The length comes first: it bounds the work of all that follows (CVE-2025-14874).
        if len(address) > _MAX_MAILBOX:
            raise _refused(address, f"is longer than {_MAX_MAILBOX} octets (RFC 5321 §4.5.3.1.3)")
        local, at, domain = address.rpartition("@")
        if not at:
            raise _refused(address, "has no @" if address else "is empty")
        # U+0085, U+2028, U+202E and their like end lines or turn text around where the address is shown.
        if not (_DOT_STRING.fullmatch(local) or _QUOTED_STRING.fullmatch(local)) or not local.isprintable():
            raise _refused(address, "has a local part that RFC 5321 §4.1.2 does not allow")
        ascii_domain = _domain(address, domain)
        if len(local.encode()) + 1 + len(ascii_domain) > _MAX_MAILBOX:
            raise _refused(address, f"is longer than {_MAX_MAILBOX} octets (RFC 5321 §4.5.3.1.3)")
        return cls(address, local, ascii_domain)

    @property
    def encoded(self) -> bytes:
        """The octets that stand between < and > in MAIL and RCPT."""
        return f"{self.local}@{self.domain}".encode() if self.address else b""

    @property
    def needs_smtputf8(self) -> bool:
        """Whether only a server with SMTPUTF8 can take it: a domain has an ASCII form, a local part has none."""
        return not self.local.isascii()


# RFC 5321 §4.5.5: the sender of automatic replies and notifications, which nobody may answer.
NULL_PATH = Mailbox("", "", "")


def reverse_path(address: str | Address) -> Mailbox:
    """
    Return *address* as a mailbox; the empty string is the null reverse-path.

    Raises:
        AddressError: It is neither.
    """
    return NULL_PATH if address == "" else Mailbox.parse(address)


def validate_address(address: str | Address) -> str:
    """
    Return *address* as text if it can be the sender or a recipient of a message.

    Call it with what comes from outside, before ``message["To"] = address``: it checks the length first, and Python's
    email package takes a time that grows with the square of the length.

    Args:
        address: The bare address, without display name, or an `email.headerregistry.Address`, whose display name does
            not count.

    Raises:
        AddressError: It is not a mailbox by RFC 5321 §4.1.2 or RFC 6531 §3.3, or longer than 254 bytes.
    """
    return Mailbox.parse(address).address


def addr_spec(address: Address) -> str:
    """Return *address* with its local part in quotes where it needs them; Python's forgets dots (``"a..b"@c``)."""
    local = address.username
    if not _DOT_STRING.fullmatch(local) and (local or address.domain):
        escaped = re.sub(r'(["\\])', r"\\\1", local)
        local = f'"{escaped}"'
    return f"{local}@{address.domain}" if address.domain else local or "<>"


def ascii_domain(domain: str) -> str:
    """
    Return *domain* in ASCII: as it is, or each non-ASCII label as its A-label (IDNA 2008, RFC 5891).

    Raises:
        ValueError: It is neither a domain name in ASCII nor one that has such a form.
    """
    return _ascii(domain, _DOMAIN)


def host_name(name: str) -> str:
    """
    Return *name* in ASCII as `ascii_domain` does; it may have underscores, and its last label is no number.

    Raises:
        ValueError: It is no such name. The system would read one that ends in a number as an IPv4 address, in parts
            that are octal or hexadecimal or left out: another one than a certificate is compared with.
    """
    ascii_name = _ascii(name, _HOST)
    if _NUMBER.fullmatch(ascii_name.rpartition(".")[2]):
        message = "ends in a number"
        raise ValueError(message)
    return ascii_name


def _ascii(domain: str, grammar: re.Pattern[str]) -> str:
    # Label by label: idna.encode also splits at U+3002 and its like, which would be another domain than the one given.
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
    tagged = inner[:5].lower() == "ipv6:"
    try:
        # A zone ("%eth0") is not part of RFC 5321's grammar, and ipaddress accepts one.
        address = ipaddress.ip_address(inner[5:] if tagged and "%" not in inner else inner)
    except ValueError:
        return None
    return text if tagged == (address.version == 6) else None  # noqa: PLR2004 -- IPv6 is its name


def ehlo_name(name: str) -> bytes:
    """
    Return *name* as the argument of EHLO: a domain name or an address literal (RFC 5321 §4.1.4).

    Raises:
        ConfigurationError: It is neither.
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
        # idna's own errors are UnicodeErrors.
        why = f" ({error})" if isinstance(error, UnicodeError) else ""
        raise _refused(address, f"has a domain that is not a domain name{why}") from None


def _a_label(label: str) -> str:
    # Imported where it is needed: few addresses do, and it would be 2 ms for all.
    import unicodedata

    import idna

    # Case and composition are how it was typed, no other name (RFC 5895 §2, 1 and 3).
    mapped = unicodedata.normalize("NFC", label.lower())
    if mapped.isascii():
        # The Kelvin sign is no K in a name.
        message = "not a domain name"
        raise ValueError(message)
    return idna.alabel(mapped).decode("ascii")


def _refused(address: object, why: str) -> AddressError:
    address = withhold(address, allow_at=True)
    bare = _bare(address) if isinstance(address, str) else None
    hint = 'pass the bare mailbox, such as "user@example.org", without display name, comment or brackets'
    hint = hint if bare is None else f"pass the bare mailbox: {bare!r}"
    hint = 'for the empty reverse-path of automatic replies, pass mail_from=""' if address == "<>" else hint
    error = AddressError(f"{quote(address, allow_at=True)} {why}", hint=hint)
    error.address = address if isinstance(address, str) else None
    return error


def _bare(address: str) -> str | None:
    """Return the mailbox in the brackets of *address*, in a link, before a comment, or between blanks, if any."""
    text = address[:_MAX_HINTED].strip().removeprefix("mailto:")
    if text.endswith(">"):
        text = text[:-1].rpartition("<")[2]
    elif text.endswith(")"):
        text = text.partition("(")[0].strip()
    # Shorter at each turn would be a turn for each bracket.
    if text == address or ">" in text:
        return None
    try:
        return Mailbox.parse(text).address
    except AddressError:
        return None
