"""
The URL of a proxy, such as ``socks5h://me:secret@proxy.example:1080``.

No error quotes a part of the URL that may be one of the password, and no frame of a traceback holds the URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from securesmtp._secret import Secret
from securesmtp.errors import ConfigurationError

_FORM = "write socks5h://host:port or http://host:port, or socks5h://user:password@host:port"
_ENCODE = "percent-encode the username and password: @ is %40, : is %3A, / is %2F, ? is %3F, # is %23, % is %25"
# For schemes of other programs.
_HINTS = {
    "socks": "write socks5h://",
    "socks5": "write socks5h://, so that the proxy looks up the server's name, and not this machine",
    "socks4": "only SOCKS 5 is supported: socks5h://",
    "socks4a": "only SOCKS 5 is supported: socks5h://",
    "https": "TLS to the proxy itself is not supported: write http://; your mail is inside TLS to the server anyway",
}
_URL = re.compile(
    r"(?:(?P<username>[^:@/?#\[\]]*):(?P<password>[^@/?#]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:@/?#\[\]]+)"
    r":(?P<port>[0-9]{1,5})/?"
)
_MOST_PORT = 65535
# What RFC 3986 §3.2.1 allows in userinfo.
_ENCODED = re.compile(r"(?:[+A-Za-z0-9._~!$&'()*,;=:-]|%[0-9A-Fa-f]{2})*")
# RFC 1929 §2: one byte has the length. An HTTP proxy may take a token.
_MOST_CREDENTIAL = {"socks5h": 255, "http": 4096}
# RFC 7617 §2: a username has no colon, and neither part a control character.
_NOT_IN_BASIC = re.compile(rb"[\0-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Proxy:
    """
    A proxy.

    Attributes:
        scheme: ``"socks5h"`` or ``"http"``.
        host: Its name or IP address.
        port: Its port.
        username: For its login; None for no login.
        password: The same.
    """

    scheme: str
    host: str
    port: int
    username: Secret | None = None
    password: Secret | None = None

    @property
    def place(self) -> str:
        """Host and port."""
        return authority(self.host, self.port)


class _Fault(NamedTuple):
    """What is wrong with a URL, and what to do."""

    what: str
    hint: str


def authority(host: str, port: int) -> str:
    """Return *host* and *port* as in a URL: without brackets, the end of an IPv6 address could be a port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def as_proxy_url(proxy: str | Secret | None) -> Secret | None:
    """Return *proxy*, a URL that may have a password, as a `Secret`, even if it is of a wrong type."""
    return proxy if proxy is None or isinstance(proxy, Secret) else Secret(proxy)


def parse_proxy(url: Secret) -> Proxy:
    """
    Return the proxy at *url*.

    Raises:
        ConfigurationError: It is not the URL of a proxy.
    """
    # Not raised in `_parse`, whose frame has the text.
    found = _parse(url)
    if isinstance(found, _Fault):
        raise ConfigurationError(f"the URL of the proxy {found.what}", hint=found.hint)
    return found


def proxy_secrets(proxy: Proxy | None) -> tuple[bytes, ...]:
    """Return the password of *proxy*, if it has one."""
    return () if proxy is None or proxy.password is None else (proxy.password.reveal().encode(),)


def _parse(url: Secret) -> Proxy | _Fault:
    text: object = url.reveal()
    if not isinstance(text, str):
        return _Fault(f"is a {type(text).__name__}, not a str", _FORM)
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _MOST_CREDENTIAL:
        known = scheme if separator and scheme in _HINTS else None
        begins = f"begins with {known}://" if known else "has another scheme, or none"
        return _Fault(f"{begins}, and the schemes are socks5h and http", _HINTS.get(known or "", _FORM))
    found = _URL.fullmatch(rest)
    if found is None or not 0 < int(found["port"]) <= _MOST_PORT:
        return _Fault("is not a host and a port, with a username and a password or without", f"{_FORM}; {_ENCODE}")
    proxy = Proxy(scheme, found["host"].strip("[]"), int(found["port"]))
    if found["username"] is None:
        return proxy
    username, password = _decode(found["username"], scheme), _decode(found["password"], scheme)
    if username is None or password is None or (scheme == "http" and ":" in username):
        what = f"has a username or a password that is empty, has more than {_MOST_CREDENTIAL[scheme]} bytes, or is not"
        return _Fault(f"{what} percent-encoded UTF-8 that this kind of proxy allows", _ENCODE)
    return Proxy(scheme, proxy.host, proxy.port, Secret(username), Secret(password))


def _decode(text: str, scheme: str) -> str | None:
    # First: `unquote_to_bytes` raises an error that has the text, if a character of it has no UTF-8 (a surrogate).
    if not _ENCODED.fullmatch(text):
        return None
    data = unquote_to_bytes(text)
    if not 0 < len(data) <= _MOST_CREDENTIAL[scheme] or (scheme == "http" and _NOT_IN_BASIC.search(data)):
        return None
    decoded = data.decode("utf-8", "replace")
    return decoded if decoded.encode() == data else None
