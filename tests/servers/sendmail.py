"""Sendmail of Debian 13, in a root of its own, which tests/servers/install unpacks."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, ClassVar

from servers.real import (
    DOMAIN,
    LATER,
    REFUSED,
    SEARCH_PATH,
    SIZE_LIMIT,
    RealServer,
    in_root,
    missing_root_server,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = "sendmail"
PROGRAM = "/usr/libexec/sendmail/sendmail"
# Where it sees its own folder: it uses no key in a folder that others may write to.
OWN = "/etc/mail"

CONFIGURATION = """\
include(`/usr/share/sendmail/cf/m4/cf.m4')dnl
VERSIONID(`securesmtp')
OSTYPE(`linux')dnl
undefine(`PROCMAIL_MAILER_PATH')dnl
define(`confDOMAIN_NAME', `localhost')dnl
define(`confPID_FILE', `{own}/sendmail.pid')dnl
define(`STATUS_FILE', `{own}/statistics')dnl
define(`HELP_FILE', `')dnl
define(`QUEUE_DIR', `{own}/queue')dnl
define(`confLOG_LEVEL', `14')dnl

# Loopback only, without DNS lookups.
define(`confSERVICE_SWITCH_FILE', `{own}/services')dnl
define(`confTO_IDENT', `0')dnl
define(`confDONT_PROBE_INTERFACES', `True')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`accept_unqualified_senders')dnl
{greet_pause}

define(`confSERVER_CERT', `{own}/certificate.pem')dnl
define(`confSERVER_KEY', `{own}/certificate.pem')dnl
define(`confCACERT', `{own}/ca.pem')dnl
define(`confCACERT_PATH', `{own}')dnl
define(`confTLS_SRV_OPTIONS', `V')dnl
# p: no PLAIN and no LOGIN before TLS; y: not anonymous.
define(`confAUTH_OPTIONS', `p,y')dnl
define(`confAUTH_MECHANISMS', `{mechanisms}')dnl
TRUST_AUTH_MECH(`{mechanisms}')dnl
define(`confAUTH_REALM', `{domain}')dnl

# The message must not be changed.
define(`confEIGHT_BIT_HANDLING', `pass8')dnl
define(`confMAX_HEADERS_LENGTH', `{size}')dnl
define(`confMAX_MIME_HEADER_LENGTH', `0')dnl
define(`confPRIVACY_FLAGS', `noetrn,noexpn,novrfy')dnl
define(`ALIAS_FILE', `')dnl

# The limits on fast, frequent and failing clients are raised.
define(`confMAX_MESSAGE_SIZE', `{size}')dnl
define(`confTO_COMMAND', `{patience}s')dnl
define(`confQUEUE_LA', `10000')dnl
define(`confREFUSE_LA', `10000')dnl
define(`confDELAY_LA', `0')dnl
define(`confMIN_FREE_BLOCKS', `0')dnl
define(`confMAX_DAEMON_CHILDREN', `0')dnl
define(`confDELIVERY_MODE', `background')dnl

MAILER(`local')dnl
MAILER(`smtp')dnl

MAILER_DEFINITIONS
# m: all recipients in one transaction; z: LMTP; u, h: no change of case; X: dots; 8: no conversion of 8-bit content.
# Not D, F, M, which add fields.
Msink,	P=[IPC], F=mzuhX8, S=EnvFromSMTP, R=EnvToSMTP, E=\\r\\n, L=0,
	T=DNS/RFC822/SMTP,
	A=TCP $h {sink}

LOCAL_RULE_0
R$* < @ $* > $*	$#sink $@ [127.0.0.1] $: $1 < @ $2 > $3

LOCAL_RULESETS
SLocal_check_rcpt
R< {refused} >	$#error $@ 5.1.1 $: "550 no such user here"
R< {later} >	$#error $@ 4.2.1 $: "450 the mailbox is busy, come again"
"""

SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
mech_list: {mechanisms}
sasldb_path: {own}/sasldb
"""
MECHANISMS = "SCRAM-SHA-512 SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN"


class Sendmail(RealServer):
    """A private Sendmail."""

    name: ClassVar[str] = "sendmail"

    @classmethod
    def missing(cls) -> str | None:
        """Return why Sendmail cannot be started here and what to do about it, or None."""
        return missing_root_server("Sendmail", "Version 8", _version)

    def _prepare(self) -> str:
        for folder in ("queue", "sasl"):
            (self._directory / folder).mkdir(mode=0o700)
        (self._directory / "services").write_text("hosts files\npasswd files\naliases files\n")
        (self._directory / "sasl/Sendmail.conf").write_text(SASL.format(own=OWN, mechanisms=MECHANISMS))
        self._write_sasldb("root")
        text = CONFIGURATION.format(
            own=OWN,
            domain=DOMAIN,
            mechanisms=MECHANISMS,
            refused=REFUSED,
            later=LATER,
            sink=self._sink.port,
            size=SIZE_LIMIT,
            patience=self.patience,
            greet_pause=f"FEATURE(`greet_pause', `{self.greeting_delay * 1000}')dnl" if self.greeting_delay else "dnl",
        )
        (self._directory / "sendmail.mc").write_text(text)
        made = _print(
            ["m4", "-D_NO_MAKEINFO_", "-D_CF_DIR_=/usr/share/sendmail/cf/", f"{OWN}/sendmail.mc"], self._folders()
        )
        (self._directory / "sendmail.cf").write_text(made)
        return _version().split()[1]

    def expected(self, content: bytes) -> bytes:
        """Return *content* as Sendmail leaves it: without Return-Path, which is the last server's; and with domains."""
        head, end, body = content.partition(b"\r\n\r\n")
        head = re.sub(rb"(?im)^Return-Path:.*\r\n", b"", head)
        head = re.sub(rb"(?im)^((?:From|To): \w+)(?=\r|\Z)", rb"\1@localhost", head)
        return head + end + body

    def _folders(self) -> Mapping[str, str]:
        return {str(self._directory): OWN, f"{self._directory}/sasl": "/etc/sasl2"}

    def _command(self) -> list[str]:
        # s: TLS from the start; a: no MAIL before a login.
        ports = (f"Name=implicit, Port={self.implicit_port}, M=sa", f"Name=starttls, Port={self.starttls_port}, M=a")
        options = [f"-ODaemonPortOptions=Family=inet, Addr=127.0.0.1, {port}" for port in ports]
        # Without a syslog: -d89.8 writes what would go there to the file that -D names, which comes first. -q: what is
        # left in the queue is delivered at the start.
        logging = ["-D", f"{OWN}/mail.log", "-d89.8"]
        return [*in_root(ROOT, self._folders()), PROGRAM, *logging, "-C", f"{OWN}/sendmail.cf", *options, "-bD", "-q1h"]


def _print(command: list[str], folders: Mapping[str, str] | None = None) -> str:
    """Return what a program in Sendmail's root prints, or why it does not run."""
    done = subprocess.run(
        [*in_root(ROOT, folders or {}), *command],
        env={"PATH": SEARCH_PATH},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


def _version() -> str:
    return _print([PROGRAM, "-d0.1", "-bt", "-C", os.devnull])
