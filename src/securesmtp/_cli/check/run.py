"""Run the checks that the options ask for, and write the results in their format."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click

from securesmtp import ConfigurationError, DeadlineExceededError
from securesmtp._cli.check import probe
from securesmtp._cli.check.hosts import Target, find_targets
from securesmtp._cli.check.json_output import to_json
from securesmtp._cli.check.nagios import to_nagios
from securesmtp._cli.check.output import replace_file
from securesmtp._cli.check.parallel import Progress, run_all
from securesmtp._cli.check.prometheus import to_prometheus
from securesmtp._cli.check.result import Request
from securesmtp._cli.check.table import TableWriter
from securesmtp._cli.check.verdict import Checked, Thresholds, judge, worst
from securesmtp._cli.secrets import find_secret
from securesmtp._shown import escape

if TYPE_CHECKING:
    from pathlib import Path

    from securesmtp._cli.check.result import CheckResult

# Limits for the time of what fetches a password.
_OURS = {"from_command", "from_keyring"}
_Format: TypeAlias = Literal["table", "json", "nagios", "prometheus"]
_Render: TypeAlias = Callable[[Sequence[Checked], datetime, Thresholds, bool], str]

_RENDERERS: dict[str, _Render] = {
    "json": lambda results, when, _, transcript: to_json(results, when, transcript=transcript),
    "nagios": lambda results, _, thresholds, __: to_nagios(results, thresholds),
    "prometheus": lambda results, when, _, __: to_prometheus(results, when),
}


def run(options: dict[str, Any]) -> int:
    """
    Check the servers, and return the exit code.

    Raises:
        click.ClickException: Nothing could be checked, or the results cannot be written.
    """
    form = _settle(options)
    thresholds = Thresholds(options["warning"], options["critical"])
    try:
        results = _check_all(options, thresholds)
    except ConfigurationError as error:
        hint = f". Hint: {error.hint}" if error.hint else ""
        raise click.UsageError(f"{error.args[0]}{hint}") from None
    try:
        if form == "table":
            _write_table(results, options["output"], transcript=options["transcript"])
        else:
            _write(_RENDERERS[form](results, datetime.now(UTC), thresholds, options["transcript"]), options["output"])
    except BrokenPipeError:
        # The reader has what it wants, as `head` does. Python would report it at its end, with an exit code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        where = escape(str(options["output"] or "standard output"))
        raise click.ClickException(f"{where} cannot be written: {error.strerror or error}") from None
    return worst(each.code for each in results)


def _settle(options: dict[str, Any]) -> _Format:
    """
    Return the format.

    Raises:
        click.UsageError: Two options contradict each other.
    """
    form: _Format = options["format"]
    if options["as_json"]:
        if form not in {"table", "json"}:
            raise click.UsageError(f"--json and --format {form} are two formats. Hint: keep one of them")
        form = "json"
    if options["critical"] > options["warning"]:
        raise click.UsageError(
            f"--critical is {options['critical']} days and --warning {options['warning']}. "
            "Hint: the warning comes first; set both"
        )
    if options["transcript"] and form not in {"table", "json"}:
        raise click.UsageError(f"--format {form} has no transcript. Hint: use --json, or leave one of them out")
    secrets = ("oauth", "password_file", "password_command", "password_keyring")
    given = next((name for name in secrets if options[name]), None)
    if given is not None and options["username"] is None:
        raise click.UsageError(f"--{given.replace('_', '-')} is for a login. Hint: add --login USER")
    return form


def _check_all(options: dict[str, Any], thresholds: Thresholds) -> list[Checked]:
    per_address = options["all_addresses"]
    checks = {target: partial(_check, request, per_address) for target, request in _requests(options).items()}
    found = run_all(checks, Progress(sys.stderr))
    for error in (result.error for each in found for result in each):
        # Such as a password file that is missing: no fault of a server, and each login would end so.
        if isinstance(error, ConfigurationError) or (isinstance(error, DeadlineExceededError) and error.limit in _OURS):
            raise ConfigurationError(str(error.args[0]), hint=error.hint or "run the check again when that works")
    return [judge(result, thresholds, per_address=per_address) for each in found for result in each]


def _requests(options: dict[str, Any]) -> dict[Target, Request]:
    targets = find_targets(options["hosts"], options["file"], starttls=options["starttls"])
    username, password = options["username"], None
    if username is not None:
        # Once, before the checks begin: several prompts would be in each other's way.
        names = ("password", "password_file", "password_command", "password_keyring")
        password = find_secret(username, **{name: options[name] for name in names})
    return {
        target: Request(
            host=target.host,
            port=target.port,
            tls=target.tls,
            ca_file=options["ca_file"],
            pins=options["pins"],
            server_name=options["server_name"],
            username=username,
            password=password,
            oauth=options["oauth"],
            timeout=options["timeout"],
            family={None: None, "4": 4, "6": 6}[options["family"]],
            until=options["until"],
        )
        for target in targets
    }


def _check(request: Request, per_address: bool) -> list[CheckResult]:  # noqa: FBT001 -- called by one line
    return probe.probe_all(request) if per_address else [probe.probe(request)]


def _write_table(results: Sequence[Checked], output: Path | None, *, transcript: bool) -> None:
    if output is None:
        if sys.stdout is None:
            # It is closed, and the exit code is all that is wanted.
            return
        TableWriter(sys.stdout).write(results, transcript=transcript)
    else:
        text = io.StringIO()
        TableWriter(text, plain=True).write(results, transcript=transcript)
        replace_file(output, text.getvalue())


def _write(text: str, output: Path | None) -> None:
    if output is None:
        # In UTF-8, as these formats are, whatever the locale.
        click.echo(text.encode("utf-8", "backslashreplace"), nl=False)
    else:
        replace_file(output, text)
