"""Delivery status notifications: what is asked for in MAIL and RCPT (RFC 3461)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from securesmtp._protocol.address import Mailbox
from securesmtp._shown import quote
from securesmtp.errors import AddressError, ConfigurationError, MessageError

if TYPE_CHECKING:
    from collections.abc import Iterable

Condition: TypeAlias = Literal["success", "failure", "delay"]
Notify: TypeAlias = Condition | Literal["never"] | AbstractSet[Condition] | Sequence[Condition]

# In the order in which they are sent.
_CONDITIONS = ("success", "failure", "delay")
_NEVER = "never"
_RET = {"full": b"RET=FULL", "headers": b"RET=HDRS"}
# RFC 3461 §5.4: what each server has to accept, with the name and "="; ENVID's value is measured after its encoding.
_MAX_ENVID = 100 - len("ENVID=")
_MAX_ORCPT = 500
# RFC 3461 §4: xchar. Everything else, "+" and "=" included, becomes "+" and two hexadecimal digits.
_NO_XCHAR = re.compile(rb"[^!-*,-<>-~]")
# RFC 6533 §3: QCHAR has no backslash either.
_NO_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_PRINTABLE = re.compile(r"[ -~]+")
_HINT_NOTIFY = 'pass a set such as {"success", "failure", "delay"}, or "never" alone'


@dataclass(frozen=True, slots=True, kw_only=True)
class DSN:
    """
    The delivery status notifications that a message asks for (RFC 3461): emails to its sender about its delivery.

    The server that accepts the message sends them, or a later one does; each may ignore some of the conditions. A
    report of success can also say that the message was relayed to a server that sends no reports. The null reverse-path
    gets no notifications.

    Attributes:
        notify: When to send one: any of ``"success"``, ``"failure"`` and ``"delay"``, or ``"never"`` alone; None leaves
            it to the servers, which usually report failures. A mapping has one of these for each of its recipients.
        ret: What a report of a failure has of the message: all of it (``"full"``) or its ``"headers"``.
        envid: Your name for this sending, which the notifications contain: at most 94 printable ASCII characters,
            better not more than 32; a blank, ``+`` and ``=`` count as three.
        orcpt: Whether to send each recipient's address a second time, as the one that the notifications name: the
            first can be rewritten on its way, by an alias or a forwarder.
        required: Whether a server that does not offer DSN refuses the message. If not, nothing is asked for there, and
            `Receipt.dsn_left_out` says so.

    Raises:
        AddressError: A key of the mapping is not a mailbox.
        ConfigurationError: Anything else is wrong, or nothing is asked for.
    """

    notify: Notify | Mapping[str, Notify] | None = None
    ret: Literal["full", "headers"] | None = None
    envid: str | None = None
    orcpt: bool = False
    required: bool = True

    def __post_init__(self) -> None:
        """Check everything, and keep the conditions as frozen sets."""
        notify: object = self.notify
        ret: object = self.ret
        if isinstance(notify, Mapping):
            notify = {Mailbox.parse(address).encoded.decode(): _conditions(each) for address, each in notify.items()}
        elif notify is not None:
            notify = _conditions(notify)
        object.__setattr__(self, "notify", notify)
        if ret is not None and not (isinstance(ret, str) and ret in _RET):
            message = f'ret is {quote(ret)}, neither "full" nor "headers"'
            raise ConfigurationError(message)
        if self.envid is not None:
            _check_envid(self.envid)
        for name in ("orcpt", "required"):
            if not isinstance(getattr(self, name), bool):
                message = f"{name} is a {type(getattr(self, name)).__name__}, not a bool"
                raise ConfigurationError(message)
        if not (notify or self.ret or self.envid or self.orcpt):
            message = "the DSN asks for nothing"
            raise ConfigurationError(message, hint='pass notify={"success"}, for example, or leave the DSN out')

    def as_dict(self) -> dict[str, Any]:
        """Return every attribute by name, in types that ``json.dumps`` accepts."""
        found: object = None
        if isinstance(self.notify, Mapping):
            found = {address: sorted(each) for address, each in self.notify.items()}
        elif self.notify is not None:
            found = sorted(self.notify)
        data = {"ret": self.ret, "envid": self.envid, "orcpt": self.orcpt, "required": self.required}
        return {"notify": found, **data}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """
        Return the value that `as_dict` was called on.

        Raises:
            ValueError: *data* is not a result of `as_dict`.
        """
        names = ("notify", "ret", "envid", "orcpt", "required")
        try:
            return cls(**{name: data[name] for name in names if name in data})
        except (TypeError, AddressError, ConfigurationError):
            message = "cannot make a DSN from this data"
            raise ValueError(message) from None


def check_dsn(dsn: DSN, recipients: Iterable[Mailbox]) -> DSN:
    """
    Return *dsn*, which is asked for with a message to *recipients*.

    Raises:
        MessageError: It does not fit the recipients.
    """
    left = set(dsn.notify) if isinstance(dsn.notify, Mapping) else set[str]()
    for mailbox in recipients:
        left.discard(mailbox.encoded.decode())
        if dsn.orcpt and len(_orcpt(mailbox)) > _MAX_ORCPT:
            shown = quote(mailbox.address, allow_at=True)
            message = f"ORCPT would have more than {_MAX_ORCPT} characters for {shown} (RFC 3461 §4.2)"
            raise MessageError(message, hint="leave out orcpt")
    if left:
        message = f"notify has {quote(min(left), allow_at=True)}, which is no recipient of the message"
        raise MessageError(message, hint="write each address as in the recipients")
    return dsn


def mail_parameters(dsn: DSN) -> list[bytes]:
    """Return the parameters of MAIL that *dsn* needs (RFC 3461 §4.3, §4.4)."""
    parameters = [] if dsn.ret is None else [_RET[dsn.ret]]
    return parameters if dsn.envid is None else [*parameters, b"ENVID=" + xtext(dsn.envid.encode("ascii"))]


def rcpt_parameters(dsn: DSN, mailbox: Mailbox) -> list[bytes]:
    """Return the parameters of the RCPT of *mailbox* that *dsn* needs (RFC 3461 §4.1, §4.2)."""
    notify = dsn.notify
    if isinstance(notify, Mapping):
        notify = notify.get(mailbox.encoded.decode())
    words = [word for word in (*_CONDITIONS, _NEVER) if notify is not None and word in notify]
    parameters = [b"NOTIFY=" + ",".join(words).upper().encode("ascii")] if words else []
    return [*parameters, _orcpt(mailbox)] if dsn.orcpt else parameters


def xtext(data: bytes) -> bytes:
    """Return *data* as xtext: printable ASCII without blanks, whatever it was (RFC 3461 §4)."""
    return _NO_XCHAR.sub(lambda each: b"+%02X" % each[0][0], data)


def _orcpt(mailbox: Mailbox) -> bytes:
    # RFC 3461 §4.2: a message that is submitted has the address of RCPT here.
    if not mailbox.needs_smtputf8:
        return b"ORCPT=rfc822;" + xtext(mailbox.encoded)
    address = _NO_QCHAR.sub(lambda each: rf"\x{{{ord(each[0]):02X}}}", mailbox.encoded.decode())
    return b"ORCPT=utf-8;" + address.encode("ascii")


def _conditions(notify: object) -> frozenset[str]:
    given = [notify] if isinstance(notify, str) else list(notify) if isinstance(notify, Collection) else [notify]
    for word in given:
        if not isinstance(word, str) or word not in {*_CONDITIONS, _NEVER}:
            message = f"notify has {quote(word)}, which is no condition"
            raise ConfigurationError(message, hint=_HINT_NOTIFY)
    if not given:
        message = "notify has no condition"
        raise ConfigurationError(message, hint=_HINT_NOTIFY)
    if _NEVER in given and len(set(given)) > 1:
        message = 'notify has "never" together with other conditions (RFC 3461 §4.1)'
        raise ConfigurationError(message, hint=_HINT_NOTIFY)
    return frozenset(given)


def _check_envid(envid: object) -> None:
    if not isinstance(envid, str):
        message = f"envid is a {type(envid).__name__}, not a str"
        raise ConfigurationError(message)
    if not _PRINTABLE.fullmatch(envid):
        message = f"envid is not printable ASCII text: {quote(envid)} (RFC 3461 §4.4)"
        raise ConfigurationError(message, hint="use a number, or a name of ASCII letters")
    if len(xtext(envid.encode("ascii"))) > _MAX_ENVID:
        message = f"envid has more than {_MAX_ENVID} characters, where a blank, + and = count as three (RFC 3461 §5.4)"
        raise ConfigurationError(message, hint="use a shorter one")
