"""Several servers in a list of URLs, or in the environment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from securesmtp._arguments import Given
from securesmtp._secret import Secret
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    from securesmtp._arguments import AsyncOptions, Options


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
