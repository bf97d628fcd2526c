"""
The pytest plugin of securesmtp: the fixtures `mail_server` and `mail_server_factory`.

pytest imports this module at each start, in every project that has securesmtp installed. So it imports nothing but
pytest until a test asks for a fixture; and it is outside of the package, because importing a module of a package
imports the package too, and what is imported before coverage starts is not measured.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from securesmtp.testing import MailServer


@pytest.fixture
def mail_server_factory() -> Iterator[Callable[..., MailServer]]:
    """
    Start test servers, with the arguments of `securesmtp.testing.MailServer`; they stop when the test ends.

    For example ``mail_server_factory("starttls", login=None)``, or ``mail_server_factory(fault="greylists")``.
    """
    from securesmtp.testing import MailServer  # noqa: PLC0415 -- see above

    with ExitStack() as stack:

        def start(*arguments: Any, **options: Any) -> MailServer:  # noqa: ANN401 -- those of the class
            return stack.enter_context(MailServer(*arguments, **options))

        yield start


@pytest.fixture
def mail_server(mail_server_factory: Callable[..., MailServer]) -> MailServer:
    """
    Return a mail server with real TLS on this machine, which requires a login: `securesmtp.testing.MailServer`.

    The program under test finds it by ``mail_server.env()``, ``mail_server.url`` or ``mail_server.mailer()``.
    """
    return mail_server_factory()
