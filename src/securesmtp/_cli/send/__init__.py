"""``securesmtp send``: one message or many, from options, files or standard input."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from securesmtp._cli.send.call import Call
from securesmtp._cli.send.draft import Written
from securesmtp._cli.send.many_options import is_many, many_options
from securesmtp._cli.send.options import (
    LOGIN,
    MANNER,
    SERVER,
    SectionedCommand,
    Server,
    epilog,
    parameters_of,
    read_file,
    take_manner,
)
from securesmtp._cli.send.outcome import Manner, deliver

if TYPE_CHECKING:
    from securesmtp._cli.send.plan import Draft

_HELP = """
Send a message, and wait for the server's reply.

The message is written by options, or is one that exists: a PATH of an .eml file, - for standard input, or with -t as
sendmail takes it. Several files, a folder or --csv are many messages, of which none is sent twice.

The server and the login come from the options below, or from the variables SMTP_HOST, SMTP_USERNAME, SMTP_PASSWORD and
so on.
"""
_EXAMPLES = """
  export SMTP_URL='smtps://me:secret@smtp.example.com'
  df -h | securesmtp send --from me@example.org --to you@example.org --subject disks --text -
  securesmtp send --from me@example.org --to "Ada <ada@example.org>" --subject Report \\
      --text report.txt --html report.html --inline chart=chart.png --attach report.pdf
  securesmtp send --host smtp.example.com --username me --password-command "pass show smtp" message.eml
  securesmtp send -t -i -f me@example.org < message.eml
  securesmtp send --from me@example.org --subject 'Hello $name' --csv people.csv --template mail.html
"""
_WRITTEN = ("sender", "to", "cc", "bcc", "reply_to", "subject", "text", "html", "inline", "attach", "headers")
# With a message that exists, these say nothing.
_ONLY_WRITTEN = {"cc": "--cc", "bcc": "--bcc", "reply_to": "--reply-to", "subject": "--subject", "text": "--text",
                 "html": "--html", "inline": "--inline", "attach": "--attach",
                 "headers": "--header"}  # fmt: skip
_MESSAGE = [
    click.Option(["-f", "--from", "sender"], metavar="ADDRESS", help="Who sends it. Of a PATH, the envelope's sender."),
    click.Option(["--to"], multiple=True, metavar="ADDRESS", help="Who gets it. Of a PATH, the envelope's recipients."),
    click.Option(["--cc"], multiple=True, metavar="ADDRESS", help="Who gets a copy."),
    click.Option(["--bcc"], multiple=True, metavar="ADDRESS", help="Who gets a copy that nobody else sees."),
    click.Option(["--reply-to"], multiple=True, metavar="ADDRESS", help="Who gets the answers."),
    click.Option(["--subject"], metavar="TEXT", help="The subject."),
    click.Option(["--text"], metavar="FILE", help="The text, in UTF-8; - for standard input."),
    click.Option(["--html"], metavar="FILE", help="The same in HTML."),
    click.Option(
        ["--inline"],
        multiple=True,
        metavar="NAME=PATH",
        help='An image that the HTML shows by <img src="cid:NAME">. Can be repeated.',
    ),
    click.Option(["--attach"], multiple=True, metavar="PATH", help="A file to attach. Can be repeated."),
    click.Option(["--header", "headers"], multiple=True, metavar='"NAME: VALUE"', help="A further header field."),
    click.Option(
        ["-t", "reads_recipients"], is_flag=True, help="Send standard input to the addresses in its To, Cc and Bcc."
    ),
    click.Option(["-i"], is_flag=True, hidden=True, expose_value=False),
    click.Argument(["paths"], nargs=-1, metavar="[PATH]..."),
]
_MANY = parameters_of(many_options)


def _run(**values: Any) -> int:  # noqa: ANN401 -- the options, each of its own type
    server, manner = Server.take(values), take_manner(values)
    written = {name: values.pop(name) for name in _WRITTEN}
    paths, reads_recipients = values.pop("paths"), values.pop("reads_recipients")
    if reads_recipients:
        _refuse_options(written, "-t")
        _refuse_many_options()
        call = Call(recipients=(*paths, *written["to"]), reads_recipients=True, sender=written["sender"])
        return deliver(lambda: call.envelope(read_file("-")), server.mailer, manner)
    files = [_existing(path) for path in paths if path != "-"]
    if is_many(values, files) or len(paths) > 1:
        if len(files) < len(paths):
            raise click.UsageError("standard input is one message, and cannot be one of many")
        # It has tables, progress bars and a database, which one message does not need.
        from securesmtp._cli.send.many import run

        return run(_draft(written, files, manner), values, server.mailer)
    _refuse_many_options()
    if not paths:
        return deliver(Written(**written).envelope, server.mailer, manner)
    _refuse_options(written, paths[0])
    call = Call(recipients=written["to"], reads_recipients=not written["to"], sender=written["sender"])
    return deliver(lambda: call.envelope(read_file(paths[0])), server.mailer, manner)


def _existing(path: str) -> Path:
    found = Path(path)
    if found.is_dir() or (found.is_file() and found.suffix == ".eml"):
        return found
    if not found.exists():
        hint = f"Hint: the recipient is --to {path}" if "@" in path else "Hint: - is standard input"
        raise click.UsageError(f"{path}: there is no such file. {hint}")
    raise click.UsageError(f"{path} is not an .eml file. Hint: use --text or --attach, or - for standard input")


def _refuse_options(written: dict[str, Any], source: str) -> None:
    for name, option in _ONLY_WRITTEN.items():
        if written[name]:
            message = f"{option} is for a message that is written by options, and {source} is a message"
            raise click.UsageError(message)


def _refuse_many_options() -> None:
    """Refuse an option that would do nothing."""
    context = click.get_current_context()
    for option in _MANY:
        if context.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{option.opts[0]} is for many messages, and this is one")


def _draft(written: dict[str, Any], files: list[Path], manner: Manner) -> Draft:
    if written["to"]:
        raise click.UsageError("--to is for one message. Hint: many have their recipients in themselves")
    others = ("sender", "subject", "cc", "bcc", "reply_to", "inline", "attach", "headers")
    # As above.
    from securesmtp._cli.send.plan import Draft

    return Draft(
        paths=tuple(files),
        text=_path(written["text"]),
        html=_path(written["html"]),
        partial=manner.partial,
        deadline=manner.deadline,
        dry_run=manner.dry_run,
        quiet=manner.quiet,
        as_json=manner.as_json,
        **{name: written[name] for name in others},
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


command = SectionedCommand(
    "send",
    {"Message": _MESSAGE, "Many messages": _MANY, "Server": SERVER, "Login": LOGIN, "Sending": MANNER},
    callback=_run,
    help=_HELP,
    epilog=epilog(_EXAMPLES),
)
