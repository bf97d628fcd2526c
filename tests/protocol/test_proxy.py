"""What is said to a proxy, without a network: URLs, SOCKS 5 (RFC 1928, RFC 1929) and CONNECT (RFC 9110 §9.3.6)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leaks import shown
from proxies import ANSWERS, SCHEMES, Scheme
from securesmtp import ConfigurationError, ProxyError, Secret
from securesmtp._protocol.proxy import Proxy, Write, open_tunnel, parse_proxy
from securesmtp._protocol.wire import MAX_REPLY, MAX_REPLY_LINE, MAX_REPLY_LINES

PASSWORD = "hunter2secret"


class Starved(Exception):  # noqa: N818 -- an outcome, not an error
    """The tunnel wants more than the proxy has sent."""


@dataclass
class Exchange:
    """What a tunnel wrote, and what it left of the proxy's bytes."""

    written: list[bytes] = field(default_factory=list)
    left: bytes = b""


def play(url: str, answer: bytes, host: str = "mail.example", port: int = 587) -> Exchange:
    """Open a tunnel through the proxy at *url*, which sends *answer*."""
    found = Exchange(left=answer)
    tunnel, fed = open_tunnel(parse_proxy(Secret(url)), host, port), None
    while True:
        try:
            effect = tunnel.send(fed)
        except StopIteration:
            return found
        fed = None
        if isinstance(effect, Write):
            found.written.append(effect.data)
            continue
        if len(found.left) < effect.size:
            raise Starved
        fed, found.left = found.left[: effect.size], found.left[effect.size :]


def url_of(scheme: Scheme, login: str = "") -> str:
    """Return the URL of a proxy."""
    return f"{scheme}://{login}proxy.test:1080"


def shown_of(proxy: Proxy) -> tuple[object, ...]:
    """Return the parts of *proxy*, with its login."""
    secrets = (None if each is None else each.reveal() for each in (proxy.username, proxy.password))
    return (proxy.scheme, proxy.host, proxy.port, *secrets)


GOOD = {
    "socks5h://proxy.test:1080": ("socks5h", "proxy.test", 1080, None, None),
    "SOCKS5H://proxy.test:1080/": ("socks5h", "proxy.test", 1080, None, None),
    "http://[::1]:8080": ("http", "::1", 8080, None, None),
    "http://me:secret@192.0.2.1:3128": ("http", "192.0.2.1", 3128, "me", "secret"),
    "socks5h://m%40e:p%3A%2F%25w@proxy.test:1": ("socks5h", "proxy.test", 1, "m@e", "p:/%w"),
    "socks5h://me:a:b+c@proxy.test:65535": ("socks5h", "proxy.test", 65535, "me", "a:b+c"),
    "socks5h://gr%C3%BC%C3%9F:%00@proxy.test:1": ("socks5h", "proxy.test", 1, "grüß", "\0"),
    f"socks5h://{'u' * 255}:{'%41' * 255}@proxy.test:1": ("socks5h", "proxy.test", 1, "u" * 255, "A" * 255),
    f"http://u:{'p' * 4096}@proxy.test:1": ("http", "proxy.test", 1, "u", "p" * 4096),
}


@pytest.mark.parametrize(("url", "parts"), GOOD.items(), ids=range(len(GOOD)))
def test_a_url_has_the_parts_of_a_proxy(url: str, parts: tuple[object, ...]) -> None:
    """Percent-decoded; a plus sign stays one (X17)."""
    assert shown_of(parse_proxy(Secret(url))) == parts


BAD: dict[str, tuple[object, str]] = {
    "not a str": (5, "is a int"),
    "no scheme": ("proxy.test:1080", "no scheme|or none"),
    "socks5": (f"socks5://me:{PASSWORD}@proxy.test:1080", "socks5h://, so that the proxy looks up"),
    "socks4": ("socks4://proxy.test:1080", "only SOCKS 5"),
    "https": (f"https://me:{PASSWORD}@proxy.test:443", "TLS to the proxy itself is not supported"),
    "ftp": (f"ftp://me:{PASSWORD}@proxy.test:443", "another scheme"),
    "no port": ("socks5h://proxy.test", "not a host and a port"),
    "port 0": ("socks5h://proxy.test:0", "not a host and a port"),
    "port 65536": ("socks5h://proxy.test:65536", "not a host and a port"),
    "no host": ("http://:1080", "not a host and a port"),
    "a path": (f"http://me:{PASSWORD}@proxy.test:1080/x", "not a host and a port"),
    "a query": ("http://proxy.test:1080?x", "not a host and a port"),
    "no brackets": ("http://2001:db8::1:1080", "not a host and a port"),
    "no password": (f"http://{PASSWORD}@proxy.test:1080", "not a host and a port"),
    "a slash in the password": (f"http://me:a/{PASSWORD}@proxy.test:1080", "%2F"),
    "an at sign in the password": (f"http://me:a@{PASSWORD}@proxy.test:1080", "%40"),
    "a blank": (f"http://me:{PASSWORD} @proxy.test:1080", "percent-encode"),
    "a line end": (f"http://me:{PASSWORD}@proxy.test:1080\r\nHost: x", "percent-encode"),
    "a line end in the login": (f"http://me:{PASSWORD}%0D%0AHost:%20x@proxy.test:1080", "percent-encode"),
    "half an escape": (f"http://me:{PASSWORD}%4@proxy.test:1080", "percent-encode"),
    "a byte of the environment that is not UTF-8": (f"socks5h://me:{PASSWORD}\udce9@proxy.test:1080", "UTF-8"),
    "the same in the username": (f"http://m\udce9e:{PASSWORD}@proxy.test:1080", "UTF-8"),
    "not UTF-8": (f"http://me:{PASSWORD}%FF@proxy.test:1080", "UTF-8"),
    "an empty username": (f"http://:{PASSWORD}@proxy.test:1080", "empty"),
    "an empty password": ("http://me:@proxy.test:1080", "empty"),
    "a colon in the username": (f"http://m%3Ae:{PASSWORD}@proxy.test:1080", "%3A"),
    "256 bytes": (f"socks5h://me:{PASSWORD * 20}@proxy.test:1080", "more than 255 bytes"),
    "256 bytes of UTF-8": (f"socks5h://me:{'%C3%BC' * 128}@proxy.test:1080", "more than 255 bytes"),
    "4097 bytes": (f"http://me:{'p' * 4097}@proxy.test:1080", "more than 4096 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_url_that_is_no_proxy_is_refused_and_not_shown(case: str) -> None:
    """The error says what to write; neither it nor a frame has the password."""
    url, words = BAD[case]
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse_proxy(Secret(url))  # type: ignore[arg-type]
    assert PASSWORD not in shown(caught.value)


HOSTS = {
    "mail.example": b"\3\x0cmail.example",
    "192.0.2.1": b"\1\xc0\0\2\1",
    "2001:db8::1": b"\4\x20\x01\x0d\xb8" + bytes(11) + b"\1",
}


@pytest.mark.parametrize("host", HOSTS)
def test_socks_5_sends_the_name_itself(host: str) -> None:
    """RFC 1928 §3, §4: the proxy looks it up; an address is in binary."""
    found = play(url_of("socks5h"), b"".join(ANSWERS["socks5h"]), host, 587)
    assert found.written == [b"\5\1\0", b"\5\1\0" + HOSTS[host] + b"\2\x4b"]


@pytest.mark.parametrize(("user", "word"), [("u", "p"), ("u" * 255, "p" * 255)], ids=["1 byte", "255 bytes"])
def test_socks_5_logs_in_when_it_is_asked(user: str, word: str) -> None:
    """RFC 1929 §2; a proxy that asks for no login does not get the password."""
    url = url_of("socks5h", f"{user}:{word}@")
    found = play(url, b"\5\2\1\0" + ANSWERS["socks5h"][1])
    login = bytes((1, len(user))) + user.encode() + bytes((len(word),)) + word.encode()
    assert found.written[:2] == [b"\5\2\0\2", login]
    assert word.encode() not in b"".join(play(url, b"".join(ANSWERS["socks5h"])).written[:1])
    assert len(play(url, b"".join(ANSWERS["socks5h"])).written) == 2


@pytest.mark.parametrize("name", [0, 1, 255])
@pytest.mark.parametrize("surplus", [b"", b"220 mx.test\r\n"], ids=["alone", "with the greeting"])
def test_socks_5_reads_an_address_of_any_length(name: int, surplus: bytes) -> None:
    """RFC 1928 §6; a shorter answer does not suffice at any octet, and what follows is left (X17)."""
    answer = b"\5\0\5\0\0\3" + bytes((name,)) + b"n" * name + b"\0\x19"
    assert play(url_of("socks5h"), answer + surplus).left == surplus
    for cut in range(len(answer)):
        with pytest.raises(Starved):
            play(url_of("socks5h"), answer[:cut])


@pytest.mark.parametrize("kind", [b"\1" + bytes(6), b"\4" + bytes(18)], ids=["IPv4", "IPv6"])
def test_socks_5_reads_an_address_in_binary(kind: bytes) -> None:
    """RFC 1928 §6."""
    assert play(url_of("socks5h"), b"\5\0\5\0\0" + kind + b"220").left == b"220"


REFUSALS: dict[str, tuple[str, bytes, str, bool]] = {
    "socks: a login": ("socks5h://p.test:1", b"\5\xff", "requires a login.*user:password", False),
    "socks: no login": ("socks5h://u:p@p.test:1", b"\5\xff", "takes no login", False),
    "socks: not asked": ("socks5h://p.test:1", b"\5\2", "is not SOCKS 5", False),
    "socks: GSSAPI": ("socks5h://u:p@p.test:1", b"\5\1", "is not SOCKS 5", False),
    "socks: version 4": ("socks5h://p.test:1", b"\0\x5a", "is not SOCKS 5", False),
    "socks: HTTP": ("socks5h://p.test:1", b"HTTP/1.1 400 Bad Request\r\n", "write http://", False),
    "socks: wrong login": ("socks5h://u:p@p.test:1", b"\5\2\1\1", "refused the login", False),
    "socks: login version": ("socks5h://u:p@p.test:1", b"\5\2\5\0", "is not SOCKS 5", False),
    "socks: version later": ("socks5h://p.test:1", b"\5\0\4\0\0\1", "is not SOCKS 5", False),
    "socks: address type": ("socks5h://p.test:1", b"\5\0\5\0\0\2", "is not SOCKS 5", False),
    "socks: 1": ("socks5h://p.test:1", b"\5\0\5\1\0\1", "mail.example:587: general failure", True),
    "socks: 2": ("socks5h://p.test:1", b"\5\0\5\2\0\1", "rules do not allow it.*rules of the proxy must", False),
    "socks: 3": ("socks5h://p.test:1", b"\5\0\5\3\0\1", "network is unreachable", True),
    "socks: 4": ("socks5h://p.test:1", b"\5\0\5\4\0\1", "host is unreachable", True),
    "socks: 5": ("socks5h://p.test:1", b"\5\0\5\5\0\1", "server refused", True),
    "socks: 6": ("socks5h://p.test:1", b"\5\0\5\6\0\1", "time to live", True),
    "socks: 7": ("socks5h://p.test:1", b"\5\0\5\7\0\1", "CONNECT", False),
    "socks: 8": ("socks5h://p.test:1", b"\5\0\5\x08\0\1", "type of address", False),
    "socks: 9": ("socks5h://p.test:1", b"\5\0\5\x09\0\1", "reply 9", False),
    "http: 403": ("http://p.test:1", b"HTTP/1.1 403 Forbidden\r\n", r"\(403\).*port 443 alone", False),
    "http: 407": ("http://p.test:1", b"HTTP/1.1 407 \r\n", r"requires a login \(407\).*Basic", False),
    "http: 407 again": ("http://u:p@p.test:1", b"HTTP/1.0 407\r\n", r"refused the login \(407\)", False),
    "http: 401": ("http://u:p@p.test:1", b"HTTP/1.0 401 Unauthorized\r\n", r"refused the login \(401\)", False),
    "http: 400": ("http://p.test:1", b"HTTP/1.1 400 Bad\r\n", "replied 400 .*allow CONNECT", False),
    "http: 302": ("http://p.test:1", b"HTTP/1.1 302 Found\r\n", "replied 302", False),
    "http: 101": ("http://p.test:1", b"HTTP/1.1 101 Switch\r\n", "replied 101", False),
    "http: 502": ("http://p.test:1", b"HTTP/1.1 502 Bad Gateway\r\n", "replied 502 .*reach the server", True),
    "http: 503": ("http://p.test:1", b"HTTP/1.1 503 x\r\n", "replied 503", True),
    "http: 504": ("http://p.test:1", b"HTTP/1.1 504 x\r\n", "replied 504", True),
    "http: SMTP": ("http://p.test:1", b"220 mx.test ESMTP\r\n", "is not HTTP", False),
    "http: SOCKS": ("http://p.test:1", b"\5\0\n", "CR LF", False),
    "http: version 2": ("http://p.test:1", b"HTTP/2 200\r\n", "is not HTTP", False),
    "http: 2000": ("http://p.test:1", b"HTTP/1.1 2000 OK\r\n", "is not HTTP", False),
    "http: bare LF": ("http://p.test:1", b"HTTP/1.1 200 OK\n\n", "CR LF", False),
    "http: bare LF later": ("http://p.test:1", b"HTTP/1.1 200 OK\r\nVia: x\n\r\n", "CR LF", False),
    "http: a long line": ("http://p.test:1", b"HTTP/1.1 200 " + b"x" * MAX_REPLY_LINE + b"\r\n\r\n", "too long", False),
    "http: many lines": (
        "http://p.test:1", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * MAX_REPLY_LINES + b"\r\n", "too long", False),
    "http: endless": (
        "http://p.test:1", b"HTTP/1.1 200 OK\r\n" + (b"a" * 999 + b"\r\n") * (MAX_REPLY // 999 + 1), "too long", False),
    "http: endless interim": ("http://p.test:1", b"HTTP/1.1 100 \r\n\r\n" * MAX_REPLY_LINES, "too long", False),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_says_what_to_do(case: str) -> None:
    """Port, login, and the rest (X16); the proxy's own words are not shown."""
    url, answer, words, is_temporary = REFUSALS[case]
    with pytest.raises(ProxyError, match=words) as caught:
        play(url, answer)
    assert caught.value.retryable is is_temporary
    assert (caught.value.outcome, caught.value.stage) == ("not sent", "connect")
    assert "p.test:1" in str(caught.value)


CONNECTS = {
    "mail.example": b"mail.example:587",
    "192.0.2.1": b"192.0.2.1:587",
    "2001:db8::1": b"[2001:db8::1]:587",
}


@pytest.mark.parametrize("host", CONNECTS)
def test_connect_names_the_server_in_line_and_host(host: str) -> None:
    """In brackets where its end could be taken for the port (X15)."""
    found = play(url_of("http"), b"HTTP/1.1 200 OK\r\n\r\n", host, 587)
    assert found.written == [b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (CONNECTS[host], CONNECTS[host])]


def test_connect_logs_in_at_once() -> None:
    """RFC 7617: a proxy that asks first would cost a second connection."""
    found = play(url_of("http", "me:p%C3%BC:w@"), b"HTTP/1.1 200 OK\r\n\r\n")
    login = base64.b64encode("me:pü:w".encode())
    assert found.written[0].split(b"\r\n")[2] == b"Proxy-Authorization: Basic " + login


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200\r\n\r\n", b"HTTP/1.1 204 \r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n",
        b"HTTP/1.1 200 \xff\0\r\n\r\n",
    ],
    ids=["1.1", "1.0", "length", "chunked", "interim", "odd bytes"],
)  # fmt: skip
def test_the_tunnel_begins_after_the_empty_line(head: bytes) -> None:
    """RFC 9110 §9.3.6: whatever the fields say; and at no octet before it."""
    assert play(url_of("http"), head + b"220 mx.test\r\n").left == b"220 mx.test\r\n"
    for cut in range(len(head)):
        with pytest.raises(Starved):
            play(url_of("http"), head[:cut])


REPEATED = {
    "in a reason": b"HTTP/1.1 407 %s\r\n",
    "in another": b"HTTP/1.1 403 %s\r\n",
    "in no status line": b"%s\r\n",
    "in a line with LF": b"HTTP/1.1 200 OK\r\nX: %s\n",
    "in a line too long": b"HTTP/1.1 200 OK\r\n%s" + b"x" * MAX_REPLY_LINE,
    "in too many lines": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MAX_REPLY_LINES - 1) + b"%s\r\n",
}


@pytest.mark.parametrize("case", REPEATED)
@pytest.mark.parametrize(
    "form", [PASSWORD.encode(), base64.b64encode(f"me:{PASSWORD}".encode())], ids=["plain", "Basic"]
)
def test_a_login_that_a_proxy_repeats_is_in_no_frame(case: str, form: bytes) -> None:
    """Proxies quote the request in their errors."""
    with pytest.raises(ProxyError) as caught:
        play(url_of("http", f"me:{PASSWORD}@"), REPEATED[case] % form)
    assert form.decode()[-12:] not in shown(caught.value)


@pytest.mark.parametrize("host", ["mail.example\r\nX: y", "a\0b", "a\tb"])
def test_no_host_can_add_to_the_request(host: str) -> None:
    """The mailer refuses such a host before; a line with it cannot be built either."""
    with pytest.raises(ConfigurationError, match="printable"):
        play(url_of("http"), b"", host)


@given(st.sampled_from(SCHEMES), st.sampled_from(["", "me:secret@"]), st.integers(0, 300), st.binary(max_size=60))
@example("http", "", 15, b"\r\n\r\n")
@example("socks5h", "me:secret@", 0, b"\5\2\1\0\5\0\0\1\0\0\0\0\0\0")
def test_any_answer_ends_in_a_tunnel_or_in_one_error(scheme: Scheme, login: str, kept: int, noise: bytes) -> None:
    """A right beginning, and then anything: no other exception, and no byte is taken twice or lost."""
    answer = b"".join(ANSWERS[scheme])[:kept] + noise
    try:
        found = play(url_of(scheme, login), answer)
    except (ProxyError, Starved):
        return
    assert answer.endswith(found.left)
