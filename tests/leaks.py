"""
Search for passwords in everything an error shows, or could show in a log or an error report.

The fixture `mailer` does this for every error, receipt and report of a test, and for its log.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import securesmtp
from securesmtp import OAuth2, Password, Receipt, Results, Secret, SendResult, ServerReport

T = TypeVar("T")
_TESTS = Path(__file__).parent
_LIBRARY = Path(securesmtp.__file__).parent


def shown(error: BaseException) -> str:
    """Return text, arguments, attributes and causes of *error*, and the locals of every frame but the tests' own."""
    found, link = [str(error), repr(error), repr(error.args), repr(vars(error))], error.__traceback__
    while link is not None:
        if _is_searched(link.tb_frame.f_code.co_filename):
            for value in link.tb_frame.f_locals.values():
                try:
                    found.append(repr(value))
                except AttributeError:  # The object's __init__ has not finished.
                    continue
        link = link.tb_next
    return "\n".join([*found, *map(shown, inner(error))])


@cache
def _is_searched(name: str) -> bool:
    file = Path(name)
    return _LIBRARY in file.parents or _TESTS not in file.parents


def inner(error: BaseException) -> list[BaseException]:
    """Return the cause and the context of *error*: usually they are one, which is searched once."""
    context = [] if error.__context__ is error.__cause__ else [error.__context__]
    return [each for each in (error.__cause__, *context) if each is not None]


def raw_replies(receipt: Receipt) -> str:
    """Return the raw text of a receipt's replies, which its repr omits."""
    replies = [*receipt.replies, *(each.reply for each in receipt.recipients)]
    return "\n".join(reply.raw.decode("utf-8", "replace") for reply in replies)


def _folded(text: str) -> str:
    return "".join(text.casefold().split())


def forms(password: str, username: str) -> list[str]:
    """Return *password* as it is, in base64, and as AUTH PLAIN sends it, without padding."""
    encoded = password.encode()
    token = b64encode(f"\0{username}\0".encode() + encoded).decode().rstrip("=")
    # The username is not secret; two letters of the base64 depend on both, so they are skipped, too.
    start = (len(username.encode()) + 2) * 4 // 3
    # In whatever message it is sent, without the letters that depend on its neighbours.
    inside = [b64encode(b"\0" * offset + encoded).decode()[(offset * 8 + 5) // 6 : -4] for offset in range(3)]
    return [password, b64encode(encoded).decode().rstrip("="), token[start + 2 :], *(x for x in inside if len(x) > 8)]


class Watch:
    """The passwords of one mailer, and the search for them in what it raises and returns."""

    def __init__(self, options: dict[str, object]) -> None:
        """Read the password from a mailer's *options*; replace a password callable by one that records its values."""
        self.passwords: list[str] = []
        self.username = str(options.get("username", ""))
        given = options.get("password")
        if callable(given):
            options["password"] = self._recording(given)
        elif isinstance(auth := options.get("auth"), Password):
            self.username, given = auth.username, auth.password
        elif isinstance(auth, OAuth2):
            self.username, given = auth.username, auth.token
            if callable(given):
                token = self._recording(given)
                options["auth"] = OAuth2(auth.username, token, auth.mechanisms, on_refused=auth.on_refused)  # type: ignore[arg-type]
        if isinstance(given, str | Secret):
            self._record(given)

    def _record(self, password: object) -> None:
        self.passwords.append(password.reveal() if isinstance(password, Secret) else str(password))

    def _recording(self, given: Callable[[], object]) -> Callable[[], object]:
        def fetch() -> object:
            password = given()
            self._record(password)
            return password

        return fetch

    def search(self, text: str) -> None:
        """Fail if a password is in *text*, in any form and case, with or without white space in between."""
        text = _folded(text.replace(repr(Secret("")), ""))
        for password in self.passwords:
            # Forms of up to three letters occur by chance.
            leaked = [form for form in forms(password, self.username) if len(form) > 3 and _folded(form) in text]
            assert not leaked, f"the password is shown as {leaked}"

    def receipt(self, make: Callable[..., Receipt]) -> Callable[..., Receipt]:
        """Return *make* with a search of each receipt it returns."""

        def call(*arguments: object) -> Receipt:
            found = make(*arguments)
            self.search(repr(found) + raw_replies(found))
            return found

        return call

    def report(self, check: Callable[[], ServerReport]) -> Callable[[], ServerReport]:
        """Return *check* with a search of its report and of its exceptions."""

        def call() -> ServerReport:
            with self.watching():
                found = check()
                self.search(repr(found))
                if found.login_error is not None:
                    self.search(shown(found.login_error))
                return found

        return call

    def awaiting(self, method: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Coroutine[Any, Any, T]]:
        """Return the coroutine function *method* with a search of its exceptions."""

        async def call(*arguments: object) -> T:
            with self.watching():
                return await method(*arguments)

        return call

    def results(self, send_many: Callable[..., Results]) -> Callable[..., Results]:
        """Return *send_many* with a search of each result, its error, and of its exceptions."""
        watch = self

        class Searched(Results):
            """An iterator over the results that searches each; like the original, it survives an interrupt."""

            def __init__(self, results: Results) -> None:
                self._results = results

            def __next__(self) -> SendResult:
                with watch.watching():
                    result = next(self._results)
                watch.search(repr(result))
                if result.error is not None:
                    watch.search(shown(result.error))
                return result

            def close(self) -> None:
                with watch.watching():
                    self._results.close()

        def call(*arguments: object, **options: object) -> Results:
            with self.watching():
                return Searched(send_many(*arguments, **options))

        return call

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Search any exception that leaves the block."""
        try:
            yield
        except BaseException as error:
            self.search(shown(error))
            raise
