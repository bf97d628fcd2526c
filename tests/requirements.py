"""
List the requirements that no test names: `python tests/requirements.py` (`nox -s trace`).

The docstring of each test names the requirements that it checks, so a removed test shows up here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# What this library must do, from RFC 8314, 3207, 5321, 4954 and from measurements of smtplib and ssl.
REQUIRED = {
    "TLS-01": "no message and no credential without TLS, on any path",
    "TLS-02": "implicit TLS on 465 by default; the other mode is never probed",
    "TLS-03": "nothing is sent without a verified certificate",
    "TLS-04": "TLS 1.2 and 1.3 only",
    "TLS-05": "ECDHE with AEAD only",
    "TLS-06": "no compression, no renegotiation",
    "TLS-07": "SNI for host names, none for addresses",
    "TLS-09": "no resumption",
    "TLS-10": "a connection that ends without close_notify, or inside a reply, is an error",
    "TLS-11": "exactly the configured roots; the environment changes nothing",
    "STLS-01": "one EHLO and one STARTTLS in plaintext",
    "STLS-02": "any reply to STARTTLS but 220 ends the session",
    "STLS-03": "plaintext after the 220 ends the session",
    "STLS-04": "what came before TLS is forgotten",
    "STLS-05": "STARTTLS inside TLS is ignored",
    "STLS-06": "nothing between STARTTLS and the handshake",
    "STLS-07": "text received in plaintext is shown as untrusted, escaped and shortened",
    "STLS-08": "after a failed handshake the session ends",
    "ID-01": "the configured name, never one from the network",
    "ID-02": "subjectAltName only, no common name",
    "ID-03": "a wildcard is one whole first label",
    "ID-04": "an address matches addresses only",
    "ID-05": "hosts in ASCII",
    "ID-08": "each refusal names its reason",
    "CMD-01": "no control character in a command",
    "CMD-02": "a mailbox exactly as given, or refused",
    "CMD-03": "a quoted local part adds nothing",
    "CMD-04": "parameters come from the library, each once, if the server offers them",
    "CMD-05": "EHLO sends a name or an address without a DNS lookup",
    "CMD-06": "lines and paths are within the RFC's lengths",
    "CMD-07": "nothing before the greeting",
    "RPL-01": "a reply line is code, separator, text, CRLF",
    "RPL-02": "one code per reply",
    "RPL-03": "replies have bounds",
    "RPL-04": "nothing unread before a command",
    "RPL-05": "after a timeout or a fault the connection is not used again",
    "RPL-06": "each step accepts its own codes only",
    "RPL-08": "a server's text is data",
    "RPL-09": "after 421 nothing is written",
    "TMO-01": "each operation has one time limit for all its reads",
    "TMO-03": "each block of the content has its own time limit",
    "AUTH-01": "AUTH inside verified TLS only",
    "AUTH-02": "one mechanism, one attempt",
    "AUTH-03": "an empty initial response is an equals sign",
    "AUTH-04": "strict base64; a local fault ends the exchange",
    "AUTH-05": "no more responses than the mechanism has",
    "AUTH-06": "235 alone is success",
    "AUTH-07": "credentials in UTF-8 without NUL",
    "AUTH-08": "secrets are shown nowhere",
    "AUTH-10": "no AUTH parameter on MAIL",
    "OAU-01": "a token of RFC 6750's characters, in the form of each mechanism; a refusal in a challenge is answered",
    "OAU-03": "a token is fetched after the verified handshake",
    "SCR-01": "the nonces and the order of SCRAM's messages",
    "SCR-02": "bounds on the iterations and the salt, before anything is computed",
    "SCR-03": "the server's proof before its success",
    "SCR-04": "-PLUS with a binding that is right for the connection",
    "SCR-05": "the flag for channel bindings tells the truth",
    "MSG-01": "no bare CR, bare LF or NUL",
    "MSG-02": "dot-stuffing, and one final dot",
    "MSG-03": "the serialised header is checked",
    "MSG-04": "Bcc is not transmitted; there is at least one recipient",
    "MSG-05": "one content per send",
    "MSG-06": "the outcome is reported, and true",
    "MSG-07": "after an exception nothing is written",
    "MSG-08": "what was checked is what is sent",
    "MSG-09": "no content if no recipient, or not every recipient, was accepted",
    "PIPE-01": "command groups in the order that RFC 2920 allows, if PIPELINING is offered inside TLS",
    "PIPE-03": "each reply to a group is checked; a content without recipients must be refused",
    "PIPE-04": "replies are read while a group is written",
    "PIPE-05": "as many replies as commands",
    "BDAT-01": "exact octets, one LAST, no DATA as well, a reset after a refusal",
    "BDAT-02": "any bytes only with BINARYMIME and CHUNKING, and by BDAT",
    "EXT-02": "8-bit content as 8BITMIME, encoded, or refused",
    "EXT-03": "UTF-8 in addresses if SMTPUTF8 is offered, else refused",
    "EXT-05": "REQUIRETLS where it is demanded and offered inside TLS, else refused; never TLS-Required: No",
    "EXT-07": "keywords by their grammar; the first line is the server's name",
    "POL-01": "the documentation says that DANE and MTA-STS are for relays",
    "POL-02": "submission's ports; 530, 535 and 538 are about the login",
}


def missing(tests: Path) -> list[str]:
    """Return the numbers that no test in *tests* names."""
    text = "\n".join(path.read_text("utf-8") for path in tests.rglob("test_*.py"))
    return [number for number in REQUIRED if not re.search(rf"\b(?<!-){number}\b", text)]


if __name__ == "__main__":
    unchecked = missing(Path(__file__).parent)
    for number in unchecked:
        print(f"{number}: {REQUIRED[number]}: named by no test")  # noqa: T201 -- a report
    print(f"{len(REQUIRED) - len(unchecked)} of {len(REQUIRED)} requirements are named by a test")  # noqa: T201
    sys.exit(bool(unchecked))
