"""CONNECT to a server through a SOCKS 5 proxy (RFC 1928, RFC 1929)."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from securesmtp._protocol.proxy.address import authority
from securesmtp._protocol.proxy.effects import Write, read, write
from securesmtp._values import Stage
from securesmtp.errors import ProxyError

if TYPE_CHECKING:
    from securesmtp._protocol.proxy.address import Proxy
    from securesmtp._protocol.proxy.effects import Tunnel

_VERSION, _LOGIN_VERSION = 5, 1
_NO_LOGIN, _LOGIN, _NONE_ACCEPTABLE = 0, 2, 255
_CONNECT = b"\5\1\0"
_IPV4, _NAME, _IPV6 = 1, 3, 4
# RFC 1928 §6: the bytes of each kind of address; a name is preceded by its length.
_SIZES = {_IPV4: 4, _IPV6: 16}
_PORT_SIZE = 2
# RFC 1928 §6: what each reply means, and whether a later try may succeed.
_REPLIES = {
    1: ("general failure", True),
    2: ("its rules do not allow it", False),
    3: ("the network is unreachable", True),
    4: ("the host is unreachable", True),
    5: ("the server refused the connection", True),
    6: ("the time to live expired", True),
    7: ("it does not support CONNECT", False),
    8: ("it does not support this type of address", False),
}


def socks5(proxy: Proxy, host: str, port: int) -> Tunnel:
    """
    Ask *proxy* for a connection to *host* and *port*. A name is sent as it is: the proxy looks it up.

    Raises:
        ProxyError: It refuses, or its reply is not SOCKS 5.
    """
    has_login = proxy.username is not None
    methods = bytes((_NO_LOGIN, _LOGIN) if has_login else (_NO_LOGIN,))
    yield from write(Write(bytes((_VERSION, len(methods))) + methods))
    version, method = yield from read(2)
    _check(proxy, is_right=version == _VERSION)
    if method == _NONE_ACCEPTABLE:
        message = f"the proxy {proxy.place} " + ("takes no login by password" if has_login else "requires a login")
        raise ProxyError(message, stage=Stage.CONNECT, hint="the login is part of socks5h://user:password@host:port")
    _check(proxy, is_right=method in methods)
    if method == _LOGIN:
        yield from write(_login(proxy))
        version, status = yield from read(2)
        _check(proxy, is_right=version == _LOGIN_VERSION)
        if status:
            message, hint = f"the proxy {proxy.place} refused the login", "are its username and password right?"
            raise ProxyError(message, stage=Stage.CONNECT, hint=hint)
    yield from write(Write(_CONNECT + _address(host) + port.to_bytes(2, "big")))
    version, reply, _, kind = yield from read(4)
    _check(proxy, is_right=version == _VERSION)
    if reply:
        reason, is_temporary = _REPLIES.get(reply, (f"reply {reply}", False))
        message = f"the proxy {proxy.place} did not connect to {authority(host, port)}: {reason}"
        raise ProxyError(message, stage=Stage.CONNECT, retryable=is_temporary, hint=_hint(reply))
    _check(proxy, is_right=kind == _NAME or kind in _SIZES)
    # The address from which the proxy has connected; it is of no use here, and must be read.
    size = (yield from read(1))[0] if kind == _NAME else _SIZES[kind]
    yield from read(size + _PORT_SIZE)


def _address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        return bytes((_NAME, len(name))) + name
    return bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed  # noqa: PLR2004 -- IPv4


def _login(proxy: Proxy) -> Write:
    parts = [each.reveal().encode() for each in (proxy.username, proxy.password) if each is not None]
    return Write(bytes((_LOGIN_VERSION,)) + b"".join(bytes((len(part),)) + part for part in parts))


def _hint(reply: int) -> str | None:
    if reply == 2:  # noqa: PLR2004 -- `_REPLIES`
        return "the rules of the proxy must allow this host and port"
    return "can the proxy reach the server, and look up its name?" if _REPLIES.get(reply, ("", False))[1] else None


def _check(proxy: Proxy, *, is_right: bool) -> None:
    if not is_right:
        message = f"the reply of the proxy {proxy.place} is not SOCKS 5"
        raise ProxyError(message, stage=Stage.CONNECT, hint="if it is an HTTP proxy, write http://")
