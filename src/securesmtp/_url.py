"""
The URL of a mail server, such as ``smtps://me:secret@mail.example.com``.

It is stricter than `urllib.parse`, which guesses: here, a password with a character that must be percent-encoded is an
error, never a shorter password and another host. No error quotes a part of the URL that may be one of the password.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from securesmtp._arguments import as_count, as_rate, as_seconds
from securesmtp._secret import Secret
from securesmtp._settings import PORT_IMPLICIT, PORT_STARTTLS
from securesmtp._shown import quote
from securesmtp._values import TLSMode
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._arguments import Given

_SCHEMES = {"smtps": TLSMode.IMPLICIT, "smtp+starttls": TLSMode.STARTTLS}
_PORTS = {TLSMode.IMPLICIT: PORT_IMPLICIT, TLSMode.STARTTLS: PORT_STARTTLS}
_NAMES = {TLSMode.IMPLICIT: "implicit TLS", TLSMode.STARTTLS: "STARTTLS"}
_IMPLICIT, _STARTTLS = "smtps:// for implicit TLS (port 465)", "smtp+starttls:// for STARTTLS (port 587)"
# For schemes of other programs, in which "smtps" and "smtp+tls" may mean STARTTLS.
_HINTS = {
    "smtp": f"it may be sent without TLS elsewhere; here, write {_IMPLICIT} or {_STARTTLS}",
    "smtp+ssl": f"write {_IMPLICIT}",
    "smtp+tls": f"write {_STARTTLS} or {_IMPLICIT}",
    "submission": f"write {_STARTTLS}",
    "submissions": f"write {_IMPLICIT}",
}
_ENCODE = "percent-encode the username and password: @ is %40, / is %2F, ? is %3F, # is %23, % is %25, a blank is %20"
_SEVERAL = "URLs of several servers are for Failover.from_env and Failover.from_urls; " + _ENCODE
_END_OF_AUTHORITY = re.compile(r"[/?#]|\Z")
# Host and port. Each mailer checks its host.
_PLACE = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([^:]*))?")
# What RFC 3986 allows in userinfo (§3.2.1) and query (§3.4).
_ENCODED = re.compile(r"(?:[+A-Za-z0-9._~!$&'()*,;=:@/?-]|%[0-9A-Fa-f]{2})*")
# How `surrogateescape` decodes bytes that are not UTF-8.
_SURROGATE = re.compile("[\udc80-\udcff]")
_BLANK = re.compile(r"[\s\0-\x1f\x7f]")


def add_url(given: Given, url: Secret, source: str = "the URL") -> None:
    """
    Add the arguments that *url* has to *given*.

    Raises:
        ConfigurationError: It is not the URL of a mail server, or gives again what is given. *source* names it.
    """
    text = _text(url, source)
    scheme, separator, rest = text.partition("://")
    mode = _SCHEMES.get(scheme.lower()) if separator else None
    if mode is None:
        known = scheme.lower() if scheme.lower() in _HINTS and separator else None
        begins = f"begins with {known}://" if known else "has another scheme, or none"
        message = f"{source} {begins}, and the schemes are smtps and smtp+starttls"
        raise ConfigurationError(message, hint=_HINTS.get(known or "", f"write {_IMPLICIT} or {_STARTTLS}"))
    if _BLANK.search(rest):
        hint = _SEVERAL if "://" in rest else _ENCODE
        raise ConfigurationError(f"{source} contains a blank, a line end or a control character", hint=hint)
    end = _find(_END_OF_AUTHORITY, rest)
    authority, tail = rest[:end], rest[end:]
    if "@" in tail or authority.count("@") > 1:
        # Otherwise a part of the password would be taken for the host, and shown.
        raise ConfigurationError(f"{source} has an @ that does not end the password", hint=_ENCODE)
    login, has_login, place = authority.rpartition("@")
    _add_place(given, place, mode, source)
    if has_login:
        _add_login(given, login, source)
    _add_tail(given, tail, source)


def has_password(url: str) -> bool:
    """Return whether *url* has a password, or may have one: a colon before an @."""
    return ":" in (url.partition("://")[2] or url).rpartition("@")[0]


def _text(url: Secret, source: str) -> str:
    text: object = url.reveal()
    if not isinstance(text, str):
        hint = "is the variable set that it comes from?" if text is None else None
        raise ConfigurationError(f"{source} is a {type(text).__name__}, not a str", hint=hint)
    return text


def _find(pattern: re.Pattern[str], text: str) -> int:
    """Return where *pattern* is first found in *text*; it matches the end."""
    return next(pattern.finditer(text)).start()


def _add_place(given: Given, place: str, mode: TLSMode, source: str) -> None:
    found = _PLACE.fullmatch(place)
    if found is None:
        hint = "write smtps://host:port; an IPv6 address stands in brackets"
        raise ConfigurationError(f"{source} has no host and port that can be read", hint=hint)
    host, port = found.groups()
    if not host or host == "[]":
        raise ConfigurationError(f"{source} has no host")
    given.add("host", host.removeprefix("[").removesuffix("]"), source)
    if port == "":
        raise ConfigurationError(f"{source} has a colon and no port after the host")
    number = _PORTS[mode] if port is None else as_count(port, f"the port of {source}")
    other = next(each for each in _PORTS if each is not mode)
    if number == _PORTS[other]:
        hint = f"write {_STARTTLS if mode is TLSMode.IMPLICIT else _IMPLICIT}, or another port"
        raise ConfigurationError(
            f"the scheme of {source} means {_NAMES[mode]}, and its port is for {_NAMES[other]}", hint=hint
        )
    given.add("port", number, source)
    given.add("tls", mode, source)


def _add_login(given: Given, login: str, source: str) -> None:
    username, has_password, password = login.partition(":")
    if not username:
        raise ConfigurationError(f"{source} has no username before the @", hint="without a login, leave out the @")
    given.add("username", _decoded(username, f"the username of {source}"), source)
    if has_password:
        given.add("password", Secret(_decoded(password, f"the password of {source}")), source)


def _add_tail(given: Given, tail: str, source: str) -> None:
    before, has_fragment, _ = tail.partition("#")
    if has_fragment:
        hint = "leave it out; in a username or password, # is %23"
        raise ConfigurationError(f"{source} has a fragment (#), which means nothing here", hint=hint)
    path, has_query, query = before.partition("?")
    if path not in {"", "/"}:
        hint = "leave it out; in a username or password, / is %2F"
        raise ConfigurationError(f"{source} has a path, which means nothing here", hint=hint)
    pins: list[str] = []
    for part in query.split("&") if has_query else []:
        name, _, value = part.partition("=")
        where = f"the parameter {name} of {source}"
        if name not in _PARAMETERS:
            hint = f"the parameters are {', '.join(_PARAMETERS)}"
            raise ConfigurationError(f"{source} has an unknown parameter, {quote(name)}", hint=hint)
        if not value:
            raise ConfigurationError(f"{where} has no value")
        argument, convert = _PARAMETERS[name]
        if argument == "pins":
            pins.append(_decoded(value, where))
        else:
            given.add(argument, convert(_decoded(value, where), where), source)
    if pins:
        given.add("pins", tuple(pins), source)


def _decoded(text: str, what: str) -> str:
    """
    Return *text* without its percent-encoding. A plus sign stays one.

    Raises:
        ConfigurationError: It is not encoded as in RFC 3986, or not in UTF-8.
    """
    if not _ENCODED.fullmatch(text):
        raise ConfigurationError(f"{what} has a character that must be percent-encoded", hint=_ENCODE)
    # `unquote` alone would raise an error that shows the text, or replace what is not UTF-8.
    decoded = unquote_to_bytes(text).decode("utf-8", "surrogateescape")
    if _SURROGATE.search(decoded):
        raise ConfigurationError(f"{what} is not UTF-8 once it is percent-decoded")
    return decoded


def _mechanisms(value: str, _: str) -> tuple[str, ...]:
    # RFC 4422 §3.1: names are in capitals.
    return tuple(value.upper().split(","))


def _unchanged(value: str, _: str) -> str:
    return value


# By name: the argument of the mailer, and how it is made from the text.
_PARAMETERS: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "ca_file": ("ca_file", _unchanged),
    "pin": ("pins", _unchanged),
    "timeout": ("timeout", as_seconds),
    "deadline": ("deadline", as_seconds),
    "pipelining": ("pipelining", _unchanged),
    "max_connections": ("max_connections", as_count),
    "max_recipients": ("max_recipients", as_count),
    "rate": ("rate", as_rate),
    "auth": ("mechanisms", _mechanisms),
}
