"""
Print what messages look like on the wire: each flight and what answers it, as a server saw it.

`python -m bench.flights` prints the diagrams of the page on speed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import trustme

from bench.clients import CLIENTS, Task
from bench.sink import sink

SHOWN = (
    ("smtplib", "PIPELINING CHUNKING", 1),
    ("securesmtp", "PIPELINING", 1),
    ("securesmtp", "PIPELINING CHUNKING", 1),
    ("securesmtp, session", "PIPELINING CHUNKING", 3),
)


def main() -> None:
    """Send with each over a connection that is open; with "session", after the server was tried."""
    ca = trustme.CA()
    with tempfile.TemporaryDirectory() as folder:
        ca_file, certificate = Path(folder, "ca.pem"), Path(folder, "certificate.pem")
        ca_file.write_bytes(ca.cert_pem.bytes())
        certificate.write_bytes(ca.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
        for name, offer, count in SHOWN:
            with sink(str(certificate), offer) as server, CLIENTS[name](Task(server.port, str(ca_file))) as send:
                send(3)
                server.counted()
                send(count)
                counts = server.counted()
            if name != SHOWN[0][0]:
                print()
            trips, messages = (
                f"{n} {what}{'s' * (n > 1)}" for n, what in ((counts.flights, "round trip"), (count, "message"))
            )
            print(f"{name}, {offer.replace(' ', ' and ')} offered: {trips} for {messages}")
            for words, codes in counts.said:
                print(f"  C: {' '.join(words)}")
                print(f"  S: {' '.join(codes)}")


if __name__ == "__main__":
    main()
