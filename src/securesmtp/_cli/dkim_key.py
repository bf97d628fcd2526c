"""``securesmtp dkim-key``: make a key for DKIM, and show the record of it for the DNS."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

# So that the command names its extra if it is missing.
import cryptography  # noqa: F401

from securesmtp._cli.output import print_note, print_text
from securesmtp.errors import ConfigurationError
from securesmtp.signing._dkim import check_domain, check_selector
from securesmtp.signing._keys import LEAST_BITS, load_key, make_key
from securesmtp.signing._record import DNSRecord, record

_EPILOG = """\b
Examples:
  securesmtp dkim-key example.org mail2027                 a key in mail2027.example.org.pem, and its record
  securesmtp dkim-key example.org mail2027 --show          the record again
  securesmtp dkim-key example.org ed2027 --ed25519         a key for a second signature
  securesmtp dkim-key example.org mail2027 --json | jq -r .value

Exit codes: 0; 1 if the file cannot be written, or has no key that can be read; 2 if an argument is wrong.
"""


@click.command("dkim-key", epilog=_EPILOG)
@click.argument("domain")
@click.argument("selector")
@click.option(
    "--key",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file of the private key; SELECTOR.DOMAIN.pem unless given. An existing file is never overwritten.",
)
@click.option("--show", is_flag=True, help="Make no key: show the record of the key that is in the file.")
@click.option(
    "--bits", type=click.Choice(["2048", "3072", "4096"]), help="The length of an RSA key; 2048 unless given."
)
@click.option("--ed25519", is_flag=True, help="An Ed25519 key, for a second signature; large receivers ignore it.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def command(  # noqa: PLR0913 -- one argument for each option
    domain: str, selector: str, file: Path | None, *, show: bool, bits: str | None, ed25519: bool, as_json: bool
) -> int:
    """
    Make a private key for DKIM, and print the record with its public key for the DNS of DOMAIN.

    SELECTOR is the name of the key: the record is at SELECTOR._domainkey.DOMAIN. Take a new one for each new key, and
    leave the record of the old one there for a week, for messages that are on their way.
    """
    if (bits is not None and (ed25519 or show)) or (ed25519 and show):
        raise click.UsageError("--bits, --ed25519 and --show exclude each other")
    try:
        name, label = check_domain(domain), check_selector("selector", selector)
    except ConfigurationError as error:
        raise click.UsageError(_text(error)) from None
    path = file or Path(f"{label}.{name}.pem")
    if not show:
        _write_key(path, None if ed25519 else int(bits or LEAST_BITS))
    try:
        made = record(name, label, load_key(path, "key"))
    except ConfigurationError as error:
        raise click.ClickException(_text(error)) from None
    if not show:
        print_note(f"The private key is in {path}, which only you can read. Put the record into the DNS of {name}.")
    print_text(_as_json(path, made) if as_json else _as_text(made))
    return 0


def _text(error: ConfigurationError) -> str:
    return f"{error.args[0]}. Hint: {error.hint}" if error.hint else str(error.args[0])


def _write_key(path: Path, bits: int | None) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            try:
                # No local variable holds it.
                file.write(make_key(bits))
                file.flush()
            except BaseException:
                # Ctrl-C, or a full disk: half a key would be in the way of the next try.
                path.unlink()
                raise
    except FileExistsError:
        message = f"{path} is there already. Hint: --show prints its record; a new key needs a new selector"
        raise click.ClickException(message) from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None


def _as_json(path: Path, made: DNSRecord) -> str:
    return (
        json.dumps({"key": str(path), "name": made.name, "type": "TXT", "value": made.value, "zone": made.zone}) + "\n"
    )


def _as_text(made: DNSRecord) -> str:
    return (
        f"In a zone file:\n\n{made.zone}\n\n"
        f"In the form of a DNS provider, on one line and without quotes:\n\n"
        f"name   {made.name}\ntype   TXT\nvalue  {made.value}\n"
    )
