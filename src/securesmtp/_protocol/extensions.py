"""What a message asks of its server beyond its delivery: each by an extension of SMTP that the server has to offer."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Self

from securesmtp._protocol.dsn import DSN, mail_parameters
from securesmtp._shown import quote
from securesmtp._values import Stage
from securesmtp.errors import ConfigurationError, MessageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from securesmtp._protocol.capabilities import Capabilities

# RFC 6710 §3.
_MOST_PRIORITY = 9
# RFC 2852 §4 and RFC 4865 §3: nine digits.
_MOST_SECONDS = 999_999_999
_BY = {"notify": "N", "return": "R"}
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_UTC = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
# Years of four digits, also in UTC.
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)
_USE_NO_DSN = "use a server with DSN, or pass DSN(…, required=False): then it is sent without them"
# RFC 8689 §2, RFC 2852 §2, RFC 6710 §3, RFC 4865 §3: what they add to the longest MAIL.
MAIL_OCTETS = 11 + 17 + 15 + 34


@dataclass(frozen=True, slots=True)
class DeliverBy:
    """
    When a message has to be delivered, and what to do if that is not possible (RFC 2852).

    Attributes:
        within: The time from when the server receives the message; a part of a second counts as one.
        if_late: ``"return"`` gives up and reports to the sender; ``"notify"`` reports that it is late, and tries on.
        trace: Whether a report is sent when the message goes on to a server without this extension.

    Raises:
        ConfigurationError: A value is wrong.
    """

    within: timedelta
    if_late: Literal["return", "notify"] = "notify"
    trace: bool = False

    def __post_init__(self) -> None:
        """Check everything."""
        _check_interval("within", self.within)
        if_late: object = self.if_late
        if not (isinstance(if_late, str) and if_late in _BY):
            message = f'if_late is {quote(if_late)}, neither "return" nor "notify"'
            raise ConfigurationError(message)
        _check_bool("trace", self.trace)

    def as_dict(self) -> dict[str, Any]:
        """Return every attribute by name, in types that ``json.dumps`` accepts; *within* is in seconds."""
        return {"within": _seconds(self.within), "if_late": self.if_late, "trace": self.trace}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """
        Return the value that `as_dict` was called on.

        Raises:
            ValueError: *data* is not a result of `as_dict`.
        """
        try:
            return cls(_interval(data["within"]), data["if_late"], data["trace"])
        except (LookupError, TypeError, ConfigurationError):
            message = "cannot make a DeliverBy from this data"
            raise ValueError(message) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extensions:
    """
    What a message asks for; all of it has been checked.

    Attributes:
        dsn: The delivery status notifications (RFC 3461).
        require_tls: Whether each server on its way needs verified TLS to the next one (RFC 8689).
        binary: Whether its body may have any bytes (RFC 3030 §3).
        deliver_by: When it has to be delivered (RFC 2852).
        priority: From -9 to 9 (RFC 6710).
        hold: How long, or until when, the server holds it back (RFC 4865).
    """

    dsn: DSN | None = None
    require_tls: bool = False
    binary: bool = False
    deliver_by: DeliverBy | None = None
    priority: int | None = None
    hold: timedelta | datetime | None = None

    def __post_init__(self) -> None:
        """
        Check everything that does not depend on the message.

        Raises:
            ConfigurationError: A value is wrong.
        """
        given: tuple[object, ...] = (self.dsn, self.deliver_by, self.priority, self.hold)
        if self.require_tls is self.binary is False and given == (None,) * 4:
            # As for most messages: each call here would be one for each message.
            return
        if self.dsn is not None and not isinstance(self.dsn, DSN):
            message = f"dsn is a {type(self.dsn).__name__}, not a DSN"
            raise ConfigurationError(message, hint='pass DSN(notify={"failure"}), for example')
        _check_bool("require_tls", self.require_tls)
        _check_bool("binary", self.binary)
        if self.deliver_by is not None and not isinstance(self.deliver_by, DeliverBy):
            message = f"deliver_by is a {type(self.deliver_by).__name__}, not a DeliverBy"
            raise ConfigurationError(message, hint="pass DeliverBy(timedelta(hours=1)), for example")
        _check_priority(self.priority)
        _check_hold(self.hold)
        if isinstance(self.hold, timedelta) and self.deliver_by is not None:
            self._check_order(self.hold)

    def at(self, now: datetime, *, is_bounce: bool) -> Extensions:
        """
        Return what is asked for at the moment *now*: a time that has passed holds nothing back.

        Raises:
            ConfigurationError: The message would have to be delivered while it is held back.
            MessageError: It *is_bounce*, has the null reverse-path, and is to be held back.
        """
        if self.hold is None:
            return self
        if is_bounce:
            message = "a message from the null reverse-path cannot be held back (RFC 4865 §5.1.1)"
            raise MessageError(message, hint="leave out hold")
        if not isinstance(self.hold, datetime):
            return self
        left = self.hold - now
        if left <= timedelta():
            return replace(self, hold=None)
        if self.deliver_by is not None:
            self._check_order(left)
        return self

    def missing(self, capabilities: Capabilities) -> MessageError | None:
        """Return the error if a server with these *capabilities* cannot do what is asked for."""
        for keyword, what, hint in self._needed():
            if keyword not in capabilities:
                message = f"the message {what}, and the server does not offer {keyword}"
                return MessageError(message, stage=Stage.MAIL, hint=hint)
        found = _too_soon(self.deliver_by, capabilities) or _too_long(self.hold, capabilities)
        return None if found is None else MessageError(found, stage=Stage.MAIL, hint="ask for what it offers")

    def mail_parameters(self) -> list[bytes]:
        """Return the parameters of MAIL, except BODY."""
        parameters = [] if self.dsn is None else mail_parameters(self.dsn)
        if self.require_tls:
            parameters.append(b"REQUIRETLS")
        if self.deliver_by is not None:
            by = self.deliver_by
            parameters.append(f"BY={_seconds(by.within)};{_BY[by.if_late]}{'T' if by.trace else ''}".encode("ascii"))
        if self.priority is not None:
            parameters.append(b"MT-PRIORITY=%d" % self.priority)
        if isinstance(self.hold, datetime):
            parameters.append(b"HOLDUNTIL=" + _utc(self.hold).encode("ascii"))
        elif self.hold is not None:
            parameters.append(b"HOLDFOR=%d" % _seconds(self.hold))
        return parameters

    def as_dict(self) -> dict[str, Any]:
        """Return every attribute by name, in types that ``json.dumps`` accepts."""
        hold = self.hold
        return {
            "dsn": self.dsn and self.dsn.as_dict(),
            "require_tls": self.require_tls,
            "binary": self.binary,
            "deliver_by": self.deliver_by and self.deliver_by.as_dict(),
            "priority": self.priority,
            "hold": _utc(hold) if isinstance(hold, datetime) else hold and _seconds(hold),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """
        Return the value that `as_dict` was called on; what is missing in *data* is not asked for.

        Raises:
            ConfigurationError: A value is wrong.
            TypeError: It has another type.
            ValueError: It cannot be read.
        """
        dsn, deliver_by, hold = (data.get(name) for name in ("dsn", "deliver_by", "hold"))
        if hold is not None:
            hold = datetime.strptime(hold, _TIME).replace(tzinfo=UTC) if isinstance(hold, str) else _interval(hold)
        return cls(
            dsn=None if dsn is None else DSN.from_dict(dsn),
            require_tls=data.get("require_tls", False),
            binary=data.get("binary", False),
            deliver_by=None if deliver_by is None else DeliverBy.from_dict(deliver_by),
            priority=data.get("priority"),
            hold=hold,
        )

    def _needed(self) -> Iterator[tuple[str, str, str]]:
        """Yield each keyword that the server has to offer, with why, and what to do if it does not."""
        if self.dsn is not None and self.dsn.required:
            yield "DSN", "asks for delivery status notifications", _USE_NO_DSN
        if self.require_tls:
            yield "REQUIRETLS", "requires TLS all the way", "use a server with REQUIRETLS, or leave out require_tls"
        if self.binary:
            hint = "encode the parts as base64, and leave out binary"
            yield "BINARYMIME", "is binary", hint
            yield "CHUNKING", "is binary", hint
        if self.deliver_by is not None:
            yield "DELIVERBY", "has a time for its delivery", "use a server with DELIVERBY, or leave out deliver_by"
        if self.priority is not None:
            yield "MT-PRIORITY", "has a priority", "use a server with MT-PRIORITY, or leave out priority"
        if self.hold is not None:
            yield "FUTURERELEASE", "is to be held back", "send it later, or use a server with FUTURERELEASE"

    def _check_order(self, hold: timedelta) -> None:
        # RFC 4865 §5.2.1. In seconds, as the server gets them.
        if self.deliver_by is not None and _seconds(self.deliver_by.within) <= _seconds(hold):
            message = "the message has to be delivered before the server stops holding it back (RFC 4865 §5.2.1)"
            raise ConfigurationError(message, hint="deliver_by counts from now: make it longer than hold")


def _too_soon(deliver_by: DeliverBy | None, capabilities: Capabilities) -> str | None:
    """Return what is wrong if the server needs more time than *deliver_by* gives it (RFC 2852 §3)."""
    least = _number(capabilities.keywords.get("DELIVERBY", "").partition(",")[0])
    if least is None or deliver_by is None or deliver_by.if_late != "return" or _seconds(deliver_by.within) >= least:
        return None
    return f"the message has to be delivered in {_seconds(deliver_by.within)} s; the server needs at least {least} s"


def _too_long(hold: timedelta | datetime | None, capabilities: Capabilities) -> str | None:
    """Return what is wrong if the server does not hold back a message for as long as *hold* (RFC 4865 §4.1)."""
    words = capabilities.keywords.get("FUTURERELEASE", "").split()
    if isinstance(hold, timedelta) and words:
        most = _number(words[0])
        if most is not None and _seconds(hold) > most:
            return f"the message is to be held back for {_seconds(hold)} s, and the server does so for at most {most} s"
    if isinstance(hold, datetime) and words[1:]:
        # Both are in UTC and in the same form, so their order is that of the times. Another form is left to the server.
        latest, until = words[1].upper(), _utc(hold)
        if _UTC.fullmatch(latest) and until > latest:
            return f"the message is to be held back until {until}, and the server does so until {latest} at the latest"
    return None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(_MOST_SECONDS)) else None


def _seconds(interval: timedelta) -> int:
    """Return *interval* in seconds; a part of one counts as one."""
    return -(-interval // timedelta(seconds=1))


def _interval(seconds: object) -> timedelta:
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        message = f"a time is a {type(seconds).__name__}, not a number of seconds"
        raise TypeError(message)
    return timedelta(seconds=max(0, min(seconds, _MOST_SECONDS + 1)))


def _utc(time: datetime) -> str:
    """Return *time* as RFC 3339 has it, in UTC, not earlier than it is."""
    found = time.astimezone(UTC)
    return (found + timedelta(seconds=found.microsecond > 0)).strftime(_TIME)


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        message = f"{name} is a {type(value).__name__}, not a bool"
        raise ConfigurationError(message)


def _check_priority(priority: object) -> None:
    if priority is None:
        return
    if isinstance(priority, bool) or not isinstance(priority, int):
        message = f"priority is a {type(priority).__name__}, not an int"
        raise ConfigurationError(message)
    if abs(priority) > _MOST_PRIORITY:
        message = f"priority is {quote(priority)}, not from -{_MOST_PRIORITY} to {_MOST_PRIORITY} (RFC 6710 §3)"
        raise ConfigurationError(message, hint="0 is that of any other message, a higher one goes first")


def _check_hold(hold: object) -> None:
    if hold is None:
        return
    if not isinstance(hold, datetime):
        _check_interval("hold", hold)
    elif hold.utcoffset() is None:
        message = "hold has no time zone"
        raise ConfigurationError(message, hint="pass datetime(…, tzinfo=UTC), or a timedelta")
    elif not _FIRST <= hold <= _LAST:
        message = f"hold is {quote(str(hold))}, not between the years {_FIRST.year} and {_LAST.year}"
        raise ConfigurationError(message)


def _check_interval(name: str, interval: object) -> None:
    if not isinstance(interval, timedelta):
        message = f"{name} is a {type(interval).__name__}, not a timedelta"
        raise ConfigurationError(message, hint=f"pass {name}=timedelta(hours=1), for example")
    if not timedelta() < interval <= timedelta(seconds=_MOST_SECONDS):
        message = f"{name} is {quote(str(interval))}, not above 0 and at most {_MOST_SECONDS} seconds"
        raise ConfigurationError(message)


NO_EXTENSIONS = Extensions()
