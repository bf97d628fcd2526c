"""Configure Django's email for a scripted server, in both ways that the installed Django has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.test import override_settings

from django_settings import configure as configure_django
from scripted import ScriptedServer
from securesmtp.integrations.django import close_mailers
from securesmtp.integrations.django._settings import SETTINGS

configure_django()

BACKEND = "securesmtp.integrations.django.EmailBackend"
HAS_MAILERS = django.VERSION >= (6, 1)
# What Django 6.1 says about each use of EMAIL_*, which 5.2 and 6.0 have alone. With MAILERS, warnings are errors.
_DEPRECATED = (
    "The EMAIL_",
    r"get_connection\(\) is",
    "The '",
    "The EmailMessage.connection",
    "Django 2028 will not",
    "Directly creating",
)
Configure = Callable[..., None]


@pytest.fixture(params=["EMAIL", "MAILERS"] if HAS_MAILERS else ["EMAIL"])
def style(request: pytest.FixtureRequest) -> str:
    """Run the test with the settings EMAIL_* and SECURESMTP, and with MAILERS."""
    chosen: str = request.param
    return chosen


# First, so that marks that tests have of their own come later, and win.
@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Ignore what Django 6.1 says about EMAIL_*, where a test uses them."""
    if "MAILERS" not in item.name:
        for text in _DEPRECATED:
            item.add_marker(pytest.mark.filterwarnings(f"ignore:{text}"), append=False)


def as_settings(style: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that give the backend these *options*."""
    if style == "MAILERS":
        return {"MAILERS": {"default": {"BACKEND": BACKEND, "OPTIONS": options}}}
    further = {name: value for name, value in options.items() if name not in {*SETTINGS, "fail_silently"}}
    own = {SETTINGS[name]: value for name, value in options.items() if name in SETTINGS}
    return {"EMAIL_BACKEND": BACKEND, **own, "SECURESMTP": further}


@pytest.fixture
def override() -> Iterator[Callable[..., None]]:
    """Override settings until the end of the test, and close the mailers then."""
    with ExitStack() as stack:
        stack.callback(close_mailers)

        def enter(**changed: Any) -> None:
            # Of the pytest worker; Django's own test runner would make it a locmem backend.
            if "MAILERS" in changed and hasattr(settings, "MAILERS"):
                del settings.MAILERS
            stack.enter_context(override_settings(**changed))

        yield enter


@pytest.fixture
def configure(serve: Any, override: Callable[..., None], ca_file: Path, style: str) -> Configure:
    """Return a function that makes settings: of a trusted server, unless they are given."""

    def make(server: ScriptedServer | None = None, **options: Any) -> None:
        if server is not None:
            options = {"host": "localhost", "port": server.port, "use_ssl": True, **options}
        if "policy" not in options:
            options.setdefault("ca_file", str(ca_file))
        override(**as_settings(style, {name: value for name, value in options.items() if value is not None}))

    return make


@pytest.fixture
def configure_email(serve: Any, override: Callable[..., None], ca_file: Path) -> Configure:
    """Return the same function, for what exists with EMAIL_* alone."""
    return configure.__wrapped__(serve, override, ca_file, "EMAIL")  # type: ignore[no-any-return, attr-defined]
