"""
Where a password or a token comes from.

Each function returns a callable for ``password=``. The mailer calls it at each login, and only after the server is
verified. So a password that was changed is used at the next login, and none is kept. Neither a repr nor an error nor a
frame of a traceback shows what was fetched.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeGuard

from securesmtp._options import seconds
from securesmtp._sources.command import Command
from securesmtp._sources.file import File
from securesmtp._sources.keyring_entry import Entry, Keyring
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._secret import Secret

__all__ = ["from_command", "from_file", "from_keyring"]


def from_command(arguments: list[str] | tuple[str, ...], *, timeout: float = 60) -> Callable[[], Secret]:
    """
    Take the first line that a command prints: ``from_command(["pass", "show", "smtp"])``.

    There is no shell. The command gets no input and no terminal; what it prints to stderr is not kept. At the end of
    the time, and after an interrupt, it is killed with the processes that it has started.

    Args:
        arguments: The program, by its path or by a name in ``PATH``, and its arguments.
        timeout: Seconds until the command must have ended and closed its output.

    Returns:
        A callable for ``password=``. It raises a `ConfigurationError` if the command cannot be run, has an exit status
        other than 0, or prints no line in UTF-8, or more than 64 KiB; and a `DeadlineExceededError` at the end of the
        time.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    if not _are_arguments(arguments):
        message = "the arguments of from_command are not a list of str that begins with a program"
        raise ConfigurationError(message, hint='pass ["pass", "show", "smtp"]; for one str, use shlex.split')
    return Command(tuple(arguments), seconds("timeout", timeout))


def from_file(path: str | os.PathLike[str]) -> Callable[[], Secret]:
    """
    Take the content of a file, without one line end: ``from_file("/run/secrets/smtp")``.

    The file is read at each login; symbolic links are followed. It is refused if every user can write it. If every
    user can read it, a warning is logged once, except for secrets that are mounted into a container: Docker's below
    ``/run/secrets`` and those of Kubernetes.

    Args:
        path: The file. With systemd's ``LoadCredential=``, it is in the folder ``$CREDENTIALS_DIRECTORY``.

    Returns:
        A callable for ``password=``. It raises a `ConfigurationError` if the file cannot be read or used, or is not
        one line in UTF-8.

    Raises:
        ConfigurationError: *path* is not a path.
    """
    name = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not _is_text(name):
        hint = "is the variable set that it comes from?" if not name else None
        raise ConfigurationError("the path of from_file is not the path of a file", hint=hint)
    return File(name)


def from_keyring(service: str, username: str, *, timeout: float = 60) -> Callable[[], Secret]:
    """
    Take the password of *username* for *service* from the keyring of the desktop: ``from_keyring("smtp", "me")``.

    It needs the extra ``keyring``. A program without a desktop session, such as a service, usually has no keyring: use
    `from_file` or `from_command` there.

    Args:
        service: The service, as in ``keyring set SERVICE USERNAME``.
        username: The username there.
        timeout: Seconds for the keyring, in which somebody may have to unlock it.

    Returns:
        A callable for ``password=``. It raises a `ConfigurationError` if there is no keyring or no such password in
        it, or if it is locked; and a `DeadlineExceededError` at the end of the time.

    Raises:
        ConfigurationError: An argument is wrong, or the extra is not installed.
    """
    for what, value in (("service", service), ("username", username)):
        if not _is_text(value):
            raise ConfigurationError(f"the {what} of from_keyring is not a str with something in it")
    if find_spec("keyring") is None:
        hint = 'install the extra: pip install "securesmtp[keyring]"'
        raise ConfigurationError("the package keyring is not installed", hint=hint)
    return Keyring(Entry(service, username), seconds("timeout", timeout))


def _are_arguments(arguments: object) -> bool:
    # A str is a sequence too, and a shell would split it.
    if not isinstance(arguments, list | tuple) or not arguments or not _is_text(arguments[0]):
        return False
    return all(isinstance(each, str) and "\0" not in each for each in arguments)


def _is_text(value: object) -> TypeGuard[str]:
    # A NUL would be a ValueError of the system's call.
    return isinstance(value, str) and value != "" and "\0" not in value
