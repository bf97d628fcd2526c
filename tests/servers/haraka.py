"""Haraka, which tests/servers/install gets from npm, with its own plugins for TLS and logins."""

from __future__ import annotations

from typing import ClassVar

from servers.node import SCRIPTS, NodeServer
from servers.real import SIZE_LIMIT

# With its CRLF: Haraka's default.
LINE_LIMIT = 992

# One process.
SMTP = """\
listen=127.0.0.1:{implicit},127.0.0.1:{starttls}
smtps_port={implicit}
inactivity_timeout={patience}
nodes=0
"""

# Haraka's own file, but for the size: what is missing in a file has no default.
CONNECTION = """\
[haproxy]
hosts[] =

[headers]
max_lines=1000
max_received=100

[max]
bytes={size}
mime_parts=1000
line_length=512
data_line_length={line_limit}

[message]
helo=Haraka is at your service.
close=closing connection. Have a jolly good day.

[uuid]
banner_chars=6
deny_chars=0
"""

TLS = """\
key={certificate}
cert={certificate}
"""

# ffdhe2048 (RFC 7919, appendix A.1). Without such a file, Haraka would compute one for many seconds.
DH_PARAMETERS = """\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


class Haraka(NodeServer):
    """A private Haraka."""

    name: ClassVar[str] = "haraka"
    package: ClassVar[str] = "Haraka"

    def expected(self, content: bytes) -> bytes:
        """Return *content* with lines of more than 990 octets broken, as Haraka does without a word."""
        lines = list[bytes]()
        for line in content.split(b"\r\n"):
            rest = line
            while len(rest) > LINE_LIMIT - len(b"\r\n"):
                lines.append(rest[: LINE_LIMIT - len(b"\r\n")])
                rest = b" " + rest[LINE_LIMIT - len(b"\r\n") :]
            lines.append(rest)
        return b"\r\n".join(lines)

    def _command(self) -> list[str]:
        config = self._directory / "config"
        for folder in ("config", "plugins", "queue"):
            (self._directory / folder).mkdir(exist_ok=True)
        for name, script in {"securesmtp": "haraka_plugin", "securesmtp_sink": "haraka_sink"}.items():
            (self._directory / "plugins" / f"{name}.js").write_bytes((SCRIPTS / f"{script}.js").read_bytes())
        files = {
            "smtp.ini": SMTP,
            "connection.ini": CONNECTION,
            "tls.ini": TLS,
            "plugins": "tls\nsecuresmtp\nsecuresmtp_sink\n",
            "dhparams.pem": DH_PARAMETERS,
            "log.ini": "level=info\nformat=default\n",
            "me": "localhost\n",
            # Otherwise, each wrong password is refused after one second, two seconds, and so on.
            "securesmtp.timeout": "1\n",
            # None: on a busy machine, 20 MB may take long.
            "securesmtp_sink.timeout": "0\n",
        }
        for name, text in files.items():
            (config / name).write_text(
                text.format(
                    implicit=self.implicit_port,
                    starttls=self.starttls_port,
                    certificate=self._certificate,
                    patience=self.patience,
                    size=SIZE_LIMIT,
                    line_limit=LINE_LIMIT,
                )
            )
        self._write_settings(config / "securesmtp.json")
        return [self._node(), str(self._modules() / "Haraka" / "bin" / "haraka"), "-c", str(self._directory)]
