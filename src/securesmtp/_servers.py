"""
Several servers in order: which of them a message is sent to, and after which errors another one gets it.

How it works: threads share it, and so may the tasks of a loop. Nothing waits or locks; what changes is changed by one
assignment. A server that failed has a `Rest`. A send that tries it in spite of that takes a place in the rest's dict,
which has one place for each period of rest. So one send at a time finds out whether the server is back, and a send that
was lost (by an interrupt, or a fork) keeps the place for one period only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial as bind
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeVar, cast, get_args

from securesmtp._arguments import Given
from securesmtp._options import Timeouts, seconds
from securesmtp._protocol.failures import find_interrupt
from securesmtp._report import ServerReport
from securesmtp._secret import Secret
from securesmtp._sending import Checkout
from securesmtp._shown import quote
from securesmtp._tracebacks import drop_frames
from securesmtp._transport.deadline import Deadline
from securesmtp._values import Outcome, Stage
from securesmtp.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    DeadlineExceededError,
    LedgerError,
    SecureSMTPError,
)
from securesmtp.events import ServerDown, ServerUp

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from types import TracebackType

    from securesmtp._arguments import AsyncOptions, Options
    from securesmtp._core import Core

Choice = Literal["raise", "next"]
_LIMITS = {*Timeouts.__dataclass_fields__, "deadline"}


class Mailer(Protocol):
    """What both mailers have."""

    _core: Core


M = TypeVar("M", bound=Mailer)


class Verdict(Enum):
    """What an error means for a message and its server."""

    STOP = "no other server gets the message"
    NEXT = "the next server gets it"
    REST = "the next server gets it, and this one rests"
    STOP_AND_REST = "no other server gets it, and this one rests"


@dataclass(frozen=True, slots=True)
class Rules:
    """
    After which errors the next server gets a message.

    Attributes:
        rest: How long a server that failed rests, in seconds.
        on_refusal: What to do after a temporary refusal of the message.
        on_login_refused: What to do after a refused login.
    """

    rest: float
    on_refusal: Choice
    on_login_refused: Choice

    def __post_init__(self) -> None:
        """
        Check the arguments.

        Raises:
            ConfigurationError: One of them is wrong.
        """
        seconds("rest", self.rest)
        for name in ("on_refusal", "on_login_refused"):
            if getattr(self, name) not in get_args(Choice):
                message = f'{name} is {quote(getattr(self, name))}, neither "raise" nor "next"'
                raise ConfigurationError(message)

    def judge(self, error: object) -> Verdict:
        """Return what *error* means. What may have been delivered never goes to another server."""
        if not isinstance(error, SecureSMTPError) or isinstance(error, ConfigurationError | LedgerError):
            return Verdict.STOP
        if find_interrupt(error) is not None or error.outcome is Outcome.ACCEPTED:
            return Verdict.STOP
        if error.outcome is Outcome.REFUSED:
            return Verdict.NEXT if error.retryable and self.on_refusal == "next" else Verdict.STOP
        if isinstance(error, AuthenticationError) and not error.retryable:
            # The account, or the callable for its password, is the same for the next server: its login would be one
            # more that is refused, and accounts are locked for less.
            return Verdict.REST if error.reply is not None and self.on_login_refused == "next" else Verdict.STOP
        if isinstance(error, DeadlineExceededError) and error.limit not in _LIMITS:
            # A source of passwords.
            return Verdict.STOP
        return Verdict.REST if error.outcome is Outcome.NOT_SENT else Verdict.STOP_AND_REST


@dataclass(frozen=True, slots=True)
class Rest:
    """
    The rest of a server.

    Attributes:
        began: When it began.
        reason: Why.
        probes: Who sends to the server in spite of it, by the number of whole periods since the beginning.
    """

    began: float
    reason: str
    probes: dict[int, object] = field(default_factory=dict)

    def admits(self, token: object, period: float) -> bool:
        """Return whether the rest is over, and *token* the one that may try the server now."""
        number = int((monotonic() - self.began) // period)
        # One call that no other thread can come into.
        return number > 0 and self.probes.setdefault(number, token) is token

    def readmit(self, token: object) -> None:
        """Let another one try the server in place of *token*, who has found out nothing."""
        for number in [number for number, each in tuple(self.probes.items()) if each is token]:
            self.probes.pop(number, None)


class Server(Generic[M]):
    """
    One of several servers.

    Attributes:
        mailer: Sends to it.
        core: That of the mailer.
        rest: Its rest; None if it is in use.
    """

    __slots__ = ("core", "mailer", "rest")

    def __init__(self, mailer: M) -> None:
        """Have *mailer* send to it; it is in use."""
        self.mailer, self.core = mailer, mailer._core  # noqa: SLF001 -- the part of a mailer that both kinds have
        self.rest: Rest | None = None

    @property
    def name(self) -> str:
        """Its host and port."""
        return f"{self.core.settings.host}:{self.core.settings.port}"

    def note_up(self) -> None:
        """End its rest: it has answered."""
        if self.rest is not None:
            self.rest = None
            self.core.emit(ServerUp(self.core.settings.host, self.core.settings.port))

    def note_down(self, since: Rest | None, error: SecureSMTPError, period: float) -> None:
        """Begin a rest because of *error*, unless one has begun since the send began, when its rest was *since*."""
        if self.rest is since:
            # Not the error: its frames have the message.
            reason = str(error.args[0]).removeprefix("not sent: ")
            self.rest = Rest(monotonic(), reason)
            if since is None:
                self.core.emit(ServerDown(self.core.settings.host, self.core.settings.port, period, reason))

    def check_use(self, since: Rest | None) -> None:
        """
        Do nothing if a send that has waited for a connection may use it; its rest was *since* when the send began.

        Raises:
            ConnectError: Another send has found the server down meanwhile.
        """
        rest = self.rest
        if rest is not None and rest is not since:
            text = f"not tried, because another send has just found the server down: {rest.reason}"
            raise ConnectError(text, stage=Stage.CONNECT, retryable=True)


class Servers(Generic[M]):
    """
    Several servers in order, and the rules for them.

    Attributes:
        rules: After which errors the next server gets a message.
    """

    def __init__(self, mailers: Iterable[M], kind: type[M], rules: Rules) -> None:
        """
        Have a server for each of *mailers*.

        Raises:
            ConfigurationError: There are none, or one of them is not a *kind*, or is there twice.
        """
        given = list(mailers)
        wrong = next((each for each in given if not isinstance(each, kind)), None)
        if wrong is not None:
            message = f"a mailer is a {type(wrong).__name__}, not a {kind.__name__}"
            raise ConfigurationError(message, hint=f"pass [{kind.__name__}(…), {kind.__name__}(…)]")
        if not given:
            raise ConfigurationError("there is no mailer", hint="pass at least one")
        if len({id(each) for each in given}) < len(given):
            raise ConfigurationError("a mailer is there twice", hint="pass one for each server")
        self.rules = rules
        self._servers = tuple(Server(each) for each in given)

    def __iter__(self) -> Iterator[Server[M]]:
        """Return an iterator over them, in their order."""
        return iter(self._servers)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._servers)

    def pick(self, token: object, tried: Collection[Server[M]] = ()) -> Server[M] | None:
        """
        Return the server to send to next, which is none of those *tried*; None if there is no other.

        It is the first that does not rest, or that *token* may try again. If all rest, it is the one that has rested
        for the longest time.
        """
        left = [each for each in self._servers if each not in tried]
        for each in left:
            rest = each.rest
            if rest is None or rest.admits(token, self.rules.rest):
                return each
        return min(left, key=lambda each: each.rest.began if each.rest else 0, default=None)

    def is_first_choice(self, server: Server[M], token: object) -> bool:
        """Return whether *server* is still the one to which a new message is sent; *token* as for `pick`."""
        for each in self._servers:
            rest = each.rest
            if each is server or rest is None or rest.admits(token, self.rules.rest):
                return each is server
        return False

    def readmit(self, token: object) -> None:
        """Let another one try the servers that *token* may try."""
        for each in self._servers:
            rest = each.rest
            if rest is not None:
                rest.readmit(token)

    def route(self, deadline: float | None) -> Route[M]:
        """
        Return the route of a message that is to be sent within *deadline* seconds.

        Raises:
            ConfigurationError: *deadline* is no number of seconds.
        """
        return Route(self, None if deadline is None else Deadline("deadline", seconds("deadline", deadline)))


class Route(Generic[M]):
    """
    The route of one message: the servers that were tried, and what they said.

    Each `with` block is the try of one server. If its error is one after which the next server gets the message, the
    block ends as if there were none; so it returns from its function if there is none, and stands in an endless loop.

    Attributes:
        deadline: The deadline of this try: the route's, else a new one of the mailer's.
        checkout: The use of a connection by this try.
    """

    def __init__(self, servers: Servers[M], deadline: Deadline | None) -> None:
        """Begin without a try; *deadline* is that of all tries together."""
        self.deadline: Deadline | None = None
        self.checkout = Checkout()
        self._servers, self._deadline = servers, deadline
        self._tried: list[Server[M]] = []
        self._errors: list[SecureSMTPError] = []
        self._rest: Rest | None = None

    @property
    def server(self) -> Server[M]:
        """The server of this try."""
        return self._tried[-1]

    def __enter__(self) -> Self:
        """Pick the next server."""
        server = cast("Server[M]", self._servers.pick(self, self._tried))
        self._tried.append(server)
        self._rest = server.rest
        self.deadline = self._deadline or server.core.start_deadline(None)
        self.checkout = Checkout(check=bind(server.check_use, self._rest))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Return whether the next server gets the message."""
        server, verdict = self.server, self._servers.rules.judge(error)
        if error is None or getattr(error, "outcome", None) is Outcome.REFUSED:
            server.note_up()
        elif isinstance(error, DeadlineExceededError) and not self.checkout.has_slot:
            # It has waited for a connection: the server is busy, and not down.
            verdict = Verdict.NEXT
        if isinstance(error, SecureSMTPError) and verdict in {Verdict.REST, Verdict.STOP_AND_REST}:
            server.note_down(self._rest, error, self._servers.rules.rest)
        elif self._rest is not None:
            self._rest.readmit(self)
        if not isinstance(error, SecureSMTPError):
            return False
        is_last = len(self._tried) == len(self._servers) or self._is_late() or server.core.is_closed
        if is_last or verdict in {Verdict.STOP, Verdict.STOP_AND_REST}:
            add_earlier(error, self._errors)
            return False
        drop_frames(error)
        self._errors.append(error)
        return True

    def _is_late(self) -> bool:
        return self._deadline is not None and self._deadline.at <= monotonic()


def add_earlier(error: Exception | None, earlier: Sequence[SecureSMTPError]) -> None:
    """Add to *error*, with which the last server has ended the route of a message, the *earlier* ones."""
    if not isinstance(error, SecureSMTPError) or not earlier:
        return
    error.earlier = tuple(earlier)
    for each in earlier:
        error.add_note(f"securesmtp: tried before: {each.host}:{each.port}: {each.args[0]}")
    if error.outcome is Outcome.NOT_SENT:
        # If it cannot succeed here, it may succeed there.
        error.retryable = error.retryable or any(each.retryable for each in earlier)


def note_check(server: Server[M], found: object) -> None:
    """End the rest of *server* if a check has *found* that a message can be sent."""
    if isinstance(found, ServerReport) and found.login is not False:
        server.note_up()


def describe(servers: Iterable[Server[M]]) -> str:
    """Return the names of *servers*."""
    return ", ".join(each.name for each in servers)


def as_urls(urls: object) -> Iterable[str | Secret]:
    """
    Return *urls*, which are those of several servers.

    Raises:
        ConfigurationError: It is one.
    """
    if isinstance(urls, str | bytes | Secret) or not isinstance(urls, Iterable):
        raise ConfigurationError(f"urls is a {type(urls).__name__}, not a list of URLs", hint="pass [url, url]")
    return urls


def arguments_from_env(prefix: str, options: Options | AsyncOptions) -> list[dict[str, Any]]:
    """
    Return the arguments of the mailer for each server in the environment.

    Raises:
        ConfigurationError: A variable or one of the *options* is wrong.
    """
    # It imports subprocess, which few programs need.
    from securesmtp._environment import add_environment, list_urls

    found, hint = [], f"set {prefix}PASSWORD, {prefix}PASSWORD_FILE or {prefix}PASSWORD_COMMAND"
    for url in list_urls(prefix):
        given = Given(options)
        add_environment(given, prefix, url)
        found.append(given.arguments(hint=hint))
    return found
