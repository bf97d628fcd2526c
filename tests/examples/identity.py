"""
A provider of tokens on loopback, over TLS: what Microsoft, Google and others answer to the libraries of the examples.

Each token is issued once, so that a mail server can tell an old one from a new one. A refresh token may be used once:
with the second use, the provider takes back the whole grant (RFC 9700 §4.14.2).
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

CLIENT, CLIENT_SECRET, TENANT = "client-id", "cl1ent-s3cret", "11111111-2222-3333-4444-555555555555"
MICROSOFT, GOOGLE, OTHER = "login.microsoftonline.com", "oauth2.googleapis.com", "id.example.com"
HOSTS = (MICROSOFT, GOOGLE, OTHER)
Answer = dict[str, Any]


class Provider:
    """
    The provider.

    Attributes:
        issued: The access tokens, in order.
        asked: The fields of each request for a token.
        failure: What it answers to a request for a token instead, and the status.
        fails_early: Whether `failure` is the answer to a request for a device code, too.
        lifetime: Seconds after which a token expires.
        key: Of Google's service account.
        user_scope: What a user was asked to allow.
        refreshes: Set when a refresh token is used.
        all_started: Set when as many programs have started as `expect` said.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.issued: list[str] = []
        self.asked: list[dict[str, str]] = []
        self.failure: tuple[int, Answer] | None = None
        self.fails_early = False
        self.lifetime = 3600
        self.key: rsa.RSAPrivateKey | None = None
        self.refresh_tokens: list[str] = []
        self.user_scope = ""
        self.is_revoked = False
        self.refreshes = threading.Event()
        self.starting = 0
        self.all_started = threading.Event()
        self.all_started.set()
        self._pending = 1
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def expect(self, programs: int) -> None:
        """Answer no request to refresh before so many more programs have started."""
        self.starting = programs
        self.all_started.clear()

    def __enter__(self) -> Self:
        """Return the provider, which is listening."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, host: str, path: str, form: dict[str, str]) -> tuple[int, Answer]:
        """Answer one request."""
        if form.get("grant_type") == "refresh_token":
            self.refreshes.set()
            self.all_started.wait(30)
        with self._lock:
            if path.endswith("/openid-configuration"):
                self.starting -= 1
                if self.starting == 0:
                    self.all_started.set()
                base = f"https://{host}/{TENANT}"
                return 200, {
                    "issuer": f"{base}/v2.0",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                    "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
                }
            if path.endswith("/discovery/instance"):
                return 200, {"tenant_discovery_endpoint": f"https://{host}/{TENANT}", "metadata": []}
            if path.endswith("/devicecode"):
                if self.failure is not None and self.fails_early:
                    return self.failure
                self.user_scope = form["scope"]
                return 200, {
                    "device_code": "dc",
                    "user_code": "ABCD",
                    "verification_uri": f"https://{host}/device",
                    "message": "To sign in, open the page and enter ABCD.",
                    "expires_in": 60,
                    "interval": 0,
                }
            return self._token(form)

    def _token(self, form: dict[str, str]) -> tuple[int, Answer]:
        self.asked.append(form)
        if self.failure is not None:
            return self.failure
        match form["grant_type"]:
            case "client_credentials":
                assert form["client_secret"] == CLIENT_SECRET
                return 200, self._issue()
            case "urn:ietf:params:oauth:grant-type:jwt-bearer":
                form |= self._claims(form["assertion"])
                return 200, self._issue()
            case "refresh_token":
                if self.is_revoked or form["refresh_token"] != self.refresh_tokens[-1]:
                    self.is_revoked = True
                    return 400, {"error": "invalid_grant", "error_description": "the grant was taken back"}
                return 200, self._issue_to_user()
            case _ if self._pending:
                self._pending -= 1
                return 400, {"error": "authorization_pending", "error_description": "the user has not signed in yet"}
            case _:
                return 200, self._issue_to_user()

    def _issue(self) -> Answer:
        self.issued.append(f"token-{len(self.issued)}.{'x' * 20}")
        return {"access_token": self.issued[-1], "token_type": "Bearer", "expires_in": self.lifetime}

    def _issue_to_user(self) -> Answer:
        self.refresh_tokens.append(f"refresh-{len(self.refresh_tokens)}")
        now = int(time.time())
        claims = {"aud": CLIENT, "sub": "1", "oid": "1", "tid": TENANT, "preferred_username": "me@example.com"}
        claims |= {"iss": f"https://{MICROSOFT}/{TENANT}/v2.0", "exp": now + 3600, "iat": now}  # type: ignore[dict-item]
        return self._issue() | {
            "scope": self.user_scope,
            "refresh_token": self.refresh_tokens[-1],
            "client_info": _encode({"uid": "1", "utid": TENANT}),
            "id_token": f"{_encode({'alg': 'none'})}.{_encode(claims)}.",
        }

    def _claims(self, assertion: str) -> dict[str, str]:
        """Check the signature of Google's assertion, and return what it claims."""
        signed, _, signature = assertion.rpartition(".")
        assert self.key is not None
        self.key.public_key().verify(_decode(signature), signed.encode(), padding.PKCS1v15(), SHA256())
        claims: dict[str, str] = json.loads(_decode(signed.partition(".")[2]))
        return claims


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            basic = self.headers.get("Authorization", "").removeprefix("Basic ")
            if basic:
                client, _, secret = _decode(basic).decode().partition(":")
                form |= {"client_id": client, "client_secret": secret}
            self._reply(form)

        def _reply(self, form: dict[str, str]) -> None:
            host = self.headers["Host"].partition(":")[0]
            status, found = provider.answer(host, urlsplit(self.path).path, form)
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    return Handler


def _encode(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text.replace("+", "-").replace("/", "_") + "=" * (-len(text) % 4))
