"""
What is said to a proxy before anything is said to the server; nothing here does I/O.

How it works: a tunnel is a generator. It yields the bytes to write, and how many bytes to read, and is resumed with
exactly those. So it never takes a byte of what comes from behind the proxy: in STARTTLS mode, that is the greeting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp._protocol.proxy.address import Proxy, as_proxy_url, parse_proxy, proxy_secrets
from securesmtp._protocol.proxy.effects import Read, Tunnel, Write
from securesmtp._protocol.proxy.http_connect import http_connect
from securesmtp._protocol.proxy.socks5 import socks5

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Proxy", "Read", "Tunnel", "Write", "as_proxy_url", "open_tunnel", "parse_proxy", "proxy_secrets"]
_TUNNELS: dict[str, Callable[[Proxy, str, int], Tunnel]] = {"http": http_connect, "socks5h": socks5}


def open_tunnel(proxy: Proxy, host: str, port: int) -> Tunnel:
    """Ask *proxy* for a connection to *host*, a name in A-labels or an IP address, and *port*."""
    return _TUNNELS[proxy.scheme](proxy, host, port)
