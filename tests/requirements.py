"""
List the requirements that no test names: `python tests/requirements.py` (`nox -s trace`).

A requirement's number stands in the docstring of each test that holds it, so that removing the test shows here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# What this library must do, in a few words each: RFC 8314, 3207, 5321, 4954 and what was measured on smtplib and ssl.
REQUIRED = {
    "TLS-01": "no message and no credential without TLS, by any way",
    "TLS-02": "implicit TLS on 465 by default; the other mode is never probed",
    "TLS-03": "a verified certificate, or nothing is said",
    "TLS-04": "TLS 1.2 and 1.3 only",
    "TLS-05": "ECDHE with AEAD only",
    "TLS-06": "no compression, no renegotiation",
    "TLS-07": "a server name for names, none for addresses",
    "TLS-09": "no resumption",
    "TLS-10": "an end without close_notify, or inside a reply, is an error",
    "TLS-11": "exactly the configured roots; the environment changes nothing",
    "STLS-01": "one EHLO and one STARTTLS in the clear",
    "STLS-02": "any answer to STARTTLS but 220 ends the session",
    "STLS-03": "plaintext behind the 220 ends the session",
    "STLS-04": "what was said before TLS is forgotten",
    "STLS-05": "STARTTLS inside TLS is passed over",
    "STLS-06": "nothing between STARTTLS and the handshake",
    "STLS-07": "what was said in the clear is shown as doubtful, escaped and cut",
    "STLS-08": "after a failed handshake nothing goes on",
    "ID-01": "the name that was configured, never one from the network",
    "ID-02": "subjectAltName only, no common name",
    "ID-03": "a wildcard is one whole first label",
    "ID-04": "an address matches addresses only",
    "ID-05": "hosts in ASCII",
    "ID-08": "each refusal has its reason",
    "CMD-01": "no control character in a command",
    "CMD-02": "a mailbox exactly as given, or refused",
    "CMD-03": "a quoted local part adds nothing",
    "CMD-04": "parameters come from the library, each once, where they are offered",
    "CMD-05": "EHLO says a name or an address, and asks no resolver",
    "CMD-06": "lines and paths have the RFC's lengths",
    "CMD-07": "nothing before the greeting",
    "RPL-01": "a reply line is code, separator, text, CRLF",
    "RPL-02": "one code a reply",
    "RPL-03": "replies have bounds",
    "RPL-04": "nothing unread before a command",
    "RPL-05": "after a timeout or a fault the connection is dead",
    "RPL-06": "each step takes its own codes",
    "RPL-08": "a server's text is data",
    "RPL-09": "after 421 nothing is written",
    "TMO-01": "each operation has one limit for all of its reads",
    "TMO-03": "each block of the content has its own",
    "AUTH-01": "AUTH inside verified TLS only",
    "AUTH-02": "one mechanism, one attempt",
    "AUTH-03": "an empty initial response is an equals sign",
    "AUTH-04": "strict base64; a local fault ends the exchange",
    "AUTH-05": "no more answers than the mechanism has",
    "AUTH-06": "235 alone is success",
    "AUTH-07": "credentials in UTF-8 without NUL",
    "AUTH-08": "secrets show nowhere",
    "AUTH-10": "no AUTH parameter on MAIL",
    "MSG-01": "no bare CR, bare LF or NUL",
    "MSG-02": "dot-stuffing, and one end",
    "MSG-03": "the serialised header is checked",
    "MSG-04": "Bcc is not transmitted; somebody must receive",
    "MSG-05": "one content a send",
    "MSG-06": "the outcome is told, and true",
    "MSG-07": "after an exception nothing is written",
    "MSG-08": "what was checked is what is sent",
    "MSG-09": "no content when nobody, or not everybody, receives",
    "PIPE-01": "a flight in the order that RFC 2920 allows, where it is offered inside TLS",
    "PIPE-03": "each reply of a flight is looked at; a content for nobody must be refused",
    "PIPE-04": "replies are read while a flight is written",
    "PIPE-05": "as many replies as commands",
    "BDAT-01": "exact octets, one LAST, no DATA beside it, a reset after a refusal",
    "EXT-02": "8-bit content as 8BITMIME, encoded, or refused",
    "EXT-03": "UTF-8 in addresses where SMTPUTF8 is offered, or refused",
    "EXT-07": "keywords by their grammar; the first line is a name",
    "POL-01": "the documentation says that DANE and MTA-STS are for relays",
    "POL-02": "submission's ports; 530, 535 and 538 are about the login",
}


def missing(tests: Path) -> list[str]:
    """Return the numbers that no docstring in *tests* has."""
    text = "\n".join(path.read_text("utf-8") for path in tests.rglob("test_*.py"))
    return [number for number in REQUIRED if not re.search(rf"\b(?<!-){number}\b", text)]


if __name__ == "__main__":
    unproved = missing(Path(__file__).parent)
    for number in unproved:
        print(f"{number}: {REQUIRED[number]}: named by no test")  # noqa: T201 -- a report
    print(f"{len(REQUIRED) - len(unproved)} of {len(REQUIRED)} requirements are named by a test")  # noqa: T201
    sys.exit(bool(unproved))
