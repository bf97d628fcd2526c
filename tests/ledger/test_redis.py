"""The ledger in Redis: lost replies, what Redis forgets, passwords, TLS, a cluster. See also `test_contract.py`."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import Any

import pytest
from redis import Redis as Client
from redis import RedisCluster
from redis.connection import Connection

from conftest import Mailer, Serve
from databases import Redis, running
from leaks import shown
from ledger.redis_servers import PASSWORD, GuardedRedis, LossyProxy, cluster
from ledger.worlds import RedisWorld, item, may_send, result
from scripted import honest
from securesmtp import Outcome, Secret
from securesmtp.errors import ConfigurationError, LedgerError
from securesmtp.ledger import RedisLedger, State, _redis_client

Call = Callable[[RedisLedger], Any]
# What a run does, in the order in which it is possible.
CALLS: dict[str, Call] = {
    "prepare": lambda ledger: ledger.prepare([item()]),
    "claim": lambda ledger: ledger.claim([item()], "mine"),
    "finish": lambda ledger: ledger.finish({"invoice-1": result(Outcome.UNKNOWN)}, "mine"),
    "reconcile": lambda ledger: ledger.reconcile("invoice-1", State.ACCEPTED),
    "look_up": lambda ledger: ledger.look_up("invoice-1"),
    "entries": lambda ledger: list(ledger.entries()),
}
WRITES = ["prepare", "claim", "finish", "reconcile"]
each_call = pytest.mark.parametrize("name", CALLS)


@pytest.fixture
def world(redis: Redis) -> RedisWorld:
    """Return an empty ledger."""
    return RedisWorld(redis.url, prefix())


@pytest.fixture
def ledger(world: RedisWorld) -> Iterator[RedisLedger]:
    """Open it."""
    with world.open() as opened:
        yield opened


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedRedis]:
    """Start a Redis with a password and TLS."""
    yield from running(GuardedRedis)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no command be repeated."""
    monkeypatch.setattr(_redis_client, "RETRIES", 0)


def prefix() -> str:
    """Return one that no other test has."""
    return token_hex(8)


def before(ledger: RedisLedger, name: str) -> None:
    """Do what a run has done before the call *name*."""
    for each, call in CALLS.items():
        if each == name:
            return
        call(ledger)


def state_of(ledger: RedisLedger) -> State | None:
    """Return the state of the message."""
    entry = ledger.look_up("invoice-1")
    return None if entry is None else entry.state


@each_call
def test_a_call_whose_reply_is_lost_is_repeated(redis: Redis, name: str) -> None:
    """Redis has done it twice, and it has the effect of one (Q14): one's own claim and verdict are a yes."""
    with LossyProxy(redis.port) as proxy:
        url, mine = f"redis://127.0.0.1:{proxy.port}/0", prefix()
        with RedisLedger(url, prefix=mine) as ledger, RedisLedger(redis.url, prefix=prefix()) as other:
            # So that Redis has the scripts, and the client a connection.
            for call in CALLS.values():
                call(other)
            ledger.prepare([item("warm")])
            before(ledger, name)
            sent = proxy.sent.count(b"EVALSHA")
            proxy.losses = 1
            CALLS[name](ledger)
            assert proxy.losses == 0
            assert proxy.sent.count(b"EVALSHA") - sent == (3 if name == "entries" else 2)
        with RedisLedger(redis.url, prefix=mine) as again, RedisLedger(redis.url, prefix=prefix()) as expected:
            before(expected, name)
            CALLS[name](expected)
            assert state_of(again) == state_of(expected)


def test_a_claim_whose_reply_is_lost_is_the_claimants(redis: Redis) -> None:
    """Its token is a yes; another one's is not."""
    with LossyProxy(redis.port) as proxy, RedisLedger(f"redis://127.0.0.1:{proxy.port}", prefix=prefix()) as ledger:
        ledger.claim([item("warm")], "mine")
        for token in ("mine", "yours"):
            proxy.losses = 3
            (entry,) = ledger.claim([item()], token)
            assert may_send(entry, item(), token) == (token == "mine")


@pytest.mark.usefixtures("once")
@each_call
def test_without_a_reply_the_call_fails(redis: Redis, name: str) -> None:
    """After so many times; whether a message can be sent is known then, and whether one was sent is not."""
    with LossyProxy(redis.port) as proxy, RedisLedger(f"redis://127.0.0.1:{proxy.port}", prefix=prefix()) as ledger:
        ledger.prepare([item("warm")])
        before(ledger, name)
        proxy.losses = 1
        with pytest.raises(LedgerError, match=f"the ledger in Redis at 127.0.0.1:{proxy.port}/0: ") as caught:
            CALLS[name](ledger)
        assert caught.value.hint
        assert caught.value.outcome is (Outcome.UNKNOWN if name == "finish" else Outcome.NOT_SENT)
        assert caught.value.retryable == (name != "finish")


def test_the_reply_to_an_interrupted_call_is_not_taken_for_another(
    ledger: RedisLedger, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal strikes after the command was written: its reply is still in the connection when that is used again."""
    ledger.claim([item("theirs")], "yours")
    read, calls = Connection.read_response, count()

    def interrupted(self: Connection, *args: Any, **options: Any) -> Any:
        if next(calls) == 0:
            raise KeyboardInterrupt
        return read(self, *args, **options)

    def never(_: Connection, timeout: float = 0) -> bool:
        """Say that nothing has come yet, as if the reply was slow."""
        return bool(timeout)

    monkeypatch.setattr(Connection, "read_response", interrupted)
    monkeypatch.setattr(Connection, "can_read", never)
    with pytest.raises(KeyboardInterrupt):
        ledger.claim([item("theirs")], "mine")
    (entry,) = ledger.claim([item()], "mine")
    assert may_send(entry, item(), "mine")


@pytest.mark.parametrize("reply", [None, [], [b"other", b"ok"], b"PONG"], ids=str)
def test_a_reply_that_is_never_the_right_one_is_an_error(
    ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch, reply: Any
) -> None:
    """Whatever stands between."""
    monkeypatch.setattr(_redis_client.Client, "run", lambda *_: reply)
    with pytest.raises(LedgerError, match="its replies are those to other commands"):
        ledger.prepare([item()])


# ------------------------------------------------------------------------------------------- what Redis forgets


def test_no_key_expires(world: RedisWorld, ledger: RedisLedger) -> None:
    """Before the end of a message and after it (Q15). All keys of a ledger begin with its prefix."""
    for name, call in CALLS.items():
        call(ledger)
        with Client.from_url(world.url) as client:
            keys = list(client.scan_iter(f"{{{world.prefix}}}:*"))
            assert {key.split(b":")[1] for key in keys} == {b"ledger", b"order", b"entry"}, name
            assert {client.ttl(key) for key in keys} == {-1}


@pytest.mark.parametrize("lost", ["entry:invoice-1", "ledger", "order"])
@each_call
def test_what_redis_has_removed_is_noticed(world: RedisWorld, ledger: RedisLedger, name: str, lost: str) -> None:
    """If the process has seen the ledger before, it sends nothing (Q15)."""
    ledger.claim([item()], "mine")
    ledger.finish({"invoice-1": result(Outcome.UNKNOWN)}, "mine")
    with Client.from_url(world.url) as client:
        assert client.delete(f"{{{world.prefix}}}:{lost}") == 1
    if name in WRITES or lost.startswith("entry"):
        text = "has removed the entry 'invoice-1'" if lost.startswith("entry") else "has lost its data"
        with pytest.raises(LedgerError, match=text) as caught:
            CALLS[name](ledger)
        assert caught.value.hint
        assert not caught.value.retryable


def test_the_end_of_one_that_was_removed_does_not_hold_up_the_others(world: RedisWorld, ledger: RedisLedger) -> None:
    """They are written, and the error says which one is missing."""
    ledger.claim([item(), item("invoice-2")], "mine")
    with Client.from_url(world.url) as client:
        client.delete(f"{{{world.prefix}}}:entry:invoice-1")
    with pytest.raises(LedgerError, match="'invoice-1'"):
        ledger.finish({"invoice-1": result(), "invoice-2": result()}, "mine")
    entry = ledger.look_up("invoice-2")
    assert entry is not None
    assert entry.state is State.ACCEPTED


def test_all_data_are_gone_and_nothing_is_sent(guarded: GuardedRedis) -> None:
    """By FLUSHALL, or by a start without its disk. A process that begins after it cannot know."""
    mine = prefix()
    with RedisLedger(guarded.url, prefix=mine) as ledger, Client.from_url(guarded.url) as client:
        ledger.claim([item()], "mine")
        client.flushall()
        for call in CALLS.values():
            with pytest.raises(LedgerError, match="has lost its data"):
                call(ledger)
        with RedisLedger(guarded.url, prefix=mine) as later:
            later.claim([item()], "yours")
            # It is another ledger.
            with pytest.raises(LedgerError, match="has lost its data"):
                ledger.claim([item()], "mine")


def test_an_order_without_a_ledger_is_no_new_ledger(world: RedisWorld, ledger: RedisLedger) -> None:
    """Also for a process that sees it for the first time."""
    ledger.prepare([item()])
    with Client.from_url(world.url) as client:
        client.delete(f"{{{world.prefix}}}:ledger")
    with world.open() as later, pytest.raises(LedgerError, match="has lost its data"):
        later.claim([item()], "mine")


@pytest.mark.parametrize(
    ("values", "doubt"),
    [
        ({"maxmemory-policy": "allkeys-lru"}, "its maxmemory-policy is 'allkeys-lru', not 'noeviction'$"),
        ({"appendonly": "no"}, "appendonly is not on"),
        ({"maxmemory-policy": "allkeys-random", "appendonly": "no"}, "'allkeys-random', .* and it does not write"),
        ({"maxmemory-policy": "volatile-ttl"}, None),
        ({}, None),
    ],
)
def test_a_redis_that_may_forget_gets_a_warning(
    guarded: GuardedRedis, values: dict[str, str], doubt: str | None
) -> None:
    """At the first use, and once."""
    with guarded.configured(**values), RedisLedger(guarded.url, prefix=prefix()) as ledger:
        if doubt is not None:
            with pytest.warns(RuntimeWarning, match=doubt) as caught:
                ledger.claim([item()], "mine")
            assert [each.filename for each in caught] == [__file__]
        ledger.prepare([item()])


def test_a_user_who_must_not_look_gets_the_warning(guarded: GuardedRedis) -> None:
    """INFO is a dangerous command for Redis: then nobody knows."""
    with Client.from_url(guarded.url) as client:
        client.acl_setuser("curious", enabled=True, passwords="+pw", keys="*", categories=["+@all", "-@dangerous"])
    url = f"redis://curious:pw@127.0.0.1:{guarded.port}/0"
    with RedisLedger(url, prefix=prefix()) as ledger, pytest.warns(RuntimeWarning, match="policy is 'unknown'"):
        ledger.prepare([item()])


def test_a_redis_that_is_killed_keeps_what_it_has_replied(tmp_path: Path, redis: Redis) -> None:
    """It starts again without the scripts; the same ledger, and its client, go on."""
    del redis  # it says whether there is one
    with Redis(tmp_path) as own, RedisLedger(own.url) as ledger:
        ledger.claim([item()], "mine")
        own.restart()
        (entry,) = ledger.claim([item()], "yours")
        assert (entry.state, entry.token) == (State.CLAIMED, "mine")
        ledger.finish({"invoice-1": result()}, "mine")
        own.restart()
        assert state_of(ledger) is State.ACCEPTED


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.usefixtures("once")
def test_a_redis_that_is_down_is_named(tmp_path: Path, redis: Redis) -> None:
    """It can be tried again later: nothing was sent."""
    del redis
    with Redis(tmp_path) as own:
        port = own.port
    with RedisLedger(f"redis://127.0.0.1:{port}") as ledger:
        with pytest.raises(LedgerError, match=f"127.0.0.1:{port}/0: .*refused") as caught:
            ledger.claim([item()], "mine")
        assert caught.value.retryable
        assert "is Redis running" in str(caught.value)


@pytest.mark.parametrize(
    ("command", "text", "hint", "retryable"),
    [
        ("CONFIG SET maxmemory 1", "OOM command not allowed|used memory", "maxmemory", True),
        ("REPLICAOF 127.0.0.1 1", "read only replica", "primary", True),
        ("ACL SETUSER default -evalsha", "permission", "its user needs scripts", False),
    ],
)
def test_what_redis_refuses_has_a_hint(  # noqa: PLR0913 -- a table
    tmp_path: Path, redis: Redis, command: str, text: str, hint: str, *, retryable: bool
) -> None:
    """And nothing is written."""
    del redis
    with Redis(tmp_path) as own, Client.from_url(own.url) as client, RedisLedger(own.url) as ledger:
        ledger.prepare([item()])
        client.execute_command(*command.split())
        with pytest.raises(LedgerError, match=text) as caught:
            ledger.claim([item(), item("invoice-2")], "mine")
        assert hint in str(caught.value.hint)
        assert caught.value.retryable == retryable
        assert client.exists("{securesmtp}:entry:invoice-2") == 0


def test_a_key_of_another_program_is_an_error(world: RedisWorld, ledger: RedisLedger) -> None:
    """Nothing is changed."""
    ledger.prepare([item()])
    with Client.from_url(world.url) as client:
        client.set(f"{{{world.prefix}}}:entry:theirs", "value")
        with pytest.raises(LedgerError, match="WRONGTYPE"):
            ledger.claim([item("theirs")], "mine")
        assert client.get(f"{{{world.prefix}}}:entry:theirs") == b"value"


@pytest.mark.parametrize(
    ("where", "field", "value", "text"),
    [
        ("ledger", "version", "2", "a later version of securesmtp has written it"),
        ("entry:invoice-1", "state", "sent by pigeon", "an entry cannot be read"),
        ("entry:invoice-1", "changed", "never", "an entry cannot be read"),
        ("entry:invoice-1", "result", "{", "an entry cannot be read"),
    ],
)
def test_what_a_later_version_wrote_is_an_error(
    world: RedisWorld, where: str, field: str, value: str, text: str
) -> None:
    """It is not read as something else."""
    with world.open() as ledger:
        ledger.prepare([item()])
    with Client.from_url(world.url) as client:
        client.hset(f"{{{world.prefix}}}:{where}", field, value)
    with world.open() as ledger, pytest.raises(LedgerError, match=text) as caught:
        ledger.prepare([item()])
    assert caught.value.hint


def test_a_key_that_is_no_text_is_an_error(ledger: RedisLedger) -> None:
    """A file name may be other bytes."""
    for call in (lambda: ledger.claim([item("\udcff")], "mine"), lambda: ledger.look_up("\udcff")):
        with pytest.raises(LedgerError, match="a key cannot be written in UTF-8"):
            call()


@each_call
def test_a_closed_ledger_is_an_error(world: RedisWorld, name: str) -> None:
    """In every method; closing twice is none."""
    ledger = world.open()
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match=r"the ledger in Redis at .* is closed"):
        CALLS[name](ledger)


def test_a_call_ends_well_although_the_ledger_is_closed(guarded: GuardedRedis) -> None:
    """Its connection is closed after it: a reply that is lost would be a claim in doubt."""
    ledger = RedisLedger(guarded.url, prefix=prefix())
    ledger.prepare([item()])
    with Client.from_url(guarded.url) as client, ThreadPoolExecutor() as pool:
        client.client_pause(60_000, all=False)
        try:
            claimed = pool.submit(ledger.claim, [item()], "mine")
            while not any("b" in each["flags"] for each in client.client_list(_type="normal")):
                assert not claimed.done()
            ledger.close()
        finally:
            client.client_unpause()
        (entry,) = claimed.result()
        assert may_send(entry, item(), "mine")
        # That of this client. Redis notices a moment later that the other one has gone.
        end = monotonic() + 60
        while len(client.client_list(_type="normal")) > 1:
            assert monotonic() < end


# ---------------------------------------------------------------------------------------------- URLs, passwords


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (f"http://:{PASSWORD}@host", "is not that of a Redis"),
        (PASSWORD, "is not that of a Redis"),
        (None, "is not that of a Redis"),
        (f"redis://:1#{PASSWORD}@host", "must be encoded"),
        (f"redis://:1/{PASSWORD}@host", "must be encoded"),
        (f"redis://:a@{PASSWORD}@host", "must be encoded"),
        (f"redis://:{PASSWORD} @host", "must be encoded"),
        (f"redis://me:x@host:{PASSWORD}", "cannot be read"),
        (f"redis://:{PASSWORD}@host?socket_timeout=soon", "cannot be read"),
        (f"redis://:{PASSWORD}@host?db=x", "cannot be read"),
        (f"redis://:{PASSWORD}@host?retries=5", "has an unknown parameter, 'retries'"),
        (f"rediss://:{PASSWORD}@host?ssl_cert_reqs=none", "has ssl_cert_reqs='none'"),
        (f"rediss://:{PASSWORD}@host?ssl_cert_reqs=CERT_OPTIONAL", "has ssl_cert_reqs='CERT_OPTIONAL'"),
        (f"rediss://:{PASSWORD}@host?ssl_check_hostname=false", "has ssl_check_hostname='?False"),
        (f"rediss://:{PASSWORD}@host?ssl_ciphers=NULL", "has an unknown parameter, 'ssl_ciphers'"),
    ],
)
def test_a_wrong_url_is_an_error_that_shows_no_password(url: str, text: str) -> None:
    """Nor do the frames of its traceback."""
    with pytest.raises(ConfigurationError, match=text) as caught:
        RedisLedger(url)
    assert caught.value.hint
    assert PASSWORD not in shown(caught.value)


@pytest.mark.parametrize(
    "options", [{"prefix": ""}, {"prefix": "a{b}"}, {"prefix": 5}, {"resend": "unknown"}, {"longest_send": 0}]
)
def test_a_wrong_argument_is_an_error(options: dict[str, Any]) -> None:
    """Before there is a connection."""
    with pytest.raises(ConfigurationError):
        RedisLedger("redis://localhost", **options)


@pytest.mark.parametrize("hide", [str, Secret], ids=["str", "Secret"])
def test_the_password_is_shown_nowhere(guarded: GuardedRedis, hide: Callable[[str], Any]) -> None:
    """Not by the ledger, and not by what it has."""
    with RedisLedger(hide(guarded.url), prefix=prefix()) as ledger:
        ledger.prepare([item()])
        client: Any = ledger._client._client
        texts = [repr(ledger), repr(vars(ledger)), repr(vars(ledger._client)), repr(client)]
        texts.append(repr(client.connection_pool.connection_kwargs))
    assert PASSWORD not in "".join(texts)


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("login", [f"wrong-{PASSWORD}", f"me:wrong-{PASSWORD}"])
def test_a_refused_login_does_not_show_the_password(guarded: GuardedRedis, login: str) -> None:
    """Neither do the frames of redis-py."""
    url = f"redis://{login if ':' in login else f':{login}'}@127.0.0.1:{guarded.port}"
    with RedisLedger(url, prefix=prefix()) as ledger:
        with pytest.raises(LedgerError, match=r"WRONGPASS|invalid username-password") as caught:
            ledger.claim([item()], "mine")
        assert "give the username and the password" in str(caught.value)
        assert PASSWORD not in shown(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        "decode_responses=True",
        "encoding=latin-1&encoding_errors=replace",
        "protocol=3",
        "max_connections=3&client_name=mail&socket_timeout=5&socket_connect_timeout=5&health_check_interval=30",
    ],
)
def test_parameters_of_other_clients_do_no_harm(redis: Redis, query: str) -> None:
    """Applications have one URL for all their clients (Q15)."""
    with RedisLedger(f"{redis.url}?{query}", prefix=prefix()) as ledger:
        (entry,) = ledger.claim([item("ü")], "mine")
        assert may_send(entry, item("ü"), "mine")
        assert [each.key for each in ledger.entries()] == ["ü"]


@pytest.mark.parametrize("query", ["", "&ssl_cert_reqs=CERT_REQUIRED&ssl_check_hostname=True"])
def test_tls_is_verified(guarded: GuardedRedis, query: str) -> None:
    """With a private CA."""
    with RedisLedger(f"{guarded.tls_url()}?ssl_ca_certs={guarded.ca_file}{query}", prefix=prefix()) as ledger:
        assert len(ledger.prepare([item()])) == 1


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("host", "trusts", "text"),
    [("localhost", False, "self.signed|unable to get"), ("127.0.0.1", True, "IP address mismatch|not valid for")],
)
def test_a_certificate_that_does_not_verify_is_refused(
    guarded: GuardedRedis, host: str, text: str, *, trusts: bool
) -> None:
    """Of an unknown CA, or for another name."""
    url = guarded.tls_url(host) + (f"?ssl_ca_certs={guarded.ca_file}" if trusts else "")
    with RedisLedger(url, prefix=prefix()) as ledger:
        with pytest.raises(LedgerError, match=text) as caught:
            ledger.claim([item()], "mine")
        assert PASSWORD not in shown(caught.value)


# -------------------------------------------------------------------------------------------------------- a cluster


def test_an_address_may_be_a_file(guarded: GuardedRedis) -> None:
    """A socket on the same machine."""
    with RedisLedger(f"unix://:{PASSWORD}@{guarded.socket}?db=1", prefix=prefix()) as ledger:
        assert len(ledger.prepare([item()])) == 1
        assert ledger._client.place == f"{guarded.socket}/1"


def test_a_cluster_has_the_whole_ledger_in_one_slot(tmp_path: Path, redis: Redis) -> None:
    """The URL may be that of a server which does not have it; and a third thread finds the right one, too."""
    del redis
    with cluster(tmp_path) as servers:
        kinds = set()
        for server in servers:
            with RedisLedger(f"{server.url}?decode_responses=True") as ledger:
                key = f"of {server.port}"
                threads = [threading.Thread(target=ledger.claim, args=([item(key)], f"token {n}")) for n in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                (entry,) = ledger.entries(State.CLAIMED)
                assert entry.key == key
                ledger._client.drop_idle()
                ledger.finish({key: result(Outcome.UNKNOWN)}, str(entry.token))
                assert ledger.reconcile(key, State.ACCEPTED).state is State.ACCEPTED
                kinds.add(type(ledger._client._client))
        # One of them has the slot.
        assert kinds == {Client, RedisCluster}


def test_of_two_threads_that_find_the_cluster_one_has_the_client(tmp_path: Path, redis: Redis) -> None:
    """The other one's is closed, and both go on."""
    del redis
    with cluster(tmp_path) as servers, RedisLedger(servers[0].url) as first, RedisLedger(servers[1].url) as second:
        for ledger in (first, second):
            client = ledger._client
            plain = client._client
            client._use_cluster()
            kept, client._client = client._client, plain
            client._use_cluster()
            assert client._client is kept
            # One that finds it later has nothing to do.
            client._use_cluster()
            assert client._client is kept
            assert len(ledger.prepare([item()])) == 1


# ----------------------------------------------------------------------------------------------------- together

PAGE = Path(__file__).parents[2] / "docs/how-to/ledger.md"


def test_the_page_of_the_ledger_in_redis_runs(
    redis: Redis, mailer: Mailer, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    """It sends each message once, whichever process calls again; then its keys are deleted."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    send, delete = (
        block.replace("redis://:secret@localhost:6379/0", redis.url) for block in blocks if "redis://" in block
    )
    server = serve(honest())
    names: dict[str, Any] = {"mailer": mailer(server)}
    exec(blocks[0].partition("\nwith ")[0], names)  # noqa: S102 -- our own page
    for _ in range(2):
        exec(send, names)  # noqa: S102
        with names["ledger"] as ledger:
            assert [entry.state for entry in ledger.entries()] == ["accepted"] * 3
        assert len(server.accepted) == 3
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 6
    with Client.from_url(redis.url) as client:
        assert len(list(client.scan_iter("{invoices}:*"))) == 5
        exec(delete, names)  # noqa: S102
        assert list(client.scan_iter("{invoices}:*")) == []
