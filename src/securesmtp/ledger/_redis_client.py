"""
The connections of a ledger to Redis, from its URL; and what goes wrong with them.

How it works: redis-py has a pool of connections, which a fork leaves to its parent. It repeats a command whose reply
was lost, so each script may run twice. A server of a cluster that has other keys says so: then redis-py's client of
clusters takes over. RESP2, because only with it redis-py looks whether a connection still has an unread reply.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import certifi
import redis.exceptions
from redis import Redis, RedisCluster
from redis.backoff import EqualJitterBackoff
from redis.connection import ConnectionPool, parse_url
from redis.credentials import CredentialProvider
from redis.retry import Retry

from securesmtp._secret import Secret
from securesmtp._shown import escape, quote
from securesmtp._tracebacks import drop_frames
from securesmtp._values import Stage
from securesmtp.errors import ConfigurationError, LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Together about 3 s if nothing listens, which is longer than a restart; 60 s if nothing replies.
RETRIES = 5
_TIMEOUT = 10.0
# Each thread that calls has one.
_MOST_CONNECTIONS = 10_000
_ENCODE = "percent-encode the password: @ is %40, / is %2F, ? is %3F, # is %23, % is %25"
# Of the URL: those that the client gets, and those that it must not get or does not need.
_PASSED = {
    "client_name",
    "db",
    "health_check_interval",
    "max_connections",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
}
_LEFT_OUT = {"decode_responses", "encoding", "encoding_errors", "protocol", "retry_on_timeout"}
_VERIFIED = {"ssl_cert_reqs": {"required", "cert_required"}, "ssl_check_hostname": {"true"}}
_OF_URL = {"host", "port", "path", "username", "password", "connection_class"}
# The first that fits.
_HINTS: tuple[tuple[type[Exception], bool, str], ...] = (
    (redis.exceptions.AuthenticationError, False, "give the username and the password of Redis in the URL"),
    (redis.exceptions.NoPermissionError, False, "its user needs scripts, and the keys of the prefix"),
    (redis.exceptions.ReadOnlyError, True, "it is a replica: give the address of the primary"),
    (redis.exceptions.OutOfMemoryError, True, "give Redis more memory (maxmemory), or delete old ledgers"),
    (redis.exceptions.ConnectionError, True, "is Redis running, and are host and port of the URL right?"),
    (redis.exceptions.TimeoutError, True, "Redis does not reply: look at its load, and at the network"),
    (redis.exceptions.ClusterDownError, True, "repair the cluster: redis-cli cluster info"),
    (redis.exceptions.RedisClusterException, True, "repair the cluster: redis-cli cluster info"),
    (OSError, True, "is Redis running, and are host and port of the URL right?"),
)  # fmt: skip


class _Login(CredentialProvider):
    """What a connection logs in with. redis-py's own options would be shown by a debugger."""

    def __init__(self, username: str | None, password: Secret) -> None:
        self._username, self._password = username, password

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return what AUTH takes."""
        password = self._password.reveal()
        return (password,) if self._username is None else (self._username, password)


class Client:
    """
    A client of one Redis, or of a cluster.

    Attributes:
        place: Where Redis is, without the password.
    """

    def __init__(self, url: Secret) -> None:
        """
        Read *url*; connect later.

        Raises:
            ConfigurationError: It is wrong. No error shows a password.
        """
        self._options = _options(url)
        place = self._options.get("path", f"{self._options.get('host')}:{self._options.get('port')}")
        self.place: str = f"{place}/{self._options.get('db', 0)}"
        self._clusters: dict[str, RedisCluster] = {}
        self._client: Redis | RedisCluster = Redis(
            connection_pool=ConnectionPool(**{"max_connections": _MOST_CONNECTIONS, **self._options})
        )

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[str]) -> Any:  # noqa: ANN401 -- what it returns
        """
        Return the reply of a *script*.

        Raises:
            LedgerError: There is none.
        """
        with self._translated():
            try:
                return self._run(script, keys, arguments)
            except redis.exceptions.ResponseError as error:
                if not _has_moved(error):
                    raise
                self._use_cluster()
                return self._run(script, keys, arguments)

    def info(self, section: str) -> dict[str, Any]:
        """
        Return a section of what Redis tells about itself; nothing if this user must not know.

        Raises:
            LedgerError: There is no reply.
        """
        with self._translated():
            try:
                return self._client.info(section)
            except redis.exceptions.NoPermissionError:
                return {}

    def drop_idle(self) -> None:
        """Close the connections that nobody uses now."""
        client = self._client
        if isinstance(client, RedisCluster):
            for node in client.get_nodes():  # type: ignore[no-untyped-call]
                client.get_redis_connection(node).connection_pool.disconnect(inuse_connections=False)
        else:
            client.connection_pool.disconnect(inuse_connections=False)

    def failed(self, text: str, hint: str | None, *, retryable: bool = False) -> LedgerError:
        """Return the error for what happened to the ledger."""
        text = f"the ledger in Redis at {self.place}: {text}"
        return LedgerError(text, stage=Stage.CONFIGURATION, retryable=retryable, hint=hint)

    def _run(self, script: str, keys: Sequence[str], arguments: Sequence[str]) -> Any:  # noqa: ANN401 -- as above
        # Not kept with the client: a cluster may have taken over.
        return self._client.register_script(script)(keys=keys, args=arguments)

    def _use_cluster(self) -> None:
        old = self._client
        if isinstance(old, RedisCluster):
            return
        options = {name: value for name, value in self._options.items() if name not in {"connection_class", "db"}}
        made = RedisCluster(**options, ssl="ssl_cert_reqs" in options)
        # Of several threads, the first one's.
        self._client = self._clusters.setdefault("cluster", made)
        if self._client is not made:
            made.close()
        old.connection_pool.disconnect(inuse_connections=False)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
            found = ((retryable, hint) for kind, retryable, hint in _HINTS if isinstance(error, kind))
            retryable, hint = next(found, (False, None))
            # A frame of redis-py holds the password in a local variable.
            drop_frames(error)
            raise self.failed(escape(str(error)), hint, retryable=retryable) from error
        except UnicodeEncodeError as error:
            hint = "choose another key, such as repr() of it"
            raise self.failed("a key cannot be written in UTF-8", hint) from error


def _has_moved(error: redis.exceptions.ResponseError) -> bool:
    """Whether Redis is a cluster, and another server has these keys; redis-py 5 has no class for that here."""
    return isinstance(error, redis.exceptions.AskError) or str(error).startswith(("MOVED ", "ASK "))


def _options(url: Secret) -> dict[str, Any]:
    """
    Return what the client needs.

    Raises:
        ConfigurationError: *url* is not that of a Redis, or says that certificates are not to be verified.
    """
    text: object = url.reveal()
    if not isinstance(text, str) or not text.lower().startswith(("redis://", "rediss://", "unix://")):
        hint = "write redis://host:6379/0, rediss:// for TLS, or unix:///path"
        raise ConfigurationError("the URL of the ledger is not that of a Redis", hint=hint)
    scheme, _, rest = text.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    # Otherwise a part of the password would be taken for the host, and shown.
    if "@" in rest[len(authority) :] or authority.count("@") > 1 or re.search(r"[#\s\0-\x1f\x7f]", rest):
        raise ConfigurationError("the URL of the ledger has a character that must be encoded", hint=_ENCODE)
    given: dict[str, Any] | None = None
    # Its text may be a part of the password, so it is neither the cause nor the context of an error.
    with suppress(ValueError):
        given = parse_url(f"{scheme.lower()}://{rest}")  # type: ignore[no-untyped-call]
    if given is None:
        raise ConfigurationError("the URL of the ledger cannot be read", hint=_ENCODE)
    _check(given)
    options = {name: value for name, value in given.items() if name in _PASSED | {"host", "port", "path"}}
    if "path" not in options:
        options = {"host": "localhost", "port": 6379, **options}
    if "connection_class" in given:
        options["connection_class"] = given["connection_class"]
    if scheme.lower() == "rediss":
        options = {"ssl_ca_certs": certifi.where(), **options, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
    if "password" in given:
        options["credential_provider"] = _Login(given.get("username"), Secret(given["password"]))
    again = [redis.exceptions.ConnectionError, redis.exceptions.TimeoutError]
    retry = Retry(EqualJitterBackoff(cap=2.0, base=0.05), RETRIES)
    limits = {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
    return {**limits, "protocol": 2, "retry": retry, "retry_on_error": again, **options}


def _check(given: dict[str, Any]) -> None:
    """
    Check the parameters of a URL.

    Raises:
        ConfigurationError: One is unknown, or weakens TLS.
    """
    for name, value in given.items():
        if name in _VERIFIED:
            if str(value).lower() not in _VERIFIED[name]:
                hint = "leave it out; for a private CA, write ssl_ca_certs=/path/ca.pem"
                raise ConfigurationError(f"the URL of the ledger has {name}={quote(value)}", hint=hint)
        elif name not in _PASSED | _LEFT_OUT | _OF_URL:
            hint = f"the parameters are {', '.join(sorted(_PASSED))}"
            raise ConfigurationError(f"the URL of the ledger has an unknown parameter, {quote(name)}", hint=hint)
