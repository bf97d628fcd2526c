"""
Search what an error shows, or could show in a log or an error report, for a password.

`conftest.mailer` does it for every error that any test provokes, and for what was logged meanwhile.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import securesmtp
from securesmtp import Password, Receipt, Secret, SendResult, ServerReport

_TESTS = Path(__file__).parent
_LIBRARY = Path(securesmtp.__file__).parent


def shown(error: BaseException) -> str:
    """Return text, arguments, attributes and causes of *error*, and the locals of every frame but the tests' own."""
    found, link = [str(error), repr(error), repr(error.args), repr(vars(error))], error.__traceback__
    while link is not None:
        file = Path(link.tb_frame.f_code.co_filename)
        if _LIBRARY in file.parents or _TESTS not in file.parents:
            for value in link.tb_frame.f_locals.values():
                try:
                    found.append(repr(value))
                except AttributeError:  # not made yet
                    continue
        link = link.tb_next
    return "\n".join([*found, *(shown(inner) for inner in (error.__cause__, error.__context__) if inner is not None)])


def octets(receipt: Receipt) -> str:
    """Return what its replies were, which their repr is without."""
    replies = [*receipt.replies, *(each.reply for each in receipt.recipients)]
    return "\n".join(reply.raw.decode("utf-8", "replace") for reply in replies)


def _folded(text: str) -> str:
    return "".join(text.casefold().split())


def forms(password: str, username: str) -> list[str]:
    """Return *password* as it is, in base64, and as AUTH PLAIN writes it, but for the padding."""
    octets = password.encode()
    token = b64encode(f"\0{username}\0".encode() + octets).decode().rstrip("=")
    # The name's part of it is no secret; the two octets of base64 on the seam depend on both.
    start = (len(username.encode()) + 2) * 4 // 3
    return [password, b64encode(octets).decode().rstrip("="), token[start + 2 :]]


class Watch:
    """The passwords of one mailer, and the search for them in what it raises."""

    def __init__(self, options: dict[str, object]) -> None:
        """Take the password from a mailer's *options*; a callable is replaced by one that remembers."""
        self.passwords: list[str] = []
        self.username = str(options.get("username", ""))
        given = options.get("password")
        if callable(given):
            options["password"] = self._remembering(given)
        elif isinstance(auth := options.get("auth"), Password):
            self.username, given = auth.username, auth.password
        if isinstance(given, str | Secret):
            self._remember(given)

    def _remember(self, password: object) -> None:
        self.passwords.append(password.reveal() if isinstance(password, Secret) else str(password))

    def _remembering(self, given: Callable[[], object]) -> Callable[[], object]:
        def ask() -> object:
            password = given()
            self._remember(password)
            return password

        return ask

    def search(self, text: str) -> None:
        """Fail if a password is in *text*, in any form and case, and whatever blanks stand between."""
        text = _folded(text.replace(repr(Secret("")), ""))
        for password in self.passwords:
            # A word of one letter is everywhere.
            leaked = [form for form in forms(password, self.username) if len(form) > 3 and _folded(form) in text]
            assert not leaked, f"the password is shown as {leaked}"

    def receipt(self, make: Callable[..., Receipt]) -> Callable[..., Receipt]:
        """Return *make* with a search of each receipt that it makes."""

        def call(*arguments: object) -> Receipt:
            found = make(*arguments)
            self.search(repr(found) + octets(found))
            return found

        return call

    def report(self, check: Callable[[], ServerReport]) -> Callable[[], ServerReport]:
        """Return *check* with a search of its report, and of what it raises."""

        def call() -> ServerReport:
            with self.watching():
                found = check()
                self.search(repr(found))
                if found.login_error is not None:
                    self.search(shown(found.login_error))
                return found

        return call

    def results(self, send_many: Callable[..., Iterator[SendResult]]) -> Callable[..., Iterator[SendResult]]:
        """Return *send_many* with a search of each result, its error, and of what it raises."""
        watch = self

        class Searched:
            """The results, each searched when it is told; they can be closed, and read on after an interrupt."""

            def __init__(self, results: Iterator[SendResult]) -> None:
                self._results = results

            def __iter__(self) -> Iterator[SendResult]:
                return self

            def __next__(self) -> SendResult:
                with watch.watching():
                    result = next(self._results)
                watch.search(repr(result))
                if result.error is not None:
                    watch.search(shown(result.error))
                return result

            def close(self) -> None:
                with watch.watching():
                    self._results.close()  # type: ignore[attr-defined] # as a generator's

        def call(*arguments: object, **options: object) -> Iterator[SendResult]:
            with self.watching():
                return Searched(send_many(*arguments, **options))

        return call

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Search whatever is raised."""
        try:
            yield
        except BaseException as error:
            self.search(shown(error))
            raise
