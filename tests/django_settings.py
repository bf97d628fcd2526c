"""The settings of Django in the tests: a process can configure them once, so all tests of a worker share them."""

from __future__ import annotations

import django
from django.conf import settings

URLS = "urls_of_the_page"


def configure() -> None:
    """Configure Django, unless another test has."""
    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            INSTALLED_APPS=["securesmtp.integrations.django"],
            ROOT_URLCONF=URLS,
            SECRET_KEY="secret",
            USE_TZ=True,
        )
        django.setup()
