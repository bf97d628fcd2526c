"""Send one message, and say what became of it: on one line, in JSON, and by an exit code that callers understand."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.text import Text

from securesmtp import Outcome, SendResult
from securesmtp._cli.exit_codes import ExitCode
from securesmtp._shown import escape
from securesmtp._submissions import from_any
from securesmtp.errors import (
    AddressError,
    AuthenticationError,
    ConfigurationError,
    MessageError,
    OutcomeUnknownError,
    ProtocolError,
    RecipientsRefusedError,
    SecureSMTPError,
    TLSError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from securesmtp import DSN, Envelope, Receipt, Recipient, SecureMailer

# Each code with what it says of the message; the help and the page show them.
MEANINGS = {
    ExitCode.OK: "The server accepted the message.",
    ExitCode.UNKNOWN: "The connection was lost after the content: the message may have been delivered. "
    "Sending it again may deliver it twice.",
    ExitCode.USAGE: "Wrong options.",
    ExitCode.DATA: "The message or an address cannot be sent as it is.",
    ExitCode.NO_RECIPIENT: "The server refused a recipient. With --partial, the others have the message.",
    ExitCode.NO_HOST: "There is no server of this name.",
    ExitCode.UNAVAILABLE: "The server refused the message, or cannot be used.",
    ExitCode.NO_RESULTS: "Many messages: all were accepted, but the file of --results cannot be written.",
    ExitCode.TEMPORARY_FAILURE: "Nobody has the message, and a later try may succeed: no connection, or a 4xx reply.",
    ExitCode.PROTOCOL: "No verified TLS, or the server broke the protocol.",
    ExitCode.NO_PERMISSION: "The login was refused.",
    ExitCode.CONFIGURATION: "A setting is wrong or missing.",
}
# The first that fits.
_CODES: tuple[tuple[tuple[type[SecureSMTPError], ...], ExitCode], ...] = (
    ((AddressError, MessageError), ExitCode.DATA),
    ((ConfigurationError,), ExitCode.CONFIGURATION),
    ((RecipientsRefusedError,), ExitCode.NO_RECIPIENT),
    ((AuthenticationError,), ExitCode.NO_PERMISSION),
    ((TLSError, ProtocolError), ExitCode.PROTOCOL),
)
# What hints say to programmers, and the same for a shell: first what all commands that send say.
IN_EACH_COMMAND = {
    ': pass local_hostname="app.example.com"': ", and only a program can give it another one (local_hostname)",
    "a client_cert": "a client certificate, which only a program can show (client_cert)",
    "make a mailer that allows more": "allow more by SMTP_MAX_RECIPIENTS",
    'partial="allow"': "--partial",
}
IN_A_SHELL = {
    **IN_EACH_COMMAND,
    'pass auth=Password(..., mechanisms=["PLAIN"])': "add ?auth=PLAIN to the URL of the server",
    'pass auth=Password(..., mechanisms=["PLAIN", "LOGIN"])': "add ?auth=PLAIN,LOGIN to the URL of the server",
    'try pipelining="off"': "add ?pipelining=off to the URL of the server",
    " (max_connections)": " (for many messages: --connections)",
    "pass a callable as token, which returns a new one": "use --password-command with a command that prints a new one",
    "pass on_refused, which has the token callable return another token": "have it give another token",
    "or pass mail_from and recipients": "or use --from and --to",
    "pass mail_from and recipients": "use --from and --to",
    "or pass recipients=[…]": "or use --to",
    "port and mode are arguments of their own": "port and mode have options of their own (--port, --starttls)",
    "pass sender=…": "use --from",
    "pass to=…": "use --to",
    "pass cc=…": "use --cc",
    "pass bcc=…": "use --bcc",
    "pass reply_to=…": "use --reply-to",
    "pass subject=…": "use --subject",
    "pass unsubscribe=…": "use --unsubscribe, which is for many messages",
    "change the message that compose returns": "write the whole message into an .eml file, and send that",
    'use tls="starttls"': "use --starttls",
    'use tls="implicit"': "leave --starttls out",
    " as ca_file": " as --ca-file",
    "ca_file has ": "--ca-file has ",
    " to ca_file": " to the --ca-file",
    ", or TLSPolicy(server_hostname=…)": "",
    "pass username and password": "use --username, or set SMTP_USERNAME and SMTP_PASSWORD",
    "auth=OAuth2(…)": "--oauth",
    "or pass mail_from": "or use --from",
    "pass html=…, or pass the images in attachments": "use --html, or --attach for the images",
    "or pass it in attachments": "or use --attach",
    "a str is a path; pass content as (name, bytes)": "check the path and its permissions",
}
# The same, with the name of the image.
_INLINE = re.compile(r"pass inline=\{'([^']*)': …\}")
# Characters of an error.
_MAX_TEXT = 4000
# Recipients that an error names.
_MAX_NAMED = 10
# RFC 5321 §4.2.1: 4yz and 5yz are negative.
_FIRST_REFUSAL = 400
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
# A shell reports a program that Ctrl-C ended so.
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """
    How a message is sent, and what is printed.

    Attributes:
        partial: As for `SecureMailer.send`.
        deadline: As for `SecureMailer.send`.
        dry_run: Whether the envelope and the message are only printed.
        quiet: Whether nothing is printed but errors.
        as_json: Whether the result is printed as JSON.
        dsn: As for `SecureMailer.send`.
        words: What hints say to programmers, and the same for those who call the command.
    """

    partial: Literal["raise", "allow"] = "raise"
    deadline: float | None = None
    dry_run: bool = False
    quiet: bool = False
    as_json: bool = False
    dsn: DSN | None = None
    words: Mapping[str, str] = field(default_factory=lambda: IN_A_SHELL, repr=False)


def exit_code(error: BaseException) -> ExitCode:
    """Return the exit code for *error*."""
    if not isinstance(error, SecureSMTPError) or error.outcome is Outcome.UNKNOWN:
        return ExitCode.UNKNOWN
    if isinstance(error.__cause__, socket.gaierror) and error.__cause__.errno in _NO_SUCH_NAME:
        return ExitCode.NO_HOST
    if error.retryable:
        return ExitCode.TEMPORARY_FAILURE
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), ExitCode.UNAVAILABLE)


def translate(error: SecureSMTPError, words: Mapping[str, str] = IN_A_SHELL) -> None:
    """Let *error* name options instead of arguments, by *words*, and the recipients that were refused."""
    hint = error.hint or ""
    for argument, option in words.items():
        hint = hint.replace(argument, option)
    hint = _INLINE.sub(r"use --inline \1=PATH", hint)
    if isinstance(error, RecipientsRefusedError):
        refused = [each for each in error.recipients if each.reply.code >= _FIRST_REFUSAL]
        error.args = (f"{len(refused)} of {len(error.recipients)} recipients refused: {_listed(refused)}",)
        hint = "--partial sends it to the others" * (len(refused) < len(error.recipients))
    elif isinstance(error, OutcomeUnknownError) and error.recipients:
        has_it = [each for each in error.recipients if each.accepted]
        hint = f"it was accepted for {_listed(has_it) or 'none so far'}; find out who of the others has it"
    error.hint = hint or None


def deliver(make: Callable[[], Envelope], open_mailer: Callable[[], SecureMailer], manner: Manner) -> int:
    """Make the message, send it and print what became of it; return the exit code."""
    try:
        envelope = make()
        if manner.dry_run:
            _show(envelope, manner)
            return ExitCode.OK
        with open_mailer() as mailer:
            receipt = _send(mailer, envelope, manner)
    except SecureSMTPError as error:
        return _report_error(error, manner)
    except KeyboardInterrupt as interrupt:
        # The library says what became of the message that was interrupted.
        cause = interrupt.__cause__
        if not isinstance(cause, SecureSMTPError):
            raise
        code = _report_error(cause, manner)
        return ExitCode.UNKNOWN if code is ExitCode.UNKNOWN else _INTERRUPTED
    return _report_receipt(receipt, manner)


def print_error(text: str, outcome: str = "") -> None:
    """Print an error to stderr, on one line so that a log has it in one piece."""
    console = Console(stderr=True, highlight=False)
    line = Text.assemble("securesmtp: ", (f"{outcome}: " if outcome else "", "bold red"), escape(text, _MAX_TEXT))
    console.print(line, soft_wrap=not console.is_terminal)


def print_line(data: bytes) -> None:
    """Print *data* to stdout. A reader that has gone changes nothing of what became of the message."""
    try:
        # It is None if the caller has closed it.
        if sys.stdout is not None:
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
    except OSError:
        # Python would report the same once more at its end, with an exit code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _listed(recipients: Sequence[Recipient]) -> str:
    named = [f"{each.address} ({each.reply})" for each in recipients[:_MAX_NAMED]]
    return ", ".join(named) + f" and {len(recipients) - _MAX_NAMED} more" * (len(recipients) > _MAX_NAMED)


def _send(mailer: SecureMailer, envelope: Envelope, manner: Manner) -> Receipt:
    content, to = envelope.content, envelope.recipients
    if isinstance(content, bytes):
        return mailer.send_bytes(
            content,
            mail_from=envelope.mail_from,
            recipients=to,
            partial=manner.partial,
            deadline=manner.deadline,
            dsn=manner.dsn,
        )
    return mailer.send(
        content,  # type: ignore[arg-type] # a command makes bytes or a message, no file
        mail_from=envelope.mail_from,
        recipients=to,
        partial=manner.partial,
        deadline=manner.deadline,
        dsn=manner.dsn,
    )


def _show(envelope: Envelope, manner: Manner) -> None:
    """Print what would be sent, after all checks that need no server."""
    submission = from_any(envelope)
    content = b"".join(submission.content.chunk())
    recipients = [each.address for each in submission.recipients]
    if manner.as_json:
        shown = {
            "mail_from": submission.mail_from.address,
            "recipients": recipients,
            "size": submission.content.size,
            "message": content.decode("utf-8", "replace"),
        }
        print_line(json.dumps(shown).encode() + b"\n")
        return
    head = f"Not sent: --dry-run\nFrom: <{submission.mail_from.address}>\n"
    head += "".join(f"To: <{each}>\n" for each in recipients) + f"Size: {submission.content.size} bytes\n\n"
    print_line(head.encode() + content.replace(b"\r\n", b"\n"))


def _report_receipt(receipt: Receipt, manner: Manner) -> ExitCode:
    code = ExitCode.NO_RECIPIENT if receipt.refused else ExitCode.OK
    if manner.as_json:
        _print_json(SendResult(0, receipt.message_id, Outcome.ACCEPTED, receipt), code)
    elif receipt.refused:
        print_error(str(receipt))
    elif not manner.quiet:
        print_line(f"{receipt}\n".encode("utf-8", "backslashreplace"))
    return code


def _report_error(error: SecureSMTPError, manner: Manner) -> ExitCode:
    code = exit_code(error)
    if manner.as_json:
        _print_json(SendResult(0, error.message_id, error.outcome, error.receipt, error), code)
    else:
        translate(error, manner.words)
        _print(error)
    return code


def _print(error: SecureSMTPError) -> None:
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        print_error(str(error), error.outcome)
        return
    where = f"{error.host}:{error.port}: " if error.host else ""
    print_error(f"{where}{error.args[0]}", error.outcome)
    if error.message_id and error.outcome is Outcome.UNKNOWN:
        console.print(Text.assemble(("Message-ID: ", "bold"), escape(error.message_id)), soft_wrap=True)
    if error.hint:
        console.print(Text.assemble(("Hint: ", "bold"), escape(error.hint, _MAX_TEXT)))
    # On a line of its own, so that it can be copied.
    console.print(Text(f"See {error.url}"), soft_wrap=True)


def _print_json(result: SendResult, code: ExitCode) -> None:
    print_line(json.dumps({**result.as_dict(), "exit_code": int(code)}).encode() + b"\n")
