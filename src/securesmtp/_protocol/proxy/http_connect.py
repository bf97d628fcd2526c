"""CONNECT to a server through an HTTP proxy (RFC 9110 §9.3.6)."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from securesmtp._protocol.proxy.address import authority
from securesmtp._protocol.proxy.effects import Write, read, write
from securesmtp._protocol.wire import MAX_AUTH, MAX_REPLY, MAX_REPLY_LINE, MAX_REPLY_LINES, line
from securesmtp._values import Stage
from securesmtp.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Generator

    from securesmtp._protocol.proxy.address import Proxy
    from securesmtp._protocol.proxy.effects import Read, Tunnel

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: .*)?", re.DOTALL)
_FORBIDDEN, _SWITCHING = 403, 101
# Some proxies (tinyproxy 1.11) reply 401 to a wrong login.
_LOGIN_REFUSED = frozenset({401, 407})
# Those after which a later try may succeed: the proxy is busy, or cannot reach the server now.
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})


def http_connect(proxy: Proxy, host: str, port: int) -> Tunnel:
    """
    Ask *proxy* for a connection to *host* and *port*; its text is shown nowhere, only its status code.

    Raises:
        ProxyError: It refuses, or its reply is not HTTP.
    """
    target = authority(host, port)
    yield from write(_request(proxy, target))
    lines = _Lines(proxy)
    while True:
        code = _status((yield from lines.read()))
        if code is None:
            message = f"the reply of the proxy {proxy.place} is not HTTP"
            raise ProxyError(message, stage=Stage.CONNECT, hint="if it is a SOCKS 5 proxy, write socks5h://")
        if code >= 300 or code == _SWITCHING:  # noqa: PLR2004 -- RFC 9110 §15: 1xx is interim, 2xx is success
            raise _refusal(proxy, target, code)
        # RFC 9110 §9.3.6: the tunnel begins after the empty line, whatever the fields say of a content.
        while (yield from lines.read()):
            pass
        if code >= 200:  # noqa: PLR2004 -- the same
            return


def _status(text: bytes) -> int | None:
    # A frame of its own, which raises nothing: a proxy may repeat the login in its reason.
    found = _STATUS_LINE.fullmatch(text)
    return None if found is None else int(found[1])


class _Lines:
    """The lines of the answer of *proxy*, within the bounds of a reply of SMTP; no error shows them."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._lines = self._octets = 0

    def read(self) -> Generator[Write | Read, bytes | None, bytes]:
        """Return the next line without its end."""
        found = bytearray()
        # One at a time: what follows the empty line is the server's.
        while not found.endswith(b"\n"):
            found += yield from read(1)
            self._octets += 1
            if len(found) > MAX_REPLY_LINE or self._octets > MAX_REPLY or self._lines >= MAX_REPLY_LINES:
                # A proxy may repeat the login, and a traceback has this frame.
                found.clear()
                message = f"the reply of the proxy {self._proxy.place} is too long"
                raise ProxyError(message, stage=Stage.CONNECT)
        self._lines += 1
        if not found.endswith(b"\r\n"):
            found.clear()
            message = f"the reply of the proxy {self._proxy.place} has a line that does not end with CR LF"
            raise ProxyError(message, stage=Stage.CONNECT)
        return bytes(found[:-2])


def _request(proxy: Proxy, target: str) -> Write:
    where = target.encode("ascii")
    lines = [line(b"CONNECT", where, b"HTTP/1.1"), line(b"Host:", where)]
    if proxy.username is not None and proxy.password is not None:
        login = base64.b64encode(f"{proxy.username.reveal()}:{proxy.password.reveal()}".encode())
        lines.append(line(b"Proxy-Authorization: Basic", login, secrets=(login,), limit=MAX_AUTH))
    return Write(b"".join(each.data for each in [*lines, line(b"")]))


def _refusal(proxy: Proxy, target: str, code: int) -> ProxyError:
    if code == _FORBIDDEN:
        message = f"the proxy {proxy.place} does not allow a connection to {target} (403)"
        hint = "many proxies allow port 443 alone: its rules must allow this host and port"
    elif code in _LOGIN_REFUSED:
        what = "requires a login" if proxy.username is None else "refused the login"
        message = f"the proxy {proxy.place} {what} ({code})"
        hint = "check http://user:password@host:port; the login is Basic (RFC 7617), and no other is supported"
    else:
        message = f"the proxy {proxy.place} replied {code} to CONNECT {target}"
        hint = "can the proxy reach the server?" if code in _TEMPORARY else "is it a proxy, and does it allow CONNECT?"
    return ProxyError(message, stage=Stage.CONNECT, retryable=code in _TEMPORARY, hint=hint)
