"""
What an error of a check means for the program: its cause, its fix, and the line to write.

Each fault has the name of its section in the troubleshooting page. Those of errors are there because every error of the
library has one; those of warnings are in its section "Warnings of the check".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from securesmtp import CertificateReason, Reply, SecureSMTPError, Stage
from securesmtp._cli.check.result import CONNECTED, NOT_TRIED, OVERTAKEN, Fault
from securesmtp.errors import CertificateError, ConnectError, DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from securesmtp._cli.check.result import AddressTried, Certificate, Request
    from securesmtp._protocol.capabilities import Capabilities

# What to do about an error that has no hint of its own, by the name of its section.
_FIXES = {
    "authenticationerror": "check the user name and the password",
    "certificateerror-other": "look at the certificate: openssl s_client -showcerts shows it",
    "deadlineexceedederror": "ask who runs the server, or the firewall in between; a longer --timeout waits longer",
    "downgradeerror": "run the check from another network: if STARTTLS works there, something in between removes it",
    "nousablemechanismerror": "use the submission port (465 or 587), and a login that the server offers",
    "protocolerror": "look at what the server sends: is it SMTP at all, and is a proxy in between?",
    "proxyerror": "ask who runs the proxy, or try without it from another network",
    "refusederror": "read the server's reply: 4xx is temporary, 5xx is not",
    "servernotauthenticerror": "ask who runs the server; do not turn SCRAM off to get rid of this",
    "tlserror": "the server must offer TLS 1.2 or 1.3 with ECDHE and AES-GCM or ChaCha20",
}
_ANY = "fix the cause, and run the check again"
# The argument that a hint of the library names, as a line to copy.
_LINES = {
    'tls="starttls"': 'tls="starttls"',
    'tls="implicit"': 'tls="implicit"',
    "local_hostname=": 'local_hostname="app.example.com"',
    "auth=OAuth2(": "auth=OAuth2(username, token)",
}
_CLIENT_CERTIFICATE = 'policy=TLSPolicy(client_cert="me.pem", client_key="me.key")'
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
# Bytes: less than many a message with one attachment.
_SMALL = 5_000_000
_LEGACY = ("MD5", "SHA1")
_PORT_RELAY = 25
_DEFAULT_PORTS = ((465, "implicit"), (587, "starttls"))


@dataclass(frozen=True, slots=True)
class Facts:
    """
    What a fault may depend on.

    Attributes:
        request: What was asked.
        port: The port that was connected to.
        mode: The TLS mode.
        chain: The certificates that the server sent.
        timeout: Seconds that a program waits for a command unless it says otherwise.
    """

    request: Request
    port: int
    mode: Literal["implicit", "starttls"]
    chain: Sequence[Certificate]
    timeout: float = 60


def explain_error(error: SecureSMTPError, facts: Facts) -> Fault:
    """Return the fault that *error* is."""
    name = error.url.partition("#")[2]
    return Fault("error", name, str(error.args[0]), _fix(error, name, facts), _line(error, facts))


def _fix(error: SecureSMTPError, name: str, facts: Facts) -> str:
    fix = error.hint or _FIXES.get(name, _ANY)
    match error:
        case CertificateError(reason=CertificateReason.PIN):
            fix += "; ask who runs the server, not over this connection, whether its key was changed"
        case CertificateError(reason=CertificateReason.SELF_SIGNED) if len(facts.chain) == 1:
            fix += "; or compare the SHA-256 of your copy with theirs, by phone"
        case CertificateError(reason=CertificateReason.NAME_MISMATCH):
            fix += "; whoever has a certificate for that name is then accepted"
        case ConnectError(stage=Stage.GREETING, reply=Reply()):
            fix = "the server rejects this machine, and its reply may say why: a block list, or too many connections"
        case ConnectError(hint=None):
            fix = f"try to reach the server by hand: {_by_hand(facts)}"
        case DeadlineExceededError(hint=None):
            if _may_be_starttls(error, facts):
                fix = f'if the port is for STARTTLS (usually 587), use tls="starttls"; otherwise {fix}'
            waited = f" (this check waited {facts.request.timeout:g} s; a program waits {facts.timeout:g} s)"
            fix += waited if facts.request.timeout < facts.timeout else ""
    return fix


def _may_be_starttls(error: SecureSMTPError, facts: Facts) -> bool:
    # A server that waits before it greets in plaintext says nothing.
    return error.stage is Stage.HANDSHAKE and facts.mode == "implicit"


def _by_hand(facts: Facts) -> str:
    starttls = " -starttls smtp" if facts.mode == "starttls" else ""
    host = facts.request.host
    return f"openssl s_client -connect {f'[{host}]' if ':' in host else host}:{facts.port}{starttls}"


def _line(error: SecureSMTPError, facts: Facts) -> str | None:
    """Return the line to write in the program; None if no line helps."""
    match error:
        case CertificateError():
            return _line_of_certificate(error, facts)
        case DeadlineExceededError() if _may_be_starttls(error, facts):
            return 'tls="starttls"'
        case ConnectError() if "certificate required" in str(error.args[0]).lower().replace("_", " "):
            return _CLIENT_CERTIFICATE
    return next((line for sign, line in _LINES.items() if error.hint and sign in error.hint), None)


def _line_of_certificate(error: CertificateError, facts: Facts) -> str | None:
    request, leaf = facts.request, facts.chain[0] if facts.chain else None
    match error.reason:
        case CertificateReason.UNTRUSTED | CertificateReason.SELF_SIGNED:
            # If one was passed, or the server is to send more, another line does not help.
            is_missing = request.ca_file is None and " as ca_file" in (error.hint or "")
            return _arguments(request, ca_file="ca.pem") if is_missing else None
        case CertificateReason.STRICT:
            return _arguments(request, ca_file=request.ca_file or "ca.pem", allow_legacy_ca=True)
        case CertificateReason.PIN if leaf is not None:
            return _arguments(request, pins=(leaf.spki_sha256,))
        case CertificateReason.NAME_MISMATCH if leaf is not None:
            return _lines_of_name(leaf, facts)
    return None


def _lines_of_name(leaf: Certificate, facts: Facts) -> str | None:
    """Return a mailer with another host, and one that accepts a certificate for that host, each a line."""
    request = facts.request
    # Only what is a host name is suggested as one: anyone can put anything into a certificate.
    wanted = request.server_name or request.host
    name = next((each for each in leaf.names if _HOST_NAME.fullmatch(each) and each != wanted), None)
    if name is None:
        return None
    # By host: the name that its certificate must have, if that is another one.
    hosts = {name: None} if name == request.host else {name: None, request.host: name}
    parts = [
        [_literal(host), *_where(facts), _arguments(request, server_hostname=other)] for host, other in hosts.items()
    ]
    return "\n".join(f"SecureMailer({', '.join(filter(None, each))})" for each in parts)


def _arguments(request: Request, **changed: object) -> str:
    """Return what was passed, and what is *changed*, as arguments; empty if there is nothing."""
    given: dict[str, object] = {
        "ca_file": request.ca_file,
        "pins": request.pins or None,
        "client_cert": request.client_cert,
        "server_hostname": request.server_name,
    }
    values = {name: value for name, value in (given | changed).items() if value is not None}
    texts = ", ".join(f"{name}={_literal(value)}" for name, value in values.items())
    return texts if set(values) <= {"ca_file"} else f"policy=TLSPolicy({texts})"


def _where(facts: Facts) -> list[str]:
    """Return port and mode as arguments after the host, unless they are the defaults."""
    port = [] if (facts.port, facts.mode) in _DEFAULT_PORTS else [str(facts.port)]
    return port + ['tls="starttls"'] * (facts.mode == "starttls")


def warn(facts: Facts, before: Capabilities | None, after: Capabilities | None, version: str | None) -> list[Fault]:
    """Return what is odd about a server; *version* is that of the verified TLS session, if there is one."""
    found = [_port(facts.port)]
    if version is not None:
        found += [_legacy_signature(facts.chain), _old_version(version)]
    if before is not None:
        found.append(_auth_before_tls(before))
    if after is not None:
        found += [_different(before, after), _no_pipelining(after), _small_size(after)]
    return [fault for fault in found if fault is not None]


def warn_of_addresses(addresses: Sequence[AddressTried]) -> list[Fault]:
    """Return what is odd about *addresses*, of which one is connected."""
    dead = [each for each in addresses if each.result not in {CONNECTED, NOT_TRIED, OVERTAKEN}]
    if not dead or len(dead) == len(addresses):
        return []
    cause = "not every address of the host answers: " + "; ".join(f"{each.address}: {each.result}" for each in dead)
    fix = "remove the address from the DNS zone, or make the server listen there; until then some sends begin late"
    return [_warning("dead-address", cause, fix)]


def warn_of_differences(answers: Mapping[str, Mapping[str, object]]) -> list[Fault]:
    """Return a warning if the addresses of one host differ; by address, *answers* has each thing to compare."""
    kinds = next(iter(answers.values()), {})
    different = [kind for kind in kinds if len({repr(answer[kind]) for answer in answers.values()}) > 1]
    if not different:
        return []
    groups: dict[str, list[str]] = {}
    for address, answer in answers.items():
        groups.setdefault(repr([answer[kind] for kind in different]), []).append(address)
    alike = "; ".join(", ".join(each) for each in groups.values())
    cause = f"the addresses of the host differ in {' and '.join(different)}: {alike}"
    fix = "compare the servers behind them, and set them up alike"
    return [_warning("different-addresses", cause, fix)]


def _legacy_signature(chain: Sequence[Certificate]) -> Fault | None:
    # Nobody checks the signature of a root.
    old = [each for each in chain if each.signature.startswith(_LEGACY) and not each.is_self_issued]
    if not old:
        return None
    cause = f"the server sends a certificate with an old signature: {_quoted(old[0].subject)}, {old[0].signature}"
    return _warning("legacy-signature", cause, "have the CA sign it again with SHA-256, or stop sending it")


def _old_version(version: str) -> Fault | None:
    if version == "TLSv1.3":
        return None
    cause = "the server supports TLS 1.2 only: it is safe, and takes one more round trip for each connection"
    return _warning("tls-1-2", cause, "turn TLS 1.3 on at the server")


def _port(port: int) -> Fault | None:
    if port != _PORT_RELAY:
        return None
    cause = "port 25 is for mail between servers; many networks block it, and most servers take no login there"
    return _warning("port-25", cause, "use the submission port: 465 for implicit TLS, or 587 for STARTTLS", "port=465")


def _auth_before_tls(before: Capabilities) -> Fault | None:
    if not before.auth:
        return None
    cause = f"the server offers logins before TLS ({' '.join(before.auth)}): other clients may send a password there"
    fix = "turn that off at the server (Postfix: smtpd_tls_auth_only = yes); this library never logs in before TLS"
    return _warning("auth-before-tls", cause, fix)


def _different(before: Capabilities | None, after: Capabilities) -> Fault | None:
    if before is None:
        return None
    # REQUIRETLS has a meaning inside TLS only (RFC 8689 §4.2.1).
    old, new = set(before.keywords) - {"STARTTLS"}, set(after.keywords) - {"REQUIRETLS"}
    differences = [f"only before TLS: {' '.join(sorted(old - new))}"] * bool(old - new)
    differences += [f"only inside TLS: {' '.join(sorted(new - old))}"] * bool(new - old)
    if not differences:
        return None
    cause = f"the server offers other extensions inside TLS than before it ({'; '.join(differences)})"
    fix = "if the server is not set up so, a proxy in between changes the plaintext; only what is inside TLS counts"
    return _warning("different-capabilities", cause, fix)


def _no_pipelining(after: Capabilities) -> Fault | None:
    if "PIPELINING" in after:
        return None
    cause = "the server does not offer PIPELINING: each message takes four round trips instead of one or two"
    return _warning("no-pipelining", cause, "turn it on at the server, or look for a proxy that removes it")


def _small_size(after: Capabilities) -> Fault | None:
    if after.size is None or after.size >= _SMALL:
        return None
    cause = f"the server takes messages of at most {after.size} bytes (SIZE)"
    return _warning("small-size", cause, "raise the limit at the server, or send links instead of attachments")


def _warning(name: str, cause: str, fix: str, line: str | None = None) -> Fault:
    return Fault("warning", name, cause, fix, line)


def _literal(value: object) -> str:
    """Return *value* as a program has it: a path or a text between double quotes, a tuple of these, or a bool."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' * (len(value) == 1)})"
    return repr(value) if isinstance(value, bool) else json.dumps(str(value))


def _quoted(name: str) -> str:
    return f"'{name}'"
