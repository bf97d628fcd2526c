"""The web server of the development inbox: a few pages to read, on one loopback port, for browsers on this machine."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from securesmtp._cli.inbox import pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securesmtp._cli.inbox.store import Kept, Store

_HOST = "127.0.0.1"
# Seconds without a byte, after which a connection is closed.
_PATIENCE = 30
# Characters of a file name.
_MAX_NAME = 150
_ROUTE = re.compile(r"/messages/(\d{1,9})(?:/(html|source|message\.eml|files/(\d{1,4})))?")
# For every reply. Without the second and third, a browser may look up the names in a page's links, and other sites may
# load what is here.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Reply(NamedTuple):
    """A reply to a browser."""

    body: bytes
    content_type: str = "text/html; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    policy: str = pages.POLICY
    headers: tuple[tuple[str, str], ...] = ()


@contextmanager
def serve_pages(store: Store, port: int) -> Iterator[str]:
    """Serve the pages about *store*, and yield their address; *port* 0 takes a free one."""
    with _Server(store, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="securesmtp serve")
        thread.start()
        try:
            yield f"http://{_HOST}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    """A server on loopback; at its end it cuts the connections, and waits for their threads."""

    daemon_threads = False

    def __init__(self, store: Store, port: int) -> None:
        self.store = store
        self.open = set[socket.socket]()
        super().__init__((_HOST, port), _Handler)
        # A page of another site can reach this port under a name of its own (DNS rebinding), and is refused by it.
        self.hosts = frozenset({f"{_HOST}:{self.server_port}", f"localhost:{self.server_port}"})

    def server_bind(self) -> None:
        """Bind, without looking up this machine's name, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = _HOST, self.server_address[1]

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept a connection."""
        request, client_address = super().get_request()
        self.open.add(request)
        return request, client_address

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a browser that leaves is no news."""

    def server_close(self) -> None:
        """Cut the connections, and wait for their threads."""
        for each in tuple(self.open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        super().server_close()


class _Refusal(Exception):  # noqa: N818 -- it is a reply
    """There is no page: the reply's status, and why."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE

    def finish(self) -> None:
        """Forget the connection, which is closed next."""
        self.server.open.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        """Reply to a browser."""
        try:
            reply = self._find()
        except _Refusal as refusal:
            reply = Reply(pages.failure_page(str(refusal)).encode(), status=refusal.status)
        self._write(reply)

    def do_HEAD(self) -> None:
        """Reply without the page."""
        self.do_GET()

    def version_string(self) -> str:
        """Return what the field Server says."""
        return "securesmtp"

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 -- its name there
        """Log nothing: the terminal shows messages."""

    def _find(self) -> Reply:
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            raise _Refusal(HTTPStatus.FORBIDDEN, f"This page is at {_HOST}, under no other name.")
        path, store = self.path.partition("?")[0], self.server.store
        if path == "/":
            return _html(pages.list_page(store.all(), store.folder))
        if path == "/style.css":
            return Reply(pages.STYLE.encode("ascii"), "text/css; charset=utf-8")
        found = _ROUTE.fullmatch(path)
        kept = store.get(int(found[1])) if found else None
        if found is None or kept is None:
            raise _Refusal(HTTPStatus.NOT_FOUND, "There is no such page.")
        return self._show(kept, found[2], int(found[3] or 0))

    def _show(self, kept: Kept, what: str | None, number: int) -> Reply:
        try:
            received = kept.read()
        except OSError:
            raise _Refusal(HTTPStatus.NOT_FOUND, "The message's file is not in the folder any more.") from None
        match what:
            case None:
                return _html(pages.message_page(kept, received))
            case "html":
                # Opened as a page of its own, its links would lead away.
                if self.headers.get("Sec-Fetch-Dest", "iframe") != "iframe":
                    raise _Refusal(HTTPStatus.FORBIDDEN, "The HTML is shown in the message's page only.")
                return _html(pages.frame(received), pages.FRAME_POLICY)
            case "source":
                return Reply(received.content, "text/plain; charset=utf-8", policy=pages.FRAME_POLICY)
            case "message.eml":
                return _download(received.content, f"message-{kept.number}.eml")
        attachments = pages.attachments(received)
        if number >= len(attachments):
            raise _Refusal(HTTPStatus.NOT_FOUND, "There is no such file in the message.")
        return _download(attachments[number].data, attachments[number].name or "")

    def _write(self, reply: Reply) -> None:
        self.send_response(reply.status)
        fields = {"Content-Type": reply.content_type, "Content-Security-Policy": reply.policy, **_HEADERS}
        for name, value in [*fields.items(), *reply.headers, ("Content-Length", str(len(reply.body)))]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)


def _html(text: str, policy: str = pages.POLICY) -> Reply:
    # What cannot be encoded is half a surrogate, from a charset that nobody knows.
    return Reply(text.encode("utf-8", "replace"), policy=policy)


def _download(data: bytes, name: str) -> Reply:
    # Percent-encoded (RFC 8187), so that nothing in a name ends the field; without its folders, whatever their sign.
    name = quote(re.split(r"[/\\]", name)[-1].lstrip(".")[:_MAX_NAME] or "file", safe="", errors="replace")
    headers = (("Content-Disposition", f"attachment; filename*=UTF-8''{name}"),)
    return Reply(data, "application/octet-stream", policy=pages.FRAME_POLICY, headers=headers)
