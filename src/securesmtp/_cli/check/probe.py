"""One check of one server: the same way as a send takes, up to MAIL."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from functools import partial as bind
from ipaddress import ip_address
from time import monotonic
from typing import TYPE_CHECKING

from securesmtp import ConfigurationError, OAuth2, Password, SecureMailer, SecureSMTPError, TLSPolicy
from securesmtp._cli.check.chain import read_chain
from securesmtp._cli.check.faults import Facts, explain_error, warn, warn_of_addresses, warn_of_differences
from securesmtp._cli.check.result import CheckResult
from securesmtp._cli.check.watched import StoppedError, Watch, WatchedLink, look_up
from securesmtp._environment import ca_file_variable, find_ignored_trust
from securesmtp._protocol.redaction import Redactor
from securesmtp._protocol.sasl import NOT_BOUND, RANKED, Choice, choose_mechanism
from securesmtp._secret import Secret
from securesmtp._shown import quote
from securesmtp._transport.pool import Pool
from securesmtp._transport.tls import describe_trust

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp import ServerReport
    from securesmtp._cli.check.result import Request
    from securesmtp._core import Core
    from securesmtp._protocol.capabilities import Capabilities
    from securesmtp._protocol.sasl import Auth

# Chosen with to say which mechanism a login would use; nobody logs in with them.
_WITH_PASSWORD, _WITH_TOKEN = Password("-", Secret("-")), OAuth2("-", Secret("-"))


_NO_PREFIX = re.compile(b"")


def probe(request: Request) -> CheckResult:
    """
    Check one server at one address: the given one, or the first of the host's that answers.

    Raises:
        ConfigurationError: The request is wrong; nothing was connected to.
    """
    began, login = monotonic(), _login(request)
    core = _core(request, login)
    watch = Watch(request.until, request.family, request.address)
    report, error = _run(core, watch)
    settings = core.settings
    chain = read_chain(watch.channel.sent_certificates())
    facts = Facts(request, settings.port, settings.mode.value, chain)
    session = watch.links[-1].connection.exchange.tls
    faults = [] if error is None else [explain_error(error, facts)]
    addresses = watch.tried()
    faults += warn_of_addresses(addresses)
    faults += warn(facts, watch.before_tls, watch.after_tls, None if session is None else session.version)
    mechanism, reason = _mechanism(watch, login)
    hide = bind(_hide, Redactor(core.memory))
    return CheckResult(
        host=settings.host,
        port=settings.port,
        tls=settings.mode.value,
        stage=watch.stage,
        addresses=addresses,
        chain=chain,
        report=report and replace(report, mechanisms=tuple(map(hide, report.mechanisms))),
        error=error,
        faults=tuple(replace(fault, cause=hide(fault.cause)) for fault in faults),
        round_trips=None if report is None else report.round_trips,
        transcript=tuple(
            replace(line, text=hide(line.text)) if line.hint.startswith("<") else line
            for line in watch.transcript.lines
        ),
        elapsed=timedelta(seconds=monotonic() - began),
        address=watch.channel.address or request.address,
        trust=describe_trust(settings.policy),
        session=session,
        before_tls=_offered(watch.before_tls, hide),
        after_tls=_offered(watch.after_tls, hide),
        mechanism=mechanism,
        mechanism_reason=reason,
        notes=_notes(settings.policy),
    )


def probe_all(request: Request) -> list[CheckResult]:
    """
    Check each address of a server; the certificate at each must be for the host's name.

    Raises:
        ConfigurationError: The request is wrong; nothing was connected to.
    """
    core = _core(request, _login(request))
    found = look_up(core.settings.host, core.settings.port, request.family)
    if not found:
        # Its result says why there is none.
        return [probe(request)]
    results = [probe(replace(request, address=each)) for each in found]
    addresses = tuple(tried for result in results for tried in result.addresses)
    warnings = warn_of_differences({str(each.address): _compared(each) for each in results})
    return [replace(each, addresses=addresses, faults=(*each.faults, *warnings)) for each in results]


def _login(request: Request) -> Auth | None:
    if request.username is not None and request.password is not None:
        return (OAuth2 if request.oauth else Password)(request.username, request.password)
    if request.password is not None:
        message = "there is a password or a token, and no username"
        raise ConfigurationError(message)
    if request.username is None:
        return None
    if request.until in {None, "auth"}:
        message = "there is a username, and neither a password nor a token"
        raise ConfigurationError(message)
    # It says which mechanism a login would use.
    return _WITH_TOKEN if request.oauth else _WITH_PASSWORD


def _core(request: Request, login: Auth | None) -> Core:
    """Return what a mailer with these arguments does without waiting."""
    if request.address is not None:
        try:
            ip_address(request.address)
        except ValueError:
            message = f"{quote(request.address)} is not an IP address"
            raise ConfigurationError(message) from None
    mailer = SecureMailer(
        request.host,
        request.port,
        tls=request.tls,
        auth=login if request.until in {None, "auth"} else None,
        policy=TLSPolicy(
            ca_file=request.ca_file,
            pins=request.pins or None,
            client_cert=request.client_cert,
            server_hostname=request.server_name,
            allow_legacy_ca=request.allow_legacy_ca,
        ),
        timeout=request.timeout,
        local_hostname=request.local_hostname,
    )
    return mailer._core  # noqa: SLF001 -- a mailer makes its connections itself, and these are watched


def _run(core: Core, watch: Watch) -> tuple[ServerReport | None, SecureSMTPError | None]:
    """Do what `SecureMailer.check` does, over a connection that *watch* follows."""
    pool = Pool(core.settings, core.context, core.on_event, core.memory, bind(WatchedLink, watch))
    # A file of roots that is missing is no fault of the server.
    pool.slots.build_context()
    try:
        link, session, refusal = pool.check(core.start_deadline(None))
    except StoppedError:
        return None, None
    except SecureSMTPError as error:
        core.annotate(error, None)
        watch.transcript.note_error(error)
        return None, error
    if refusal is not None:
        core.annotate(refusal, None)
        watch.transcript.note_error(refusal)
    elif core.settings.login is not None:
        watch.stage = "auth"
    return core.report(link.connection, session, refusal), refusal


def _hide(redactor: Redactor, text: str) -> str:
    """
    Return *text* of a server without the secrets of the login.

    A server that has seen them before may repeat them before the login, when a password's file is not read yet.
    """
    return redactor.redact((text.encode("utf-8", "surrogatepass"),), _NO_PREFIX)[0].decode("utf-8", "surrogatepass")


def _offered(capabilities: Capabilities | None, hide: Callable[[str], str]) -> dict[str, str] | None:
    return None if capabilities is None else {hide(name): hide(text) for name, text in capabilities.keywords.items()}


def _mechanism(watch: Watch, login: Auth | None) -> tuple[str | None, str]:
    """Return the mechanism that a login would use, and why."""
    if watch.after_tls is None:
        return None, ""
    offered = watch.after_tls.auth
    if not offered:
        return None, "the server offers no login inside TLS"
    if login is None:
        takes_password = any(RANKED[name].proof == "password" for name in offered if name in RANKED)
        login = _WITH_PASSWORD if takes_password else _WITH_TOKEN
    choice = choose_mechanism(login, offered, watch.channel.binding())
    return choice.name, _reason(choice, "an access token" if isinstance(login, OAuth2) else "a password")


def _reason(choice: Choice, secret: str) -> str:
    unbound = [name for name, reason in choice.passed_over.items() if reason == NOT_BOUND]
    if choice.name is None:
        reason = f"the server offers none that a login with {secret} may use: {', '.join(choice.passed_over)}"
    else:
        reason = f"the strongest that the server offers for a login with {secret}"
    return f"{reason}; {NOT_BOUND}, which {', '.join(unbound)} needs" if unbound else reason


def _compared(result: CheckResult) -> dict[str, object]:
    """Return in what the addresses of one host should be alike."""
    return {
        "result": type(result.error).__name__,
        "certificate": result.chain[0].sha256 if result.chain else None,
        "TLS version": result.session and result.session.version,
        "extensions": sorted(result.after_tls.items()) if result.after_tls is not None else None,
    }


def _notes(policy: TLSPolicy) -> tuple[str, ...]:
    *most, last = find_ignored_trust() or ("",)
    names, verbs = (f"{', '.join(most)} and {last}", "are set, and change") if most else (last, "is set, and changes")
    notes = [f"{names} {verbs} nothing here: this library trusts {describe_trust(policy)}"] if last else []
    variable = ca_file_variable()
    if variable and variable != str(policy.ca_file):
        notes.append(
            "SMTP_CA_FILE is set, and changes nothing here: it is for from_env and send; this command has --ca-file"
        )
    return tuple(notes)
