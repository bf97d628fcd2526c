"""Many requests at once, while the mail server is slow, then dead, then back: web_fastapi.py in its own process."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import threading
from collections import Counter

import pytest

from conftest import thorough
from examples.serving import process
from examples.worlds import PASSWORD, WORLDS, Enter
from scripted import Peer, honest

# Messages in the web server's memory at the same time, and bytes of each.
WAITING, SIZE = 50, 20_000
# How much the web server's memory may grow, in KiB: 1,000 messages alone are 49,000.
GROWTH = 40_000
SERVE = f"import uvicorn, web_fastapi as web; web.MAX_WAITING = {WAITING}; uvicorn.run(web.app, port=0, backlog=2048)"
BODY = f"{'x' * 70}\n" * (SIZE // 71)


class Weather:
    """
    A mail server that changes.

    It is slow: it accepts no message until all clients have a response but those that must wait. Then it accepts ten
    and is dead: it accepts what is being sent, but cuts the connections before it replies; and it cuts twenty new
    connections at once. Then it is back.
    """

    def __init__(self, requests: int, loop: asyncio.AbstractEventLoop) -> None:
        self.is_back = asyncio.Event()
        self._is_full = threading.Event()
        self._is_dead = False
        self._left = requests
        self._messages, self._attempts = itertools.count(), itertools.count()
        self._loop = loop
        self._alive = honest(auth=("me", PASSWORD), replies={"CONTENT": self._content})

    def count_response(self) -> None:
        """Count a response of the web server."""
        self._left -= 1
        if self._left == WAITING:
            self._is_full.set()

    def script(self, peer: Peer) -> None:
        """Serve one connection."""
        if not self._is_dead:
            self._alive(peer)
        elif next(self._attempts) == 20:
            self._is_dead = False
            self._loop.call_soon_threadsafe(self.is_back.set)

    def _content(self, peer: Peer, octets: bytes) -> bytes:
        # Otherwise the web server has more messages in memory than it should.
        assert self._is_full.wait(20)
        if next(self._messages) == 10:
            self._is_dead = True
        if self._is_dead:
            peer.cut()
        return b"250 2.0.0 queued\r\n"


async def post(port: int, address: str, weather: Weather) -> int:
    """Post a message to *address*, and return the status."""
    body = json.dumps({"to": address, "subject": "Hello", "body": BODY})
    headers = {"Host": "x", "Connection": "close", "Content-Type": "application/json", "Content-Length": len(body)}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"POST /send-email HTTP/1.1\r\n{head}\r\n{body}".encode())
        await writer.drain()
        response = await reader.read()
        weather.count_response()
    finally:
        writer.close()
        await writer.wait_closed()
    assert response, "no response"
    return int(response.split()[1])


async def browse(port: int, address: str, weather: Weather, again: asyncio.Semaphore) -> list[int]:
    """Post a message; after 503, post it again when the mail server is back. Return all statuses."""
    statuses = [await post(port, address, weather)]
    while statuses[-1] == 503:
        await weather.is_back.wait()
        async with again:
            statuses.append(await post(port, address, weather))
    return statuses


@pytest.mark.parametrize("requests", thorough(100, 1000))
def test_no_request_is_lost_and_no_message_delivered_twice(enter: Enter, requests: int) -> None:
    """
    Each request gets a response, and that is true.

    200: the mail server has the message once. 503: it does not have it. 504: it has it or not, which nobody can know.
    At no time are there more messages in memory than the example allows.
    """

    async def main() -> None:
        weather = Weather(requests, asyncio.get_running_loop())
        server = enter(WORLDS["normal"], weather.script, connections=2 * requests)
        with process(["-c", SERVE]) as web:
            before, _ = web.memory()
            again = asyncio.Semaphore(WAITING)
            addresses = [f"you{number}@example.net" for number in range(requests)]
            browsers = [browse(web.port, address, weather, again) for address in addresses]
            answered = dict(zip(addresses, await asyncio.gather(*browsers), strict=True))
            _, peak = web.memory()
            web.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(web.process.wait, 30) == -signal.SIGTERM
        server.joined()
        delivered = Counter(message.recipients[0].decode()[9:-1] for message in server.accepted)
        counted = Counter(statuses[-1] for statuses in answered.values())
        assert counted.keys() == {200, 504}
        # Those that were being sent over the four connections when the mail server died.
        assert 1 <= counted[504] <= 4
        # The mail server had accepted them, too.
        assert delivered == dict.fromkeys(addresses, 1)
        assert peak - before < GROWTH

    asyncio.run(main())
