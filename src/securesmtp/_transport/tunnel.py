"""Speak with a proxy over the channel to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securesmtp._protocol.proxy import Write
from securesmtp._transport.channel import READ, WRITE

if TYPE_CHECKING:
    from securesmtp._protocol.proxy import Tunnel
    from securesmtp._transport.channel import Channel, Steps


def pass_tunnel(channel: Channel, dialogue: Tunnel) -> Steps[None]:
    """
    Perform *dialogue*; no byte is read that it does not ask for.

    Raises:
        ProxyError: The proxy refuses.
        ConnectError, OSError: The connection to the proxy was lost.
    """
    answer: bytes | None = None
    channel.peer = "proxy"
    try:
        while True:
            effect = dialogue.send(answer)
            if isinstance(effect, Write):
                yield from _write(channel, memoryview(effect.data))
                answer = None
            else:
                answer = yield from _read(channel, effect.size)
    except StopIteration:
        channel.peer = "server"


def _write(channel: Channel, data: memoryview) -> Steps[None]:
    while data:
        sent = channel.write(data)
        data = data[sent:]
        if not sent:
            yield WRITE


def _read(channel: Channel, size: int) -> Steps[bytes]:
    found = b""
    while len(found) < size:
        data = channel.read(size - len(found))
        if data is None:
            yield READ
        else:
            found += data
    return found
