"""The families of rules that run in the interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securesmtp._cli.audit.clients import SmtplibFamily
from securesmtp._cli.audit.retries import RetriesFamily
from securesmtp._cli.audit.rules_aiosmtplib import AiosmtplibFamily
from securesmtp._cli.audit.rules_clients import ClientsFamily
from securesmtp._cli.audit.rules_django import DjangoFamily
from securesmtp._cli.audit.rules_flask import FlaskFamily
from securesmtp._cli.audit.rules_logging import LoggingFamily
from securesmtp._cli.audit.rules_settings import SettingsFamily
from securesmtp._cli.audit.rules_ssl import SSLFamily

if TYPE_CHECKING:
    from securesmtp._cli.audit.families import Family

FAMILIES: Final[tuple[Family, ...]] = (
    SmtplibFamily(),
    SSLFamily(),
    RetriesFamily(),
    LoggingFamily(),
    SettingsFamily(),
    DjangoFamily(),
    FlaskFamily(),
    AiosmtplibFamily(),
    ClientsFamily(),
)
