"""
Several servers in order: which of them a message is sent to, and which of them rest.

How it works: threads share it, and so may the tasks of a loop. Nothing waits or locks; what changes is changed in one
step. A server that failed has a `Rest`. A send that tries it in spite of that takes a place in the rest's dict, which
has one place for each period of rest. So one send at a time finds out whether the server is back, and a send that was
lost (by an interrupt, or a fork) keeps the place for one period only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Generic, ParamSpec, Protocol, TypeVar

from securesmtp._report import ServerReport
from securesmtp._values import Stage
from securesmtp.errors import ConfigurationError, ConnectError, SecureSMTPError
from securesmtp.events import ServerDown, ServerUp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from securesmtp._core import Core
    from securesmtp._protocol.message import Submission
    from securesmtp._server_rules import Rules


class Mailer(Protocol):
    """What both mailers have."""

    _core: Core


P = ParamSpec("P")
M = TypeVar("M", bound=Mailer)


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
    """

    __slots__ = ("_rests", "core", "mailer")

    def __init__(self, mailer: M) -> None:
        """Have *mailer* send to it; it is in use."""
        self.mailer, self.core = mailer, mailer._core  # noqa: SLF001 -- the part of a mailer that both kinds have
        # One at most. A call of a dict is one step: of several threads, one begins or ends the rest, and says so.
        self._rests: dict[str, Rest] = {}

    @property
    def rest(self) -> Rest | None:
        """Its rest; None if it is in use."""
        return self._rests.get("rest")

    @property
    def name(self) -> str:
        """Its host and port."""
        return f"{self.core.settings.host}:{self.core.settings.port}"

    @property
    def rests_since(self) -> float:
        """When its rest began; 0 if it is in use."""
        # Read once: another thread may end it.
        rest = self.rest
        return 0 if rest is None else rest.began

    def note_up(self) -> None:
        """End its rest: it has answered."""
        if self._rests.pop("rest", None) is not None:
            self.core.emit(ServerUp(self.core.settings.host, self.core.settings.port))

    def note_down(self, since: Rest | None, error: SecureSMTPError, period: float) -> None:
        """Begin a rest because of *error*, unless one has begun since the send began, when its rest was *since*."""
        if self.rest is since:
            # Not the error: its frames have the message.
            reason = str(error.args[0]).removeprefix("not sent: ")
            rest = Rest(monotonic(), reason)
            if since is not None:
                self._rests["rest"] = rest
            elif self._rests.setdefault("rest", rest) is rest:
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
            raise ConfigurationError(
                message, hint=f"pass [{kind.__name__}(…), {kind.__name__}(…)]; for URLs, there is from_urls"
            )
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
        return min(left, key=lambda each: each.rests_since, default=None)

    def is_first_choice(self, server: Server[M], token: object) -> bool:
        """Return whether *server* is still the one to which a new message is sent; *token* as for `pick`."""
        period = self.rules.rest
        usable = (each for each in self._servers if (rest := each.rest) is None or rest.admits(token, period))
        # If all rest, it is.
        return next(usable, server) is server

    def build(self, function: Callable[P, Submission], *args: P.args, **kwargs: P.kwargs) -> Submission:
        """
        Return the message that *function* makes; each mailer signs it when it sends it.

        Raises:
            MessageError: It has more recipients than one of the mailers allows.
        """
        submission = function(*args, **kwargs)
        for each in self._servers:
            each.core.check_recipients(submission)
        return submission

    def check_closed(self) -> None:
        """
        Check that all mailers are open.

        Raises:
            ConfigurationError: One is closed.
        """
        for each in self._servers:
            each.core.refuse_if_closed()

    def refuse_sends(self) -> None:
        """
        Refuse further sends, at all servers at once.

        Otherwise the next server would get a message whose send at another one is ended.
        """
        for each in self._servers:
            each.core.is_closed = True

    def readmit(self, token: object) -> None:
        """Let another one try the servers that *token* may try."""
        for each in self._servers:
            rest = each.rest
            if rest is not None:
                rest.readmit(token)


def note_check(server: Server[M], found: object) -> None:
    """End the rest of *server* if a check has *found* that a message can be sent."""
    if isinstance(found, ServerReport) and found.login is not False:
        server.note_up()


def describe(servers: Iterable[Server[M]]) -> str:
    """Return the names of *servers*."""
    return ", ".join(each.name for each in servers)
